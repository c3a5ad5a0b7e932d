// Ridge regression: the optimality condition, known answers, and the penalty against naive cross-validation.
#include "predictor/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/core/check.h"

namespace lanas {
namespace {

Dataset noisy_linear(int rows, int columns, double noise, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> w(static_cast<size_t>(columns));
  for (double& v : w) v = normal(random);
  Dataset data;
  data.rows = rows;
  data.columns = columns;
  for (int r = 0; r < rows; ++r) {
    double y = 1000;
    for (int c = 0; c < columns; ++c) {
      data.x.push_back(random() % 3 == 0 ? float(normal(random)) : 0.0f);
      y += w[size_t(c)] * double(data.x.back());
    }
    data.y.push_back(y + noise * normal(random));
  }
  return data;
}

TEST(Linear, CholeskySolves) {
  std::vector<double> a = {4, 0, 0, 2, 5, 0, 1, 3, 6}, b = {4 + 4 + 3, 2 + 10 + 9, 1 + 6 + 18};
  ASSERT_TRUE(cholesky_solve(a, b));  // the symmetric matrix with that lower triangle times (1, 2, 3)
  EXPECT_NEAR(b[0], 1, 1e-14);
  EXPECT_NEAR(b[1], 2, 1e-14);
  EXPECT_NEAR(b[2], 3, 1e-14);
  std::vector<double> indefinite = {1, 0, 2, 1}, any = {1, 1};
  EXPECT_FALSE(cholesky_solve(indefinite, any));
}

TEST(Linear, MeetsTheOptimalityCondition) {
  const Dataset data = noisy_linear(60, 17, 0.5, 3);
  for (double penalty : {1e-3, 1.0, 100.0}) {
    const LinearModel model = fit_ridge_with_penalty(data, penalty);
    const std::vector<double> predicted = model.predict(data);
    double mean_residual = 0;
    std::vector<double> gradient(17, 0.0);
    for (int r = 0; r < data.rows; ++r) {
      const double residual = data.y[size_t(r)] - predicted[size_t(r)];
      mean_residual += residual;
      for (int c = 0; c < 17; ++c) gradient[size_t(c)] += residual * double(data.row(r)[c]);
    }
    EXPECT_NEAR(mean_residual, 0, 1e-8);
    for (int c = 0; c < 17; ++c) EXPECT_NEAR(gradient[size_t(c)], penalty * model.weights[size_t(c)], 1e-8);
  }
}

TEST(Linear, RecoversAnExactModelWithFewerRowsThanColumnsTolerated) {
  const Dataset exact = noisy_linear(200, 10, 0, 4);
  const LinearModel model = fit_ridge(exact);
  for (int r = 0; r < exact.rows; ++r) EXPECT_NEAR(model.predict(exact.row(r)), exact.y[size_t(r)], 1e-4);
  EXPECT_LT(model.penalty, 1e-3);
  const LinearModel wide = fit_ridge(noisy_linear(20, 100, 0.1, 5));
  for (double w : wide.weights) EXPECT_TRUE(std::isfinite(w));
}

TEST(Linear, ChoosesThePenaltyThatNaiveCrossValidationChooses) {
  const Dataset data = noisy_linear(50, 30, 3, 6);
  RidgeConfig config;
  config.seed = 11;
  config.steps = 9;
  const LinearModel model = fit_ridge(data, config);
  const std::vector<int> order = shuffled(data.rows, config.seed);
  double best_error = HUGE_VAL, best_penalty = 0;
  for (int s = 0; s < config.steps; ++s) {
    const double penalty =
        config.smallest * std::pow(config.largest / config.smallest, s / double(config.steps - 1));
    double error = 0;
    for (int f = 0; f < config.folds; ++f) {
      std::vector<int> in, out;
      for (int i = 0; i < data.rows; ++i) (i % config.folds == f ? out : in).push_back(order[size_t(i)]);
      const LinearModel part = fit_ridge_with_penalty(take_rows(data, in), penalty);
      for (int r : out) error += std::pow(part.predict(data.row(r)) - data.y[size_t(r)], 2);
    }
    if (error < best_error) best_error = error, best_penalty = penalty;
  }
  EXPECT_NEAR(model.penalty, best_penalty, 1e-9 * best_penalty);
  EXPECT_NEAR(model.cross_validated_mse, best_error / data.rows, 1e-6 * best_error / data.rows);
  EXPECT_GT(model.penalty, 0.1);
}

TEST(Linear, RefusesWhatCannotBeFitted) {
  Dataset data = noisy_linear(1, 3, 0, 1);
  EXPECT_THROW(fit_ridge(data), Error);
  EXPECT_THROW(fit_ridge(Dataset{}), Error);
  data = noisy_linear(5, 3, 0, 1);
  EXPECT_THROW(fit_ridge_with_penalty(data, 0), Error);
  data.y[2] = NAN;
  EXPECT_THROW(fit_ridge(data), Error);
  const LinearModel model = fit_ridge(noisy_linear(5, 3, 0, 1));
  EXPECT_THROW(model.predict(noisy_linear(5, 4, 0, 1)), Error);
}

}  // namespace
}  // namespace lanas
