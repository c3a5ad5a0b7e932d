// mean_rows.h -- y[c] = mean over rows of x[r,c], for a [rows, cols] matrix. Backward: dx[r,c] = dy[c] /
// rows.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// x [rows,1,1,cols], y [1,1,1,cols]; dx = beta dx + ... Throws Error where shapes do not fit.
void mean_rows_forward(Stream& stream, Tensor y, Tensor x);
void mean_rows_backward(Stream& stream, Tensor dx, Tensor dy, float beta);

namespace host {
template <class T>
void mean_rows_forward(View<T> y, View<T> x);
template <class T>
void mean_rows_backward(View<T> dx, View<T> dy, T beta);
}  // namespace host

}  // namespace lanas
