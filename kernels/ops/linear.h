// linear.h -- y[r] = w x[r] + bias for the rows of a [rows, in] matrix; w is [out, in].
// Backward: dx = dy w, dw = dy^T x, dbias = sum of dy over rows. A matrix is a view whose rows are pixels; x,
// y and their gradients may be strided, w and dw too.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// x [rows, in], w [out, in] (view n = out, c = in), bias [out] or null, y [rows, out].
void linear_forward(Stream& stream, Tensor y, Tensor x, Tensor w, const float* bias);
// dx, dw and dbias are skipped where null; each has its BLAS beta.
void linear_backward(Stream& stream, Tensor dx, Tensor dw, float* dbias, Tensor dy, Tensor x, Tensor w,
                     float beta_dx, float beta_dw, float beta_dbias);

namespace host {
template <class T>
void linear_forward(View<T> y, View<T> x, View<T> w, const T* bias);
template <class T>
void linear_backward(View<T> dx, View<T> dw, T* dbias, View<T> dy, View<T> x, View<T> w, T beta_dx, T beta_dw,
                     T beta_dbias);
}  // namespace host

}  // namespace lanas
