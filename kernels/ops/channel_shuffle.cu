// channel_shuffle.cu -- the transposition [groups, c/groups] -> [c/groups, groups] within each pixel. On the
// device a thread writes a pack; the single floats that it reads are its neighbours' neighbours in the cache;
// the weighted sum is mixed_sum's, in scratch.
#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/core/packs.cuh"
#include "kernels/ops/blocks.h"
#include "kernels/ops/channel_shuffle.h"
#include "kernels/ops/channel_shuffle_cpu.h"
#include "kernels/ops/mixed_sum.h"

namespace lanas {
namespace host {
namespace {

// Groups: an int, or one known at compile time.
template <class T, class Groups>
LANAS_INLINE void shuffle_pixel(T* to, const T* first, const ShuffleRest<T>& rest, int64_t pixel,
                                Groups groups, int members) {
#pragma omp simd
  for (int m = 0; m < members; ++m) to[m * groups] = first[m];
  for (size_t k = 0; k < rest.x.size(); ++k) {
    const T* x = rest.x[k].pixel(pixel);
    const T weight = rest.weights ? rest.weights[k] : T(1);
    for (int g = 1; g < groups; ++g)
      for (int m = 0; m < members; ++m, ++x) {
        T& value = to[m * groups + g];
        value = k == 0 ? weight * *x : value + weight * *x;
      }
  }
}
// Groups [first, last) of a pixel, times scale, into `to`, which begins with the first of them. Returns the
// sum of their products with x; null: 0.
template <class T, class Groups>
LANAS_INLINE double unshuffle_pixel(T* to, const T* from, Groups groups, int members, int first, int last,
                                    T scale, T beta, const T* x) {
  double dot = 0;
  for (int g = first; g < last; ++g)
    for (int m = 0; m < members; ++m) {
      const int i = (g - first) * members + m;
      const T value = from[m * groups + g];
      if (x) dot += double(value) * double(x[i]);
      if (to) to[i] = scale * value + (beta == 0 ? T(0) : beta * to[i]);
    }
  return dot;
}

constexpr int64_t kPart = 64;  // pixels

// body(pixel, groups) for every pixel, with the usual numbers of groups as constants.
template <class Body>
void for_pixels(int64_t pixels, int groups, Body body) {
  const auto parts = [=](auto k) {
    parallel_for((pixels + kPart - 1) / kPart, [=](int64_t part) {
      for (int64_t p = part * kPart; p < std::min(pixels, (part + 1) * kPart); ++p) body(p, k);
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

// dweights[k] from the sums of the parts, [parts][terms].
template <class T>
void add_parts(const ShuffleGradient<T>& gradient, const double* partials, int64_t parts) {
  const size_t terms = gradient.x.size();
  for (size_t k = 0; k < terms; ++k) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += partials[part * int64_t(terms) + int64_t(k)];
    T& dw = gradient.dweights[k];
    dw = T(sum) + (gradient.beta_dweights == 0 ? T(0) : gradient.beta_dweights * dw);
  }
}

}  // namespace

template <class T>
void channel_shuffle_forward(View<T> y, View<T> first, const ShuffleRest<T>& rest) {
  for_pixels(y.pixels(), y.c / first.c, [=](int64_t p, auto groups) {
    shuffle_pixel(y.pixel(p), first.pixel(p), rest, p, groups, first.c);
  });
}

template <class T>
void channel_shuffle_backward(const ShuffleGradient<T>& gradient, View<T> dy, const ShuffleRest<T>& rest,
                              double* scratch) {
  const size_t terms = gradient.x.size();
  const int64_t parts = (dy.pixels() + kPart - 1) / kPart;
  if (gradient.dweights) std::fill_n(scratch, parts * int64_t(terms), 0.0);
  for_pixels(dy.pixels(), dy.c / gradient.first.c, [=](int64_t p, auto groups) {
    const int members = gradient.first.c;
    const T* from = dy.pixel(p);
    if (gradient.first)
      unshuffle_pixel<T>(gradient.first.pixel(p), from, groups, members, 0, 1, 1, gradient.beta_first,
                         nullptr);
    for (size_t k = 0; k < terms; ++k) {
      const double dot =
          unshuffle_pixel<T>(gradient.x[k] ? gradient.x[k].pixel(p) : nullptr, from, groups, members, 1,
                             groups, rest.weights ? rest.weights[k] : T(1), gradient.beta[k],
                             gradient.dweights ? rest.x[k].pixel(p) : nullptr);
      if (gradient.dweights) scratch[p / kPart * int64_t(terms) + int64_t(k)] += dot;
    }
  });
  if (gradient.dweights) add_parts(gradient, scratch, parts);
}

int64_t channel_shuffle_scratch_doubles(Shape y, int terms) {
  return (y.pixels() + kPart - 1) / kPart * terms;
}

#define INSTANTIATE(T)                                                            \
  template void channel_shuffle_forward(View<T>, View<T>, const ShuffleRest<T>&); \
  template void channel_shuffle_backward(const ShuffleGradient<T>&, View<T>, const ShuffleRest<T>&, double*);
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

// The groups of dy, one after the other: the first one + beta first to `first`, the others to `rest`, either
// of which may be null.
template <int kPack>
__global__ void unshuffle_kernel(Tensor first, Tensor rest, Tensor dy, int members, float beta_first,
                                 float beta_rest) {
  const int groups = dy.c / members;
  for_packs<kPack>(dy, [=](int64_t pixel, int c) {
    const bool is_first = c < members;
    if (!(is_first ? first.data : rest.data)) return;
    const float* in = dy.pixel(pixel);
    Pack<kPack> out;
#pragma unroll
    for (int k = 0; k < kPack; ++k) out.v[k] = in[(c + k) % members * groups + (c + k) / members];
    accumulate<kPack>(is_first ? first.pixel(pixel) + c : rest.pixel(pixel) + (c - members), out,
                      is_first ? beta_first : beta_rest);
  });
}

void launch_unshuffle(Stream& stream, Tensor first, Tensor rest, Tensor dy, int members, float beta_first,
                      float beta_rest) {
  if (!first && !rest) return;
  // A pack lies within one group.
  const int width = std::min(pack_width(first, rest), members % 4 == 0 ? 4 : members % 2 == 0 ? 2 : 1);
  with_pack(width, [&](auto pack) {
    launch(unshuffle_kernel<pack()>, pack_blocks(dy, pack), kPackThreads, 0, stream, first, rest, dy, members,
           beta_first, beta_rest);
  });
}

void check_shuffle(const char* op, Tensor y, Tensor first, std::span<const Tensor> rest, bool weighted) {
  const Shape s = y.shape();
  CHECK(first.c > 0 && s.c % first.c == 0 && first.shape() == (Shape{s.n, s.h, s.w, first.c}), op, ": group ",
        first.shape(), " does not divide ", s);
  CHECK((s.c == first.c) == rest.empty() && (weighted || rest.size() <= 1), op, ": ", rest.size(),
        weighted ? " weighted" : "", " tensors bypass group ", first.shape(), " of ", s);
  for (const Tensor& x : rest)
    CHECK(x.shape() == (Shape{s.n, s.h, s.w, s.c - first.c}), op, ": groups ", first.shape(), " and ",
          x.shape(), " are not all of ", s);
}

bool in_quads(Tensor y, Tensor first, size_t terms) {
  return cpu::channel_shuffle_in_quads(y.c, y.c / first.c, terms);
}

// Where the weighted sum, and its gradient, are on the device.
Tensor rest_in(float* scratch, Tensor y, Tensor first) {
  return Tensor(scratch, {y.n, y.h, y.w, y.c - first.c});
}

std::span<const MixedSumTerm<float>> mixed_terms(std::span<const Tensor> rest) {
  thread_local std::vector<MixedSumTerm<float>> terms;  // keeps its capacity: a step allocates nothing
  terms.clear();
  for (const Tensor& x : rest) terms.push_back({x, nullptr, nullptr, int(terms.size())});
  return terms;
}

}  // namespace

int64_t channel_shuffle_scratch_floats(Shape y, int first_channels, int terms) {
  if (terms == 0) return 0;
  return std::max(
      2 * host::channel_shuffle_scratch_doubles(y, terms) + 1,  // one for the alignment of doubles
      y.pixels() * (y.c - first_channels));
}

void channel_shuffle_forward(Stream& stream, Tensor y, Tensor first, const ShuffleRest<float>& rest,
                             float* scratch) {
  check_shuffle("channel_shuffle_forward", y, first, rest.x, rest.weights);
  stream.activate();
  if (stream.device() == Device::cpu)
    return in_quads(y, first, rest.x.size()) ? cpu::channel_shuffle_forward(y, first, rest)
                                             : host::channel_shuffle_forward<float>(y, first, rest);
  Tensor others = rest.x.empty() ? Tensor{} : rest.x[0];
  if (rest.weights) {
    others = rest_in(scratch, y, first);
    mixed_sum_forward(stream, others, mixed_terms(rest.x), rest.weights);
  }
  with_pack(pack_width(y), [&](auto pack) {
    launch(shuffle_kernel<pack()>, pack_blocks(y, pack), kPackThreads, 0, stream, y, first, others,
           y.c / first.c);
  });
}

void channel_shuffle_backward(Stream& stream, const ShuffleGradient<float>& gradient, Tensor dy,
                              const ShuffleRest<float>& rest, float* scratch) {
  const Tensor dfirst = gradient.first;
  check_shuffle("channel_shuffle_backward", dy, dfirst, gradient.x, rest.weights);
  CHECK(gradient.beta.size() == gradient.x.size() && (!gradient.dweights || rest.weights),
        "channel_shuffle_backward: ", gradient.beta.size(), " factors for ", gradient.x.size(),
        " gradients, or dweights without weights");
  if (gradient.dweights) check_shuffle("channel_shuffle_backward", dy, dfirst, rest.x, true);
  stream.activate();
  if (stream.device() == Device::cpu) {
    double* doubles = reinterpret_cast<double*>((reinterpret_cast<uintptr_t>(scratch) + 7) / 8 * 8);
    if (!in_quads(dy, dfirst, gradient.x.size()))
      return host::channel_shuffle_backward<float>(gradient, dy, rest, doubles);
    cpu::channel_shuffle_backward(gradient, dy, rest, gradient.dweights ? doubles : nullptr);
    if (gradient.dweights)
      host::add_parts(gradient, doubles, (dy.pixels() + cpu::kShufflePart - 1) / cpu::kShufflePart);
    return;
  }
  if (!rest.weights) {
    const bool bypassed = !gradient.x.empty();
    launch_unshuffle(stream, dfirst, bypassed ? gradient.x[0] : Tensor{}, dy, dfirst.c, gradient.beta_first,
                     bypassed ? gradient.beta[0] : 0.0f);
    return;
  }
  bool any = gradient.dweights;
  thread_local std::vector<MixedSumGradient<float>> gradients;
  gradients.clear();
  for (size_t k = 0; k < gradient.x.size(); ++k) {
    any |= bool(gradient.x[k]);
    gradients.push_back({gradient.x[k], gradient.beta[k], gradient.beta_dweights});
  }
  const Tensor drest = any ? rest_in(scratch, dy, dfirst) : Tensor{};
  launch_unshuffle(stream, dfirst, drest, dy, dfirst.c, gradient.beta_first, 0);
  if (any)
    mixed_sum_backward(stream, mixed_terms(rest.x), gradients, gradient.dweights, drest, rest.weights,
                       nullptr);
}

}  // namespace lanas
