#include "predictor/fit_report.h"

#include <nlohmann/json.hpp>

#include "kernels/core/timing.h"
#include "predictor/linear.h"

namespace lanas {

FitReport fit_report(const Dataset& data, const FitOptions& options, Stream& stream,
                     std::optional<Regressor>* fitted) {
  CHECK(data.rows >= 5, "fit: ", data.rows, " rows, expected at least 5 to train and test on");
  const int train_rows = options.train_rows > 0 ? options.train_rows : data.rows * 4 / 5;
  CHECK(train_rows >= 2 && train_rows < data.rows, "fit: ", train_rows, " training rows of ", data.rows,
        ", expected from 2 to ", data.rows - 1);
  const Split split = split_by_architecture(data, train_rows, options.split_seed);
  const Dataset train = take_rows(data, split.train), test = take_rows(data, split.test);

  FitReport report;
  report.n_train = train.rows;
  report.n_test = test.rows;
  report.noise_mape = options.noise_mape;
  const double begin = now_ms();
  Regressor regressor = Regressor::fit(train, options.regressor, stream);
  report.seconds = (now_ms() - begin) / 1000;
  const std::vector<double> predicted = regressor.predict(test);
  report.test = evaluate(predicted, test.y);
  for (size_t i = 0; i < predicted.size(); ++i) {
    report.held_out.emplace_back(predicted[i], test.y[i]);
    const double ratio = test.y[i] / predicted[i];
    report.coverage_90 += ratio >= regressor.lower() && ratio <= regressor.upper() ? 1.0 / test.rows : 0;
  }
  report.shrink = regressor.shrink();
  report.validation_mape = regressor.validation_mape();

  const LinearModel linear = fit_ridge(train);
  report.penalty = linear.penalty;
  report.linear = evaluate(linear.predict(test), test.y);
  if (options.mlp_alone && train.rows >= Regressor::kFewestRows) {
    RegressorConfig alone = options.regressor;
    alone.skip = false;
    report.mlp_alone_mape = mean_relative_error(Regressor::fit(train, alone, stream).predict(test), test.y);
  }
  if (fitted) fitted->emplace(std::move(regressor));
  return report;
}

void to_json(nlohmann::json& json, const FitReport& r) {
  json = {{"n_train", r.n_train},
          {"n_test", r.n_test},
          {"test_mape", r.test.mape},
          {"test_median_ape", r.test.median_ape},
          {"within_1", r.test.within_1},
          {"within_5", r.test.within_5},
          {"within_10", r.test.within_10},
          {"spearman", r.test.spearman},
          {"kendall", r.test.kendall},
          {"mae_ms", r.test.mae},
          {"cheapest_tenth", r.test.cheapest_tenth},
          {"linear_mape", r.linear.mape},
          {"linear_median_ape", r.linear.median_ape},
          {"linear_within_5", r.linear.within_5},
          {"linear_within_10", r.linear.within_10},
          {"linear_spearman", r.linear.spearman},
          {"linear_kendall", r.linear.kendall},
          {"linear_mae_ms", r.linear.mae},
          {"linear_cheapest_tenth", r.linear.cheapest_tenth},
          {"linear_penalty", r.penalty},
          {"coverage_90", r.coverage_90},
          {"shrink", r.shrink},
          {"validation_mape", r.validation_mape},
          {"seconds", r.seconds}};
  if (r.mlp_alone_mape > 0) json["mlp_alone_mape"] = r.mlp_alone_mape;
  if (r.noise_mape > 0) json["noise_mape"] = r.noise_mape;
}

}  // namespace lanas
