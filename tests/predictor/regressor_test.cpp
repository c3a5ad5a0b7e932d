// The regressor: it learns what a linear model cannot, never loses to it where there is nothing to learn,
// gives the same bits on any number of threads, comes back from a file, and carries gradients to the code.
#include "predictor/regressor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "autograd/checkpoint.h"
#include "autograd/plan.h"
#include "kernels/core/random.cuh"
#include "predictor/fit_report.h"
#include "predictor/metrics.h"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

constexpr int kEdges = 6, kOps = 4;

// One-hot codes; cost = 10 + sum of op costs, with pairs of edges that interact, and relative noise.
Dataset architectures(int rows, double interaction, double noise, uint64_t seed) {
  Random random(seed), fixed(99);
  std::vector<double> cost;
  for (int i = 0; i < kEdges * kOps; ++i) cost.push_back(double(fixed.uniform()));
  Dataset data;
  data.rows = rows;
  data.columns = kEdges * kOps;
  data.x.assign(size_t(rows) * size_t(data.columns), 0.f);
  for (int r = 0; r < rows; ++r) {
    std::vector<int> op;
    double y = 10;
    for (int e = 0; e < kEdges; ++e) {
      op.push_back(int(random.below(kOps)));
      data.x[size_t((r * kEdges + e) * kOps + op.back())] = 1;
      y += cost[size_t(e * kOps + op.back())];
    }
    for (int e = 0; e + 1 < kEdges; e += 2) y += op[size_t(e)] == op[size_t(e + 1)] ? interaction : 0;
    data.y.push_back(y * (1 + noise * double(random.normal())));
  }
  return data;
}

RegressorConfig quick_config() {
  RegressorConfig config;
  config.mlp.epochs = 60;
  config.members = 3;
  return config;
}

TEST(Regressor, LearnsInteractionsThatRidgeCannot) {
  const Dataset train = architectures(500, 2, 0.001, 1), test = architectures(300, 2, 0, 2);
  Stream stream(Device::cpu, 2);
  const Regressor regressor = Regressor::fit(train, quick_config(), stream);
  const double error = mean_relative_error(regressor.predict(test), test.y);
  const double ridge = mean_relative_error(fit_ridge(train).predict(test), test.y);
  EXPECT_GT(ridge, 0.05);
  EXPECT_LT(error, 0.4 * ridge);
  EXPECT_GT(regressor.shrink(), 0.5);
  EXPECT_LT(regressor.validation_mape(), 0.5 * ridge);
  EXPECT_NEAR(regressor.mean_target(), 16, 1.5);
  EXPECT_LT(regressor.lower(), 1);
  EXPECT_GT(regressor.upper(), 1);
}

TEST(Regressor, IsAboutRidgeWhereThereIsNothingElse) {
  const Dataset train = architectures(60, 0, 0.03, 3), test = architectures(300, 0, 0, 4);
  Stream stream(Device::cpu, 2);
  const Regressor regressor = Regressor::fit(train, quick_config(), stream);
  const double error = mean_relative_error(regressor.predict(test), test.y);
  EXPECT_LT(error, 1.05 * mean_relative_error(fit_ridge(train).predict(test), test.y));
}

TEST(Regressor, FewRowsGiveExactlyRidge) {
  const Dataset train = architectures(12, 0, 0.01, 5), test = architectures(20, 0, 0, 6);
  Stream stream(Device::cpu, 1);
  const Regressor regressor = Regressor::fit(train, quick_config(), stream);
  const std::vector<double> predicted = regressor.predict(test), ridge = fit_ridge(train).predict(test);
  for (size_t i = 0; i < ridge.size(); ++i) EXPECT_NEAR(predicted[i], ridge[i], 1e-5 * ridge[i]);
  EXPECT_EQ(regressor.shrink(), 0);
}

TEST(Regressor, SameBitsOnAnyNumberOfThreadsAndFromAFile) {
  const Dataset train = architectures(120, 1, 0.01, 7), test = architectures(40, 1, 0, 8);
  RegressorConfig config = quick_config();
  config.mlp.epochs = 10;
  Stream one(Device::cpu, 1), two(Device::cpu, 2);
  const Regressor regressor = Regressor::fit(train, config, one);
  const std::vector<double> predicted = regressor.predict(test);
  EXPECT_EQ(Regressor::fit(train, config, two).predict(test), predicted);
  config.seed = 1;
  EXPECT_NE(Regressor::fit(train, config, two).predict(test), predicted);

  const TempFolder folder;
  const std::string path = folder / "predictor.safetensors";
  regressor.save(path);
  const Regressor loaded = Regressor::load(path);
  EXPECT_EQ(loaded.predict(test), predicted);
  EXPECT_EQ(loaded.inputs(), train.columns);
  EXPECT_EQ(loaded.shrink(), regressor.shrink());
  EXPECT_EQ(loaded.mean_target(), regressor.mean_target());
  EXPECT_EQ(loaded.upper(), regressor.upper());
  EXPECT_THROW(Regressor::load(folder / "absent.safetensors"), Error);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 5);
  EXPECT_THROW(Regressor::load(path), Error);
  TensorFile other;
  other.put("w", std::vector<float>{1, 2});
  write_tensors(path, other);
  EXPECT_THROW(Regressor::load(path), Error);
}

// d prediction / d code on another tape against central differences of the prediction; no gradient reaches
// the frozen weights.
TEST(Regressor, GradientFlowsToTheCode) {
  const Dataset train = architectures(200, 2, 0.01, 9);
  RegressorConfig config = quick_config();
  config.mlp.epochs = 30;
  Stream stream(Device::cpu, 2);
  const Regressor regressor = Regressor::fit(train, config, stream);
  ASSERT_GT(regressor.shrink(), 0);
  std::vector<float> code(size_t(train.columns));
  Random random(10);
  for (float& v : code) v = random.uniform();  // a soft code

  Tape tape;
  const Var x = tape.input({1, 1, 1, train.columns});
  const Var y = regressor.apply(tape, x);
  PlanOptions options;
  options.outputs = {y};
  options.loss = y;
  options.wanted_inputs = {x};
  Plan plan(tape, options, std::make_shared<Workspace>());
  std::copy(code.begin(), code.end(), tape.data(x).data);
  plan.forward(stream);
  plan.backward(stream);
  EXPECT_EQ(double(*plan.value(y).data), regressor.predict(code.data(), 1)[0]);
  const Tensor gradient = plan.grad(x);
  const float h = 5e-3f;
  std::vector<float> moved;  // rows: every number of the code up, then down
  for (int row = 0; row < 2 * train.columns; ++row) {
    moved.insert(moved.end(), code.begin(), code.end());
    moved[moved.size() - code.size() + size_t(row / 2)] += row % 2 == 0 ? h : -h;
  }
  const std::vector<double> predicted = regressor.predict(moved.data(), 2 * train.columns);
  double difference = 0, norm = 0;
  for (int i = 0; i < train.columns; ++i) {
    const double numeric = (predicted[size_t(2 * i)] - predicted[size_t(2 * i + 1)]) / (2 * double(h));
    difference += std::pow(numeric - double(gradient.data[i]), 2);
    norm += numeric * numeric;
  }
  EXPECT_LT(std::sqrt(difference / norm), 0.03);  // the kinks of relu lie inside some steps
  const Var narrow = tape.input({1, 1, 1, 3});
  EXPECT_THROW(regressor.apply(tape, narrow), Error);
}

TEST(Regressor, RefusesBadTargets) {
  Stream stream(Device::cpu, 1);
  Dataset data = architectures(40, 0, 0, 11);
  data.y[3] = 0;
  EXPECT_THROW(Regressor::fit(data, quick_config(), stream), Error);
  EXPECT_THROW(Regressor::fit(architectures(1, 0, 0, 12), quick_config(), stream), Error);
  EXPECT_THROW(Regressor::fit(Dataset{}, quick_config(), stream), Error);
  Dataset same = take_rows(architectures(1, 0, 0, 12), std::vector<int>(40, 0));  // one architecture only
  EXPECT_THROW(Regressor::fit(same, quick_config(), stream), Error);
}

TEST(FitReport, StatesBothModelsOnHeldOutArchitectures) {
  const Dataset data = architectures(400, 2, 0.002, 13);
  FitOptions options;
  options.regressor = quick_config();
  options.noise_mape = 0.002;
  Stream stream(Device::cpu, 2);
  const FitReport report = fit_report(data, options, stream);
  EXPECT_GE(report.n_train, 320);
  EXPECT_EQ(report.n_train + report.n_test, 400);
  EXPECT_LT(report.test.mape, report.linear.mape);
  EXPECT_GT(report.test.spearman, report.linear.spearman);
  EXPECT_GT(report.mlp_alone_mape, 0);
  EXPECT_GT(report.coverage_90, 0.7);
  const nlohmann::json json = report;
  for (const char* key : {"test_mape", "test_median_ape", "within_1", "within_5", "within_10", "spearman",
                          "kendall", "mae_ms", "cheapest_tenth", "linear_mape", "linear_spearman",
                          "mlp_alone_mape", "noise_mape", "n_train", "n_test", "seconds"})
    EXPECT_TRUE(json.contains(key)) << key;
  options.train_rows = 400;
  EXPECT_THROW(fit_report(data, options, stream), Error);
  EXPECT_THROW(fit_report(architectures(3, 0, 0, 1), FitOptions{}, stream), Error);
}

}  // namespace
}  // namespace lanas
