// Tests of batch_norm: moments against their definition, the gradient through the statistics, running
// moments.
#include "kernels/ops/batch_norm.h"

#include "kernels/ops/gradient_view.h"
#include "tests/support/gradcheck.h"

namespace lanas {
namespace {
using namespace lanas::test;

constexpr double kEps = 1e-5;
const Shape kShapes[] = {{2, 3, 3, 1},  {2, 5, 3, 3},  {1, 7, 7, 4},
                         {3, 4, 4, 12}, {4, 3, 5, 16}, {2, 3, 3, 36}};

struct Moments {
  std::vector<double> mean, inv_std;
};
Moments naive_moments(const TestTensor<double>& x) {
  const int c = x.shape().c;
  const int64_t pixels = x.shape().pixels();
  Moments m{std::vector<double>(size_t(c)), std::vector<double>(size_t(c))};
  for (int j = 0; j < c; ++j) {
    double sum = 0, var = 0;
    for (int64_t p = 0; p < pixels; ++p) sum += x[p * c + j];
    m.mean[size_t(j)] = sum / double(pixels);
    for (int64_t p = 0; p < pixels; ++p) var += std::pow(x[p * c + j] - sum / double(pixels), 2);
    m.inv_std[size_t(j)] = 1 / std::sqrt(var / double(pixels) + kEps);
  }
  return m;
}

TEST(BatchNorm, StatisticsAndForwardMatchTheDefinition) {
  for (Shape shape : {Shape{2, 3, 3, 1}, Shape{5, 33, 31, 4}, Shape{3, 9, 9, 36}, Shape{2, 2, 2, 768}})
    for (int gap : {0, 12}) {
      Random random(1);
      TestTensor<double> x(shape, shape.c + gap), y(shape, shape.c + gap / 2);
      x.randomize(random, 2, -3);
      const size_t c = size_t(shape.c);
      Moments expected = naive_moments(x), m{std::vector<double>(c), std::vector<double>(c)};
      host::batch_norm_statistics<double>(m.mean.data(), m.inv_std.data(), x, kEps);
      EXPECT_TRUE(compare(m.mean, expected.mean, 1e-12));
      EXPECT_TRUE(compare(m.inv_std, expected.inv_std, 1e-12));
      auto gamma = random_vector<double>(shape.c, random), beta = random_vector<double>(shape.c, random);
      host::batch_norm_forward<double>(y, x, {m.mean.data(), m.inv_std.data(), gamma.data(), beta.data()},
                                       false);
      TestTensor<double> z(shape);
      for (int64_t i = 0; i < shape.size(); ++i) {
        const size_t j = size_t(i % shape.c);
        z[i] = gamma[j] * (x[i] - expected.mean[j]) * expected.inv_std[j] + beta[j];
      }
      EXPECT_TRUE(compare(y, z, 1e-12));
      host::batch_norm_forward<double>(y, x, {m.mean.data(), m.inv_std.data(), nullptr, nullptr}, true);
      for (int64_t i = 0; i < shape.size(); ++i) {
        const size_t j = size_t(i % shape.c);
        z[i] += (x[i] - expected.mean[j]) * expected.inv_std[j];
      }
      EXPECT_TRUE(compare(y, z, 1e-12));
      EXPECT_TRUE(y.gaps_untouched());
    }
}

TEST(BatchNorm, FloatStatisticsAreSoundFarFromZero) {
  Random random(2);
  TestTensor<float> x({64, 16, 16, 4});
  x.randomize(random, 0.5, 1000);
  Moments expected = naive_moments(x.as<double>());
  std::vector<float> mean(4), inv_std(4);
  Stream stream;
  batch_norm_statistics(stream, mean.data(), inv_std.data(), x, float(kEps));
  EXPECT_TRUE(compare(mean, expected.mean, 1e-6));
  EXPECT_TRUE(compare(inv_std, expected.inv_std, 1e-5));
}

void check_gradient(Shape shape, int gap, double beta, bool affine, bool batch_statistics) {
  Random random(3);
  const size_t c = size_t(shape.c);
  TestTensor<double> x(shape, shape.c + gap), y(shape), dy(shape, shape.c + 2 * gap),
      dx(shape, shape.c + gap);
  x.randomize(random, 1.5, 0.5);
  dy.randomize(random);
  auto gamma = random_vector<double>(shape.c, random), shift = random_vector<double>(shape.c, random);
  std::vector<double> mean(c), inv_std(c), dgamma(c, NAN), dbeta(c, NAN);
  if (beta == 1) {
    dx.randomize(random);
    dgamma = random_vector<double>(shape.c, random);
    dbeta = random_vector<double>(shape.c, random);
  }
  const TestTensor<double> dx0 = dx;
  std::vector<double> dgamma0 = dgamma, dbeta0 = dbeta;
  const NormView<double> norm{mean.data(), inv_std.data(), affine ? gamma.data() : nullptr,
                              affine ? shift.data() : nullptr};
  host::batch_norm_statistics<double>(mean.data(), inv_std.data(), x, kEps);
  const auto loss = [&] {
    if (batch_statistics) host::batch_norm_statistics<double>(mean.data(), inv_std.data(), x, kEps);
    host::batch_norm_forward<double>(y, x, norm, false);
    return dot(y, dy);
  };
  host::batch_norm_backward<double>(
      dx, affine ? NormGradient<double>{dgamma.data(), dbeta.data(), beta, beta} : NormGradient<double>{}, dy,
      x, norm, beta, batch_statistics);
  const auto before = [&](View<double> v) { return beta == 1 ? v : View<double>(); };
  std::vector<GradInput> inputs = {{"dx", x, dx, before(dx0)}};
  if (affine) {
    inputs.push_back({"dgamma", row(gamma), row(dgamma), before(row(dgamma0))});
    inputs.push_back({"dbeta", row(shift), row(dbeta), before(row(dbeta0))});
  }
  EXPECT_TRUE(gradcheck(loss, inputs)) << join(shape, " gap ", gap, " beta ", beta);
  EXPECT_TRUE(dx.gaps_untouched());
}

TEST(BatchNorm, GradientThroughTheStatistics) {
  for (Shape shape : kShapes)
    for (int gap : {0, 5})
      for (double beta : {0.0, 1.0})
        for (bool affine : {false, true})
          for (bool batch : {true, false}) check_gradient(shape, gap, beta, affine, batch);
}

TEST(BatchNorm, NullGradientsAreSkippedAndDxMayBeDyOrItsFactors) {
  const Shape shape{2, 5, 5, 6};
  Random random(4);
  TestTensor<double> x(shape), dy(shape), dx(shape);
  x.randomize(random);
  dy.randomize(random);
  std::vector<double> mean(6), inv_std(6), dbeta(6), expected(6);
  host::batch_norm_statistics<double>(mean.data(), inv_std.data(), x, kEps);
  const NormView<double> norm{mean.data(), inv_std.data()};
  host::batch_norm_backward<double>({}, {nullptr, dbeta.data()}, dy, x, norm, 0, true);
  for (int64_t i = 0; i < shape.size(); ++i) expected[size_t(i % 6)] += dy[i];
  EXPECT_TRUE(compare(dbeta, expected, 1e-12));
  host::batch_norm_backward<double>(dx, {}, dy, x, norm, 0, true);
  std::vector<double> factors(18, NAN);
  host::batch_norm_backward<double>({}, {}, dy, x, norm, 0, true, factors.data());
  const GradientView<double> left(dy, x, factors.data());
  TestTensor<double> whole(shape);
  for (int64_t i = 0; i < shape.size(); ++i) whole[i] = left.at(i / 6, int(i % 6));
  EXPECT_TRUE(compare(whole, dx, 1e-12));
  host::batch_norm_backward<double>(dy, {}, dy, x, norm, 0, true);
  EXPECT_TRUE(compare(dy, dx, 0));
}

TEST(BatchNorm, RunningMomentsTakeTheUnbiasedVariance) {
  const Shape shape{2, 3, 3, 4};
  Random random(5);
  TestTensor<double> x(shape);
  x.randomize(random, 2, 1);
  Moments m = naive_moments(x);
  const auto fx = x.as<float>();
  std::vector<float> mean(4), inv_std(4), running_mean(4, 0.5f), running_var(4, 1.f), fixed_mean(4),
      fixed_inv_std(4);
  Stream stream;
  batch_norm_statistics(stream, mean.data(), inv_std.data(), fx, float(kEps), running_mean.data(),
                        running_var.data());
  batch_norm_statistics_from_running(stream, fixed_mean.data(), fixed_inv_std.data(), running_mean.data(),
                                     running_var.data(), 4, float(kEps));
  for (size_t j = 0; j < 4; ++j) {
    const double unbiased = (1 / (m.inv_std[j] * m.inv_std[j]) - kEps) * 18 / 17;
    EXPECT_NEAR(running_mean[j], 0.9 * 0.5 + 0.1 * m.mean[j], 1e-6);
    EXPECT_NEAR(running_var[j], 0.9 + 0.1 * unbiased, 1e-5);
    EXPECT_EQ(fixed_mean[j], running_mean[j]);
    EXPECT_NEAR(fixed_inv_std[j], 1 / std::sqrt(double(running_var[j]) + kEps), 1e-6);
  }
}

TEST(BatchNorm, FloatLaunchersAgreeWithDoubleForAnyThreadCount) {
  const Shape shape{8, 32, 32, 16};
  Random random(6);
  TestTensor<double> x(shape), dy(shape), dx(shape);
  x.randomize(random, 1, 0.3);
  dy.randomize(random);
  auto gamma = random_vector<double>(16, random), shift = random_vector<double>(16, random);
  std::vector<double> mean(16), inv_std(16), dgamma(16), dbeta(16);
  host::batch_norm_statistics<double>(mean.data(), inv_std.data(), x, kEps);
  host::batch_norm_backward<double>(dx, {dgamma.data(), dbeta.data()}, dy, x,
                                    {mean.data(), inv_std.data(), gamma.data(), shift.data()}, 0, true);
  const auto fx = x.as<float>(), fdy = dy.as<float>();
  const auto fgamma = convert<float>(gamma);
  std::vector<TestTensor<float>> results;
  for (int threads : {1, 2, 3}) {
    Stream stream(Device::cpu, threads);
    TestTensor<float> fdx(shape);
    std::vector<float> fmean(16), finv_std(16), fdgamma(16), fdbeta(16);
    batch_norm_statistics(stream, fmean.data(), finv_std.data(), fx, float(kEps));
    batch_norm_backward(stream, fdx, {fdgamma.data(), fdbeta.data()}, fdy, fx,
                        {fmean.data(), finv_std.data(), fgamma.data(), nullptr}, 0);
    EXPECT_TRUE(compare(fdx, dx, 1e-6));
    EXPECT_TRUE(compare(fdgamma, dgamma, 1e-5));
    EXPECT_TRUE(compare(fdbeta, dbeta, 1e-5));
    results.push_back(fdx);
    EXPECT_TRUE(compare(results[0], fdx, 0));
  }
}

TEST(BatchNorm, Errors) {
  Stream stream;
  TestTensor<float> x({1, 2, 2, 4}), y({1, 2, 2, 3});
  std::vector<float> m(4), s(4);
  EXPECT_THROW(batch_norm_forward(stream, y, x, {m.data(), s.data()}), Error);
  EXPECT_THROW(batch_norm_forward(stream, x, x, {}), Error);
  EXPECT_THROW(batch_norm_forward(stream, x, x, {m.data(), s.data()}, true), Error);
  EXPECT_THROW(batch_norm_backward(stream, y, {}, x, x, {m.data(), s.data()}, 0), Error);
  EXPECT_THROW(batch_norm_backward(stream, x, {}, y, x, {m.data(), s.data()}, 0), Error);
}

}  // namespace
}  // namespace lanas
