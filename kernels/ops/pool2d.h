// pool2d.h -- max and average pooling of x [n,h,w,c] over kernel x kernel windows to y [n,oh,ow,c],
// oh = (h + 2 padding - kernel) / stride + 1 and likewise ow; padding <= kernel / 2.
//   max: y = the largest tap inside the image; its gradient goes to the first maximum in row-major order.
//   avg: y = the mean of the taps inside the image (padding is not counted).
// Backward: dx = (sum over the windows that hold the pixel) + beta dx. All throw Error when shapes differ.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

constexpr int pooled_size(int size, int kernel, int stride, int padding) {
  return (size + 2 * padding - kernel) / stride + 1;
}

void max_pool_forward(Stream& stream, Tensor y, Tensor x, int kernel, int stride, int padding);
void max_pool_backward(Stream& stream, Tensor dx, Tensor dy, Tensor x, int kernel, int stride, int padding,
                       float beta);
void avg_pool_forward(Stream& stream, Tensor y, Tensor x, int kernel, int stride, int padding);
void avg_pool_backward(Stream& stream, Tensor dx, Tensor dy, int kernel, int stride, int padding, float beta);

namespace host {
template <class T>
void max_pool_forward(View<T> y, View<T> x, int kernel, int stride, int padding);
template <class T>
void max_pool_backward(View<T> dx, View<T> dy, View<T> x, int kernel, int stride, int padding, T beta);
template <class T>
void avg_pool_forward(View<T> y, View<T> x, int kernel, int stride, int padding);
template <class T>
void avg_pool_backward(View<T> dx, View<T> dy, int kernel, int stride, int padding, T beta);
}  // namespace host

}  // namespace lanas
