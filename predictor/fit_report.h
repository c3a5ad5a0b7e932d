// fit_report.h -- fits the regressor on a part of a table and says how well it predicts the rest, beside
// ridge regression on the raw target, the mlp without its linear part, and the noise of the measurements.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "predictor/metrics.h"
#include "predictor/regressor.h"

namespace lanas {

struct FitOptions {
  int train_rows = 0;       // 0: four fifths of the rows
  uint64_t split_seed = 0;  // of the split by architecture
  bool mlp_alone = true;    // fits the comparison too (about doubles the time)
  double noise_mape = 0;    // of one measurement (nas/campaign); 0: not known
  RegressorConfig regressor;
};

struct FitReport {
  Metrics test, linear;       // on the held-out rows
  double mlp_alone_mape = 0;  // 0: not fitted
  double noise_mape = 0;
  double coverage_90 = 0;  // share of held-out rows inside the 90% interval
  double shrink = 0, validation_mape = 0, penalty = 0;
  int n_train = 0, n_test = 0;
  std::vector<std::pair<double, double>> held_out;  // predicted and actual of the test rows
  double seconds = 0;                               // of fitting the regressor
};

// Error where there are too few rows to split. `fitted`, where given, receives the regressor.
FitReport fit_report(const Dataset& data, const FitOptions& options, Stream& stream,
                     std::optional<Regressor>* fitted = nullptr);

// {"n_train", "n_test", "test_mape", "test_median_ape", "within_1", ..., "linear_mape", ...}; errors and
// shares are fractions; what was not fitted or is not known is left out.
void to_json(nlohmann::json& json, const FitReport& report);

}  // namespace lanas
