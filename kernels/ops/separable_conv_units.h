// separable_conv_units.h -- the cuda path of separable_conv: same contract as the public functions, shapes
// already checked. Its kernels, the largest of all, stand in two files, forward and backward, which are
// compiled side by side.
#pragma once

#include "kernels/ops/separable_conv.h"

namespace lanas {

// y = beta y + unit(x) + bias for every unit, and their statistics, where they go somewhere. bias: [cout] or
// null.
void launch_units(Stream& stream, std::span<const SeparableConv<float>> ops,
                  std::span<const SeparableConvOutput<float>> outputs, std::span<const SeparableInput> inputs,
                  const float* bias, float beta, float eps);

size_t units_backward_scratch_bytes(std::span<const SeparableConv<float>> ops,
                                    std::span<const SeparableInput> inputs);
void launch_units_backward(Stream& stream, std::span<const SeparableConv<float>> ops,
                           std::span<const SeparableConvGradient<float>> gradients,
                           std::span<const GradientView<float>> dys, std::span<const SeparableInput> inputs,
                           float* scratch);

}  // namespace lanas
