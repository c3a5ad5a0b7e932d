// The search on a tiny problem: lambda learned for a target, second order, stopping on a stable genotype, the
// measurements in the log, and that all of it goes on to the same bits after an interruption.
#include "nas/search.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "kernels/core/random.cuh"
#include "nas/interrupt.h"
#include "tests/support/code_regressor.h"
#include "tests/support/temp_folder.h"

namespace lanas::test {
namespace {

const ImageData& images() {
  static const ImageData data = [] {
    ImageData made;
    made.name = "noise";
    made.side = 8;
    made.classes = 10;
    Random random(4);
    for (int i = 0; i < 96; ++i) {
      made.train_labels.push_back(uint8_t(i % 10));
      for (int p = 0; p < 8 * 8 * 3; ++p)
        made.train_images.push_back(uint8_t(random.below(100) + 15 * (i % 10)));
    }
    made.test_images.assign(made.train_images.begin(), made.train_images.begin() + 192);
    made.test_labels = {0};
    for (int c = 0; c < 3; ++c) made.mean[c] = made.stddev[c] = 0.4f;
    return made;
  }();
  return data;
}

// Milliseconds that grow with the number of the op: pools and skips are fast, 5x5 are slow.
const Regressor& ranked_ops() {
  static const Regressor fitted = fit_code_regressor(400, 1, [](const Genotype& g) {
    double ms = 0.2;
    for (const CellGenotype* cell : {&g.normal, &g.reduce})
      for (const CellEdge& edge : *cell) ms += 0.05 * int(edge.op);
    return ms;
  });
  return fitted;
}

SearchConfig tiny() {
  SearchConfig config;
  config.supernet = {4, 3, 10, 8, 8, 2, true};
  config.epochs = 3;
  config.frozen_epochs = 0;
  config.alpha_lr = 0.05f;
  config.lr = 0.05f;
  config.crop_padding = 1;
  config.latency.samples = 2;
  return config;
}

SearchResult run(const SearchConfig& config, const SearchHooks& hooks = {},
                 const std::string& checkpoint = "") {
  Stream stream(Device::cpu, 1);
  return search(stream, config, images(), &ranked_ops(), checkpoint, hooks);
}

// Stopped in the middle of the second epoch and gone on with: the same numbers to the last bit.
void expect_resumes(const SearchConfig& config) {
  const TempFolder folder;
  const std::string path = folder / "search.safetensors";
  const SearchResult whole = run(config);
  SearchHooks hooks;
  hooks.on_step = [](int64_t step, int64_t, double) { stop_flag = step == 9; };
  EXPECT_THROW(run(config, hooks, path), Interrupted);
  stop_flag = 0;
  const SearchResult resumed = run(config, {}, path);
  for (int kind = 0; kind < 2; ++kind) {
    EXPECT_EQ(resumed.architecture.alpha[kind], whole.architecture.alpha[kind]);
    EXPECT_EQ(resumed.architecture.beta[kind], whole.architecture.beta[kind]);
  }
  ASSERT_EQ(resumed.history.size(), whole.history.size());
  EXPECT_EQ(resumed.history.back().lambda, whole.history.back().lambda);
  EXPECT_EQ(resumed.history.back().train_loss, whole.history.back().train_loss);
}

TEST(SearchSlow, LearnsLambdaForATarget) {
  SearchConfig config = tiny();
  config.epochs = 12;
  const SearchResult free = run(config);
  EXPECT_EQ(free.history.back().lambda, 0);
  config.latency.target_ms = 0.75 * free.history.back().soft_ms;
  config.latency.lambda_lr = 0.5;
  const SearchResult held = run(config);
  EXPECT_GT(held.history.front().lambda, 0);
  EXPECT_LT(held.history.back().soft_ms, 1.1 * config.latency.target_ms);
  EXPECT_LT(held.history.back().soft_ms, 0.9 * free.history.back().soft_ms);
  config.latency.target_ms = 100;  // met from the start
  EXPECT_EQ(run(config).history.back().lambda, 0);
}

TEST(Search, TargetResumesToTheSameBits) {
  SearchConfig config = tiny();
  config.latency.target_ms = 1;
  expect_resumes(config);
}

TEST(Search, SecondOrderDiffersAndResumesToTheSameBits) {
  SearchConfig config = tiny();
  config.supernet.partial = 1;
  config.supernet.edge_weights = false;
  const SearchResult first = run(config);
  config.second_order = true;
  config.latency.target_ms = 1;
  expect_resumes(config);
  EXPECT_NE(run(config).architecture.alpha[0], first.architecture.alpha[0]);
}

TEST(Search, StopsOnAStableGenotype) {
  SearchConfig config = tiny();
  config.epochs = 9;
  config.alpha_lr = 0;  // alpha stays: stable from the start
  config.stable_epochs = 2;
  EXPECT_EQ(run(config).history.size(), 3u);
  config.frozen_epochs = 3;
  EXPECT_EQ(run(config).history.size(), 6u) << "frozen epochs say nothing";
}

TEST(Search, MeasuresNowAndThenWithoutChangingTheSearch) {
  SearchConfig config = tiny();
  const SearchResult silent = run(config);
  config.measure_every = 2;
  int measured = 0;
  SearchHooks hooks;
  hooks.measure_ms = [&](const Genotype&) { return 1.5 + measured++; };
  const SearchResult told = run(config, hooks);
  EXPECT_EQ(measured, 1);
  EXPECT_EQ(told.history[0].measured_ms, 0);
  EXPECT_EQ(told.history[1].measured_ms, 1.5);
  EXPECT_EQ(told.architecture.alpha[0], silent.architecture.alpha[0]);
}

// Another cost in the loss: the log keeps milliseconds, the search heeds the cost.
TEST(Search, PenaltyTakesThePredictorsPlace) {
  Stream stream(Device::cpu, 1);
  SearchConfig config = tiny();
  config.metric = CostMetric::macs;
  config.latency.lambda = 5;
  const Regressor penalty = fit_code_regressor(100, 2, [](const Genotype& g) {
    double cost = 10;
    for (const CellEdge& edge : g.normal) cost += 10 * (edge.op == OpKind::skip_connect);
    return cost;
  });
  config.latency.reference_ms = 20;
  config.epochs = 10;
  const SearchResult held = search(stream, config, images(), &ranked_ops(), "", {}, &penalty);
  EXPECT_LT(held.history.back().hard_ms, 10) << "still milliseconds";
  EXPECT_EQ(held.history.back().skips_normal, 0);
}

}  // namespace
}  // namespace lanas::test
