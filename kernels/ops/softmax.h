// softmax.h -- softmax over consecutive segments of every row of a [rows, cols] matrix:
// y[r,i] = exp(x[r,i]) / sum over j in i's segment of exp(x[r,j]).
// Backward: dx[r,i] = y[r,i] (dy[r,i] - sum over j in i's segment of dy[r,j] y[r,j]).
// The segments' lengths are positive and add up to cols; a matrix is a view whose rows are pixels.
#pragma once

#include <span>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// x and y [rows, cols]; y may be x. Throws Error where shapes or segments do not fit.
void softmax_forward(Stream& stream, Tensor y, Tensor x, std::span<const int> segments);
// y is the output of forward; dx = beta dx + ...
void softmax_backward(Stream& stream, Tensor dx, Tensor dy, Tensor y, std::span<const int> segments,
                      float beta);

namespace host {
template <class T>
void softmax_forward(View<T> y, View<T> x, std::span<const int> segments);
template <class T>
void softmax_backward(View<T> dx, View<T> dy, View<T> y, std::span<const int> segments, T beta);
}  // namespace host

}  // namespace lanas
