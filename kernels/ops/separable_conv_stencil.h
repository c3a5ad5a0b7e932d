// separable_conv_stencil.h -- the depthwise part over flat rows (pixels x channels) in vectors of W floats.
// Channel of float i of a row is i % c, so weights come as [period][k*k][W], lane l of phase f holding
// channel (f*W + l) % c with period = c / gcd(c, W): every channel count shares one loop, whose weights stay
// in registers. A tile is ROWS output rows, spaced so that they share input rows: with input row i = Step*t +
// ky (in steps of `row_step` floats) each load feeds up to K multiply-adds. K = 0: kernel size at run time.
#pragma once

#include "kernels/ops/separable_conv_ahead.h"
#include "kernels/ops/separable_conv_vec.h"

namespace lanas::cpu {

struct StencilShape {
  int k;               // kernel size
  int vectors;         // of a row
  int period;          // vectors after which channels repeat
  ptrdiff_t row_step;  // floats from the input row of one kernel row to the next
  const int* column;   // [k]: floats from the row's start to the first input of kernel column kx
};

// out[t][v] (+)= sum_{ky,kx} w[ky,kx] in[Step*t + ky][v + column kx]; add: to what out holds.
template <int W, int K, int Step, int ROWS>
LANAS_INLINE void stencil_loops(float* const* out, const float* in, const float* weights,
                                const StencilShape& s, bool add, Ahead* ahead) {
  if constexpr (K == 0) {
    for (int v = 0, phase = 0; v < s.vectors; ++v, phase = phase + 1 == s.period ? 0 : phase + 1) {
      const float* w = weights + ptrdiff_t(phase) * s.k * s.k * W;
      Vec<W> acc[ROWS] = {};
      for (int t = 0; add && t < ROWS; ++t) acc[t] = load<W>(out[t] + v * W);
      for (int ky = 0; ky < s.k; ++ky)
        for (int kx = 0; kx < s.k; ++kx, w += W)
          for (int t = 0; t < ROWS; ++t)
            acc[t] += load<W>(w) * load<W>(in + (Step * t + ky) * s.row_step + s.column[kx] + v * W);
      for (int t = 0; t < ROWS; ++t) store<W>(out[t] + v * W, acc[t]);
    }
  } else {
    constexpr int kInputs = Step * (ROWS - 1) + K;
    for (int phase = 0; phase < s.period; ++phase, weights += K * K * W) {
      Vec<W> w[K * K];
#pragma GCC unroll 32
      for (int i = 0; i < K * K; ++i) w[i] = load<W>(weights + i * W);
      for (int v = phase; v < s.vectors; v += s.period) {
        if (ahead) ahead->some();
        Vec<W> acc[ROWS] = {};
        if (add)
#pragma GCC unroll 4
          for (int t = 0; t < ROWS; ++t) acc[t] = load<W>(out[t] + v * W);
#pragma GCC unroll 8
        for (int kx = 0; kx < K; ++kx) {
          const float* from = in + s.column[kx] + v * W;
#pragma GCC unroll 16
          for (int i = 0; i < kInputs; ++i, from += s.row_step) {
            const Vec<W> x = in_register(load<W>(from));
#pragma GCC unroll 4
            for (int t = 0; t < ROWS; ++t)
              if (0 <= i - Step * t && i - Step * t < K) acc[t] += w[(i - Step * t) * K + kx] * x;
          }
        }
#pragma GCC unroll 4
        for (int t = 0; t < ROWS; ++t) store<W>(out[t] + v * W, acc[t]);
      }
    }
  }
}

// sums[phase][ky,kx] += sum_{t,v} g[t][v] in[Step*t + ky][v + column kx]; lanes are added up at the end.
template <int W, int K, int Step, int ROWS>
LANAS_INLINE void stencil_gradient_loops(float* sums, const float* const* g, const float* in,
                                         const StencilShape& s, Ahead* ahead) {
  if constexpr (K == 0) {
    for (int v = 0, phase = 0; v < s.vectors; ++v, phase = phase + 1 == s.period ? 0 : phase + 1) {
      float* sum = sums + ptrdiff_t(phase) * s.k * s.k * W;
      for (int ky = 0; ky < s.k; ++ky)
        for (int kx = 0; kx < s.k; ++kx, sum += W) {
          Vec<W> acc = load<W>(sum);
          for (int t = 0; t < ROWS; ++t)
            acc += load<W>(g[t] + v * W) * load<W>(in + (Step * t + ky) * s.row_step + s.column[kx] + v * W);
          store<W>(sum, acc);
        }
    }
  } else {
    constexpr int kInputs = Step * (ROWS - 1) + K;
    for (int phase = 0; phase < s.period; ++phase, sums += K * K * W) {
      Vec<W> acc[K * K];
#pragma GCC unroll 32
      for (int i = 0; i < K * K; ++i) acc[i] = load<W>(sums + i * W);
      for (int v = phase; v < s.vectors; v += s.period) {
        if (ahead) ahead->some();
        Vec<W> d[ROWS];
#pragma GCC unroll 4
        for (int t = 0; t < ROWS; ++t) d[t] = load<W>(g[t] + v * W);
#pragma GCC unroll 8
        for (int kx = 0; kx < K; ++kx) {
          const float* from = in + s.column[kx] + v * W;
#pragma GCC unroll 16
          for (int i = 0; i < kInputs; ++i, from += s.row_step) {
            const Vec<W> x = in_register(load<W>(from));
#pragma GCC unroll 4
            for (int t = 0; t < ROWS; ++t)
              if (0 <= i - Step * t && i - Step * t < K) acc[(i - Step * t) * K + kx] += d[t] * x;
          }
        }
      }
#pragma GCC unroll 32
      for (int i = 0; i < K * K; ++i) store<W>(sums + i * W, acc[i]);
    }
  }
}

template <int W, int K, int Step, int ROWS>
LANAS_INLINE void stencil(float* const* out, const float* in, const float* weights, const StencilShape& s,
                          bool add = false, Ahead* ahead = nullptr) {
  isolated<W>([=, &s]() LANAS_LAMBDA { stencil_loops<W, K, Step, ROWS>(out, in, weights, s, add, ahead); });
}
template <int W, int K, int Step, int ROWS>
LANAS_INLINE void stencil_gradient(float* sums, const float* const* g, const float* in, const StencilShape& s,
                                   Ahead* ahead = nullptr) {
  isolated<W>([=, &s]() LANAS_LAMBDA { stencil_gradient_loops<W, K, Step, ROWS>(sums, g, in, s, ahead); });
}

// Calls tile(first row, rows) with rows 4 or 1: `step` is the distance between the rows of a tile.
template <class Tile>
LANAS_INLINE void for_tiles(int begin, int end, int step, Tile&& tile) {
  int o = begin;
  for (; o + 4 * step <= end; o += 4 * step)
    for (int r = 0; r < step; ++r) tile(o + r, 4);
  for (; o < end; ++o) tile(o, 1);
}

// Calls f(K, Step, ROWS) as integral constants. Kernel sizes 3 and 5 in tiles of four rows are worth their
// own code where vectors are wide; for the rest K = 0.
template <int W, class F>
LANAS_INLINE void with_constants(int k, int step, int rows, F&& f) {
  const auto choose = [&](auto jump) LANAS_LAMBDA {
    constexpr std::integral_constant<int, 0> any;
    if (rows == 1) return f(any, jump, std::integral_constant<int, 1>());
    constexpr std::integral_constant<int, 4> four;
    if constexpr (W > 4) {
      if (k == 2) return f(std::integral_constant<int, 2>(), jump, four);
      if (k == 3) return f(std::integral_constant<int, 3>(), jump, four);
      if (k == 5) return f(std::integral_constant<int, 5>(), jump, four);
    }
    f(any, jump, four);
  };
  if (step == 1)
    choose(std::integral_constant<int, 1>());
  else
    choose(std::integral_constant<int, 2>());
}

}  // namespace lanas::cpu
