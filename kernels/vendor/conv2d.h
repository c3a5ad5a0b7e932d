// conv2d.h -- dense convolution, NHWC, weights OHWI.
// y[n,oy,ox,o] = sum over ky,kx,i of w[o,ky,kx,i] x[n,iy,ix,i], iy = oy*stride - padding + ky*dilation and ix
// alike; taps outside the image are zero. x and y may be strided views, w and dw are packed. On the cpu
// one gemm for 1x1 kernels; few weights directly (conv2d_direct.h), but for the gradient of x; else im2col
// and gemm over groups of images. With more than one group the order of the sums does not depend on the
// thread count. On cuda gemm for 1x1 kernels, else cuDNN.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// Side of the output for a side of the input; 0 or less where the kernel does not fit.
constexpr int conv_output_size(int size, int kernel, int stride, int padding, int dilation) {
  const int room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

// Bytes of scratch that each of the three functions below needs for these shapes; may be 0, then scratch may
// be null. The content of scratch does not matter and is not kept.
size_t conv2d_scratch_bytes(Shape y, Shape x, Shape w, int stride, int padding, int dilation,
                            Device device = Device::cpu);

// x [n,h,w,cin], w [cout,kh,kw,cin], y [n,oh,ow,cout]. All three throw Error where shapes do not fit
// together.
void conv2d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, int stride, int padding, int dilation,
                    void* scratch);
// dx = beta dx + ...; beta 0 overwrites without reading.
void conv2d_backward_data(Stream& stream, Tensor dx, Tensor dy, Tensor w, int stride, int padding,
                          int dilation, float beta, void* scratch);
void conv2d_backward_weights(Stream& stream, Tensor dw, Tensor dy, Tensor x, int stride, int padding,
                             int dilation, float beta, void* scratch);

namespace host {
// The defining loops with sums in double: the oracle of the tests.
template <class T>
void conv2d_forward(View<T> y, View<T> x, View<T> w, int stride, int padding, int dilation);
template <class T>
void conv2d_backward_data(View<T> dx, View<T> dy, View<T> w, int stride, int padding, int dilation, T beta);
template <class T>
void conv2d_backward_weights(View<T> dw, View<T> dy, View<T> x, int stride, int padding, int dilation,
                             T beta);
}  // namespace host

}  // namespace lanas
