// separable_conv_narrow.h -- the columns of a product that do not fill a vector: of 36 channels the last 4,
// of 72 the last 8. Of C such columns a vector holds G = W / C steps of the sum over the depth, lane j * G +
// k being column j of step i + k, so that no lane is idle; G pixels are folded into one vector at the end.
// With AVX-512 they go with two vectors before them (product_row), else on their own (narrow_row).
#pragma once

#include "kernels/ops/separable_conv_ahead.h"
#include "kernels/ops/separable_conv_pixels.h"

namespace lanas::cpu {

// Depth of narrow products at most: what their weights take of the stack.
constexpr int kNarrowDepth = 1024;

// Lanes k * C + j to j * G + k.
template <int W, int C, int... L>
LANAS_INLINE Vec<W> columns_first(Vec<W> v, std::integer_sequence<int, L...>) {
  constexpr int G = W / C;
  return __builtin_shufflevector(v, v, (L % G * C + L / G)...);
}
// to: [depth / G][W], from C columns of w: [depth][w_stride]; depth: a multiple of 4.
template <int W, int C>
LANAS_INLINE void narrow_weights(float* to, const float* w, ptrdiff_t w_stride, int depth) {
  constexpr int G = W / C;
  for (int i = 0; i < depth; i += G, to += W)
    store<W>(to, columns_first<W, C>(load_pixels<W, C>(w + i * w_stride, w_stride),
                                     std::make_integer_sequence<int, W>()));
}

// The sums over the G steps of each column: of pixel g, sums[g], to lanes g * C + j.
template <int W, int C, int... L>
LANAS_INLINE Vec<W> fold_steps(const Vec<W>* sums, std::integer_sequence<int, L...>) {
  if constexpr (W / C == 2) {
    const Vec<W> a = sums[0], b = sums[1];
    const Vec<W> sum = shuffle_quads<0, 2, 4, 6>(a, b) + shuffle_quads<1, 3, 5, 7>(a, b);
    return __builtin_shufflevector(sum, sum, (L % C / 2 * 4 + L / C * 2 + L % 2)...);
  } else {
    static_assert(W / C == 4);
    const Vec<W> a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    const Vec<W> ab = shuffle_quads<0, 4, 1, 5>(a, b) + shuffle_quads<2, 6, 3, 7>(a, b);
    const Vec<W> cd = shuffle_quads<0, 4, 1, 5>(c, d) + shuffle_quads<2, 6, 3, 7>(c, d);
    const Vec<W> sum = shuffle_quads<0, 1, 4, 5>(ab, cd) + shuffle_quads<2, 3, 6, 7>(ab, cd);
    return __builtin_shufflevector(sum, sum, (L % C * 4 + L / C)...);
  }
}

// What else is done with a product's results: nothing; sums of them and of their squares; 0 for those whose
// mask is not above 0; 0 for those below 0.
enum class Then { nothing, sums, mask, relu };

// Columns of a product in a row of pixels: where they go and what goes with them. added: what products are
// added to, out or another row; null: nothing. past: out goes past the caches.
struct Columns {
  float* out;
  int out_stride;
  const float* bias;
  const float* added;
  int added_stride;
  float *sum, *square;
  const float* mask;
  int mask_stride;
  bool past;
  // From a pixel and a column on.
  LANAS_INLINE Columns from(int pixel, int column) const {
    Columns c = *this;
    c.out += ptrdiff_t(pixel) * out_stride + column, c.bias += column;
    if (added) c.added += ptrdiff_t(pixel) * added_stride + column;
    if (sum) c.sum += column, c.square += column;
    if (mask) c.mask += ptrdiff_t(pixel) * mask_stride + column;
    return c;
  }
};

// Steps [i, i + W / C) of the sums of P pixels, with the weights at w.
template <int W, int C, int P>
LANAS_INLINE void narrow_step(Vec<W>* sums, const float* const* x, ptrdiff_t i, const float* w) {
  const Vec<W> weight = in_register(load<W>(w));
#pragma GCC unroll 8
  for (int r = 0; r < P; ++r) sums[r] += repeat<W, W / C>(x[r] + i) * weight;
}

// v: the sums of N pixels, in turn.
template <int N, int C, Then THEN>
LANAS_INLINE void finish_pixels(const Columns& to, Vec<N * C> v) {
  v += load_pixels<N * C, C>(to.bias, 0);
  if (THEN != Then::mask && to.added) v += load_pixels<N * C, C>(to.added, to.added_stride);
  if constexpr (THEN == Then::mask) v = load_pixels<N * C, C>(to.mask, to.mask_stride) > 0.0f ? v : v - v;
  if (THEN == Then::mask && to.added) v += load_pixels<N * C, C>(to.added, to.added_stride);
  if constexpr (THEN == Then::relu) v = rectified(v);
  store_pixels<N * C, C>(to.out, to.out_stride, v);
  if constexpr (THEN == Then::sums) {
    float lanes[N * C];
    store<N * C>(lanes, v);
    Vec<C> total = load<C>(to.sum), squares = load<C>(to.square);
    for (int i = 0; i < N; ++i) {
      const Vec<C> one = load<C>(lanes + i * C);
      total += one, squares += one * one;
    }
    store<C>(to.sum, total), store<C>(to.square, squares);
  }
}

// sums: of P pixels, of which the first `pixels` are there.
template <int W, int C, int P, Then THEN>
LANAS_INLINE void finish_narrow(const Columns& to, const Vec<W>* sums, int pixels) {
  constexpr int G = W / C;
#pragma GCC unroll 4
  for (int r = 0; r < P; r += G) {
    const Vec<W> v = fold_steps<W, C>(sums + r, std::make_integer_sequence<int, W>());
    if (r + G <= pixels) {
      finish_pixels<G, C, THEN>(to.from(r, 0), v);
      continue;
    }
    float few[W];
    store<W>(few, v);
    for (int g = 0; r + g < pixels; ++g) finish_pixels<1, C, THEN>(to.from(r + g, 0), load<C>(few + g * C));
  }
}

// C columns of a row of pixels on their own; weights: of narrow_weights.
template <int W, int C, Then THEN>
LANAS_INLINE void narrow_row(const Columns& to, const float* in, int in_stride, int pixels, int depth,
                             const float* weights, Ahead* ahead) {
  constexpr int P = 8;
  for (int p = 0; p < pixels; p += P) {
    if (ahead) ahead->some(P * depth * C / W);
    const float* x[P];
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r) x[r] = opaque(in + ptrdiff_t(std::min(p + r, pixels - 1)) * in_stride);
    Vec<W> sums[P] = {};
    for (ptrdiff_t i = 0; i < depth; i += W / C) narrow_step<W, C, P>(sums, x, i, weights + i * C);
    finish_narrow<W, C, P, THEN>(to.from(p, 0), sums, pixels - p);
  }
}

}  // namespace lanas::cpu
