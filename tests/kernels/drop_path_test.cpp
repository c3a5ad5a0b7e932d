// drop_path_test.cpp -- fp64 finite differences, float against double, and the masks' values and frequencies.
#include "kernels/ops/drop_path.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

TEST(DropPath, Gradcheck) {
  for (const Shape shape : {Shape{1, 1, 1, 1}, Shape{3, 4, 5, 4}, Shape{2, 3, 3, 36}})
    for (const int gap : {0, 3})
      for (const double beta : {0.0, 1.0}) {
        Random random(15);
        TestTensor<double> x(shape, shape.c + gap), y(shape, shape.c + gap), dy(shape, shape.c + gap),
            dx(shape, shape.c + gap);
        x.randomize(random), dy.randomize(random);
        if (beta != 0) dx.randomize(random);
        const TestTensor<double> dx0 = dx;
        const std::vector<double> mask = {1.25, 0, 0.5};
        const std::vector<float> fmask = {1.25f, 0, 0.5f};
        const TestTensor<float> fx = x.as<float>(), fy = y.as<float>(), fdy = dy.as<float>(),
                                fdx = dx.as<float>();
        host::drop_path_backward<double>(dx, dy, mask.data(), beta);
        const auto loss = [&] {
          host::drop_path_forward<double>(y, x, mask.data());
          return dot(y, dy);
        };
        EXPECT_TRUE(gradcheck(loss, {{"dx", x, dx, beta != 0 ? dx0.view() : View<double>()}}));
        loss();
        Stream stream(Device::cpu);
        drop_path_forward(stream, fy, fx, fmask.data());
        drop_path_backward(stream, fdx, fdy, fmask.data(), float(beta));
        EXPECT_TRUE(compare(fy, y, 1e-6));
        EXPECT_TRUE(compare(fdx, dx, 1e-6));
        EXPECT_TRUE(fy.gaps_untouched() && fdx.gaps_untouched());
      }
}

TEST(DropPath, MaskHasTheProbabilityAndKeepsTheMean) {
  Stream stream(Device::cpu);
  constexpr int kCount = 20000;
  std::vector<float> mask(kCount);
  uint64_t step = 4;
  for (const float p : {0.0f, 0.2f, 0.7f}) {
    drop_path_mask(stream, mask.data(), kCount, &p, 1, 2, &step);
    int dropped = 0;
    for (const float value : mask) {
      ASSERT_TRUE(value == 0 || value == 1 / (1 - p));
      dropped += value == 0;
    }
    EXPECT_NEAR(double(dropped) / kCount, double(p), 0.015);
  }
  const float certain = 1;
  drop_path_mask(stream, mask.data(), kCount, &certain, 1, 2, &step);
  for (const float value : mask) ASSERT_EQ(value, 0);
}

TEST(DropPath, MasksDifferBySeedIdAndStep) {
  Stream stream(Device::cpu);
  const float p = 0.5f;
  const auto draw = [&](uint64_t seed, uint32_t id, uint64_t step) {
    std::vector<float> mask(64);
    drop_path_mask(stream, mask.data(), 64, &p, seed, id, &step);
    return mask;
  };
  EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(2, 2, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 3, 3));
  EXPECT_NE(draw(1, 2, 3), draw(1, 2, 4));
}

}  // namespace
}  // namespace lanas::test
