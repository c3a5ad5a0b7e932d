// drop_path.cu -- see drop_path.h.
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

}  // namespace

void drop_path_forward(Stream& stream, Tensor y, Tensor x, const float* mask) {
  CHECK(y.shape() == x.shape(), "drop_path_forward: y ", y.shape(), " does not match x ", x.shape());
  if (stream.device() == Device::cpu) return host::drop_path_forward(y, x, mask);
  throw Error("drop_path_forward: no cuda kernel in this build");
}

void drop_path_backward(Stream& stream, Tensor dx, Tensor dy, const float* mask, float beta) {
  CHECK(dx.shape() == dy.shape(), "drop_path_backward: dx ", dx.shape(), " does not match dy ", dy.shape());
  if (stream.device() == Device::cpu) return host::drop_path_backward(dx, dy, mask, beta);
  throw Error("drop_path_backward: no cuda kernel in this build");
}

void drop_path_mask(Stream& stream, float* mask, int n, const float* probability, uint64_t seed, uint32_t id,
                    const uint64_t* step) {
  CHECK(n >= 0 && n < 1 << 24, "drop_path_mask: ", n, " samples");
  if (stream.device() == Device::cpu) {
    for (int i = 0; i < n; ++i) mask[i] = mask_value(*probability, seed, id, *step, i);
    return;
  }
  throw Error("drop_path_mask: no cuda kernel in this build");
}

}  // namespace lanas
