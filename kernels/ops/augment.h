// augment.h -- training batches from resident 8-bit images, in one pass: y[r] =
// cutout(normalise(flip(crop(pad( images[indices[r]]))))), with normalise(v) = (v / 255 - mean) / std.
// Padding is black before normalising; the cutout square (DeVries and Taylor, arXiv 1708.04552) is zero after
// it, centred on any pixel and clipped at the borders. Each row's draws are Philox words of (seed, *step,
// row), so any step can be repeated.
#pragma once

#include <cstdint>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// padding 0, flip false, cutout 0: the plain evaluation transform, which draws nothing.
struct AugmentConfig {
  int padding = 0;    // pixels on every side; the crop's corner is uniform in [0, 2 padding] each way
  bool flip = false;  // left-right, with probability 1/2
  int cutout = 0;     // side of the square in pixels; 0: none
  float mean[3] = {0, 0, 0};
  float std[3] = {1, 1, 1};
  uint64_t seed = 0;
};

// images uint8 [any, h, w, 3], indices [batch], y [batch, h, w, 3] (may be strided), step one number in
// memory. Throws Error for another number of channels and for negative sizes or a std that is not positive.
void augment_forward(Stream& stream, Tensor y, const uint8_t* images, const int* indices,
                     const AugmentConfig& config, const uint64_t* step);

// labels[r] = all[indices[r]] for r in [0, batch): the labels of the same images, in the stream's memory.
// Error on the cpu where an index is not in [0, count).
void gather_labels(Stream& stream, int* labels, const int* all, int count, const int* indices, int batch);

namespace host {
template <class T>
void augment_forward(View<T> y, const uint8_t* images, const int* indices, const AugmentConfig& config,
                     uint64_t step);
}  // namespace host

}  // namespace lanas
