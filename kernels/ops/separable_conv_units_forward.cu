// separable_conv_units_forward.cu -- separable_conv on the device, forward: the kernels of
// separable_conv.cuh.
#include "kernels/ops/separable_conv.cuh"
#include "kernels/ops/separable_conv_units.h"

namespace lanas {
namespace {

// Units of one launch; quads: all take packs of 4, and all have a norm of x or none.
template <bool kNorm>
void launch_batch(Stream& stream, std::span<const SeparableConv<float>> ops,
                  std::span<const SeparableConvOutput<float>> outputs, std::span<const UnitInput> inputs,
                  const float* bias, float beta, float eps, bool quads) {
  UnitBatch<UnitForward<kNorm>> batch = {};
  UnitBatch<UnitStatistics> statistics = {};
  for (size_t u = 0; u < ops.size(); ++u) {
    const SeparableConvOutput<float>& out = outputs[u];
    batch.at[u] = {Unit::from(ops[u], inputs[u].x), out.y, bias, beta, pack_width(out.y) == 4};
    statistics.at[u] = {out.mean, out.inv_std, out.running_mean, out.running_var};
  }
  launch_products(stream, batch, int(ops.size()), outputs[0].y.shape(), inputs[0].x.c, quads,
                  outputs[0].mean ? &statistics : nullptr, eps);
}

}  // namespace

void launch_units(Stream& stream, std::span<const SeparableConv<float>> ops,
                  std::span<const SeparableConvOutput<float>> outputs, std::span<const SeparableInput> inputs,
                  const float* bias, float beta, float eps) {
  const std::vector<UnitInput> each = unit_inputs(inputs);
  for_batches(ops, each, [&](size_t begin, size_t end) {
    const auto part = [&](auto span) { return span.subspan(begin, end - begin); };
    bool quads = true;
    for (size_t u = begin; u < end; ++u) quads = quads && takes_quads(Unit::from(ops[u], each[u].x));
    const auto launch_part = ops[begin].norm || !quads ? launch_batch<true> : launch_batch<false>;
    launch_part(stream, part(ops), part(outputs), part(std::span<const UnitInput>(each)), bias, beta, eps,
                quads);
  });
}

}  // namespace lanas
