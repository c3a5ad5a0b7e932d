// drop_path.h -- y[n,...] = x[n,...] * mask[n]: drops whole paths per sample (Larsson et al., "FractalNet",
// ICLR 2017). mask[n] is 0 with probability p, else 1 / (1 - p), so the mean is kept. Backward: dx[n,...] =
// dy[n,...] * mask[n].
#pragma once

#include <cstdint>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// x and y [n,h,w,c], mask [n].
void drop_path_forward(Stream& stream, Tensor y, Tensor x, const float* mask);
void drop_path_backward(Stream& stream, Tensor dx, Tensor dy, const float* mask, float beta);
// Fills mask [n] with draws of (seed, id, *step); every path has its own id. *probability in [0, 1); at 1 and
// above every path is dropped.
void drop_path_mask(Stream& stream, float* mask, int n, const float* probability, uint64_t seed, uint32_t id,
                    const uint64_t* step);

namespace host {
template <class T>
void drop_path_forward(View<T> y, View<T> x, const T* mask);
template <class T>
void drop_path_backward(View<T> dx, View<T> dy, const T* mask, T beta);
}  // namespace host

}  // namespace lanas
