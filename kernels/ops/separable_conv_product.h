// separable_conv_product.h -- the pointwise part: out = in * w and its weight gradient, over rows of pixels.
//   out[p][j] (+)= bias[j] + sum_i in[p][i] w[i][j];  dw[i][j] += sum_p in[p][i] dy[p][j]
// From W output channels on, vectors hold channels of one pixel and in[p][i] is broadcast. Below, with as
// many channels in as out ("flat"), a vector holds W / C pixels and in is shuffled within each pixel.
#pragma once

#include <algorithm>

#include "kernels/ops/separable_conv_narrow.h"

namespace lanas::cpu {

// One row times V vectors of columns and the C columns behind them (0: none), whose weights are `narrow`, P
// pixels at a time; returns the pixels done. With AVX-512 a turn of the loop is four steps of the sum: of
// one step 11 of 37 instructions would be the loop's own. STRETCH: each step asks for a line of ahead's
// stretch.
template <int W, int P, int V, int C, Then THEN, bool STRETCH>
LANAS_INLINE int product_row(const Columns& to, const float* in, int in_stride, int pixels, int depth,
                             const float* w, int w_stride, const float* narrow, Ahead* ahead) {
  constexpr int kSteps = W == 16 && P > 1 ? 4 : 1;
  int p = 0;
  for (; p + P <= pixels; p += P, in += P * in_stride) {
    if (ahead) ahead->some(P * (V * W + C) * depth / W);
    const Columns here = to.from(p, 0);
    Vec<W> acc[P][V], last[C > 0 ? P : 1] = {};
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        acc[r][v] = load<W>(here.bias + v * W);
        if (THEN != Then::mask && here.added)
          acc[r][v] += load<W>(here.added + r * here.added_stride + v * W);
      }
    const float *wi = w, *wn = narrow, *x[P];
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r) x[r] = opaque(in + r * in_stride);
    const float* line = nullptr;
    ptrdiff_t line_step = 0;
    if constexpr (STRETCH) line = ahead->take(depth, line_step);
    const auto step = [&](ptrdiff_t i) LANAS_LAMBDA {
      if constexpr (STRETCH) __builtin_prefetch(line, 0, 2), line += line_step;
      Vec<W> b[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) b[v] = in_register(load<W>(wi + v * W));
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] += x[r][i] * b[v];
      wi += w_stride;
      if constexpr (kSteps > 1) wi = opaque(wi);
    };
    ptrdiff_t i = 0;
    for (; i + kSteps <= depth; i += kSteps) {
      if constexpr (kSteps > 1) i = opaque(i);
#pragma GCC unroll 4
      for (int u = 0; u < kSteps; ++u) {
        step(i + u);
        if constexpr (C > 0)
          if (u % (W / C) == 0) narrow_step<W, C, P>(last, x, i + u, wn + u * C);
      }
      wn += kSteps * C;
    }
    for (; C == 0 && i < depth; ++i) step(i);
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        Vec<W>& a = acc[r][v];
        if constexpr (THEN == Then::mask) {
          a = load<W>(here.mask + r * here.mask_stride + v * W) > 0.0f ? a : a - a;
          if (here.added) a += load<W>(here.added + r * here.added_stride + v * W);
        }
        if constexpr (THEN == Then::relu) a = rectified(a);
        store<W>(here.out + r * here.out_stride + v * W, a, here.past);
      }
    if constexpr (THEN == Then::sums) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        Vec<W> s = load<W>(here.sum + v * W), q = load<W>(here.square + v * W);
#pragma GCC unroll 8
        for (int r = 0; r < P; ++r) s += acc[r][v], q += acc[r][v] * acc[r][v];
        store<W>(here.sum + v * W, s), store<W>(here.square + v * W, q);
      }
    }
    if constexpr (C > 0) finish_narrow<W, C, P, THEN>(here.from(0, V * W), last, P);
  }
  return p;
}

// Rows of as many columns as depth, a vector of them, packed within a row, whose pixels come in eights (fours
// without AVX-512): the weights stay in registers, and addresses known beforehand leave the compiler nothing
// to keep but them.
template <int W>
constexpr int kSquarePixels = W == 16 ? 8 : 4;
template <int W, Then THEN>
LANAS_INLINE void square_rows(const Rows& outs, const Rows& ins, int pixels, const float* w,
                              const float* bias, const Rows& addeds, float* sum, float* square,
                              Ahead* ahead) {
  constexpr int P = kSquarePixels<W>;
  Vec<W> weights[W], s = {}, q = {};
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) weights[i] = in_register(load<W>(w + i * W));
  if constexpr (THEN == Then::sums) s = load<W>(sum), q = load<W>(square);
  for (int t = 0; t < outs.count; ++t) {
    float* out = outs.row(t);
    const float *in = ins.row(t), *added = addeds.count > 0 ? addeds.row(t) : nullptr;
    for (int p = 0; p < pixels; p += P, in += P * W, out += P * W) {
      if (ahead) ahead->some(P * W);
      Vec<W> acc[P];
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r) acc[r] = in_register(load<W>(bias));
      if (added) {
#pragma GCC unroll 8
        for (int r = 0; r < P; ++r) acc[r] += load<W>(added + r * addeds.stride);
        added += P * addeds.stride;
      }
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i)
#pragma GCC unroll 8
        for (int r = 0; r < P; ++r) acc[r] += in[r * W + i] * weights[i];
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r) {
        if constexpr (THEN == Then::relu) acc[r] = rectified(acc[r]);
        store<W>(out + r * W, acc[r], outs.past);
        if constexpr (THEN == Then::sums) s += acc[r], multiply_add(q, acc[r], acc[r]);
      }
    }
  }
  if constexpr (THEN == Then::sums) store<W>(sum, s), store<W>(square, q);
}

// Rows of channels are padded to quads: after the whole vectors come a half one and a quad, where they fit.
constexpr int kChannelMultiple = 4;

// Calls block(lanes, vectors, j) with integral constants over [0, width) in blocks of up to `most` vectors.
// Of two; of three where one would be left, and with vectors of 8 wherever threes divide what is left.
template <int W, class Block>
LANAS_INLINE void for_blocks(int width, int most, Block&& block) {
  constexpr Count<W> lanes;
  int j = 0;
  while (width - j >= W) {
    const int left = (width - j) / W;
    const bool threes = left == 3 || (W == 8 && left % 3 == 0);
    const int vectors = left == 1 ? 1 : threes ? std::min(most, 3) : 2;
    if (vectors == 1) block(lanes, Count<1>(), j);
    if (vectors == 2) block(lanes, Count<2>(), j);
    if (vectors == 3) block(lanes, Count<3>(), j);
    j += vectors * W;
  }
  if constexpr (W == 16)
    if (width - j >= 8) block(Count<8>(), Count<1>(), j), j += 8;
  if constexpr (W > 4)
    if (j < width) block(Count<4>(), Count<1>(), j);
}

// Pixels that product_rows takes at a time, as many as registers have room for.
template <int W, int V>
constexpr int kPixels = W == 16 || (W == 8 && V == 1) ? 8 : 4;
constexpr int kRowPixels = 8;  // a multiple of them leaves no single pixels

// w: [depth][w_stride], w_stride a multiple of kChannelMultiple; bias, sum, square: [w_stride].
template <int W, Then THEN, bool STRETCH>
LANAS_INLINE void product_rows(const Rows& out, const Rows& in, int pixels, int depth, const float* w,
                               int w_stride, const float* bias, float* sum, float* square, const Rows& added,
                               const Rows& mask, Ahead* ahead) {
  const bool run = one_run(in, pixels) && one_run(out, pixels) && one_run(added, pixels) &&
                   (THEN != Then::mask || one_run(mask, pixels));
  const int rows = run ? 1 : out.count;
  if (run) pixels *= out.count;  // short rows cost a third of a product on their own
  if constexpr (W > 4 && THEN != Then::mask)
    if (depth == W && w_stride == W && in.stride == W && out.stride == W && pixels % kSquarePixels<W> == 0) {
      return square_rows<W, THEN>(out.part(0, rows), in, pixels, w, bias, added, sum, square, ahead);
    }
  int done_before = 0;  // columns before this one went with a block of vectors
  for_blocks<W>(w_stride, 3, [&](auto lanes, auto vectors, int j) LANAS_LAMBDA {
    constexpr int L = decltype(lanes)::value, V = decltype(vectors)::value;
    if (j < done_before) return;
    // Columns that are narrow: these, or, where registers have room, those behind them.
    constexpr bool kTakesNarrow = W == 16 && L == W && V == 2;
    const int behind = w_stride - j - V * W;
    const bool possible = depth % 4 == 0 && depth <= kNarrowDepth;
    const int with = kTakesNarrow && possible && behind < W ? std::min(behind, 8) : 0;
    alignas(64) float table[L < W || kTakesNarrow ? kNarrowDepth * 8 : 1];
    const auto for_narrow = [&](auto&& f) LANAS_LAMBDA {
      if (with == 4) f(Count<4>());
      if (with == 8) f(Count<8>());
    };
    if constexpr (kTakesNarrow) {
      for_narrow([&](auto c) LANAS_LAMBDA { narrow_weights<W, c>(table, w + j + V * W, w_stride, depth); });
      done_before = j + V * W + with;
    } else if constexpr (L < W) {
      if (possible) narrow_weights<W, L>(table, w + j, w_stride, depth);
    }
    for (int t = 0; t < rows; ++t) {
      const Columns to{out.row(t) + j,
                       out.stride,
                       bias + j,
                       added.count > 0 ? added.row(t) + j : nullptr,
                       added.stride,
                       THEN == Then::sums ? sum + j : nullptr,
                       THEN == Then::sums ? square + j : nullptr,
                       THEN == Then::mask ? mask.row(t) + j : nullptr,
                       mask.stride,
                       out.past};
      const float* const from = in.row(t);
      if constexpr (L < W)
        if (possible) {
          narrow_row<W, L, THEN>(to, from, in.stride, pixels, depth, table, ahead);
          continue;
        }
      constexpr int P = kPixels<W, V>;
      int done = 0;
      const auto some = [&](auto count, auto narrow, auto stretch, int first) LANAS_LAMBDA {
        return product_row<L, decltype(count)::value, V, decltype(narrow)::value, THEN,
                           decltype(stretch)::value>(to.from(first, 0), from + ptrdiff_t(first) * in.stride,
                                                     in.stride, pixels - first, depth, w + j, w_stride, table,
                                                     ahead);
      };
      constexpr std::bool_constant<STRETCH> stretch;
      if constexpr (kTakesNarrow)
        for_narrow([&](auto c) LANAS_LAMBDA { done = some(Count<P>(), c, stretch, 0); });
      if (with == 0 && done == 0) done = some(Count<P>(), Count<0>(), stretch, 0);
      if (done == pixels) continue;
      some(Count<1>(), Count<0>(), std::false_type(), done);
      if constexpr (kTakesNarrow)
        for_narrow([&](auto c) LANAS_LAMBDA {
          narrow_row<W, c, THEN>(to.from(done, V * W), from + ptrdiff_t(done) * in.stride, in.stride,
                                 pixels - done, depth, table, ahead);
        });
    }
  });
}

// out = in * w + bias + added, which may be out; no rows: nothing.
template <int W, Then THEN>
LANAS_INLINE void product(const Rows& out, const Rows& in, int pixels, int depth, const float* w,
                          int w_stride, const float* bias, float* sum, float* square, const Rows& added = {},
                          Ahead* ahead = nullptr) {
  static_assert(THEN != Then::mask);
  if constexpr (THEN != Then::sums)
    if (ahead && ahead->stretches())
      return isolated<W>([=]() LANAS_LAMBDA {
        product_rows<W, THEN, true>(out, in, pixels, depth, w, w_stride, bias, nullptr, nullptr, added, {},
                                    ahead);
      });
  isolated<W>([=]() LANAS_LAMBDA {
    product_rows<W, THEN, false>(out, in, pixels, depth, w, w_stride, bias, sum, square, added, {}, ahead);
  });
}
// out (+)= in * w where mask is above 0, from 0 on elsewhere; zeros: [w_stride], in the place of a bias.
template <int W>
LANAS_INLINE void masked_product(const Rows& out, const Rows& mask, const Rows& in, int pixels, int depth,
                                 const float* w, int w_stride, const float* zeros, bool add, Ahead* ahead) {
  isolated<W>([=]() LANAS_LAMBDA {
    product_rows<W, Then::mask, false>(out, in, pixels, depth, w, w_stride, zeros, nullptr, nullptr,
                                       add ? out : Rows{}, mask, ahead);
  });
}

// Flat rows of `vectors` vectors; w: [C][W], lane l of w[i] is the weight from channel l % C ^ i to channel
// l % C: vectors are multiplied with lanes swapped, which takes fewer shuffles than a channel in all lanes.
template <int W, int C, int U, bool STATS>
LANAS_INLINE int flat_row(float* out, const float* in, int vectors, const float* w, const float* bias,
                          float* sum, float* square, bool past) {
  Vec<W> weights[C];
#pragma GCC unroll 8
  for (int i = 0; i < C; ++i) weights[i] = load<W>(w + i * W);
  const Vec<W> start = load<W>(bias);
  Vec<W> s[2] = {}, q[2] = {};
  int v = 0;
  for (; v + U <= vectors; v += U) {
    Vec<W> acc[U];
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      acc[u] = start;
      for_swapped<W, C>(load<W>(in + (v + u) * W),
                        [&](auto i, Vec<W> x) LANAS_LAMBDA { acc[u] += x * weights[i]; });
    }
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      store<W>(out + (v + u) * W, acc[u], past);
      if constexpr (STATS) s[u % 2] += acc[u], q[u % 2] += acc[u] * acc[u];
    }
  }
  if constexpr (STATS)
    store<W>(sum, load<W>(sum) + (s[0] + s[1])), store<W>(square, load<W>(square) + (q[0] + q[1]));
  return v;
}
template <int W, int C, bool STATS>
LANAS_INLINE void flat_product(const Rows& out, const Rows& in, int vectors, const float* w,
                               const float* bias, float* sum, float* square) {
  isolated<W>([=]() LANAS_LAMBDA {
    for (int t = 0; t < out.count; ++t) {
      const int done =
          flat_row<W, C, 4, STATS>(out.row(t), in.row(t), vectors, w, bias, sum, square, out.past);
      if (done < vectors)
        flat_row<W, C, 1, STATS>(out.row(t) + done * W, in.row(t) + done * W, vectors - done, w, bias, sum,
                                 square, out.past);
    }
  });
}

// dw[i][j] += sum_p in[p][i] dy[p][j] for I rows and V vectors of dw, over all rows of pixels.
template <int W, int I, int V>
LANAS_INLINE void product_gradient_block(float* dw, int dw_stride, const Rows& in, int i, const Rows& dy,
                                         int j, int pixels, Ahead* ahead) {
  constexpr int kSome = 16;  // pixels between two calls of ahead->some()
  Vec<W> acc[I][V];
#pragma GCC unroll 16
  for (int r = 0; r < I; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = load<W>(dw + r * dw_stride + v * W);
  for (int t = 0; t < in.count; ++t) {
    const float *x = in.row(t) + i, *g = dy.row(t) + j;
    for (int p = 0; p < pixels; p += kSome) {
      const int some = std::min(kSome, pixels - p);
      if (ahead) ahead->some(some * I * V);
      for (int q = 0; q < some; ++q, x += in.stride, g += dy.stride) {
        Vec<W> b[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) b[v] = load<W>(g + v * W);
#pragma GCC unroll 16
        for (int r = 0; r < I; ++r)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[r][v] += x[r] * b[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < I; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store<W>(dw + r * dw_stride + v * W, acc[r][v]);
}

// dw: [depth][dw_stride]; dy holds dw_stride floats a pixel, a multiple of kChannelMultiple.
template <int W>
LANAS_INLINE void product_gradient(float* dw, int dw_stride, int depth, const Rows& in, const Rows& dy,
                                   int pixels, Ahead* ahead = nullptr) {
  for_blocks<W>(dw_stride, 2, [&](auto lanes, auto vectors, int j) LANAS_LAMBDA {
    constexpr int L = decltype(lanes)::value, V = decltype(vectors)::value;
    constexpr int kRows = (V == 1 ? 16 : 8) / (W == 16 ? 1 : 2);
    isolated<W>([=]() LANAS_LAMBDA {
      int i = 0;
      for (; i + kRows <= depth; i += kRows)
        product_gradient_block<L, kRows, V>(dw + i * dw_stride + j, dw_stride, in, i, dy, j, pixels, ahead);
      for (; i + 4 <= depth; i += 4)
        product_gradient_block<L, 4, V>(dw + i * dw_stride + j, dw_stride, in, i, dy, j, pixels, ahead);
      for (; i < depth; ++i)
        product_gradient_block<L, 1, V>(dw + i * dw_stride + j, dw_stride, in, i, dy, j, pixels, ahead);
    });
  });
}

// What flat rows of dy give in one pass: out = dy w (w: as for flat_row) and, with WANT_DW, dw[i] += in dy,
// lane l of dw[i] belonging to channels l % C of in and l % C ^ i of dy. dy is g or, of PARTS, a g + b v + d
// (factors: [W] each).
template <int W, int C, bool WANT_DW, bool PARTS>
LANAS_INLINE void flat_backward_rows(float* dw, const Rows& out, const Rows& in, const Rows& g, const Rows& v,
                                     const float* const* factors, int vectors, const float* w) {
  Vec<W> weights[C], sums[C] = {}, factor = {}, slope = {}, shift = {};
#pragma GCC unroll 8
  for (int i = 0; i < C; ++i) weights[i] = load<W>(w + i * W);
#pragma GCC unroll 8
  for (int i = 0; WANT_DW && i < C; ++i) sums[i] = load<W>(dw + i * W);
  if constexpr (PARTS) factor = load<W>(factors[0]), slope = load<W>(factors[1]), shift = load<W>(factors[2]);
  for (int t = 0; t < out.count; ++t) {
    const float *from = g.row(t), *value = PARTS ? v.row(t) : nullptr, *x = WANT_DW ? in.row(t) : nullptr;
    float* to = out.row(t);
    for (int j = 0; j < vectors * W; j += W) {
      Vec<W> dy = load<W>(from + j), result = {};
      if constexpr (PARTS) dy = factor * dy + (slope * load<W>(value + j) + shift);
      Vec<W> d = {};
      if constexpr (WANT_DW) d = in_register(load<W>(x + j));
      for_swapped<W, C>(dy, [&](auto i, Vec<W> swapped) LANAS_LAMBDA {
        if constexpr (WANT_DW) sums[i] += d * swapped;
        result += swapped * weights[i];
      });
      store<W>(to + j, result);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; WANT_DW && i < C; ++i) store<W>(dw + i * W, sums[i]);
}
template <int W, int C>
LANAS_INLINE void flat_backward(float* dw, const Rows& out, const Rows& in, const Rows& g, const Rows& v,
                                const float* const* factors, int vectors, const float* w) {
  isolated<W>([=, &out, &in, &g, &v]() LANAS_LAMBDA {
    with_flag(dw, [&](auto want_dw) LANAS_LAMBDA {
      with_flag(factors, [&](auto parts) LANAS_LAMBDA {
        flat_backward_rows<W, C, want_dw, parts>(dw, out, in, g, v, factors, vectors, w);
      });
    });
  });
}

}  // namespace lanas::cpu
