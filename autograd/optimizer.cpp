#include "autograd/optimizer.h"

#include <cmath>
#include <numbers>
#include <vector>

namespace lanas {
namespace {

Memory zeros(const ParameterStore& parameters) {
  CHECK(parameters.allocated(), "optimizer: the parameters are not allocated");
  Memory memory(parameters.device(), parameters.slab_floats() * sizeof(float));
  const std::vector<char> nothing(memory.bytes(), 0);
  upload(memory.device(), memory.data(), nothing.data(), memory.bytes());
  return memory;
}

Tensor as_row(const Memory& memory, const ParameterStore& parameters) {
  return {memory.floats(), {1, 1, 1, int(parameters.slab_floats())}};
}

template <class State>
State* place(Memory& memory, Device device, const State& state) {
  memory = Memory(device, sizeof(State));
  upload(device, memory.data(), &state, sizeof state);
  return static_cast<State*>(memory.data());
}

}  // namespace

float cosine_lr(float start, float min, int epoch, int epochs) {
  return float(min + (start - min) * (1 + std::cos(std::numbers::pi * epoch / epochs)) / 2);
}

Sgd::Sgd(const ParameterStore& parameters, float momentum, float weight_decay, float max_norm)
    : parameters_(parameters), max_norm_(max_norm), buffer_(zeros(parameters)) {
  state_ = place(state_memory_, parameters.device(), SgdState{0, momentum, weight_decay, 1});
}

void Sgd::set_lr(float lr) { upload(parameters_.device(), &state_->lr, &lr, sizeof lr); }

void Sgd::step(Stream& stream) {
  const float* g = parameters_.grads();
  if (max_norm_ > 0) clip_scale(stream, &state_->gradient_scale, g, parameters_.slab_floats(), max_norm_);
  sgd_step(stream, parameters_.values(), buffer_.floats(), g, parameters_.slab_floats(), state_);
}

void Sgd::save(TensorFile& file, const std::string& prefix) const {
  file.put(prefix + "momentum", as_row(buffer_, parameters_), parameters_.device());
}

void Sgd::load(const TensorFile& file, const std::string& prefix, const std::string& path) {
  file.get(prefix + "momentum", as_row(buffer_, parameters_), path, parameters_.device());
}

Adam::Adam(const ParameterStore& parameters, float lr, float beta1, float beta2, float weight_decay)
    : parameters_(parameters), m_(zeros(parameters)), v_(zeros(parameters)) {
  state_ = place(state_memory_, parameters.device(), AdamState{lr, beta1, beta2, 1e-8f, weight_decay, 0});
}

void Adam::set_lr(float lr) { upload(parameters_.device(), &state_->lr, &lr, sizeof lr); }

void Adam::step(Stream& stream) {
  advance_step(stream, state_);
  adam_step(stream, parameters_.values(), m_.floats(), v_.floats(), parameters_.grads(),
            parameters_.slab_floats(), state_);
}

void Adam::save(TensorFile& file, const std::string& prefix) const {
  file.put(prefix + "m", as_row(m_, parameters_), parameters_.device());
  file.put(prefix + "v", as_row(v_, parameters_), parameters_.device());
  int64_t step = 0;
  download(parameters_.device(), &step, &state_->step, sizeof step);
  file.metadata[prefix + "step"] = std::to_string(step);
}

void Adam::load(const TensorFile& file, const std::string& prefix, const std::string& path) {
  file.get(prefix + "m", as_row(m_, parameters_), path, parameters_.device());
  file.get(prefix + "v", as_row(v_, parameters_), path, parameters_.device());
  auto found = file.metadata.find(prefix + "step");
  CHECK(found != file.metadata.end(), path, ": has no '", prefix, "step'");
  const int64_t step = std::stoll(found->second);
  upload(parameters_.device(), &state_->step, &step, sizeof step);
}

}  // namespace lanas
