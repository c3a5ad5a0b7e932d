// relative_loss_test.cpp -- fp64 finite differences, float against double, by hand, shapes.
#include "kernels/ops/relative_loss.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

TEST(RelativeLoss, Gradcheck) {
  Random random(4);
  Stream stream(Device::cpu);
  for (const int rows : {1, 7, 300})
    for (const double beta : {0.0, 1.0}) {
      TestTensor<double> u({rows, 1, 1, 1}), du(u.shape()), coefficients({rows, 1, 1, 3});
      u.randomize(random), coefficients.randomize(random);
      if (beta != 0) du.randomize(random);
      const TestTensor<double> before = du;
      const TestTensor<float> fu = u.as<float>(), fdu = du.as<float>(), fc = coefficients.as<float>();
      const double dloss = 1.5;
      const float fdloss = 1.5f;
      double loss = 0;
      float single = 0;
      host::relative_loss_backward<double>(du, u, coefficients, &dloss, beta);
      EXPECT_TRUE(gradcheck(
          [&] {
            host::relative_loss_forward<double>(&loss, u, coefficients);
            return dloss * loss;
          },
          {{"du", u, du, beta != 0 ? before.view() : View<double>()}}));
      relative_loss_forward(stream, &single, fu, fc);
      relative_loss_backward(stream, fdu, fu, fc, &fdloss, float(beta));
      EXPECT_NEAR(single, loss, 1e-5 * rows);  // sqrt(1 + r^2) - 1 cancels where r is small
      EXPECT_TRUE(compare(fdu, du, 2e-6));
    }
}

TEST(RelativeLoss, ByHand) {  // r = 2 * 3 - 2 = 4: 5 (sqrt(17) - 1)
  float u = 3, c[3] = {2, 2, 5}, loss = 0;
  Stream stream(Device::cpu);
  relative_loss_forward(stream, &loss, Tensor(&u, {1, 1, 1, 1}), Tensor(c, {1, 1, 1, 3}));
  EXPECT_FLOAT_EQ(loss, 15.615528f);
  EXPECT_THROW(relative_loss_forward(stream, &loss, Tensor(c, {1, 1, 1, 3}), Tensor(c, {1, 1, 1, 3})), Error);
}

}  // namespace
}  // namespace lanas::test
