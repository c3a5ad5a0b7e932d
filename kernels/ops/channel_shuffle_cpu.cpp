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

template <int G>
LANAS_INLINE void shuffle_pixel(float* to, const float* first, const float* rest, int members) {
  for (int m = 0; m < members; m += 4, to += 4 * G) {
    const Quad a = load(first + m), b = load(rest + m);
    if constexpr (G == 4) {
      const Quads whole = transpose(a, b, load(rest + members + m), load(rest + 2 * members + m));
      for (int i = 0; i < 4; ++i) store(to + 4 * i, whole.of[i]);
    } else {
      store(to, low(a, b)), store(to + 4, high(a, b));
    }
  }
}

// Null parts are not written; others get their quad plus beta times the old.
LANAS_INLINE void add_quad(float* to, Quad v, float beta) {
  if (to) store(to, beta == 0 ? v : v + beta * load(to));
}

template <int G>
LANAS_INLINE void unshuffle_pixel(float* first, float* rest, const float* from, int members, float beta_first,
                                  float beta_rest) {
  for (int m = 0; m < members; m += 4, from += 4 * G) {
    const Quad a = load(from), b = load(from + 4);
    Quads groups;
    if constexpr (G == 4)
      groups = transpose(a, b, load(from + 8), load(from + 12));
    else
      groups = {{__builtin_shuffle(a, b, Lanes{0, 2, 4, 6}), __builtin_shuffle(a, b, Lanes{1, 3, 5, 7})}};
    add_quad(first ? first + m : nullptr, groups.of[0], beta_first);
    for (int g = 1; g < G; ++g)
      add_quad(rest ? rest + (g - 1) * members + m : nullptr, groups.of[g], beta_rest);
  }
}

template <class Body>
void for_pixels(int64_t pixels, Body body) {
  constexpr int64_t kPart = 256;
  parallel_for((pixels + kPart - 1) / kPart, [=](int64_t part) {
    for (int64_t p = part * kPart; p < std::min(pixels, (part + 1) * kPart); ++p) body(p);
  });
}

// body(G) with the number of groups as a constant.
template <class Body>
void with_groups(int groups, Body body) {
  groups == 4 ? body(std::integral_constant<int, 4>()) : body(std::integral_constant<int, 2>());
}

}  // namespace

void channel_shuffle_forward(Tensor y, Tensor first, Tensor rest) {
  with_groups(y.c / first.c, [=](auto groups) {
    for_pixels(y.pixels(), [=](int64_t p) {
      shuffle_pixel<groups()>(y.pixel(p), first.pixel(p), rest.pixel(p), first.c);
    });
  });
}

void channel_shuffle_backward(Tensor dfirst, Tensor drest, Tensor dy, float beta_first, float beta_rest) {
  with_groups(dy.c / dfirst.c, [=](auto groups) {
    for_pixels(dy.pixels(), [=](int64_t p) {
      unshuffle_pixel<groups()>(dfirst ? dfirst.pixel(p) : nullptr, drest ? drest.pixel(p) : nullptr,
                                dy.pixel(p), dfirst.c, beta_first, beta_rest);
    });
  });
}

}  // namespace lanas::cpu
