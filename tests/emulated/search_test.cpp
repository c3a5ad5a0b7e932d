// search_test.cpp -- a search of two bilevel steps on the emulated cuda device equals the cpu's, and the same
// seed gives the same bits in another thread order. The first step runs as it is, the second is a replay.
#include "nas/search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/checkpoint.h"
#include "kernels/core/random.cuh"
#include "kernels/core/simt.h"
#include "kernels/core/simt_counts.h"
#include "nas/search_space.h"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

ImageData random_images(int count, int side) {
  ImageData data;
  data.name = "fashion-mnist", data.side = side, data.classes = 4;
  Random random(3);
  for (int i = 0; i < count; ++i) {
    data.train_labels.push_back(uint8_t(random.below(4)));
    for (size_t b = 0; b < data.image_bytes(); ++b)
      data.train_images.push_back(uint8_t(random.below(64) + 64 * data.train_labels.back()));
  }
  data.test_images = data.train_images, data.test_labels = data.train_labels;
  for (int c = 0; c < 3; ++c) data.mean[c] = 0.5f, data.stddev[c] = 0.3f;
  return data;
}

// Ridge alone: codes of sampled architectures, a latency by formula.
Regressor latency_predictor() {
  Dataset data;
  data.columns = kCodeSize;
  Random random(1);
  for (; data.rows < 40; ++data.rows) {
    const auto code = encode(sample_genotype(random));
    data.x.insert(data.x.end(), code.begin(), code.end());
    double ms = 1;
    for (size_t i = 0; i < code.size(); ++i) ms += 0.02 * double(i % 8) * double(code[i]);
    data.y.push_back(ms);
  }
  RegressorConfig config;
  config.mlp.hidden = {16, 8};
  config.mlp.epochs = 2;
  config.members = 2;
  config.skip = false;
  Stream stream(Device::cpu, 1);
  return Regressor::fit(data, config, stream);
}

struct Found {
  SearchResult result;
  TensorFile state;
};

SearchConfig small_search(int partial) {
  SearchConfig config;
  config.supernet = {.channels = 4,
                     .layers = 3,
                     .classes = 4,
                     .image = 8,
                     .batch = 4,
                     .partial = partial,
                     .edge_weights = partial > 1};
  config.epochs = 1, config.frozen_epochs = 0, config.crop_padding = 1;
  config.latency.lambda = 0.5, config.latency.reference_ms = 2;
  config.seed = 5;
  config.checkpoint_seconds = 1e9;
  return config;
}

Found run_search(Device device, const Regressor& regressor, const SearchConfig& config, int images = 16,
                 const SearchHooks& hooks = {}) {
  const TempFolder folder;
  const std::string path = folder / "search.safetensors";
  Stream stream(device, 1);
  const Regressor there = regressor.to(device);
  Found found;
  found.result = search(stream, config, random_images(images, 8), &there, path, hooks);
  found.state = read_tensors(path);
  return found;
}

// ||a - b|| / ||b|| over the tensors whose names begin with `prefix`.
double difference(const TensorFile& a, const TensorFile& b, const std::string& prefix) {
  double sum = 0, norm = 0;
  for (const auto& [name, entry] : b.tensors) {
    if (!name.starts_with(prefix)) continue;
    const std::vector<float>& other = a.tensors.at(name).values;
    for (size_t i = 0; i < entry.values.size(); ++i) {
      sum += std::pow(double(other[i]) - double(entry.values[i]), 2);
      norm += std::pow(double(entry.values[i]), 2);
    }
  }
  EXPECT_GT(norm, 0) << prefix;
  return std::sqrt(sum / norm);
}

class EmulatedSearchSlow : public testing::TestWithParam<int> {};

TEST_P(EmulatedSearchSlow, TwoStepsEqualTheCpus) {
  const Regressor regressor = latency_predictor();
  const SearchConfig config = small_search(GetParam());
  const Found expected = run_search(Device::cpu, regressor, config),
              found = run_search(Device::cuda, regressor, config);
  // Adam's first steps are the gradient's signs times the learning rate: alpha moves by 6e-4, and an element
  // whose gradient is about zero may move the other way.
  EXPECT_LE(difference(found.state, expected.state, "architecture."), 2e-3);
  EXPECT_LE(difference(found.state, expected.state, "weights."), 1e-4);
  EXPECT_LE(difference(found.state, expected.state, "buffers."), 1e-4);
  const SearchEpoch &a = found.result.history[0], &b = expected.result.history[0];
  EXPECT_NEAR(a.valid_loss, b.valid_loss, 1e-3 * b.valid_loss);
  EXPECT_NEAR(a.soft_ms, b.soft_ms, 1e-4 * b.soft_ms);

  const simt::ScopedSettings scope({simt::Order::reverse, 0});
  const Found again = run_search(Device::cuda, regressor, config);
  for (const auto& [name, entry] : found.state.tensors)
    EXPECT_EQ(again.state.tensors.at(name).values, entry.values) << name;
}

// With a target lambda moves in every alpha step, on the device: the first step runs as it is, the second is
// recorded and replayed, the third replayed, all with nothing read back but the loss of the first.
TEST(EmulatedSearchTargetSlow, LambdaIsLearnedInTheRecordedSteps) {
  const Regressor regressor = latency_predictor();
  SearchConfig config = small_search(2);
  config.latency.target_ms = 1.5, config.latency.lambda_lr = 0.3;
  config.validation_images = 4;
  const Found expected = run_search(Device::cpu, regressor, config, 24);
  std::vector<simt::Counts> counts;
  SearchHooks hooks;
  hooks.on_step = [&](int64_t, int64_t, double) { counts.push_back(simt::counts()); };
  const Found found = run_search(Device::cuda, regressor, config, 24, hooks);
  ASSERT_EQ(counts.size(), 3u);
  EXPECT_EQ(counts[1].recorded - counts[0].recorded, 2) << "alpha's level and the weights'";
  EXPECT_EQ(counts[2].recorded, counts[1].recorded);
  EXPECT_EQ(counts[1].replayed - counts[0].replayed, 2);
  EXPECT_EQ(counts[2].replayed - counts[1].replayed, 2);
  EXPECT_EQ(counts[2].downloads, counts[0].downloads);

  const double learned = expected.result.history[0].lambda;
  EXPECT_GT(std::abs(learned - config.latency.lambda), 0.1) << "the target asks for little";
  EXPECT_NEAR(found.result.history[0].lambda, learned, 1e-4);
  EXPECT_LE(difference(found.state, expected.state, "architecture."), 2e-3);
  EXPECT_LE(difference(found.state, expected.state, "weights."), 1e-4);
}

// Second order: three graphs for alpha, between which batches are loaded, and one for the weights.
TEST(EmulatedSearchSecondOrderSlow, IsRecordedAndEqualsTheCpus) {
  const Regressor regressor = latency_predictor();
  SearchConfig config = small_search(1);
  config.second_order = true;
  config.latency.target_ms = 1.5, config.latency.lambda_lr = 0.3;
  config.validation_images = 4;
  const Found expected = run_search(Device::cpu, regressor, config);
  std::vector<simt::Counts> counts;
  SearchHooks hooks;
  hooks.on_step = [&](int64_t, int64_t, double) { counts.push_back(simt::counts()); };
  const Found found = run_search(Device::cuda, regressor, config, 16, hooks);
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[1].recorded - counts[0].recorded, 4);
  EXPECT_EQ(counts[1].replayed - counts[0].replayed, 4);
  EXPECT_EQ(counts[1].downloads, counts[0].downloads);

  EXPECT_NEAR(found.result.history[0].lambda, expected.result.history[0].lambda, 1e-4);
  EXPECT_LE(difference(found.state, expected.state, "architecture."), 2e-3);
  EXPECT_LE(difference(found.state, expected.state, "weights."), 1e-4);
  EXPECT_LE(difference(found.state, expected.state, "buffers."), 1e-4);
  config.second_order = false;
  const Found first = run_search(Device::cpu, regressor, config);
  EXPECT_GT(difference(first.state, expected.state, "architecture."), 0.1) << "the tolerance can be missed";
}

INSTANTIATE_TEST_SUITE_P(Partial, EmulatedSearchSlow, testing::Values(1, 2));

}  // namespace
}  // namespace lanas
