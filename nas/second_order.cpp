#include "nas/second_order.h"

#include <cmath>

#include "kernels/core/precision.h"
#include "kernels/ops/elementwise.h"

namespace lanas {
namespace {

Tensor slab(float* data, const ParameterStore& store) { return {data, {1, 1, 1, int(store.slab_floats())}}; }

Memory like(const ParameterStore& store) {
  return Memory(store.device(), size_t(store.slab_floats()) * sizeof(float));
}

}  // namespace

SecondOrder::SecondOrder(const Tape& tape, Var loss, Var alpha_loss, std::vector<Var> outputs,
                         const ParameterStore& weights, const ParameterStore& architecture,
                         std::shared_ptr<Workspace> workspace)
    : weights_(weights),
      architecture_(architecture),
      train_(tape, {{loss}, loss, {&weights}, {}, true}, workspace),
      valid_(tape, {std::move(outputs), alpha_loss, {&weights, &architecture}, {}, true}, workspace),
      trial_(tape, {{loss}, loss, {&architecture}, {}, true}, workspace),
      saved_(like(weights)),
      direct_(like(architecture)),
      product_(like(architecture)),
      sum_(weights.device(), sizeof(float)),
      radius_(weights.device(), sizeof(float)),
      factor_(weights.device(), sizeof(float)) {}

Tensor SecondOrder::row(const Memory& memory) const { return slab(memory.floats(), architecture_); }

void SecondOrder::unroll(Stream& stream, const Sgd& sgd) {
  copy_scaled(stream, slab(saved_.floats(), weights_), slab(weights_.values(), weights_), 1, 0);
  train_.forward(stream);
  train_.backward(stream);
  sgd_lookahead(stream, weights_.values(), sgd.momentum_buffer(), weights_.grads(), weights_.slab_floats(),
                sgd.state());
}

void SecondOrder::validate(Stream& stream) {
  valid_.forward(stream);
  valid_.backward(stream);
}

void SecondOrder::differentiate(Stream& stream, const Sgd& sgd) {
  const ScopedTf32 strict(false);  // the two trials differ by less than TF32 rounds
  const Tensor w = slab(weights_.values(), weights_), saved = slab(saved_.floats(), weights_);
  const Tensor v = slab(weights_.grads(), weights_);  // trial_ does not write there
  const Tensor grad = slab(architecture_.grads(), architecture_);
  copy_scaled(stream, direct(), grad, 1, 0);
  sum_of_squares(stream, sum_.floats(), v.data, weights_.slab_floats());
  difference_radius(stream, radius_.floats(), factor_.floats(), sum_.floats());
  for (const float sign : {1.f, -1.f}) {
    copy_scaled(stream, w, saved, 1, 0);
    copy_scaled_by(stream, w, v, radius_.floats(), sign, 1);
    trial_.forward(stream);
    trial_.backward(stream);
    copy_scaled_by(stream, hessian_product(), grad, factor_.floats(), sign, sign > 0 ? 0.f : 1.f);
  }
  copy_scaled(stream, w, saved, 1, 0);
  copy_scaled(stream, grad, direct(), 1, 0);
  copy_scaled_by(stream, grad, hessian_product(), &sgd.state()->lr, -1, 1);
}

float SecondOrder::v_norm(Stream& stream) const {
  float sum = 0;
  download(stream, &sum, sum_.data(), sizeof sum);
  return std::sqrt(sum);
}

}  // namespace lanas
