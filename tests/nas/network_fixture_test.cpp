// The derived network against an independent PyTorch program, and its folded form against itself.
#include <gtest/gtest.h>

#include "autograd/optimizer.h"
#include "autograd/plan.h"
#include "kernels/core/random.cuh"
#include "nas/network.h"
#include "nas/search_space.h"
#include "tests/support/fixture.h"
#include "tests/support/fixture_device.h"

namespace lanas::test {
namespace {

constexpr double kNetworkTolerance = 1e-4;

class DerivedFixture : public testing::Test {
 protected:
  DerivedFixture()
      : fixture_("derived"),
        net_({4, 3, 10, 32, 4, true, 0.4f, 0}, resolve_genotype("DARTS_V2"), weights_, buffers_) {
    weights_.allocate(1);
    buffers_.allocate(1);
    EXPECT_EQ(fixture_.copy_to("", weights_) + 1, int(weights_.entries().size()));
    const Tensor large = weights_.value(weights_.find("auxiliary.conv2"));
    for (int64_t i = 0; i < large.size();
         ++i) {  // its starting value comes by formula, see the fixtures' README
      uint32_t x = uint32_t(i) + 1;
      x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
      x = (x ^ (x >> 13)) * 0xC2B2AE35u;
      x = (x ^ (x >> 16)) >> 8;
      large.data[i] = 0.25f * (float(x) / 16777216.0f - 0.5f);
    }
    for (Var mask : net_.drop_masks) {
      const Tensor t = net_.tape.data(mask);
      std::fill_n(t.data, t.size(), 1.f);
    }
  }

  void load(const std::string& batch) {
    fixture_.copy_to(batch + ".images", net_.tape.data(net_.images));
    fixture_.copy_labels_to(batch + ".labels", net_.tape.data(net_.labels));
  }

  DeviceMemory open_;
  Stream stream_{kDevice};
  Fixture fixture_;
  ParameterStore weights_{kDevice}, buffers_{kDevice};
  Network net_;
  std::shared_ptr<Workspace> workspace_ = std::make_shared<Workspace>(kDevice);
};

TEST_F(DerivedFixture, EveryGradientMatches) {
  Plan plan(net_.tape, {{net_.logits, net_.auxiliary_logits, net_.loss}, net_.loss, {&weights_}, {}, true},
            workspace_);
  load("batch0");
  plan.forward(stream_);
  plan.backward(stream_);
  expect_match(fixture_, "logits", plan.value(net_.logits), kNetworkTolerance);
  expect_match(fixture_, "auxiliary_logits", plan.value(net_.auxiliary_logits), kNetworkTolerance);
  expect_match(fixture_, "loss", plan.value(net_.loss), kNetworkTolerance);
  for (size_t i = 0; i < weights_.entries().size(); ++i) {
    const std::string& name = weights_.entries()[i].name;
    if (name == "auxiliary.conv2") continue;
    expect_match(fixture_, "grad." + name, weights_.grad(int(i)), kNetworkTolerance);
  }
  const Tensor whole = weights_.grad(weights_.find("auxiliary.conv2"));
  Memory kept(Device::cpu, 16 * 4 * 128 * sizeof(float));
  for (int o = 0; o < 16; ++o) std::copy_n(whole.at(48 * o, 0, 0), 4 * 128, kept.floats() + o * 4 * 128);
  expect_match(fixture_, "grad.auxiliary.conv2.every48", Tensor(kept.floats(), {16, 2, 2, 128}),
               kNetworkTolerance);
}

TEST_F(DerivedFixture, ThreeStepsThenEvaluationMatch) {
  Plan train(net_.tape, {{net_.loss}, net_.loss, {&weights_}, {}, true}, workspace_);
  Plan evaluation(net_.tape, {.outputs = {net_.logits}}, workspace_);
  train.update_statistics = true;
  Sgd sgd(weights_, 0.9f, 3e-4f, 5);
  sgd.set_lr(0.025f);
  for (int step = 1; step <= 3; ++step) {
    load(step == 2 ? "batch1" : "batch0");
    train.forward(stream_);
    expect_match(fixture_, "step" + std::to_string(step) + ".loss", train.value(net_.loss),
                 kNetworkTolerance);
    train.backward(stream_);
    sgd.step(stream_);
  }
  for (const ParameterStore* store : {&weights_, &buffers_})
    for (size_t i = 0; i < store->entries().size(); ++i)
      if (store->entries()[i].name != "auxiliary.conv2")
        expect_match(fixture_, "step3." + store->entries()[i].name, store->value(int(i)), kNetworkTolerance);
  load("batch1");
  evaluation.forward(stream_);
  expect_match(fixture_, "eval.logits", evaluation.value(net_.logits), kNetworkTolerance);

  // The deployed form, batch norms folded, gives the same answers.
  ParameterStore folded(kDevice);
  InferenceNetwork inference({4, 3, 10, 32, 4}, resolve_genotype("DARTS_V2"), folded);
  folded.allocate(3);
  inference.fold(weights_, buffers_);
  fixture_.copy_to("batch1.images", inference.tape.data(inference.images));
  Plan deployed(inference.tape, {.outputs = {inference.logits}}, std::make_shared<Workspace>(kDevice));
  deployed.forward(stream_);
  expect_match(fixture_, "eval.logits", deployed.value(inference.logits), kNetworkTolerance);
  EXPECT_LT(deployed.bytes(), evaluation.bytes());
}

// Published genotypes with all seven ops at both strides, and others: the folded form equals the unfolded
// one.
TEST(InferenceNetwork, EqualsTheTrainedFormForEveryOp) {
  Stream stream;
  std::vector<PublishedGenotype> genotypes = published_genotypes();
  Random sample(2);
  for (int i = 0; i < 12; ++i) genotypes.push_back({"a sample", sample_genotype(sample)});
  for (const PublishedGenotype& published : genotypes) {
    const NetworkConfig config{8, 6, 10, 16, 2, false, 0.4f, 0};
    ParameterStore weights, buffers, folded;
    Network net(config, published.genotype, weights, buffers);
    InferenceNetwork inference(config, published.genotype, folded);
    for (ParameterStore* store : {&weights, &buffers, &folded}) store->allocate(5);
    Random random(9);
    for (size_t i = 0; i < buffers.entries().size(); ++i) {
      const Tensor t = buffers.value(int(i));
      for (int64_t k = 0; k < t.size(); ++k)
        t.data[k] =
            buffers.entries()[i].name.ends_with("var") ? 0.5f + random.uniform() : 0.2f * random.normal();
    }
    inference.fold(weights, buffers);
    const Tensor a = net.tape.data(net.images), b = inference.tape.data(inference.images);
    for (int64_t i = 0; i < a.size(); ++i) b.data[i] = a.data[i] = random.normal();
    Plan plain(net.tape, {.outputs = {net.logits}}, std::make_shared<Workspace>());
    Plan deployed(inference.tape, {.outputs = {inference.logits}}, std::make_shared<Workspace>());
    plain.forward(stream);
    deployed.forward(stream);
    const Tensor x = plain.value(net.logits), y = deployed.value(inference.logits);
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < x.size(); ++i) {
      difference += std::pow(x.data[i] - y.data[i], 2);
      norm += std::pow(x.data[i], 2);
    }
    EXPECT_LE(std::sqrt(difference / norm), 1e-5) << published.name;
  }
}

}  // namespace
}  // namespace lanas::test
