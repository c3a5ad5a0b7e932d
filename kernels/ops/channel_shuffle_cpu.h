// channel_shuffle_cpu.h -- the cpu path of channel_shuffle for 2 or 4 groups of a multiple of 4 channels, and
// at most kShuffleTerms tensors that bypass: quads of floats, transposed in registers.
#pragma once

#include "kernels/ops/channel_shuffle.h"

namespace lanas::cpu {

constexpr int kShuffleTerms = 8;
constexpr int64_t kShufflePart = 256;  // pixels whose sums for dweights are added up in floats
constexpr bool channel_shuffle_in_quads(int channels, int groups, size_t terms) {
  return (groups == 2 || groups == 4) && channels % (4 * groups) == 0 && terms <= kShuffleTerms;
}
void channel_shuffle_forward(Tensor y, Tensor first, const ShuffleRest<float>& rest);
// partials: [parts of kShufflePart pixels][terms], the sums for dweights of each part; null: not computed.
void channel_shuffle_backward(const ShuffleGradient<float>& gradient, Tensor dy,
                              const ShuffleRest<float>& rest, double* partials);

}  // namespace lanas::cpu
