// channel_shuffle.cu -- the transposition [groups, c/groups] -> [c/groups, groups] within each pixel. On the
// device a thread writes a pack; the single floats that it reads are its neighbours' neighbours in the cache.
#include <type_traits>

#include "kernels/core/packs.cuh"
#include "kernels/ops/blocks.h"
#include "kernels/ops/channel_shuffle.h"
#include "kernels/ops/channel_shuffle_cpu.h"

namespace lanas {
namespace host {
namespace {

// to[m*groups + g] = from[g*members + m] + beta to. The inverse swaps groups and members.
template <class T, class Groups>
LANAS_INLINE void shuffle_pixel(T* to, const T* from, Groups groups, int members, T beta) {
  if (beta == 0) {
#pragma omp simd
    for (int m = 0; m < members; ++m)
      for (int g = 0; g < groups; ++g) to[m * groups + g] = from[g * members + m];
  } else {
#pragma omp simd
    for (int m = 0; m < members; ++m)
      for (int g = 0; g < groups; ++g) to[m * groups + g] = from[g * members + m] + beta * to[m * groups + g];
  }
}
// The inverse: to[g*members + m] = from[m*groups + g] + beta to.
template <class T, class Groups>
LANAS_INLINE void unshuffle_pixel(T* to, const T* from, Groups groups, int members, T beta) {
  if (beta == 0) {
#pragma omp simd
    for (int m = 0; m < members; ++m)
      for (int g = 0; g < groups; ++g) to[g * members + m] = from[m * groups + g];
  } else {
#pragma omp simd
    for (int m = 0; m < members; ++m)
      for (int g = 0; g < groups; ++g)
        to[g * members + m] = from[m * groups + g] + beta * to[g * members + m];
  }
}

// body(groups) for every run of pixels, with the usual numbers of groups as constants.
template <class Body>
void for_pixels(int64_t pixels, int groups, Body body) {
  const auto parts = [=](auto k) {
    parallel_for((pixels + 63) / 64, [=](int64_t part) {
      for (int64_t p = part * 64; p < std::min(pixels, part * 64 + 64); ++p) body(p, k);
    });
  };
  switch (groups) {
    case 2:
      return parts(std::integral_constant<int, 2>{});
    case 4:
      return parts(std::integral_constant<int, 4>{});
    default:
      return parts(groups);
  }
}

}  // namespace

template <class T>
void channel_shuffle_forward(View<T> y, View<T> x, int groups) {
  for_pixels(x.pixels(), groups,
             [=](int64_t p, auto k) { shuffle_pixel(y.pixel(p), x.pixel(p), k, x.c / k, T(0)); });
}

template <class T>
void channel_shuffle_backward(View<T> dx, View<T> dy, int groups, T beta) {
  for_pixels(dy.pixels(), groups,
             [=](int64_t p, auto k) { unshuffle_pixel(dx.pixel(p), dy.pixel(p), k, dy.c / k, beta); });
}

#define INSTANTIATE(T)                                          \
  template void channel_shuffle_forward(View<T>, View<T>, int); \
  template void channel_shuffle_backward(View<T>, View<T>, int, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

// to[m*groups + g] = from[g*members + m] + beta to. The inverse swaps groups and members.
template <int kPack>
__global__ void shuffle_kernel(Tensor to, Tensor from, int groups, int members, float beta) {
  for_packs<kPack>(to, [=](int64_t pixel, int c) {
    const float* in = from.pixel(pixel);
    Pack<kPack> out;
#pragma unroll
    for (int k = 0; k < kPack; ++k) out.v[k] = in[(c + k) % groups * members + (c + k) / groups];
    accumulate<kPack>(to.pixel(pixel) + c, out, beta);
  });
}

void launch_shuffle(Stream& stream, Tensor to, Tensor from, int groups, float beta) {
  with_pack(pack_width(to), [&](auto pack) {
    launch(shuffle_kernel<pack()>, pack_blocks(to, pack), kPackThreads, 0, stream, to, from, groups,
           to.c / groups, beta);
  });
}

void check_shuffle(const char* op, Tensor y, Tensor x, int groups) {
  CHECK(y.shape() == x.shape(), op, ": output ", y.shape(), " does not match input ", x.shape());
  CHECK(groups > 0 && x.c % groups == 0, op, ": ", groups, " groups do not divide ", x.c, " channels");
}

}  // namespace

void channel_shuffle_forward(Stream& stream, Tensor y, Tensor x, int groups) {
  check_shuffle("channel_shuffle_forward", y, x, groups);
  stream.activate();
  if (stream.device() == Device::cpu && cpu::channel_shuffle_in_quads(x.c, groups))
    return cpu::channel_shuffle_forward(y, x, groups);
  if (stream.device() == Device::cpu) return host::channel_shuffle_forward<float>(y, x, groups);
  launch_shuffle(stream, y, x, groups, 0);
}

void channel_shuffle_backward(Stream& stream, Tensor dx, Tensor dy, int groups, float beta) {
  check_shuffle("channel_shuffle_backward", dx, dy, groups);
  stream.activate();
  if (stream.device() == Device::cpu && cpu::channel_shuffle_in_quads(dx.c, groups))
    return cpu::channel_shuffle_backward(dx, dy, groups, beta);
  if (stream.device() == Device::cpu) return host::channel_shuffle_backward<float>(dx, dy, groups, beta);
  launch_shuffle(stream, dx, dy, dy.c / groups, beta);
}

}  // namespace lanas
