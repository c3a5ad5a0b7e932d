// packs.cuh -- the frame of the elementwise kernels: a grid-stride loop over the packs of a view [pixels][c],
// 16 bytes a thread where c, the strides and the addresses allow it, and its launch.
//   template <int kPack> __global__ void relu_kernel(Tensor y, Tensor x) {
//     for_packs<kPack>(x, [=](int64_t pixel, int c) { ... load<kPack>(x.pixel(pixel) + c) ... });
//   }
//   flatten(y, x);
//   with_pack(pack_width(y, x), [&](auto pack) { launch(relu_kernel<pack()>, pack_blocks(x, pack), ...); });
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/core/reduce.cuh"
#include "kernels/core/tensor.h"

namespace lanas {

constexpr unsigned kPackThreads = 256;  // of a block

// body(pixel, first channel) for every pack of a view of this shape. Fewer than 2^31 packs: see pack_blocks.
template <int kPack, class Body>
__device__ __forceinline__ void for_packs(const Tensor& shape, Body body) {
  const unsigned per_pixel = unsigned(shape.c) / kPack, count = unsigned(shape.pixels()) * per_pixel;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    const unsigned pixel = i / per_pixel;
    body(int64_t{pixel}, int(i - pixel * per_pixel) * kPack);
  }
}

inline unsigned pack_blocks(const Tensor& shape, int pack) {
  const int64_t packs = shape.size() / pack;
  CHECK(packs < (int64_t{1} << 31), "a tensor of ", shape.shape(), " is too large for one kernel");
  return grid_blocks(packs, kPackThreads);
}

// Packed views of equal shape become one long pixel each, whose pack width does not depend on c.
template <class... Views>
void flatten(Views&... views) {
  if (!(... && (!views.data || (views.packed() && views.size() <= std::numeric_limits<int>::max())))) return;
  ((views = views.data ? Tensor(views.data, {1, 1, 1, int(views.size())}) : views), ...);
}

// use(std::integral_constant<int, width>()) for a width of 1, 2 or 4.
template <class Use>
void with_pack(int width, Use use) {
  if (width == 4)
    use(std::integral_constant<int, 4>());
  else if (width == 2)
    use(std::integral_constant<int, 2>());
  else
    use(std::integral_constant<int, 1>());
}

// A row of c numbers, such as a bias, as a view.
inline Tensor row_view(const float* data, int c) { return Tensor(const_cast<float*>(data), {1, 1, 1, c}); }

// old * beta + value, which does not read old where beta is 0 (it may be NaN).
template <int kPack>
__device__ __forceinline__ void accumulate(float* p, Pack<kPack> value, float beta) {
  if (beta != 0) {
    const Pack<kPack> old = load<kPack>(p);
#pragma unroll
    for (int k = 0; k < kPack; ++k) value.v[k] += beta * old.v[k];
  }
  store<kPack>(p, value);
}

}  // namespace lanas
