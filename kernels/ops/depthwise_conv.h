// depthwise_conv.h -- y[n,oy,ox,c] = sum over ky,kx of w[ky,kx,c] x[n, oy*stride - padding + ky*dilation,
// ..., c]; taps outside the image are zero. The plain form: the fused separable convolution is tested against
// it. Weights [1,k,k,c], packed; x, y and their gradients may be strided views.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// y [n, (h + 2 padding - dilation (k-1) - 1) / stride + 1, ..., c]; throws Error for other shapes.
void depthwise_conv_forward(Stream& stream, Tensor y, Tensor x, Tensor w, int stride, int padding,
                            int dilation);
// dx and dw are skipped where null; each has its BLAS beta. x is read for dw only, w for dx only.
void depthwise_conv_backward(Stream& stream, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, int stride,
                             int padding, int dilation, float beta_dx, float beta_dw);

namespace host {
template <class T>
void depthwise_conv_forward(View<T> y, View<T> x, View<T> w, int stride, int padding, int dilation);
template <class T>
void depthwise_conv_backward(View<T> dx, View<T> dw, View<T> dy, View<T> x, View<T> w, int stride,
                             int padding, int dilation, T beta_dx, T beta_dw);
}  // namespace host

}  // namespace lanas
