// channel_shuffle_cpu.h -- the cpu path of channel_shuffle for 2 or 4 groups of a multiple of 4 channels:
// quads of floats, transposed in registers.
#pragma once

#include "kernels/core/tensor.h"

namespace lanas::cpu {

constexpr bool channel_shuffle_in_quads(int channels, int groups) {
  return (groups == 2 || groups == 4) && channels % (4 * groups) == 0;
}
void channel_shuffle_forward(Tensor y, Tensor first, Tensor rest);
void channel_shuffle_backward(Tensor dfirst, Tensor drest, Tensor dy, float beta_first, float beta_rest);

}  // namespace lanas::cpu
