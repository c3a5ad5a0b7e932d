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

// Groups: an int, or one known at compile time.
template <class T, class Groups>
LANAS_INLINE void shuffle_pixel(T* to, const T* first, const T* rest, Groups groups, int members) {
#pragma omp simd
  for (int m = 0; m < members; ++m) {
    to[m * groups] = first[m];
    for (int g = 1; g < groups; ++g) to[m * groups + g] = rest[(g - 1) * members + m];
  }
}
// Groups [first, last) of a pixel into `to`, which begins with the first of them.
template <class T, class Groups>
LANAS_INLINE void unshuffle_pixel(T* to, const T* from, Groups groups, int members, int first, int last,
                                  T beta) {
  for (int g = first; g < last; ++g)
    for (int m = 0; m < members; ++m) {
      T& value = to[(g - first) * members + m];
      value = from[m * groups + g] + (beta == 0 ? T(0) : beta * value);
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
void channel_shuffle_forward(View<T> y, View<T> first, View<T> rest) {
  for_pixels(y.pixels(), y.c / first.c, [=](int64_t p, auto groups) {
    shuffle_pixel(y.pixel(p), first.pixel(p), rest ? rest.pixel(p) : nullptr, groups, first.c);
  });
}

template <class T>
void channel_shuffle_backward(View<T> dfirst, View<T> drest, View<T> dy, T beta_first, T beta_rest) {
  for_pixels(dy.pixels(), dy.c / dfirst.c, [=](int64_t p, auto groups) {
    const int members = dfirst.c;
    if (dfirst) unshuffle_pixel(dfirst.pixel(p), dy.pixel(p), groups, members, 0, 1, beta_first);
    if (drest) unshuffle_pixel(drest.pixel(p), dy.pixel(p), groups, members, 1, groups, beta_rest);
  });
}

#define INSTANTIATE(T)                                              \
  template void channel_shuffle_forward(View<T>, View<T>, View<T>); \
  template void channel_shuffle_backward(View<T>, View<T>, View<T>, T, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

// y[m*groups + g] from channel m of group g of the parts.
template <int kPack>
__global__ void shuffle_kernel(Tensor y, Tensor first, Tensor rest, int groups) {
  const int members = first.c;
  for_packs<kPack>(y, [=](int64_t pixel, int c) {
    const float *at = first.pixel(pixel), *others = rest.pixel(pixel);
    Pack<kPack> out;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const int g = (c + k) % groups, m = (c + k) / groups;
      out.v[k] = g == 0 ? at[m] : others[(g - 1) * members + m];
    }
    store<kPack>(y.pixel(pixel) + c, out);
  });
}

// to = groups `first` on of dy + beta to.
template <int kPack>
__global__ void unshuffle_kernel(Tensor to, Tensor dy, int groups, int members, int first, float beta) {
  for_packs<kPack>(to, [=](int64_t pixel, int c) {
    const float* in = dy.pixel(pixel) + first;
    Pack<kPack> out;
#pragma unroll
    for (int k = 0; k < kPack; ++k) out.v[k] = in[(c + k) % members * groups + (c + k) / members];
    accumulate<kPack>(to.pixel(pixel) + c, out, beta);
  });
}

void launch_unshuffle(Stream& stream, Tensor to, Tensor dy, int members, int first, float beta) {
  if (!to) return;
  with_pack(pack_width(to), [&](auto pack) {
    launch(unshuffle_kernel<pack()>, pack_blocks(to, pack), kPackThreads, 0, stream, to, dy, dy.c / members,
           members, first, beta);
  });
}

void check_shuffle(const char* op, Tensor y, Tensor first, Tensor rest) {
  const Shape s = y.shape();
  CHECK(first.c > 0 && s.c % first.c == 0 && first.shape() == (Shape{s.n, s.h, s.w, first.c}), op, ": group ",
        first.shape(), " does not divide ", s);
  CHECK(s.c == first.c || rest.shape() == (Shape{s.n, s.h, s.w, s.c - first.c}), op, ": groups ",
        first.shape(), " and ", rest.shape(), " are not all of ", s);
}

bool in_quads(const Stream& stream, Tensor y, Tensor first) {
  return stream.device() == Device::cpu && cpu::channel_shuffle_in_quads(y.c, y.c / first.c);
}

}  // namespace

void channel_shuffle_forward(Stream& stream, Tensor y, Tensor first, Tensor rest) {
  check_shuffle("channel_shuffle_forward", y, first, rest);
  stream.activate();
  if (in_quads(stream, y, first)) return cpu::channel_shuffle_forward(y, first, rest);
  if (stream.device() == Device::cpu) return host::channel_shuffle_forward<float>(y, first, rest);
  with_pack(pack_width(y), [&](auto pack) {
    launch(shuffle_kernel<pack()>, pack_blocks(y, pack), kPackThreads, 0, stream, y, first, rest,
           y.c / first.c);
  });
}

void channel_shuffle_backward(Stream& stream, Tensor dfirst, Tensor drest, Tensor dy, float beta_first,
                              float beta_rest) {
  check_shuffle("channel_shuffle_backward", dy, dfirst, drest);
  stream.activate();
  if (in_quads(stream, dy, dfirst))
    return cpu::channel_shuffle_backward(dfirst, drest, dy, beta_first, beta_rest);
  if (stream.device() == Device::cpu)
    return host::channel_shuffle_backward<float>(dfirst, drest, dy, beta_first, beta_rest);
  launch_unshuffle(stream, dfirst, dy, dfirst.c, 0, beta_first);
  launch_unshuffle(stream, drest, dy, dfirst.c, 1, beta_rest);
}

}  // namespace lanas
