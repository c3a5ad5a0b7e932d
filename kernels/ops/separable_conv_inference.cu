// separable_conv_inference.cu -- paths of units without gradients: the vectorised path of the cpu
// (separable_conv_cpu_inference.cpp), on a cuda device the training kernels, unit after unit.
#include <algorithm>

#include "kernels/core/check.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/separable_conv_cpu.h"
#include "kernels/ops/separable_conv_units.h"

namespace lanas {
namespace {

void check_paths(std::span<const SeparablePath> paths, Shape x) {
  const char* name = "separable_convs_inference";
  CHECK(!paths.empty(), name, ": no path");
  const SeparableConv<float>& head = paths[0].first;
  for (const SeparablePath& path : paths) {
    const SeparableConv<float>&first = path.first, &second = path.second;
    CHECK(paths.size() == 1 ||
              (first.has_depthwise() && first.relu && !first.norm && first.stride == head.stride),
          name, ": several paths have first units with depthwise parts and ReLU, one stride and no norm");
    const Shape half = first.output_shape(x);
    check_unit_shapes(name, first, path.two_units() ? half : path.y.shape(), x);
    if (path.two_units()) {
      CHECK(second.has_depthwise() && second.relu && !second.norm && second.stride == 1, name,
            ": a second unit has a depthwise part, ReLU, stride 1 and no norm");
      check_unit_shapes(name, second, path.y.shape(), half);
    }
    CHECK(!path.added || path.added.shape() == path.y.shape(), name, ": added ", path.added.shape(),
          " is not ", path.y.shape());
  }
}

}  // namespace

void separable_convs_inference(Stream& stream, std::span<const SeparablePath> paths, Tensor x,
                               float* scratch) {
  check_paths(paths, x.shape());
  stream.activate();
  if (stream.device() == Device::cpu) return cpu::separable_convs_inference(paths, x, scratch);
  const auto launch = [&](const SeparableConv<float>& op, Tensor y, Tensor from, const float* bias,
                          bool add) {
    const SeparableConvOutput<float> output{y};
    const SeparableInput input{from};
    launch_units(stream, {&op, 1}, {&output, 1}, {&input, 1}, bias, add ? 1.0f : 0.0f, 0);
  };
  for (const SeparablePath& path : paths) {
    const bool add = bool(path.added);
    if (add && path.added.data != path.y.data) copy_scaled(stream, path.y, path.added, 1, 0);
    if (!path.two_units()) {
      launch(path.first, path.y, x, path.first_bias, add);
    } else {
      const Tensor half(scratch, path.first.output_shape(x.shape()));
      launch(path.first, half, x, path.first_bias, false);
      launch(path.second, path.y, half, path.second_bias, add);
    }
    if (path.rectified) relu_forward(stream, path.y, path.y);
  }
}

size_t separable_convs_inference_scratch_bytes(const Stream& stream, std::span<const SeparablePath> paths,
                                               Shape x) {
  if (stream.device() == Device::cpu)
    return cpu::separable_convs_inference_scratch_bytes(paths, x, stream.threads());
  size_t bytes = 0;
  for (const SeparablePath& path : paths)
    if (path.two_units()) bytes = std::max(bytes, size_t(path.first.output_shape(x).size()) * sizeof(float));
  return bytes;
}

}  // namespace lanas
