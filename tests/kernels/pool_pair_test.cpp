// pool_pair_test.cpp -- both pools, their moments and the gradient of x are those of the ops for one alone;
// that gradient against central differences in double.
#include "kernels/ops/pool_pair.h"

#include <gtest/gtest.h>

#include "kernels/ops/batch_norm.h"
#include "kernels/ops/pool2d.h"
#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

struct Result {
  TestTensor<float> y;
  std::vector<float> mean, inv_std, running_mean, running_var;
  explicit Result(Shape s)
      : y(s), mean(size_t(s.c)), inv_std(mean), running_mean(mean), running_var(size_t(s.c), 1.0f) {}
  PooledOutput view() { return {y, mean.data(), inv_std.data(), running_mean.data(), running_var.data()}; }
};

TEST(PoolPair, IsTheOpsItIsMadeOf) {
  Random random(4);
  Stream stream(Device::cpu, 1);
  for (const int stride : {1, 2}) {
    TestTensor<float> x({2, 7, 6, 5});
    x.randomize(random);
    const Shape s{2, pooled_size(7, 3, stride, 1), pooled_size(6, 3, stride, 1), 5};
    Result max(s), avg(s), max_alone(s), avg_alone(s);
    pool_pair_forward(stream, max.view(), avg.view(), x, stride, 1e-5f);
    max_pool_forward(stream, max_alone.y, x, 3, stride, 1);
    avg_pool_forward(stream, avg_alone.y, x, 3, stride, 1);
    for (auto [pair, alone] : {std::pair(&max, &max_alone), std::pair(&avg, &avg_alone)}) {
      const PooledOutput out = alone->view();
      batch_norm_statistics(stream, out.mean, out.inv_std, out.y, 1e-5f, out.running_mean, out.running_var);
      for (int64_t i = 0; i < s.size(); ++i) EXPECT_EQ(pair->y[i], alone->y[i]);
      EXPECT_EQ(pair->mean, alone->mean);
      EXPECT_EQ(pair->inv_std, alone->inv_std);
      EXPECT_EQ(pair->running_mean, alone->running_mean);
      EXPECT_EQ(pair->running_var, alone->running_var);
    }
    TestTensor<float> dmax(s), davg(s), dx(x.shape()), expected(x.shape());
    for (TestTensor<float>* t : {&dmax, &davg, &dx}) t->randomize(random);
    for (int64_t i = 0; i < dx.view().size(); ++i) expected[i] = dx[i];
    pool_pair_backward(stream, dx, dmax, davg, x, stride, 1);
    const GradientView<float> gradients[] = {dmax.view(), davg.view()};
    max_pool_backward(stream, expected, {gradients, 1}, x, 3, stride, 1, 1);
    avg_pool_backward(stream, expected, {gradients + 1, 1}, 3, stride, 1, 1);
    for (int64_t i = 0; i < dx.view().size(); ++i) EXPECT_EQ(dx[i], expected[i]);
  }
}

TEST(PoolPair, Gradients) {
  for (const Shape xs : {Shape{1, 5, 7, 1}, Shape{2, 6, 4, 3}, Shape{1, 1, 3, 4}})
    for (const int stride : {1, 2})
      for (const double beta : {0.0, 1.0}) {
        SCOPED_TRACE(join(xs, " stride ", stride, " beta ", beta));
        Random random(2);
        const Shape ys{xs.n, pooled_size(xs.h, 3, stride, 1), pooled_size(xs.w, 3, stride, 1), xs.c};
        TestTensor<double> x(xs, xs.c + 2), dx(xs, xs.c + 1), max(ys), avg(ys), dmax(ys), davg(ys, ys.c + 3);
        x.randomize_distinct(random);
        dmax.randomize(random), davg.randomize(random);
        if (beta == 1) dx.randomize(random);
        const TestTensor<double> dx0 = dx;
        host::pool_pair_backward<double>(dx, dmax, davg, x, stride, beta);
        EXPECT_TRUE(gradcheck(
            [&] {
              host::pool_pair_forward<double>(max, avg, x, stride);
              return dot(max, dmax) + dot(avg, davg);
            },
            {{"dx", x, dx, beta == 1 ? dx0.view() : View<double>()}}));
        EXPECT_TRUE(dx.gaps_untouched());
      }
}

TEST(PoolPair, RefusesWrongShapesAndHalfAsManyMoments) {
  Stream stream(Device::cpu, 1);
  TestTensor<float> x({1, 4, 4, 4}), half({1, 2, 2, 4});
  Result max(x.shape()), avg(x.shape());
  EXPECT_NO_THROW(pool_pair_forward(stream, {max.y}, {avg.y}, x, 1, 1e-5f));
  EXPECT_THROW(pool_pair_forward(stream, {max.y}, {half}, x, 1, 1e-5f), Error);
  EXPECT_THROW(pool_pair_forward(stream, max.view(), {avg.y}, x, 1, 1e-5f), Error);
  EXPECT_THROW(pool_pair_forward(stream, {max.y}, {avg.y}, x, 0, 1e-5f), Error);
  EXPECT_THROW(pool_pair_backward(stream, half, half, half, x, 2, 0), Error);
  EXPECT_THROW(pool_pair_backward(stream, x, x, half, x, 1, 0), Error);
}

}  // namespace
}  // namespace lanas::test
