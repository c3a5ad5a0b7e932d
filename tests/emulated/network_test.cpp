// network_test.cpp -- whole steps on the emulated device: both kinds of supernet, an alpha step and a weight
// step against the cpu's; the captured search step, replayed, against the eager one, bit for bit; a derived
// network's training step and its folded form.
#include "nas/network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "autograd/optimizer.h"
#include "autograd/plan.h"
#include "kernels/core/graph.h"
#include "kernels/core/random.cuh"
#include "kernels/core/simt.h"
#include "kernels/core/simt_memory.h"
#include "nas/supernet.h"

namespace lanas::test {
namespace {

using Values = std::map<std::string, std::vector<float>>;

std::vector<float> download_all(Device device, Tensor t) {
  std::vector<float> values(size_t(t.size()));
  download(device, values.data(), t.data, values.size() * sizeof(float));
  return values;
}

// Images and labels of batch number `seed`.
void load_batch(Tape& tape, Var images, Var labels, int classes, uint64_t seed) {
  Random random(seed);
  std::vector<float> pixels(size_t(tape.shape(images).size()));
  for (float& v : pixels) v = random.normal();
  std::vector<int> drawn(size_t(tape.shape(labels).size()));
  for (int& label : drawn) label = int(random.below(uint32_t(classes)));
  upload(tape.device(), tape.data(images).data, pixels.data(), pixels.size() * sizeof(float));
  upload(tape.device(), tape.data(labels).data, drawn.data(), drawn.size() * sizeof(int));
}

void collect(Values& all, const std::string& prefix, const ParameterStore& store, bool gradients) {
  for (size_t i = 0; i < store.entries().size(); ++i)
    all[prefix + store.entries()[i].name] =
        download_all(store.device(), gradients ? store.grad(int(i)) : store.value(int(i)));
}

// ||a - b|| <= tolerance ||b|| per tensor; tensors that are rounding errors (gradients of what a batch norm
// removes) are compared with the norm of all of them.
void expect_close(const Values& found, const Values& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  double total = 0;
  for (const auto& [name, values] : expected)
    for (const float v : values) total += double(v) * double(v);
  for (const auto& [name, b] : expected) {
    const std::vector<float>& a = found.at(name);
    ASSERT_EQ(a.size(), b.size()) << name;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      difference += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
      norm += double(b[i]) * double(b[i]);
    }
    EXPECT_LE(std::sqrt(difference), tolerance * (std::sqrt(norm) + 1e-3 * std::sqrt(total))) << name;
  }
}

// A supernet with all that a search step needs.
class SearchSetup {
 public:
  SearchSetup(Device device, const SupernetConfig& config)
      : config_(config),
        stream_(device, 1),
        weights_(device),
        buffers_(device),
        architecture_(device),
        net_(config, weights_, buffers_, architecture_) {
    for (ParameterStore* store : {&weights_, &buffers_, &architecture_}) store->allocate(1);
    auto workspace = std::make_shared<Workspace>(device);
    alpha_.emplace(net_.tape, PlanOptions{{net_.loss}, net_.loss, {&architecture_}, {}, true}, workspace);
    weight_.emplace(net_.tape, PlanOptions{{net_.loss}, net_.loss, {&weights_}, {}, true}, workspace);
    alpha_->update_statistics = weight_->update_statistics = true;
    sgd_.emplace(weights_, 0.9f, 3e-4f, 5.0f);
    sgd_->set_lr(0.05f);
    adam_.emplace(architecture_, 6e-4f, 0.5f, 0.999f, 1e-3f);
  }

  void load(uint64_t seed) { load_batch(net_.tape, net_.images, net_.labels, config_.classes, seed); }
  void alpha_gradient() {
    alpha_->forward(stream_);
    alpha_->backward(stream_);
  }
  void weight_gradient() {
    weight_->forward(stream_);
    weight_->backward(stream_);
  }
  void adam() { adam_->step(stream_); }
  void sgd() { sgd_->step(stream_); }
  void step() {  // both levels, on the batch that is loaded
    alpha_gradient();
    adam();
    weight_gradient();
    sgd();
  }
  Stream& stream() { return stream_; }

  Values gradients(bool architecture) {
    Values all;
    collect(all, "gradient of ", architecture ? architecture_ : weights_, true);
    return all;
  }
  float weight_loss() { return download_all(stream_.device(), weight_->value(net_.loss))[0]; }
  Values state() {
    Values all;
    collect(all, "", weights_, false);
    collect(all, "", buffers_, false);
    collect(all, "", architecture_, false);
    return all;
  }

 private:
  SupernetConfig config_;
  Stream stream_;
  ParameterStore weights_, buffers_, architecture_;
  Supernet net_;
  std::optional<Plan> alpha_, weight_;
  std::optional<Sgd> sgd_;
  std::optional<Adam> adam_;
};

class EmulatedSupernet : public testing::TestWithParam<SupernetConfig> {};

TEST_P(EmulatedSupernet, StepsEqualTheCpus) {
  const simt::Access open;  // once: opening device memory for every launch costs more than the launch
  SearchSetup cpu(Device::cpu, GetParam()), cuda(Device::cuda, GetParam());
  for (SearchSetup* setup : {&cpu, &cuda}) {
    setup->load(11);
    setup->alpha_gradient();
  }
  expect_close(cuda.gradients(true), cpu.gradients(true), 1e-3);
  for (SearchSetup* setup : {&cpu, &cuda}) {
    setup->adam();
    setup->load(12);
    setup->weight_gradient();
  }
  EXPECT_NEAR(cuda.weight_loss(), cpu.weight_loss(), 1e-5 * cpu.weight_loss());
  expect_close(cuda.gradients(false), cpu.gradients(false), 1e-3);
  for (SearchSetup* setup : {&cpu, &cuda}) {
    setup->sgd();
    setup->load(13);
    setup->step();
  }
  EXPECT_NEAR(cuda.weight_loss(), cpu.weight_loss(), 1e-4 * cpu.weight_loss());
  expect_close(cuda.state(), cpu.state(), 1e-3);
}

class CapturedSupernet : public EmulatedSupernet {};

TEST_P(CapturedSupernet, StepInAnotherThreadOrderEqualsEager) {
  const simt::Access open;
  SearchSetup eager(Device::cuda, GetParam()), captured(Device::cuda, GetParam());
  for (SearchSetup* setup : {&eager, &captured}) {
    setup->load(21);
    setup->step();
  }
  Graph graph;
  graph.record(captured.stream(), [&] { captured.step(); });
  for (SearchSetup* setup : {&eager, &captured}) setup->load(22);
  eager.step();
  {
    const simt::ScopedSettings scope({simt::Order::shuffled, 3});
    graph.replay(captured.stream());
  }
  EXPECT_TRUE(captured.state() == eager.state());
}

constexpr SupernetConfig kDarts{4, 3, 5, 8, 2, 1, false}, kPcDarts{8, 3, 5, 8, 2, 4, true};
const auto name_of_kind = [](const auto& test) { return test.param.partial == 1 ? "darts" : "pc_darts"; };
INSTANTIATE_TEST_SUITE_P(Kinds, EmulatedSupernet, testing::Values(kDarts, kPcDarts), name_of_kind);
INSTANTIATE_TEST_SUITE_P(Slow, CapturedSupernet, testing::Values(kDarts, kPcDarts), name_of_kind);

// Drops some paths, as training does.
void load_masks(Network& net) {
  for (size_t i = 0; i < net.drop_masks.size(); ++i) {
    const Tensor mask = net.tape.data(net.drop_masks[i]);
    std::vector<float> values(size_t(mask.size()));
    for (size_t n = 0; n < values.size(); ++n) values[n] = (i + n) % 5 == 0 ? 0.0f : 1.25f;
    upload(net.tape.device(), mask.data, values.data(), values.size() * sizeof(float));
  }
}

Values train_derived(Device device) {
  const simt::Access open;
  Stream stream(device, 1);
  ParameterStore weights(device), buffers(device);
  NetworkConfig config{4, 3, 5, 32, 2, true, 0.4f, 0.1f};
  config.drop_path = true;
  Network net(config, resolve_genotype("DARTS_V2"), weights, buffers);
  weights.allocate(3);
  buffers.allocate(3);
  Plan plan(net.tape, {{net.logits, net.loss}, net.loss, {&weights}, {}, true},
            std::make_shared<Workspace>(device));
  plan.update_statistics = true;
  Sgd sgd(weights, 0.9f, 3e-4f, 5);
  sgd.set_lr(0.05f);
  Values all;
  load_batch(net.tape, net.images, net.labels, config.classes, 31);
  load_masks(net);
  plan.forward(stream);
  plan.backward(stream);
  all["logits"] = download_all(device, plan.value(net.logits));
  all["loss"] = download_all(device, plan.value(net.loss));
  collect(all, "gradient of ", weights, true);
  sgd.step(stream);
  collect(all, "", weights, false);
  collect(all, "", buffers, false);
  return all;
}

TEST(EmulatedNetwork, TrainingStepEqualsTheCpus) {
  expect_close(train_derived(Device::cuda), train_derived(Device::cpu), 1e-3);
}

std::vector<float> infer(Device device) {
  Stream stream(device, 1);
  ParameterStore folded(device);
  InferenceNetwork net({4, 3, 5, 16, 2}, resolve_genotype("DARTS_V2"), folded);
  folded.allocate(4);
  std::vector<float> images(size_t(net.tape.shape(net.images).size()));
  Random random(5);
  for (float& v : images) v = random.normal();
  Plan plan(net.tape, {{net.logits}}, std::make_shared<Workspace>(device));
  upload(device, net.tape.data(net.images).data, images.data(), images.size() * sizeof(float));
  plan.forward(stream);
  return download_all(device, plan.value(net.logits));
}

TEST(EmulatedNetwork, FoldedInferenceEqualsTheCpus) {
  expect_close({{"logits", infer(Device::cuda)}}, {{"logits", infer(Device::cpu)}}, 1e-4);
}

}  // namespace
}  // namespace lanas::test
