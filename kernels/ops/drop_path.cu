// drop_path.cu -- see drop_path.h.
#include "kernels/core/packs.cuh"
#include "kernels/core/parallel.h"
#include "kernels/core/random.cuh"
#include "kernels/ops/drop_path.h"

namespace lanas {

namespace host {

template <class T>
void drop_path_forward(View<T> y, View<T> x, const T* mask) {
  drop_path_backward(y, x, mask, T(0));  // the same product
}

template <class T>
void drop_path_backward(View<T> dx, View<T> dy, const T* mask, T beta) {
  parallel_for(int64_t{dy.n} * dy.h, [=](int64_t row) {
    const int n = int(row / dy.h), y = int(row % dy.h);
    const T scale = mask[n];
    for (int x = 0; x < dy.w; ++x) {
      const T* __restrict in = dy.at(n, y, x);
      T* __restrict out = dx.at(n, y, x);
      if (beta == 0)
        for (int c = 0; c < dy.c; ++c) out[c] = scale * in[c];
      else
        for (int c = 0; c < dy.c; ++c) out[c] = beta * out[c] + scale * in[c];
    }
  });
}

#define INSTANTIATE(T)                                         \
  template void drop_path_forward(View<T>, View<T>, const T*); \
  template void drop_path_backward(View<T>, View<T>, const T*, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

constexpr uint64_t kTag = uint64_t{0xD9} << 56;  // keeps these draws apart from other ops' under one seed

LANAS_HOST_DEVICE inline float mask_value(float p, uint64_t seed, uint32_t id, uint64_t step, int n) {
  const Random4 words = philox(seed, step, kTag | uint64_t{id} << 24 | uint64_t(n));
  return float(words.v[0] >> 8) * 0x1p-24f < p ? 0.0f : 1 / (1 - p);
}

// dx = mask[n] dy + beta dx; forward with beta 0.
template <int kPack>
__global__ void drop_path_kernel(Tensor dx, Tensor dy, const float* mask, float beta) {
  const int image = dy.h * dy.w;
  for_packs<kPack>(dy, [=](int64_t pixel, int c) {
    const float scale = mask[int(pixel) / image];
    Pack<kPack> v = load<kPack>(dy.pixel(pixel) + c);
#pragma unroll
    for (float& value : v.v) value *= scale;
    accumulate<kPack>(dx.pixel(pixel) + c, v, beta);
  });
}

void launch_drop_path(Stream& stream, Tensor dx, Tensor dy, const float* mask, float beta) {
  if (dx.packed() && dy.packed())  // an image is one long pixel
    for (Tensor* t : {&dx, &dy}) *t = Tensor(t->data, {t->n, 1, 1, t->h * t->w * t->c});
  with_pack(pack_width(dx, dy), [&](auto pack) {
    launch(drop_path_kernel<pack()>, pack_blocks(dy, pack), kPackThreads, 0, stream, dx, dy, mask, beta);
  });
}

__global__ void drop_path_mask_kernel(float* mask, int n, const float* probability, uint64_t seed,
                                      uint32_t id, const uint64_t* step) {
  for (const int64_t i : grid_stride(n)) mask[i] = mask_value(*probability, seed, id, *step, int(i));
}

}  // namespace

void drop_path_forward(Stream& stream, Tensor y, Tensor x, const float* mask) {
  CHECK(y.shape() == x.shape(), "drop_path_forward: y ", y.shape(), " does not match x ", x.shape());
  if (stream.device() == Device::cpu) return host::drop_path_forward(y, x, mask);
  launch_drop_path(stream, y, x, mask, 0);
}

void drop_path_backward(Stream& stream, Tensor dx, Tensor dy, const float* mask, float beta) {
  CHECK(dx.shape() == dy.shape(), "drop_path_backward: dx ", dx.shape(), " does not match dy ", dy.shape());
  if (stream.device() == Device::cpu) return host::drop_path_backward(dx, dy, mask, beta);
  launch_drop_path(stream, dx, dy, mask, beta);
}

void drop_path_mask(Stream& stream, float* mask, int n, const float* probability, uint64_t seed, uint32_t id,
                    const uint64_t* step) {
  CHECK(n >= 0 && n < 1 << 24, "drop_path_mask: ", n, " samples");
  if (stream.device() == Device::cpu) {
    for (int i = 0; i < n; ++i) mask[i] = mask_value(*probability, seed, id, *step, i);
    return;
  }
  launch(drop_path_mask_kernel, grid_blocks(n, 128), 128, 0, stream, mask, n, probability, seed, id, step);
}

}  // namespace lanas
