#include "bench/training_step.h"

#include "kernels/core/random.cuh"
#include "nas/search.h"

namespace lanas::bench {

SupernetConfig supernet_config(const std::string& name) {
  CHECK(name == "darts" || name == "pc-darts", "--supernet: expected darts or pc-darts, found '", name, "'");
  return name == "darts" ? SupernetConfig::darts() : SupernetConfig::pc_darts();
}

void fill_inputs(Stream& stream, const Tape& tape, Var images, Var labels, int classes, uint64_t seed) {
  Random random(seed, 0x1A7E);
  std::vector<float> pixels(size_t(tape.shape(images).size()));
  for (float& v : pixels) v = random.normal();
  upload(stream, tape.data(images).data, pixels.data(), pixels.size() * sizeof(float));
  if (!labels) return;
  std::vector<int> classes_in_turn(size_t(tape.shape(labels).size()));
  for (size_t i = 0; i < classes_in_turn.size(); ++i) classes_in_turn[i] = int(i) % classes;
  upload(stream, tape.data(labels).data, classes_in_turn.data(), classes_in_turn.size() * sizeof(int));
}

TrainingStep::TrainingStep(Stream& stream, const SupernetConfig& config, uint64_t seed)
    : stream_(stream),
      weights_(stream.device()),
      buffers_(stream.device()),
      architecture_(stream.device()),
      workspace_(std::make_shared<Workspace>(stream.device())) {
  supernet_.emplace(config, weights_, buffers_, architecture_);
  loss_ = supernet_->loss;
  prepare(seed, supernet_->images, supernet_->labels, config.classes);
  alpha_plan_.emplace(tape(), PlanOptions{{loss_}, loss_, {&architecture_}, {}, true}, workspace_);
  alpha_plan_->update_statistics = true;
  const SearchConfig search;
  adam_.emplace(architecture_, search.alpha_lr, search.alpha_beta1, search.alpha_beta2,
                search.alpha_weight_decay);
}

TrainingStep::TrainingStep(Stream& stream, const NetworkConfig& config, const Genotype& genotype,
                           uint64_t seed)
    : stream_(stream),
      weights_(stream.device()),
      buffers_(stream.device()),
      architecture_(stream.device()),
      workspace_(std::make_shared<Workspace>(stream.device())) {
  network_.emplace(config, genotype, weights_, buffers_);
  loss_ = network_->loss;
  prepare(seed, network_->images, network_->labels, config.classes);
}

void TrainingStep::prepare(uint64_t seed, Var images, Var labels, int classes) {
  for (ParameterStore* store : {&weights_, &buffers_, &architecture_}) store->allocate(seed);
  fill_inputs(stream_, tape(), images, labels, classes, seed);
  weight_plan_.emplace(tape(), PlanOptions{{loss_}, loss_, {&weights_}, {}, true}, workspace_);
  weight_plan_->update_statistics = true;
  const SearchConfig search;
  sgd_.emplace(weights_, search.momentum, search.weight_decay, search.clip);
  sgd_->set_lr(0.01f);  // the size of the steps does not change their time
}

std::vector<TrainingStep::Part> TrainingStep::parts() {
  std::vector<Part> parts;
  if (alpha_plan_)
    parts.push_back(
        {"alpha", &*alpha_plan_, loss_, &architecture_, &TrainingStep::update_alpha, "adam", 4, 3});
  parts.push_back(
      {"weight", &*weight_plan_, loss_, &weights_, &TrainingStep::update_weights, "clip and sgd", 4, 2});
  return parts;
}

void TrainingStep::launch() {
  for (const Part& part : parts()) launch(part);
}

void TrainingStep::launch(const Part& part) {
  part.plan->forward(stream_);
  part.plan->backward(stream_);
  (this->*part.update)();
}

void TrainingStep::run() {
  const std::vector<Part> all = parts();
  for (size_t i = 0; i < all.size(); ++i) graphs_[i].run(stream_, [this, &part = all[i]] { launch(part); });
  stream_.synchronize();
}

double TrainingStep::loss() {
  float value = 0;
  download(stream_, &value, weight_plan_->value(loss_).data, sizeof value);
  return value;
}

TrainingStep::Bytes TrainingStep::bytes() const {
  auto slab = [](const ParameterStore& store) { return size_t(store.slab_floats()) * sizeof(float); };
  Bytes bytes;
  bytes.workspace = workspace_->bytes();
  bytes.parameters = bytes.gradients = slab(weights_) + slab(buffers_) + slab(architecture_);
  bytes.optimiser = slab(weights_) + 2 * slab(architecture_);  // momentum; Adam's two moments
  for (int id = 0; id < tape().values(); ++id) {
    const Tape::Value& value = tape().value({id});
    if (value.role == Tape::Role::input && value.base == id)
      bytes.inputs += align_up(size_t(value.shape.size()) * sizeof(float));
  }
  return bytes;
}

}  // namespace lanas::bench
