// second_order.h -- the architecture gradient of second-order DARTS (Liu et al. 2019) by finite differences
// on the weights' slab. eta: learning rate of the weights, m: their momentum buffer, d: weight decay.
//   w' = w - eta (momentum m + grad_w L_train(w) + d w);   g = grad_alpha L_val(w');   v = grad_w' L_val(w')
//   R = 0.01 / ||v||;   h = [grad_alpha L_train(w + R v) - grad_alpha L_train(w - R v)] / (2 R), 0 where v is
//   gradient of alpha = g - eta h
#pragma once

#include <memory>

#include "autograd/optimizer.h"
#include "autograd/plan.h"

namespace lanas {

class SecondOrder {
 public:
  // `loss` is cross entropy, `alpha_loss` the same plus what else alpha is to minimise; both on `tape`, as
  // are `outputs`, which at_unrolled() can give. The stores and the tape must outlive this.
  SecondOrder(const Tape& tape, Var loss, Var alpha_loss, std::vector<Var> outputs,
              const ParameterStore& weights, const ParameterStore& architecture,
              std::shared_ptr<Workspace> workspace);

  // The three parts of a step, called in this order; what stands between them is the loading of batches into
  // the tape's inputs. They launch only and read eta, m and d from sgd's state on the device, so each can be
  // recorded. Together they leave the gradient in the architecture's slab, and weights and running statistics
  // as they were; the gradients of the weights are overwritten.
  void unroll(Stream& stream, const Sgd& sgd);         // a training batch: the weights are w' from here on
  void validate(Stream& stream);                       // a validation batch: the passes at w', g and v
  void differentiate(Stream& stream, const Sgd& sgd);  // that training batch: h, and the gradient; back to w
  Plan& at_unrolled() { return valid_; }  // between validate and differentiate: the outputs at w'

  Tensor direct() const { return row(direct_); }            // g of the last call, as a row of the slab
  Tensor hessian_product() const { return row(product_); }  // its h
  float v_norm(Stream& stream) const;                       // its ||v||, read back

 private:
  Tensor row(const Memory& memory) const;

  const ParameterStore &weights_, &architecture_;
  Plan train_, valid_, trial_;  // gradients for the weights, for both, for the architecture
  Memory saved_, direct_, product_;
  Memory sum_, radius_, factor_;  // ||v||^2, R, 1 / (2 R): one float each
};

}  // namespace lanas
