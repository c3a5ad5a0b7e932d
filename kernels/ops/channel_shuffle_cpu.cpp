// channel_shuffle_cpu.cpp -- channel_shuffle in quads of floats, for 2 and 4 groups: the members m .. m+3 of
// every group are interleaved (or taken apart) in registers. Four-float shuffles are part of every x86-64, so
// there is one code for all instruction sets.
#include "kernels/ops/channel_shuffle_cpu.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/core/parallel.h"

namespace lanas::cpu {
namespace {

typedef float Quad __attribute__((vector_size(16)));
typedef int Lanes __attribute__((vector_size(16)));

LANAS_INLINE Quad load(const float* p) {
  Quad v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
LANAS_INLINE void store(float* p, Quad v) { std::memcpy(p, &v, sizeof v); }
LANAS_INLINE Quad low(Quad a, Quad b) { return __builtin_shuffle(a, b, Lanes{0, 4, 1, 5}); }
LANAS_INLINE Quad high(Quad a, Quad b) { return __builtin_shuffle(a, b, Lanes{2, 6, 3, 7}); }

// A quad of each of G groups, taken apart from G quads of the whole, or the other way round for G = 4.
struct Quads {
  Quad of[4];
};
LANAS_INLINE Quads transpose(Quad a, Quad b, Quad c, Quad d) {
  const Quad ac0 = low(a, c), ac1 = high(a, c), bd0 = low(b, d), bd1 = high(b, d);
  return {{low(ac0, bd0), high(ac0, bd0), low(ac1, bd1), high(ac1, bd1)}};
}

constexpr int kTogether = 4;  // pixels: what they have in common is read once

// Of a slice of channels some pixels ahead of p, which is at channel m, another line with each quad: the
// processor foresees too little of them, and many lines at once make it wait.
template <bool Write>
LANAS_INLINE void ask_ahead(const Tensor& t, const float* p, int m) {
  constexpr int kPixels = 24, kLine = 16;
  if (t.packed() || m / 4 * kLine >= t.c) return;
  prefetch<Write>(p + kPixels * t.stride + m / 4 * kLine - m);
}

// P pixels from p on. weights null: the rest is x[0].
template <int G, int P>
LANAS_INLINE void shuffle_pixels(const Tensor& y, const Tensor& first, std::span<const Tensor> x,
                                 const float* weights, int64_t p) {
  const int members = first.c;
  for (int m = 0; m < members; m += 4) {
    Quad of[P][G] = {};
#pragma GCC unroll 4
    for (int r = 0; r < P; ++r) of[r][0] = load(first.pixel(p + r) + m);
    for (size_t k = 0; k < x.size(); ++k) {
      const float weight = weights ? weights[k] : 1.0f, *from = x[k].pixel(p) + m;
#pragma GCC unroll 4
      for (int r = 0; r < P; ++r, from += x[k].stride) {
        ask_ahead<false>(x[k], from, m);
#pragma GCC unroll 4
        for (int g = 1; g < G; ++g) of[r][g] += weight * load(from + (g - 1) * members);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < P; ++r) {
      float* to = y.pixel(p + r) + m * G;
      ask_ahead<true>(y, y.pixel(p + r) + m, m);
      if constexpr (G == 4) {
        const Quads whole = transpose(of[r][0], of[r][1], of[r][2], of[r][3]);
        for (int i = 0; i < 4; ++i) store(to + 4 * i, whole.of[i]);
      } else {
        store(to, low(of[r][0], of[r][1])), store(to + 4, high(of[r][0], of[r][1]));
      }
    }
  }
}

// to (null: nothing) = scale v + beta to.
template <int P, int GROUPS>
LANAS_INLINE void write_groups(float* to, ptrdiff_t stride, int members, const Quad (&v)[P][4], int first,
                               float scale, float beta) {
  if (!to) return;
  const auto each = [&](auto adds) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
      for (int g = 0; g < GROUPS; ++g) {
        float* at = to + r * stride + g * members;
        const Quad scaled = scale * v[r][first + g];
        store(at, adds ? scaled + beta * load(at) : scaled);
      }
  };
  if (beta == 0)
    each(std::false_type());
  else
    each(std::true_type());
}

// dots (null: not wanted): [terms], the products of the rest's gradient and x, a quad each.
template <int G, int P>
LANAS_INLINE void unshuffle_pixels(const ShuffleGradient<float>& gradient, const Tensor& dy,
                                   const ShuffleRest<float>& rest, int64_t p, Quad* dots) {
  const int members = gradient.first.c, terms = int(gradient.x.size());
  for (int m = 0; m < members; m += 4) {
    Quad of[P][4];
#pragma GCC unroll 4
    for (int r = 0; r < P; ++r) {
      const float* from = dy.pixel(p + r) + m * G;
      ask_ahead<false>(dy, dy.pixel(p + r) + m, m);
      const Quad a = load(from), b = load(from + 4);
      Quads whole;
      if constexpr (G == 4)
        whole = transpose(a, b, load(from + 8), load(from + 12));
      else
        whole = {{__builtin_shuffle(a, b, Lanes{0, 2, 4, 6}), __builtin_shuffle(a, b, Lanes{1, 3, 5, 7})}};
      for (int g = 0; g < G; ++g) of[r][g] = whole.of[g];
    }
    const Tensor& to = gradient.first;
    write_groups<P, 1>(to ? to.pixel(p) + m : nullptr, to.stride, members, of, 0, 1, gradient.beta_first);
    for (size_t k = 0; k < size_t(terms); ++k) {
      if (dots) {
        const float* x = rest.x[k].pixel(p) + m;
        Quad dot = dots[k];
#pragma GCC unroll 4
        for (int r = 0; r < P; ++r, x += rest.x[k].stride) {
          ask_ahead<false>(rest.x[k], x, m);
#pragma GCC unroll 4
          for (int g = 1; g < G; ++g) dot += of[r][g] * load(x + (g - 1) * members);
        }
        dots[k] = dot;
      }
      const Tensor& dx = gradient.x[k];
      for (int r = 0; dx && r < P; ++r) ask_ahead<true>(dx, dx.pixel(p + r) + m, m);
      write_groups<P, G - 1>(dx ? dx.pixel(p) + m : nullptr, dx.stride, members, of, 1,
                             rest.weights ? rest.weights[k] : 1.0f, gradient.beta[k]);
    }
  }
}

// pixels(count, p) over [begin, end): kTogether at a time, the last ones alone.
template <class Pixels>
LANAS_INLINE void for_pixels(int64_t begin, int64_t end, Pixels pixels) {
  int64_t p = begin;
  for (; p + kTogether <= end; p += kTogether) pixels(std::integral_constant<int, kTogether>(), p);
  for (; p < end; ++p) pixels(std::integral_constant<int, 1>(), p);
}

// body(first pixel, one behind the last) of every part.
template <class Body>
void for_parts(int64_t pixels, Body body) {
  parallel_for((pixels + kShufflePart - 1) / kShufflePart,
               [=](int64_t part) { body(part * kShufflePart, std::min(pixels, (part + 1) * kShufflePart)); });
}

// body(G) with the number of groups as a constant.
template <class Body>
void with_groups(int groups, Body body) {
  groups == 4 ? body(std::integral_constant<int, 4>()) : body(std::integral_constant<int, 2>());
}

}  // namespace

void channel_shuffle_forward(Tensor y, Tensor first, const ShuffleRest<float>& rest) {
  with_groups(y.c / first.c, [=](auto groups) {
    for_parts(y.pixels(), [=](int64_t begin, int64_t end) {
      for_pixels(begin, end, [&](auto count, int64_t p) {
        shuffle_pixels<groups(), count()>(y, first, rest.x, rest.weights, p);
      });
    });
  });
}

void channel_shuffle_backward(const ShuffleGradient<float>& gradient, Tensor dy,
                              const ShuffleRest<float>& rest, double* partials) {
  const int terms = int(gradient.x.size());
  with_groups(dy.c / gradient.first.c, [=](auto groups) {
    for_parts(dy.pixels(), [=](int64_t begin, int64_t end) {
      Quad dots[kShuffleTerms] = {};
      for_pixels(begin, end, [&](auto count, int64_t p) {
        unshuffle_pixels<groups(), count()>(gradient, dy, rest, p, partials ? dots : nullptr);
      });
      for (int k = 0; partials && k < terms; ++k) {
        const Quad sum = dots[k];
        partials[begin / kShufflePart * terms + k] = double(sum[0]) + sum[1] + sum[2] + sum[3];
      }
    });
  });
}

}  // namespace lanas::cpu
