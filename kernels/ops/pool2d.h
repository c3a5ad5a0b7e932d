// pool2d.h -- max and average pooling of x [n,h,w,c] over kernel x kernel windows to y [n,oh,ow,c],
// oh = (h + 2 padding - kernel) / stride + 1 and likewise ow; kernel <= 8, padding <= kernel / 2.
//   max: y = the largest tap inside the image; its gradient goes to the first maximum in row-major order.
//   avg: y = the mean of the taps inside the image (padding is not counted).
// Backward: dx = (sum over the windows that hold the pixel) + beta dx. dy is the sum of dys, at least one; on
// a cuda device that is one without factors. All throw Error when shapes differ.
#pragma once

#include <span>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/gradient_view.h"

namespace lanas {

constexpr int kMaxPoolKernel = 8;

constexpr int pooled_size(int size, int kernel, int stride, int padding) {
  return (size + 2 * padding - kernel) / stride + 1;
}

void max_pool_forward(Stream& stream, Tensor y, Tensor x, int kernel, int stride, int padding);
void max_pool_backward(Stream& stream, Tensor dx, std::span<const GradientView<float>> dys, Tensor x,
                       int kernel, int stride, int padding, float beta);
void avg_pool_forward(Stream& stream, Tensor y, Tensor x, int kernel, int stride, int padding);
void avg_pool_backward(Stream& stream, Tensor dx, std::span<const GradientView<float>> dys, int kernel,
                       int stride, int padding, float beta);

namespace host {
template <class T>
void max_pool_forward(View<T> y, View<T> x, int kernel, int stride, int padding);
template <class T>
void max_pool_backward(View<T> dx, std::span<const GradientView<T>> dys, View<T> x, int kernel, int stride,
                       int padding, T beta);
template <class T>
void avg_pool_forward(View<T> y, View<T> x, int kernel, int stride, int padding);
template <class T>
void avg_pool_backward(View<T> dx, std::span<const GradientView<T>> dys, int kernel, int stride, int padding,
                       T beta);
}  // namespace host

}  // namespace lanas
