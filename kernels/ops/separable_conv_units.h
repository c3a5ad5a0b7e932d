// separable_conv_units.h -- the cuda path of separable_conv: same contract as the public functions, shapes
// already checked. Its kernels, the largest of all, stand in two files, forward and backward, which are
// compiled side by side.
#pragma once

#include "kernels/ops/separable_conv.h"

namespace lanas {

// Throws Error, of the op `name`, where a unit's weights, y and x do not belong together; on both devices.
void check_unit_shapes(const char* name, const SeparableConv<float>& op, Shape y, Shape x);

// Launched in stream order; throws Error where a y is too large for one kernel or its statistics for the
// stream's scratch. y = beta y + unit(x) + bias for every unit, and their statistics, where they go
// somewhere. bias: [cout] or null.
void launch_units(Stream& stream, std::span<const SeparableConv<float>> ops,
                  std::span<const SeparableConvOutput<float>> outputs, std::span<const SeparableInput> inputs,
                  const float* bias, float beta, float eps);

// Bytes of launch_units_backward's scratch, which holds dd = dy p of all units; only shapes are read.
size_t units_backward_scratch_bytes(std::span<const SeparableConv<float>> ops,
                                    std::span<const SeparableInput> inputs);
void launch_units_backward(Stream& stream, std::span<const SeparableConv<float>> ops,
                           std::span<const SeparableConvGradient<float>> gradients,
                           std::span<const GradientView<float>> dys, std::span<const SeparableInput> inputs,
                           float* scratch);

}  // namespace lanas
