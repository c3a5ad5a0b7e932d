// second_order.h -- the architecture gradient of second-order DARTS (Liu et al. 2019) by finite differences
// on the weights' slab. eta: learning rate of the weights, m: their momentum buffer, d: weight decay.
//   w' = w - eta (momentum m + grad_w L_train(w) + d w);   g = grad_alpha L_val(w');   v = grad_w' L_val(w')
//   R = 0.01 / ||v||;   h = [grad_alpha L_train(w + R v) - grad_alpha L_train(w - R v)] / (2 R)
//   gradient of alpha = g - eta h
#pragma once

#include <functional>
#include <memory>

#include "autograd/optimizer.h"
#include "autograd/plan.h"

namespace lanas {

class SecondOrder {
 public:
  // `loss` is cross entropy, `alpha_loss` the same plus what else alpha is to minimise; both on `tape`, as
  // are `outputs`, which after_valid can read. The stores and the tape must outlive this.
  SecondOrder(const Tape& tape, Var loss, Var alpha_loss, std::vector<Var> outputs,
              const ParameterStore& weights, const ParameterStore& architecture,
              std::shared_ptr<Workspace> workspace);

  // Leaves the gradient in the architecture's slab, and weights and running statistics as they were; the
  // gradients of the weights are overwritten. after_valid sees the passes at w'. load_train and load_valid
  // fill the tape's inputs; each is called before the passes that need its batch. Reads one number back (the
  // norm of v).
  void gradient(Stream& stream, const Sgd& sgd, float momentum, float weight_decay,
                const std::function<void()>& load_train, const std::function<void()>& load_valid,
                const std::function<void(Plan& at_unrolled)>& after_valid = {});

  Tensor direct() const { return row(direct_); }            // g of the last call, as a row of the slab
  Tensor hessian_product() const { return row(product_); }  // its h
  float v_norm() const { return v_norm_; }                  // its ||v||

 private:
  Tensor row(const Memory& memory) const;

  const ParameterStore &weights_, &architecture_;
  Plan train_, valid_, trial_;  // gradients for the weights, for both, for the architecture
  Memory saved_, direct_, product_, sum_;
  float v_norm_ = 0;
};

}  // namespace lanas
