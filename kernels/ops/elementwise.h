// elementwise.h -- relu, sums, scaled copies and fills over tensors [n,h,w,c] of equal shape, any pixel
// strides.
//   relu:  y = max(x, 0), NaN stays NaN;  dx = dy [x > 0] + beta dx     (x may be the output y instead)
//   sum:   y = x_0 + x_1 + ...            (its backward is copy_scaled with scale 1 for every x)
// relu_forward, copy_scaled with beta 0 and add_scaled may work in place; y of sum may be xs[0] but no other
// x. All throw Error when shapes differ.
#pragma once

#include <span>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

void relu_forward(Stream& stream, Tensor y, Tensor x);
void relu_backward(Stream& stream, Tensor dx, Tensor dy, Tensor x, float beta);
void sum_forward(Stream& stream, Tensor y, std::span<const Tensor> xs);         // at least one x
void copy_scaled(Stream& stream, Tensor y, Tensor x, float scale, float beta);  // y = scale x + beta y
void add_scaled(Stream& stream, Tensor y, Tensor x, float scale);               // y += scale x
// The same with s = scale *factor, a number in memory of the stream's device, so that a captured call can be
// replayed. Where s is 0 x counts for nothing, not even its NaNs.
void copy_scaled_by(Stream& stream, Tensor y, Tensor x, const float* factor, float scale,
                    float beta);  // y = s x + beta y
void fill(Stream& stream, Tensor x, float value);

namespace host {
template <class T>
void relu_forward(View<T> y, View<T> x);
template <class T>
void relu_backward(View<T> dx, View<T> dy, View<T> x, T beta);
template <class T>
void sum_forward(View<T> y, std::span<const View<T>> xs);
template <class T>
void copy_scaled(View<T> y, View<T> x, T scale, T beta);
template <class T>
void copy_scaled_by(View<T> y, View<T> x, const T* factor, T scale, T beta);
template <class T>
void fill(View<T> x, T value);
}  // namespace host

}  // namespace lanas
