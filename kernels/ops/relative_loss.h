// relative_loss.h -- what the predictor is trained by: loss = sum over rows of weight (sqrt(1 + r^2) - 1), r
// = a u - b. With a = scale / (y delta) and b = (y - centre) / (y delta) about the absolute relative error in
// units of delta where it exceeds delta, half its square below (pseudo-Huber).
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// u [rows, 1] packed; coefficients [rows, 3] hold a, b, weight; loss: one number.
void relative_loss_forward(Stream& stream, float* loss, Tensor u, Tensor coefficients);
// dloss: one number in memory. du = beta du + ...
void relative_loss_backward(Stream& stream, Tensor du, Tensor u, Tensor coefficients, const float* dloss,
                            float beta);

namespace host {
template <class T>
void relative_loss_forward(T* loss, View<T> u, View<T> coefficients);
template <class T>
void relative_loss_backward(View<T> du, View<T> u, View<T> coefficients, const T* dloss, T beta);
}  // namespace host

}  // namespace lanas
