// separable_conv_narrow.h -- the columns of a product that do not fill a vector: of 36 channels the last 4,
// of 72 the last 8. Of C such columns a vector holds G = W / C steps of the sum over the depth, lane j * G +
// k being column j of step i + k, so that no lane is idle; G pixels are folded into one vector at the end.
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

// C columns of a row of pixels; weights: of narrow_weights, the rest as for product_row.
template <int W, int C, bool STATS, bool MASK>
LANAS_INLINE void narrow_row(float* out, int out_stride, const float* in, int in_stride, int pixels,
                             int depth, const float* weights, const float* bias, const float* added,
                             int added_stride, float* sum, float* square, const float* mask, int mask_stride,
                             Ahead* ahead) {
  constexpr int G = W / C, P = 8;
  Vec<C> total = {}, squares = {};
  if constexpr (STATS) total = load<C>(sum), squares = load<C>(square);
  // Of N pixels from p on, their products in v.
  const auto finish = [&](auto count, int p, auto v) LANAS_LAMBDA {
    constexpr int N = decltype(count)::value;
    v += load_pixels<N * C, C>(bias, 0);
    const float* const base = added ? added + ptrdiff_t(p) * added_stride : nullptr;
    if (!MASK && base) v += load_pixels<N * C, C>(base, added_stride);
    if constexpr (MASK)
      v = load_pixels<N * C, C>(mask + ptrdiff_t(p) * mask_stride, mask_stride) > 0.0f ? v : v - v;
    if (MASK && base) v += load_pixels<N * C, C>(base, added_stride);
    store_pixels<N * C, C>(out + ptrdiff_t(p) * out_stride, out_stride, v);
    if constexpr (STATS) {
      float lanes[N * C];
      store<N * C>(lanes, v);
      for (int i = 0; i < N; ++i) {
        const Vec<C> one = load<C>(lanes + i * C);
        total += one, squares += one * one;
      }
    }
  };
  for (int p = 0; p < pixels; p += P) {
    if (ahead) ahead->some(P * depth / G);
    const float* x[P];
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r) x[r] = opaque(in + ptrdiff_t(std::min(p + r, pixels - 1)) * in_stride);
    Vec<W> acc[P] = {};
    const float* w = weights;
    for (int i = 0; i < depth; i += G, w += W) {
      const Vec<W> weight = in_register(load<W>(w));
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r) acc[r] += repeat<W, G>(x[r] + i) * weight;
    }
    constexpr std::make_integer_sequence<int, W> lanes;
#pragma GCC unroll 4
    for (int r = 0; r < P; r += G) {
      const Vec<W> v = fold_steps<W, C>(acc + r, lanes);
      if (p + r + G <= pixels) {
        finish(std::integral_constant<int, G>(), p + r, v);
        continue;
      }
      float few[W];
      store<W>(few, v);
      for (int g = 0; p + r + g < pixels; ++g)
        finish(std::integral_constant<int, 1>(), p + r + g, load<C>(few + g * C));
    }
  }
  if constexpr (STATS) store<C>(sum, total), store<C>(square, squares);
}

}  // namespace lanas::cpu
