#include "nas/second_order.h"

#include <cmath>

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
      sum_(weights.device(), sizeof(float)) {}

Tensor SecondOrder::row(const Memory& memory) const { return slab(memory.floats(), architecture_); }

void SecondOrder::gradient(Stream& stream, const Sgd& sgd, float momentum, float weight_decay,
                           const std::function<void()>& load_train, const std::function<void()>& load_valid,
                           const std::function<void(Plan& at_unrolled)>& after_valid) {
  const Tensor w = slab(weights_.values(), weights_), saved = slab(saved_.floats(), weights_);
  const Tensor w_grad = slab(weights_.grads(), weights_), grad = slab(architecture_.grads(), architecture_);
  const Tensor buffer = slab(const_cast<float*>(sgd.momentum_buffer()), weights_);
  const float eta = sgd.lr();
  auto run = [&](Plan& plan) {
    plan.forward(stream);
    plan.backward(stream);
  };
  copy_scaled(stream, saved, w, 1, 0);
  load_train();
  run(train_);
  copy_scaled(stream, w, saved, 1 - eta * weight_decay, 0);
  add_scaled(stream, w, buffer, -eta * momentum);
  add_scaled(stream, w, w_grad, -eta);
  load_valid();
  run(valid_);
  if (after_valid) after_valid(valid_);
  copy_scaled(stream, direct(), grad, 1, 0);
  sum_of_squares(stream, sum_.floats(), weights_.grads(), weights_.slab_floats());
  download(stream, &v_norm_, sum_.data(), sizeof v_norm_);
  v_norm_ = std::sqrt(v_norm_);
  if (!(v_norm_ > 0)) {  // nothing to differentiate along
    fill(stream, hessian_product(), 0);
    copy_scaled(stream, w, saved, 1, 0);
    return;
  }
  const float radius = 0.01f / v_norm_;
  load_train();
  for (const float sign : {1.f, -1.f}) {  // v stays in the weights' gradients: trial_ does not write there
    copy_scaled(stream, w, saved, 1, 0);
    add_scaled(stream, w, w_grad, sign * radius);
    run(trial_);
    copy_scaled(stream, hessian_product(), grad, sign / (2 * radius), sign > 0 ? 0.f : 1.f);
  }
  copy_scaled(stream, w, saved, 1, 0);
  copy_scaled(stream, grad, direct(), 1, 0);
  add_scaled(stream, grad, hessian_product(), -eta);
}

}  // namespace lanas
