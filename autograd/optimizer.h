// optimizer.h -- SGD with momentum and Adam over a ParameterStore's slab, gradient clipping, and the cosine
// schedule. What changes from step to step (learning rate, step count, clipping scale) stands in device
// memory.
#pragma once

#include <string>

#include "autograd/checkpoint.h"
#include "autograd/parameters.h"
#include "kernels/ops/optimizer.h"

namespace lanas {

// Learning rate of epoch e (0-based) of `epochs`: min + (start - min) (1 + cos(pi e / epochs)) / 2.
float cosine_lr(float start, float min, int epoch, int epochs);

class Sgd {
 public:
  // max_norm: gradients are scaled so that their norm over the whole slab is at most this; 0: no clipping.
  Sgd(const ParameterStore& parameters, float momentum, float weight_decay, float max_norm);

  void set_lr(float lr);
  void step(Stream& stream);  // from the store's gradients
  void save(TensorFile& file, const std::string& prefix) const;
  void load(const TensorFile& file, const std::string& prefix, const std::string& path);
  // On the device: the momentum buffer, one number per float of the slab, and the state with the learning
  // rate.
  const float* momentum_buffer() const { return buffer_.floats(); }
  const SgdState* state() const { return state_; }

 private:
  const ParameterStore& parameters_;
  float max_norm_;
  Memory buffer_, state_memory_;
  SgdState* state_;  // on the device
};

class Adam {
 public:
  Adam(const ParameterStore& parameters, float lr, float beta1, float beta2, float weight_decay);

  void set_lr(float lr);
  void step(Stream& stream);
  void save(TensorFile& file, const std::string& prefix) const;
  void load(const TensorFile& file, const std::string& prefix, const std::string& path);

 private:
  const ParameterStore& parameters_;
  Memory m_, v_, state_memory_;
  AdamState* state_;  // on the device
};

}  // namespace lanas
