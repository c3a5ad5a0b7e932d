// separable_conv_cpu.h -- the vectorised cpu path of separable_conv: same contract as the public functions,
// shapes already checked, on the OpenMP threads of the calling thread. Any channel count and any odd kernel.
#pragma once

#include "kernels/ops/separable_conv.h"

namespace lanas::cpu {

size_t separable_conv_forward_scratch_bytes(std::span<const SeparableConv<float>> ops, Shape x, int threads);
size_t separable_conv_backward_scratch_bytes(std::span<const SeparableConv<float>> ops, Shape x, int threads);
void separable_conv_forward(std::span<const SeparableConv<float>> ops,
                            std::span<const SeparableConvOutput<float>> outputs, Tensor x, float eps,
                            float* scratch);
void separable_conv_backward(std::span<const SeparableConv<float>> ops,
                             std::span<const SeparableConvGradient<float>> gradients,
                             std::span<const GradientView<float>> dys, Tensor x, float* scratch);
size_t separable_convs_inference_scratch_bytes(std::span<const SeparablePath> paths, Shape x, int threads);
void separable_convs_inference(std::span<const SeparablePath> paths, Tensor x, float* scratch);

}  // namespace lanas::cpu
