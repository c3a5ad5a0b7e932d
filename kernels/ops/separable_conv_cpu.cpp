// separable_conv_cpu.cpp -- the cpu path of separable_conv.
#include "kernels/ops/separable_conv_cpu.h"

namespace lanas::cpu {

size_t separable_conv_scratch_bytes(const SeparableConv<float>&, Shape, int, bool) { return kAlignment; }

void separable_conv_forward(const SeparableConv<float>& op, Tensor y, Tensor x, float* y_mean, float* y_inv_std,
                            float eps, float*) {
  host::separable_conv_forward(op, y, x, y_mean, y_inv_std, eps);
}

void separable_conv_backward(const SeparableConv<float>& op, const SeparableConvGradient<float>& gradient,
                             Tensor dy, Tensor x, float*) {
  host::separable_conv_backward(op, gradient, dy, x);
}

void separable_conv_inference(const SeparableConv<float>& op, Tensor y, Tensor x, const float* bias, float beta,
                              float*) {
  host::separable_conv_inference(op, y, x, bias, beta);
}

}  // namespace lanas::cpu
