// conv2d_direct.h -- dense convolution on the cpu where the weights are few, such as a network's first: no
// column matrix is written. What a pixel of the output reads of one kernel row, kw * cin floats, lies
// together in a padded row of x, `stride` pixels further for the next: forward takes all kernel rows from
// there at once, backward one after the other, with separable_conv's product for weights.
#pragma once

#include <cstddef>

#include "kernels/core/tensor.h"

namespace lanas::cpu {

// What a dense convolution's work is cut into at most, whatever the thread count: partial weight gradients
// are added in their order.
constexpr int kMaxChunks = 16;

// Output channels in quads, and all weights in half of the smallest first cache.
inline bool conv2d_is_direct(Shape w, int dilation) {
  return dilation == 1 && w.n % 4 == 0 && w.size() <= 4096;
}

size_t conv2d_direct_scratch_bytes(Shape y, Shape x, Shape w, int stride, int padding);

// As in conv2d.h; shapes are checked there.
void conv2d_direct_forward(Tensor y, Tensor x, Tensor w, int stride, int padding, void* scratch);
void conv2d_direct_backward_weights(Tensor dw, Tensor dy, Tensor x, int stride, int padding, float beta,
                                    void* scratch);

}  // namespace lanas::cpu
