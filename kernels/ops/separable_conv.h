// separable_conv.h -- the unit that every convolution of the search space is made of:
//   y = pointwise(depthwise(relu(normalise(x)))), and in the same pass the batch statistics of y per channel.
// x [n,h,w,cin] -> y [n,ho,wo,cout] with ho = ceil((h - offset) / stride). Padding is dilation*(k-1)/2 zeros
// *after* normalise and ReLU. sep_conv is two units, dil_conv one, ReLUConvBN one without a depthwise part,
// FactorizedReduce two without a depthwise part, stride 2 and offset 0 and 1 (Liu et al., DARTS).
#pragma once

#include <cstddef>
#include <span>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/gradient_view.h"
#include "kernels/ops/norm.h"

namespace lanas {

template <class T>
struct SeparableConv {
  View<T> depthwise;  // [1,k,k,cin] packed, k odd; an empty view: no depthwise part
  View<T> pointwise;  // [cout,1,1,cin] packed
  NormView<T> norm;   // of x; its mean and inv_std are taken for the batch statistics of x in backward
  int stride = 1;     // 1 or 2
  int dilation = 1;
  int offset = 0;  // reads x at (stride*i + offset); 1 only without depthwise part and with stride 2
  bool relu = true;
  bool transposed = false;  // pointwise lies [cin][cout], as products read it; in inference alone

  bool has_depthwise() const { return depthwise.c > 0; }
  int kernel() const { return has_depthwise() ? depthwise.h : 1; }
  int padding() const { return dilation * (kernel() - 1) / 2; }
  Shape output_shape(Shape x) const {
    return {x.n, (x.h - offset + stride - 1) / stride, (x.w - offset + stride - 1) / stride, pointwise.n};
  }
};

// The gradients wanted: an empty view or null pointer is not computed. beta 0 overwrites, 1 adds.
template <class T>
struct SeparableConvGradient {
  View<T> dx;  // [n,h,w,cin], may be strided
  T beta_dx = 0;
  T* dx_factors = nullptr;  // [3][cin], only with op.norm and beta_dx 0: dx gets dz, and here go the factors
                            // of the gradient of x, a dz + b x + d (gradient_view.h)
  View<T> d_depthwise;      // as depthwise
  T beta_d_depthwise = 0;
  View<T> d_pointwise;  // as pointwise
  T beta_d_pointwise = 0;
  NormGradient<T> norm;  // dgamma, dbeta of op.norm
};

// Where a unit's result goes.
template <class T>
struct SeparableConvOutput {
  View<T> y;
  T *mean = nullptr, *inv_std = nullptr;  // [cout], 1/sqrt(biased variance + eps); both null: no statistics
  T *running_mean = nullptr, *running_var = nullptr;  // [cout], moved where not null: see batch_norm.h
};

// Scratch for one call on this stream (its thread count matters); only the shapes of op's weights are read.
size_t separable_conv_forward_scratch_bytes(const Stream& stream, const SeparableConv<float>& op, Shape x);
size_t separable_conv_backward_scratch_bytes(const Stream& stream, const SeparableConv<float>& op, Shape x);

// y_mean, y_inv_std: [cout], 1/sqrt(biased variance + eps); both null: no statistics. x, y may be strided.
// scratch: separable_conv_forward_scratch_bytes, 64-byte aligned.
void separable_conv_forward(Stream& stream, const SeparableConv<float>& op, Tensor y, Tensor x, float* y_mean,
                            float* y_inv_std, float eps, float* scratch);

// Takes what forward took (the depthwise result is computed again) and dy. With op.norm, dx includes the way
// through the batch statistics of x: dx = gamma inv_std (dz - mean(dz) - xhat mean(dz xhat)), where dz is the
// gradient of the normalised value behind the ReLU; dgamma = sum dz xhat, dbeta = sum dz.
void separable_conv_backward(Stream& stream, const SeparableConv<float>& op,
                             const SeparableConvGradient<float>& gradient, GradientView<float> dy, Tensor x,
                             float* scratch);

// The same for several units: input i is read by the next inputs[i].units of them. Units of one input have
// one stride and number of output channels, all a depthwise part and ReLU or none a depthwise part, no norm,
// and one dx, which gets the sum; the first one's beta_dx counts. On the cpu those with a depthwise part read
// x together; on a cuda device all units of one output shape go together, so that small ones fill it.
// scratch: only shapes of inputs and weights are read.
struct SeparableInput {
  Tensor x;
  int units = 1;
};
size_t separable_convs_forward_scratch_bytes(const Stream& stream, std::span<const SeparableConv<float>> ops,
                                             std::span<const SeparableInput> inputs);
size_t separable_convs_backward_scratch_bytes(const Stream& stream, std::span<const SeparableConv<float>> ops,
                                              std::span<const SeparableInput> inputs);
void separable_convs_forward(Stream& stream, std::span<const SeparableConv<float>> ops,
                             std::span<const SeparableConvOutput<float>> outputs,
                             std::span<const SeparableInput> inputs, float eps, float* scratch);
void separable_convs_backward(Stream& stream, std::span<const SeparableConv<float>> ops,
                              std::span<const SeparableConvGradient<float>> gradients,
                              std::span<const GradientView<float>> dys,
                              std::span<const SeparableInput> inputs, float* scratch);

// A path of inference, batch norms folded by the caller: y = second(first(x) + bias) + bias + added, or of
// one unit y = first(x) + bias + added. second has a depthwise part, ReLU, stride 1 and no norm.
struct SeparablePath {
  SeparableConv<float> first = {}, second = {};               // a second without weights: none
  const float *first_bias = nullptr, *second_bias = nullptr;  // [cout] or null
  Tensor y = {}, added = {};  // added: empty, y itself (also where a path before this one has written it) or
                              // another tensor of its shape
  bool rectified = false;     // y is stored as relu(y), for those that only read it so
  bool two_units() const { return second.pointwise.n > 0; }
};
// Paths in their order, whose first units read one x: with one stride, all a depthwise part and ReLU or only
// one path. Images are split into rows where the batch is smaller than the thread count. scratch: only shapes
// of weights are read.
size_t separable_convs_inference_scratch_bytes(const Stream& stream, std::span<const SeparablePath> paths,
                                               Shape x);
void separable_convs_inference(Stream& stream, std::span<const SeparablePath> paths, Tensor x,
                               float* scratch);

namespace host {  // the definition in plain loops; these allocate. T: float, double

template <class T>
void separable_conv_forward(const SeparableConv<T>& op, View<T> y, View<T> x, T* y_mean, T* y_inv_std, T eps);
template <class T>
void separable_conv_backward(const SeparableConv<T>& op, const SeparableConvGradient<T>& gradient,
                             GradientView<T> dy, View<T> x);
template <class T>
void separable_conv_inference(const SeparableConv<T>& op, View<T> y, View<T> x, const T* bias, View<T> added);

}  // namespace host
}  // namespace lanas
