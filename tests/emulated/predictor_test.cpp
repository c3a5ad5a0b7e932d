// predictor_test.cpp -- the predictor on the emulated cuda device: a training run equals the cpu's, the same
// seed gives the same bits, and the latency's gradient reaches alpha without a copy to the host.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/graph.h"
#include "kernels/core/random.cuh"
#include "kernels/core/simt.h"
#include "nas/latency_loss.h"
#include "nas/search_space.h"
#include "nas/supernet.h"
#include "predictor/regressor.h"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

// One-hot groups of three; neighbours interact.
Dataset architectures(int rows, int groups, uint64_t seed) {
  Dataset data;
  data.rows = rows, data.columns = 3 * groups;
  data.x.assign(size_t(rows) * size_t(data.columns), 0.f);
  Random random(seed);
  for (int r = 0; r < rows; ++r) {
    double y = 5;
    int before = 0;
    for (int g = 0; g < groups; ++g) {
      const int choice = int(random.below(3));
      data.x[size_t(r * data.columns + 3 * g + choice)] = 1;
      y += 0.3 * choice + 0.4 * (choice == before);
      before = choice;
    }
    data.y.push_back(y);
  }
  return data;
}

RegressorConfig small_config() {
  RegressorConfig config;
  config.mlp.hidden = {16, 8};
  config.mlp.epochs = 4;
  config.mlp.batch = 16;
  config.members = 2;
  config.seed = 3;
  return config;
}

TEST(EmulatedPredictor, TrainingEqualsTheCpus) {
  const Dataset train = architectures(64, 8, 1), test = architectures(30, 8, 2);
  Stream host(Device::cpu, 1), device(Device::cuda, 1);
  for (const bool skip : {true, false}) {  // beside the linear model, and the networks alone
    SCOPED_TRACE(skip);
    RegressorConfig config = small_config();
    config.skip = skip;
    const Regressor expected = Regressor::fit(train, config, host),
                    found = Regressor::fit(train, config, device);
    EXPECT_EQ(found.device(), Device::cuda);
    EXPECT_EQ(found.best_epochs(), expected.best_epochs());
    EXPECT_DOUBLE_EQ(found.shrink(), expected.shrink());
    const std::vector<double> a = found.predict(test), b = expected.predict(test);
    ASSERT_EQ(a.size(), b.size());
    // 16 steps of Adam, which divides by the root of small second moments, magnify fp32 rounding.
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4 * b[i]) << i;

    const TempFolder folder;
    const std::string path = folder / "predictor.safetensors";
    found.save(path);
    EXPECT_EQ(Regressor::load(path, Device::cuda).predict(test), a);
    const std::vector<double> on_host = found.to(Device::cpu).predict(test);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(on_host[i], a[i], 1e-5 * a[i]) << i;
  }
}

TEST(EmulatedPredictor, TheSameSeedGivesTheSameBitsInAnyThreadOrder) {
  const Dataset train = architectures(40, 6, 1), test = architectures(20, 6, 2);
  Stream device(Device::cuda, 1);
  RegressorConfig config = small_config();
  config.skip = false;
  const std::vector<double> first = Regressor::fit(train, config, device).predict(test);
  const simt::ScopedSettings scope({simt::Order::shuffled, 5});
  EXPECT_EQ(Regressor::fit(train, config, device).predict(test), first);
}

// A regressor of 224 inputs, and the latency term's gradient with respect to both alphas.
std::vector<float> alpha_gradient(const Regressor& regressor, LatencyMode mode, bool recorded) {
  const Device device = regressor.device();
  Stream stream(device, 1);
  Tape tape(device);
  ParameterStore architecture(device);
  add_architecture(architecture, true);
  Var alpha[2], beta[2];
  const char* kinds[2] = {"normal", "reduce"};
  for (int kind = 0; kind < 2; ++kind) {
    alpha[kind] = tape.parameter(architecture, architecture.find(join("alpha_", kinds[kind])));
    beta[kind] = tape.parameter(architecture, architecture.find(join("beta_", kinds[kind])));
  }
  LatencyLossConfig config;
  config.mode = mode, config.lambda = 2, config.reference_ms = 3;
  LatencyLoss loss(tape, alpha, beta, regressor, config);
  architecture.allocate(7);
  Plan plan(tape, {.outputs = {loss.latency_ms}, .loss = loss.term, .wanted = {&architecture}},
            std::make_shared<Workspace>(device));
  plan.bind();
  loss.set_step(stream, 4);
  const auto step = [&] {
    loss.draw(stream, 11);
    plan.forward(stream);
    plan.backward(stream);
  };
  step();
  if (recorded) {  // a recording refuses copies to and from the host
    Graph graph;
    graph.record(stream, step);
    graph.replay(stream);
  }
  std::vector<float> gradient(size_t(architecture.slab_floats()));
  download(stream, gradient.data(), architecture.grads(), gradient.size() * sizeof(float));
  return gradient;
}

TEST(EmulatedPredictor, TheLatencyGradientReachesAlphaOnTheDevice) {
  Dataset data = architectures(40, 1, 1);
  data.columns = kCodeSize;
  data.x.clear();
  Random random(5);
  for (int r = 0; r < data.rows; ++r) {
    for (int row = 0; row < kCodeSize / 8; ++row) {
      float ops[8] = {};
      ops[random.below(8)] = 1;
      data.x.insert(data.x.end(), ops, ops + 8);
    }
    data.y[size_t(r)] = 2 + double(random.below(100)) / 50;
  }
  RegressorConfig config = small_config();
  config.mlp.epochs = 1;
  config.skip = false;
  Stream host(Device::cpu, 1);
  const Regressor on_host = Regressor::fit(data, config, host), on_device = on_host.to(Device::cuda);
  for (const LatencyMode mode : {LatencyMode::soft, LatencyMode::hard, LatencyMode::sample}) {
    SCOPED_TRACE(latency_mode_name(mode));
    const std::vector<float> expected = alpha_gradient(on_host, mode, false),
                             found = alpha_gradient(on_device, mode, true);
    ASSERT_EQ(found.size(), expected.size());
    double difference = 0, norm = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      difference += std::pow(double(found[i]) - double(expected[i]), 2);
      norm += std::pow(double(expected[i]), 2);
    }
    EXPECT_GT(norm, 0);
    EXPECT_LE(std::sqrt(difference / norm), 1e-5);
  }
}

}  // namespace
}  // namespace lanas
