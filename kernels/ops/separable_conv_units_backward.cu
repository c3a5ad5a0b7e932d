// separable_conv_units_backward.cu -- separable_conv on the device, backward: the kernels of
// separable_conv_backward.cuh.
#include "kernels/ops/separable_conv_backward.cuh"
#include "kernels/ops/separable_conv_units.h"

namespace lanas {

// dd of all units stands in the op's scratch.
size_t units_backward_scratch_bytes(std::span<const SeparableConv<float>> ops,
                                    std::span<const SeparableInput> inputs) {
  const std::vector<UnitInput> each = unit_inputs(inputs);
  int64_t floats = 0;
  for (size_t u = 0; u < ops.size(); ++u)
    floats += ops[u].output_shape(each[u].x.shape()).pixels() * each[u].x.c;
  return size_t(floats) * sizeof(float);
}

void launch_units_backward(Stream& stream, std::span<const SeparableConv<float>> ops,
                           std::span<const SeparableConvGradient<float>> gradients,
                           std::span<const GradientView<float>> dys, std::span<const SeparableInput> inputs,
                           float* scratch) {
  const std::vector<UnitInput> each = unit_inputs(inputs);
  for_batches(ops, each, [&](size_t begin, size_t end) {
    const auto part = [&](auto span) { return span.subspan(begin, end - begin); };
    const Shape y = dys[begin].shape();
    const UnitsBackward all{part(ops),
                            part(gradients),
                            part(dys),
                            part(std::span(each)),
                            Tensor(scratch, {y.n, y.h, y.w, each[begin].x.c}),
                            y};
    bool input = false, depthwise = false;
    for (const SeparableConvGradient<float>& g : all.gradients) {
      input = input || g.dx || g.norm.dgamma || g.norm.dbeta;
      depthwise = depthwise || g.d_depthwise;
    }
    if (input || depthwise) launch_dd(stream, all);
    Additions additions = {};
    float* partial = static_cast<float*>(stream_scratch(stream, kStreamScratch));
    launch_pointwise_gradients(stream, all, partial, kPartialFloats / 2, additions);
    launch_depthwise_gradients(stream, all, partial + kPartialFloats / 2, kPartialFloats / 2, additions);
    launch_additions(stream, additions);
    if (input) launch_input_gradients(stream, all);
  });
}

}  // namespace lanas
