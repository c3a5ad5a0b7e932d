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

// The tensors that bypass, at one pixel: [terms] pointers.
struct Pointers {
  float* at[kShuffleTerms];
  Pointers(std::span<const Tensor> tensors, int64_t pixel) {
    for (size_t k = 0; k < tensors.size(); ++k) at[k] = tensors[k] ? tensors[k].pixel(pixel) : nullptr;
  }
  void next(std::span<const Tensor> tensors) {
    for (size_t k = 0; k < tensors.size(); ++k)
      if (at[k]) at[k] += tensors[k].stride;
  }
};

// Slices of channels a few pixels ahead: the processor foresees too little of them.
template <int Write>
LANAS_INLINE void ask_ahead(const float* p, const Tensor& t) {
  constexpr int kPixels = 24, kLine = 16;
  if (!p || t.packed()) return;
  for (int c = 0; c < t.c; c += kLine) __builtin_prefetch(p + kPixels * t.stride + c, Write, 3);
}

// weights null: the rest is x.at[0].
template <int G>
LANAS_INLINE void shuffle_pixel(float* to, const float* first, const Pointers& x, int terms,
                                const float* weights, int members) {
  for (int m = 0; m < members; m += 4, to += 4 * G) {
    Quad of[G] = {load(first + m)};
    for (int g = 1; g < G; ++g) {
      of[g] = load(x.at[0] + (g - 1) * members + m);
      if (weights) of[g] *= weights[0];
    }
    for (int k = 1; k < terms; ++k)
      for (int g = 1; g < G; ++g) of[g] += weights[k] * load(x.at[k] + (g - 1) * members + m);
    if constexpr (G == 4) {
      const Quads whole = transpose(of[0], of[1], of[2], of[3]);
      for (int i = 0; i < 4; ++i) store(to + 4 * i, whole.of[i]);
    } else {
      store(to, low(of[0], of[1])), store(to + 4, high(of[0], of[1]));
    }
  }
}

// Null parts are not written; others get their quad plus beta times the old.
LANAS_INLINE void add_quad(float* to, Quad v, float beta) {
  if (to) store(to, beta == 0 ? v : v + beta * load(to));
}

// dots (null: not wanted): [terms], the products of the rest's gradient and x, a quad each.
template <int G>
LANAS_INLINE void unshuffle_pixel(float* first, float beta_first, const Pointers& dx, const float* beta,
                                  const Pointers& x, int terms, const float* weights, const float* from,
                                  int members, Quad* dots) {
  for (int m = 0; m < members; m += 4, from += 4 * G) {
    const Quad a = load(from), b = load(from + 4);
    Quads groups;
    if constexpr (G == 4)
      groups = transpose(a, b, load(from + 8), load(from + 12));
    else
      groups = {{__builtin_shuffle(a, b, Lanes{0, 2, 4, 6}), __builtin_shuffle(a, b, Lanes{1, 3, 5, 7})}};
    add_quad(first ? first + m : nullptr, groups.of[0], beta_first);
    for (int k = 0; k < terms; ++k)
      for (int g = 1; g < G; ++g) {
        const int c = (g - 1) * members + m;
        if (dots) dots[k] += groups.of[g] * load(x.at[k] + c);
        add_quad(dx.at[k] ? dx.at[k] + c : nullptr, weights ? weights[k] * groups.of[g] : groups.of[g],
                 beta[k]);
      }
  }
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
      Pointers x(rest.x, begin);
      for (int64_t p = begin; p < end; ++p, x.next(rest.x)) {
        ask_ahead<1>(y.pixel(p), y);
        for (size_t k = 0; k < rest.x.size(); ++k) ask_ahead<0>(x.at[k], rest.x[k]);
        shuffle_pixel<groups()>(y.pixel(p), first.pixel(p), x, int(rest.x.size()), rest.weights, first.c);
      }
    });
  });
}

void channel_shuffle_backward(const ShuffleGradient<float>& gradient, Tensor dy,
                              const ShuffleRest<float>& rest, double* partials) {
  const int terms = int(gradient.x.size());
  with_groups(dy.c / gradient.first.c, [=](auto groups) {
    for_parts(dy.pixels(), [=](int64_t begin, int64_t end) {
      Pointers x(partials ? rest.x : std::span<const Tensor>(), begin), dx(gradient.x, begin);
      Quad dots[kShuffleTerms] = {};
      for (int64_t p = begin; p < end; ++p, dx.next(gradient.x)) {
        ask_ahead<0>(dy.pixel(p), dy);
        for (int k = 0; k < terms; ++k) {
          ask_ahead<1>(dx.at[k], gradient.x[size_t(k)]);
          if (partials) ask_ahead<0>(x.at[k], rest.x[size_t(k)]);
        }
        unshuffle_pixel<groups()>(gradient.first ? gradient.first.pixel(p) : nullptr, gradient.beta_first, dx,
                                  gradient.beta.data(), x, terms, rest.weights, dy.pixel(p), gradient.first.c,
                                  partials ? dots : nullptr);
        if (partials) x.next(rest.x);
      }
      for (int k = 0; partials && k < terms; ++k) {
        const Quad sum = dots[k];
        partials[begin / kShufflePart * terms + k] = double(sum[0]) + sum[1] + sum[2] + sum[3];
      }
    });
  });
}

}  // namespace lanas::cpu
