// channel_shuffle_cpu.cpp -- channel_shuffle in quads of floats, for 2 and 4 groups: the members m .. m+3 of
// every group are interleaved (or taken apart) in registers. Four-float shuffles are part of every x86-64, so
// there is one code for all instruction sets.
#include "kernels/ops/channel_shuffle_cpu.h"

#include <algorithm>
#include <cstring>

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
template <bool kAdd>
LANAS_INLINE void store(float* p, Quad v, float beta) {
  if constexpr (kAdd) v += beta * load(p);
  std::memcpy(p, &v, sizeof v);
}
LANAS_INLINE Quad low(Quad a, Quad b) { return __builtin_shuffle(a, b, Lanes{0, 4, 1, 5}); }
LANAS_INLINE Quad high(Quad a, Quad b) { return __builtin_shuffle(a, b, Lanes{2, 6, 3, 7}); }

// Four quads, a row `row` floats after the other, become columns that are `column` floats apart.
template <bool kAdd>
LANAS_INLINE void transpose(float* to, int column, const float* from, int row, float beta) {
  const Quad a = load(from), b = load(from + row), c = load(from + 2 * row), d = load(from + 3 * row);
  const Quad ac0 = low(a, c), ac1 = high(a, c), bd0 = low(b, d), bd1 = high(b, d);
  store<kAdd>(to, low(ac0, bd0), beta);
  store<kAdd>(to + column, high(ac0, bd0), beta);
  store<kAdd>(to + 2 * column, low(ac1, bd1), beta);
  store<kAdd>(to + 3 * column, high(ac1, bd1), beta);
}

// to[m*G + g] = from[g*members + m]
template <int G>
LANAS_INLINE void shuffle_pixel(float* to, const float* from, int members) {
  for (int m = 0; m < members; m += 4)
    if constexpr (G == 4) {
      transpose<false>(to + 4 * m, 4, from + m, members, 0);
    } else {
      const Quad a = load(from + m), b = load(from + members + m);
      store<false>(to + 2 * m, low(a, b), 0);
      store<false>(to + 2 * m + 4, high(a, b), 0);
    }
}

// to[g*members + m] = from[m*G + g] + beta to
template <int G, bool kAdd>
LANAS_INLINE void unshuffle_pixel(float* to, const float* from, int members, float beta) {
  for (int m = 0; m < members; m += 4)
    if constexpr (G == 4) {
      transpose<kAdd>(to + m, members, from + 4 * m, 4, beta);
    } else {
      const Quad a = load(from + 2 * m), b = load(from + 2 * m + 4);
      store<kAdd>(to + m, __builtin_shuffle(a, b, Lanes{0, 2, 4, 6}), beta);
      store<kAdd>(to + members + m, __builtin_shuffle(a, b, Lanes{1, 3, 5, 7}), beta);
    }
}

template <class Body>
void for_pixels(int64_t pixels, Body body) {
  constexpr int64_t kPart = 256;
  parallel_for((pixels + kPart - 1) / kPart, [=](int64_t part) {
    for (int64_t p = part * kPart; p < std::min(pixels, (part + 1) * kPart); ++p) body(p);
  });
}

template <int G>
void unshuffle(Tensor dx, Tensor dy, float beta) {
  const int members = dy.c / G;
  if (beta == 0)
    for_pixels(dy.pixels(),
               [=](int64_t p) { unshuffle_pixel<G, false>(dx.pixel(p), dy.pixel(p), members, 0); });
  else
    for_pixels(dy.pixels(),
               [=](int64_t p) { unshuffle_pixel<G, true>(dx.pixel(p), dy.pixel(p), members, beta); });
}

}  // namespace

void channel_shuffle_forward(Tensor y, Tensor x, int groups) {
  const int members = x.c / groups;
  if (groups == 4)
    for_pixels(x.pixels(), [=](int64_t p) { shuffle_pixel<4>(y.pixel(p), x.pixel(p), members); });
  else
    for_pixels(x.pixels(), [=](int64_t p) { shuffle_pixel<2>(y.pixel(p), x.pixel(p), members); });
}

void channel_shuffle_backward(Tensor dx, Tensor dy, int groups, float beta) {
  groups == 4 ? unshuffle<4>(dx, dy, beta) : unshuffle<2>(dx, dy, beta);
}

}  // namespace lanas::cpu
