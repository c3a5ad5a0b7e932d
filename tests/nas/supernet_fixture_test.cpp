// The supernets against an independent PyTorch program: logits, loss, every gradient, three bilevel steps.
#include <gtest/gtest.h>

#include "autograd/optimizer.h"
#include "autograd/plan.h"
#include "nas/supernet.h"
#include "tests/support/fixture.h"
#include "tests/support/fixture_device.h"

namespace lanas::test {
namespace {

constexpr double kSupernetTolerance = 1e-4;

struct SupernetCase {
  const char* fixture;
  SupernetConfig config;
  float lr, alpha_lr;
};

class SupernetFixture : public testing::TestWithParam<SupernetCase> {
 protected:
  SupernetFixture()
      : fixture_(GetParam().fixture), net_(GetParam().config, weights_, buffers_, architecture_) {
    for (ParameterStore* store : {&weights_, &buffers_, &architecture_}) store->allocate(1);
    EXPECT_EQ(fixture_.copy_to("", weights_), int(weights_.entries().size()));
    EXPECT_EQ(fixture_.copy_to("", architecture_), int(architecture_.entries().size()));
  }

  void load(const std::string& batch) {
    fixture_.copy_to(batch + ".images", net_.tape.data(net_.images));
    fixture_.copy_labels_to(batch + ".labels", net_.tape.data(net_.labels));
  }

  DeviceMemory open_;
  Stream stream_{kDevice};
  Fixture fixture_;
  ParameterStore weights_{kDevice}, buffers_{kDevice}, architecture_{kDevice};
  Supernet net_;
  std::shared_ptr<Workspace> workspace_ = std::make_shared<Workspace>(kDevice);
};

TEST_P(SupernetFixture, EveryGradientMatches) {
  Plan plan(net_.tape,
            {{net_.logits, net_.loss}, net_.loss, {&weights_, &architecture_}, {net_.images}, true},
            workspace_);
  load("train");
  plan.forward(stream_);
  plan.backward(stream_);
  expect_match(fixture_, "logits", plan.value(net_.logits), kSupernetTolerance);
  expect_match(fixture_, "loss", plan.value(net_.loss), kSupernetTolerance);
  expect_match(fixture_, "grad.train.images", plan.grad(net_.images), kSupernetTolerance);
  for (const ParameterStore* store : {&weights_, &architecture_})
    for (size_t i = 0; i < store->entries().size(); ++i)
      expect_match(fixture_, "grad." + store->entries()[i].name, store->grad(int(i)), kSupernetTolerance);
}

TEST_P(SupernetFixture, ThreeBilevelStepsMatch) {
  Plan alpha(net_.tape, {{net_.loss}, net_.loss, {&architecture_}, {}, true}, workspace_);
  Plan weight(net_.tape, {{net_.loss}, net_.loss, {&weights_}, {}, true}, workspace_);
  alpha.update_statistics = weight.update_statistics = true;
  Sgd sgd(weights_, 0.9f, 3e-4f, 5);
  sgd.set_lr(GetParam().lr);
  Adam adam(architecture_, GetParam().alpha_lr, 0.5f, 0.999f, 1e-3f);
  for (int step = 1; step <= 3; ++step) {
    const std::string prefix = "step" + std::to_string(step) + ".";
    load("valid");
    alpha.forward(stream_);
    expect_match(fixture_, prefix + "valid_loss", alpha.value(net_.loss), kSupernetTolerance);
    alpha.backward(stream_);
    adam.step(stream_);
    load("train");
    weight.forward(stream_);
    expect_match(fixture_, prefix + "train_loss", weight.value(net_.loss), kSupernetTolerance);
    weight.backward(stream_);
    sgd.step(stream_);
    for (size_t i = 0; i < architecture_.entries().size(); ++i)
      expect_match(fixture_, prefix + architecture_.entries()[i].name, architecture_.value(int(i)),
                   kSupernetTolerance);
  }
  int running = 0;
  for (const ParameterStore* store : {&weights_, &buffers_}) {
    for (size_t i = 0; i < store->entries().size(); ++i) {
      const std::string name = "step3." + store->entries()[i].name;
      if (store == &buffers_ && !fixture_.has(name)) continue;  // the pools' batch norms
      expect_match(fixture_, name, store->value(int(i)), kSupernetTolerance);
      running += store == &buffers_;
    }
  }
  EXPECT_GT(running, 100);
}

INSTANTIATE_TEST_SUITE_P(
    All, SupernetFixture,
    testing::Values(SupernetCase{"supernet_darts", {4, 3, 10, 8, 4, 1, false}, 0.025f, 3e-4f},
                    SupernetCase{"supernet_pc_darts", {8, 3, 10, 8, 4, 4, true}, 0.1f, 6e-4f}),
    [](const auto& test) { return std::string(test.param.fixture); });

}  // namespace
}  // namespace lanas::test
