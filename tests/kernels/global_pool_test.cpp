// Tests of global_pool: the mean, its gradient, the float launchers, errors.
#include "kernels/ops/global_pool.h"

#include "tests/support/gradcheck.h"

namespace lanas {
namespace {
using namespace lanas::test;

TEST(GlobalPool, MeanAndGradient) {
  for (Shape shape : {Shape{1, 1, 1, 1}, Shape{3, 8, 8, 4}, Shape{2, 7, 5, 3}, Shape{2, 2, 2, 36}})
    for (int gap : {0, 5})
      for (double beta : {0.0, 1.0}) {
        Random random(31);
        const Shape small{shape.n, 1, 1, shape.c};
        TestTensor<double> x(shape, shape.c + gap), y(small, shape.c + gap), dy(small),
            dx(shape, shape.c + gap);
        x.randomize(random, 1, 2);
        dy.randomize(random);
        if (beta == 1) dx.randomize(random);
        const TestTensor<double> dx0 = dx;
        host::global_average_pool_forward<double>(y, x);
        for (int64_t i = 0; i < small.size(); ++i) {
          double sum = 0;
          const int pixels = shape.h * shape.w;
          for (int64_t p = 0; p < pixels; ++p) sum += x[(i / shape.c * pixels + p) * shape.c + i % shape.c];
          EXPECT_NEAR(y[i], sum / pixels, 1e-12);
        }
        host::global_average_pool_backward<double>(dx, dy, beta);
        EXPECT_TRUE(gradcheck(
            [&] {
              host::global_average_pool_forward<double>(y, x);
              return dot(y, dy);
            },
            {{"dx", x, dx, beta == 1 ? dx0.view() : View<double>()}}));
        EXPECT_TRUE(y.gaps_untouched() && dx.gaps_untouched());
        Stream stream(Device::cpu, 2);
        host::global_average_pool_forward<double>(y, x);  // the check left that of a moved x
        TestTensor<float> fy(small), fdx(shape);
        global_average_pool_forward(stream, fy, x.as<float>());
        EXPECT_TRUE(compare(fy, y, 1e-6));
        global_average_pool_backward(stream, fdx, dy.as<float>(), 0);
        host::global_average_pool_backward<double>(dx, dy, 0);
        EXPECT_TRUE(compare(fdx, dx, 1e-6));
      }
}

TEST(GlobalPool, Errors) {
  Stream stream;
  TestTensor<float> x({2, 3, 3, 4}), y({2, 1, 1, 3});
  EXPECT_THROW(global_average_pool_forward(stream, y, x), Error);
  EXPECT_THROW(global_average_pool_backward(stream, x, y, 0), Error);
}

}  // namespace
}  // namespace lanas
