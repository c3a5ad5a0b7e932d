// linear_test.cpp -- fp64 finite differences, float against double, nulls and betas.
#include "kernels/ops/linear.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

struct LinearCase {
  int rows, in, out, gap;
};
const LinearCase kLinearCases[] = {{1, 1, 1, 0}, {3, 4, 2, 0}, {7, 12, 10, 3}, {2, 36, 5, 1}, {5, 16, 3, 2}};

void check_linear(const LinearCase& t, bool with_bias, double beta) {
  Random random(6);
  TestTensor<double> x({t.rows, 1, 1, t.in}, t.in + t.gap), y({t.rows, 1, 1, t.out}, t.out + t.gap),
      w({t.out, 1, 1, t.in});
  TestTensor<double> dx(x.shape(), x.stride()), dy(y.shape(), y.stride()), dw(w.shape()),
      bias({1, 1, 1, t.out}), dbias({1, 1, 1, t.out});
  x.randomize(random), w.randomize(random), dy.randomize(random), bias.randomize(random);
  if (beta != 0) dx.randomize(random), dw.randomize(random), dbias.randomize(random);
  const TestTensor<double> dx0 = dx, dw0 = dw, dbias0 = dbias;
  const TestTensor<float> fx = x.as<float>(), fy = y.as<float>(), fw = w.as<float>(), fdx = dx.as<float>(),
                          fdy = dy.as<float>(), fdw = dw.as<float>(), fbias = bias.as<float>(),
                          fdbias = dbias.as<float>();
  host::linear_backward<double>(dx, dw, with_bias ? dbias.data() : nullptr, dy, x, w, beta, beta, beta);
  const auto loss = [&] {
    host::linear_forward<double>(y, x, w, with_bias ? bias.data() : nullptr);
    return dot(y, dy);
  };
  const View<double> none;
  std::vector<GradInput> inputs{{"dx", x, dx, beta != 0 ? dx0.view() : none},
                                {"dw", w, dw, beta != 0 ? dw0.view() : none}};
  if (with_bias) inputs.push_back({"dbias", bias, dbias, beta != 0 ? dbias0.view() : none});
  EXPECT_TRUE(gradcheck(loss, inputs));
  EXPECT_TRUE(dx.gaps_untouched() && y.gaps_untouched());

  loss();
  Stream stream(Device::cpu);
  linear_forward(stream, fy, fx, fw, with_bias ? fbias.data() : nullptr);
  linear_backward(stream, fdx, fdw, with_bias ? fdbias.data() : nullptr, fdy, fx, fw, float(beta),
                  float(beta), float(beta));
  EXPECT_TRUE(compare(fy, y, 2e-6));
  EXPECT_TRUE(compare(fdx, dx, 2e-6));
  EXPECT_TRUE(compare(fdw, dw, 2e-6));
  EXPECT_TRUE(!with_bias || compare(fdbias, dbias, 2e-6));
  EXPECT_TRUE(fdx.gaps_untouched() && fy.gaps_untouched());
}

TEST(Linear, Gradcheck) {
  for (const LinearCase& t : kLinearCases)
    for (const bool with_bias : {false, true})
      for (const double beta : {0.0, 1.0}) check_linear(t, with_bias, beta);
}

TEST(Linear, ByHand) {
  float x[2] = {1, 2}, w[4] = {3, 4, 5, 6}, bias[2] = {10, 20}, y[2];
  Stream stream(Device::cpu);
  linear_forward(stream, Tensor(y, {1, 1, 1, 2}), Tensor(x, {1, 1, 1, 2}), Tensor(w, {2, 1, 1, 2}), bias);
  EXPECT_EQ(y[0], 21);
  EXPECT_EQ(y[1], 37);
}

TEST(Linear, NullGradientsAreSkippedAndShapesChecked) {
  TestTensor<float> x({2, 1, 1, 3}), w({4, 1, 1, 3}), dy({2, 1, 1, 4}), dx({2, 1, 1, 3});
  x.fill(1), w.fill(1), dy.fill(1);
  Stream stream(Device::cpu);
  linear_backward(stream, dx, {}, nullptr, dy, x, w, 0, 0, 0);
  EXPECT_EQ(dx[0], 4);
  EXPECT_THROW(linear_forward(stream, dx, x, w, nullptr), Error);
  EXPECT_THROW(linear_backward(stream, dy, {}, nullptr, dy, x, w, 0, 0, 0), Error);
}

}  // namespace
}  // namespace lanas::test
