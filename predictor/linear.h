// linear.h -- ridge regression on raw targets: minimise sum_i (y_i - b - w.x_i)^2 + penalty |w|^2, the
// intercept b unpenalised. The baseline of every report and the skip path of the regressor. The penalty is
// chosen by k-fold cross-validation from the folds' second moments alone, so the data are read once.
#pragma once

#include <cstdint>
#include <vector>

#include "predictor/dataset.h"

namespace lanas {

struct LinearModel {
  std::vector<double> weights;  // [columns], target unit per feature unit
  double intercept = 0;
  double penalty = 0;
  double cross_validated_mse = 0;  // of the chosen penalty; 0 where the penalty was given

  double predict(const float* row) const;
  std::vector<double> predict(const Dataset& data) const;
};

struct RidgeConfig {
  int folds = 5;                          // at most one per row
  double smallest = 1e-5, largest = 1e4;  // penalty grid, logarithmic
  int steps = 37;
  uint64_t seed = 0;  // of the folds
};

// Error where data has no rows or no columns, or fewer than 2 rows for cross-validation.
LinearModel fit_ridge(const Dataset& data, const RidgeConfig& config = {});
LinearModel fit_ridge_with_penalty(const Dataset& data, double penalty);

// Solves a x = b in place for a symmetric positive definite a [n, n] (lower triangle read and overwritten);
// false where a pivot is not positive.
bool cholesky_solve(std::vector<double>& a, std::vector<double>& b);

}  // namespace lanas
