// separable_conv_product.h -- the pointwise part: out = in * w and its weight gradient, over rows of pixels.
//   out[p][j] (+)= bias[j] + sum_i in[p][i] w[i][j];  dw[i][j] += sum_p in[p][i] dy[p][j]
// From W output channels on, vectors hold channels of one pixel and in[p][i] is broadcast. Below, with as
// many channels in as out ("flat"), a vector holds W / C pixels and in is permuted within each pixel.
#pragma once

#include <algorithm>

#include "kernels/ops/separable_conv_ahead.h"
#include "kernels/ops/separable_conv_vec.h"

namespace lanas::cpu {

// Rows of pixels: row t starts at row[t], pixels are `stride` floats apart.
struct Rows {
  float* row[4];
  int count;
  int stride;
};

// Vectors of output channels that a block takes, of `left`.
constexpr int block_vectors(int left) { return left == 1 ? 1 : left == 3 ? 3 : 2; }

// One row times V vectors of output channels, P pixels at a time; returns the pixels done. add: to what out
// holds. STATS: adds the outputs and their squares to sum[0 .. V*W) and square. MASK: products where mask is
// not above 0 become 0.
template <int W, int P, int V, bool STATS, bool MASK>
LANAS_INLINE int product_row(float* out, int out_stride, const float* in, int in_stride, int pixels,
                             int depth, const float* w, int w_stride, const float* bias, bool add, float* sum,
                             float* square, const float* mask, int mask_stride, Ahead* ahead) {
  int p = 0;
  for (; p + P <= pixels; p += P, in += P * in_stride, out += P * out_stride) {
    if (ahead) ahead->some();
    Vec<W> acc[P][V];
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = load<W>(bias + v * W);
    if (add && !MASK)
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] += load<W>(out + r * out_stride + v * W);
    const float *wi = w, *x[P];
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r) x[r] = opaque(in + r * in_stride);
    for (int i = 0; i < depth; ++i, wi += w_stride) {
      Vec<W> b[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) b[v] = in_register<W>(load<W>(wi + v * W));
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] += x[r][i] * b[v];
    }
    if constexpr (MASK) {
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r, mask += mask_stride)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          acc[r][v] = load<W>(mask + v * W) > Vec<W>{} ? acc[r][v] : Vec<W>{};
          if (add) acc[r][v] += load<W>(out + r * out_stride + v * W);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < P; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store<W>(out + r * out_stride + v * W, acc[r][v]);
    if constexpr (!STATS) continue;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Vec<W> s = load<W>(sum + v * W), q = load<W>(square + v * W);
#pragma GCC unroll 8
      for (int r = 0; r < P; ++r) s += acc[r][v], q += acc[r][v] * acc[r][v];
      store<W>(sum + v * W, s), store<W>(square + v * W, q);
    }
  }
  return p;
}

// Rows of channels are padded to quads: after the whole vectors come a half one and a quad, where they fit.
constexpr int kChannelMultiple = 4;

// Calls block(lanes, vectors, j) with integral constants over [0, width) in blocks of up to `most` vectors.
template <int W, class Block>
LANAS_INLINE void for_blocks(int width, int most, Block&& block) {
  constexpr std::integral_constant<int, W> lanes;
  int j = 0;
  while (width - j >= W) {
    const int vectors = std::min(most, block_vectors((width - j) / W));
    if (vectors == 1) block(lanes, std::integral_constant<int, 1>(), j);
    if (vectors == 2) block(lanes, std::integral_constant<int, 2>(), j);
    if (vectors == 3) block(lanes, std::integral_constant<int, 3>(), j);
    j += vectors * W;
  }
  constexpr std::integral_constant<int, 1> one;
  if constexpr (W == 16)
    if (width - j >= 8) block(std::integral_constant<int, 8>(), one, j), j += 8;
  if constexpr (W > 4)
    if (j < width) block(std::integral_constant<int, 4>(), one, j);
}

// w: [depth][w_stride], w_stride a multiple of kChannelMultiple; bias, sum, square: [w_stride].
template <int W, bool STATS, bool MASK>
LANAS_INLINE void product_rows(const Rows& out, const Rows& in, int pixels, int depth, const float* w,
                               int w_stride, const float* bias, float* sum, float* square, bool add,
                               const Rows& mask, Ahead* ahead) {
  constexpr int kPixels = W == 16 ? 8 : 4;
  for_blocks<W>(w_stride, 3, [&](auto lanes, auto vectors, int j) LANAS_LAMBDA {
    constexpr int L = decltype(lanes)::value, V = decltype(vectors)::value;
    for (int t = 0; t < out.count; ++t) {
      float *to = out.row[t] + j, *s = STATS ? sum + j : nullptr, *q = STATS ? square + j : nullptr;
      const float *from = in.row[t], *masking = MASK ? mask.row[t] + j : nullptr;
      const int done =
          product_row<L, kPixels, V, STATS, MASK>(to, out.stride, from, in.stride, pixels, depth, w + j,
                                                  w_stride, bias + j, add, s, q, masking, mask.stride, ahead);
      if (done < pixels)
        product_row<L, 1, V, STATS, MASK>(to + done * out.stride, out.stride, from + done * in.stride,
                                          in.stride, pixels - done, depth, w + j, w_stride, bias + j, add, s,
                                          q, MASK ? masking + done * mask.stride : nullptr, mask.stride,
                                          ahead);
    }
  });
}

template <int W, bool STATS>
LANAS_INLINE void product(const Rows& out, const Rows& in, int pixels, int depth, const float* w,
                          int w_stride, const float* bias, float* sum, float* square, bool add = false,
                          Ahead* ahead = nullptr) {
  isolated<W>([=]() LANAS_LAMBDA {
    product_rows<W, STATS, false>(out, in, pixels, depth, w, w_stride, bias, sum, square, add, {}, ahead);
  });
}
// out (+)= in * w where mask is above 0, from 0 on elsewhere; zeros: [w_stride], in the place of a bias.
template <int W>
LANAS_INLINE void masked_product(const Rows& out, const Rows& mask, const Rows& in, int pixels, int depth,
                                 const float* w, int w_stride, const float* zeros, bool add, Ahead* ahead) {
  isolated<W>([=]() LANAS_LAMBDA {
    product_rows<W, false, true>(out, in, pixels, depth, w, w_stride, zeros, nullptr, nullptr, add, mask,
                                 ahead);
  });
}

// Flat rows of `vectors` vectors; w: [C][W], lane l of w[i] is the weight from channel i to channel l % C.
template <int W, int C, int U, bool STATS, int... I>
LANAS_INLINE int flat_row(float* out, const float* in, int vectors, const float* w, const float* bias,
                          float* sum, float* square, std::integer_sequence<int, I...>) {
  const Vec<W> weights[C] = {load<W>(w + I * W)...};
  const Vec<W> start = load<W>(bias);
  Vec<W> s = {}, q = {};
  int v = 0;
  for (; v + U <= vectors; v += U) {
    Vec<W> acc[U];
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      const Vec<W> x = load<W>(in + (v + u) * W);
      acc[u] = start;
      ((acc[u] += pick_channel<W, C, I>(x) * weights[I]), ...);
    }
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) {
      store<W>(out + (v + u) * W, acc[u]);
      if constexpr (STATS) s += acc[u], q += acc[u] * acc[u];
    }
  }
  if constexpr (STATS) store<W>(sum, load<W>(sum) + s), store<W>(square, load<W>(square) + q);
  return v;
}
template <int W, int C, bool STATS>
LANAS_INLINE void flat_product(const Rows& out, const Rows& in, int vectors, const float* w,
                               const float* bias, float* sum, float* square) {
  isolated<W>([=]() LANAS_LAMBDA {
    constexpr std::make_integer_sequence<int, C> channels;
    for (int t = 0; t < out.count; ++t) {
      const int done =
          flat_row<W, C, 4, STATS>(out.row[t], in.row[t], vectors, w, bias, sum, square, channels);
      if (done < vectors)
        flat_row<W, C, 1, STATS>(out.row[t] + done * W, in.row[t] + done * W, vectors - done, w, bias, sum,
                                 square, channels);
    }
  });
}

// dw[i][j] += sum_p in[p][i] dy[p][j] for I rows and V vectors of dw, over all rows of pixels.
template <int W, int I, int V>
LANAS_INLINE void product_gradient_block(float* dw, int dw_stride, const Rows& in, int i, const Rows& dy,
                                         int j, int pixels) {
  Vec<W> acc[I][V];
#pragma GCC unroll 16
  for (int r = 0; r < I; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = load<W>(dw + r * dw_stride + v * W);
  for (int t = 0; t < in.count; ++t) {
    const float *x = in.row[t] + i, *g = dy.row[t] + j;
    for (int p = 0; p < pixels; ++p, x += in.stride, g += dy.stride) {
      Vec<W> b[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) b[v] = load<W>(g + v * W);
#pragma GCC unroll 16
      for (int r = 0; r < I; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] += x[r] * b[v];
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
                                   int pixels) {
  for_blocks<W>(dw_stride, 2, [&](auto lanes, auto vectors, int j) LANAS_LAMBDA {
    constexpr int L = decltype(lanes)::value, V = decltype(vectors)::value;
    constexpr int kRows = (V == 1 ? 16 : 8) / (W == 16 ? 1 : 2);
    isolated<W>([=]() LANAS_LAMBDA {
      int i = 0;
      for (; i + kRows <= depth; i += kRows)
        product_gradient_block<L, kRows, V>(dw + i * dw_stride + j, dw_stride, in, i, dy, j, pixels);
      for (; i + 4 <= depth; i += 4)
        product_gradient_block<L, 4, V>(dw + i * dw_stride + j, dw_stride, in, i, dy, j, pixels);
      for (; i < depth; ++i)
        product_gradient_block<L, 1, V>(dw + i * dw_stride + j, dw_stride, in, i, dy, j, pixels);
    });
  });
}

// dw: [C][W], lane l of dw[i] belongs to channels i and l % C.
template <int W, int C, int... I>
LANAS_INLINE void flat_gradient_rows(float* dw, const Rows& in, const Rows& dy, int vectors,
                                     std::integer_sequence<int, I...>) {
  Vec<W> acc[C] = {load<W>(dw + I * W)...};
  for (int t = 0; t < in.count; ++t)
    for (int v = 0; v < vectors; ++v) {
      const Vec<W> x = load<W>(in.row[t] + v * W), g = load<W>(dy.row[t] + v * W);
      ((acc[I] += pick_channel<W, C, I>(x) * g), ...);
    }
  (store<W>(dw + I * W, acc[I]), ...);
}
template <int W, int C>
LANAS_INLINE void flat_product_gradient(float* dw, const Rows& in, const Rows& dy, int vectors) {
  isolated<W>([=]() LANAS_LAMBDA {
    flat_gradient_rows<W, C>(dw, in, dy, vectors, std::make_integer_sequence<int, C>());
  });
}

}  // namespace lanas::cpu
