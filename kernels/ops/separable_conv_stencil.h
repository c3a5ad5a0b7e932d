// separable_conv_stencil.h -- the depthwise part over flat rows (pixels x channels) in vectors of W floats.
// Channel of float i of a row is i % c, so weights come as [period][k*k][W], lane l of phase f holding
// channel (f*W + l) % c with period = c / gcd(c, W): every channel count shares one loop, whose weights stay
// in registers. A tile is ROWS output rows, spaced so that they share input rows: with input row i = Step*t +
// ky (in steps of `row_step` floats) each load feeds up to K multiply-adds. Input rows that are zeros around
// the image are left out. K: rows of the kernel, KX: its columns; K = 0: both at run time.
#pragma once

#include "kernels/ops/separable_conv_ahead.h"
#include "kernels/ops/separable_conv_vec.h"

namespace lanas::cpu {

struct StencilShape {
  int k, k_columns;    // rows and columns of the kernel
  int vectors;         // of a row
  int period;          // vectors after which channels repeat
  ptrdiff_t row_step;  // floats from the input row of one kernel row to the next
  const int* column;   // [k_columns]: floats from the row's start to the first input of kernel column kx
  int first, apart;    // input row i of a tile is row first + i * apart of an image of `height` rows: those
  int height;          // before and behind it are zeros
  // Of a tile that begins `rows` rows further on.
  StencilShape from(int rows) const {
    StencilShape s = *this;
    s.first += rows;
    return s;
  }
};

// With 16 registers a kernel column or two of weights or sums stay there, with two vectors of a row under way
// at once in tiles of four rows, one in tiles of eight. AVX-512 has 32: room for the weights of a kernel of
// 3, and of a kernel of 5 for two sums of each row, of its even and its odd columns, which take turns: a sum
// waits for what was added to it before.
template <int W>
constexpr bool kFewRegisters = W < 16;
template <int W, int K>  // sums of a row
constexpr int kChains = W == 16 && K == 5 ? 2 : 1;

// Rows of most tiles, where a row has so many floats. With eight rows a small kernel takes fewer loads for a
// multiply-add; the registers must have room for their sums, L2 for the rows: 1536 floats are those of the
// published networks (36 channels of 32 pixels, 72 of 16, 144 of 8) and some more.
LANAS_INLINE int tile_rows(int lanes, int k, int floats) {
  return lanes >= 8 && (k == 2 || k == 3 || k == 5) && floats <= 1536 ? kTileRows : 4;
}

// Every phase goes over the rows again, so long rows are taken in blocks of about so many vectors, whose
// input and results stay in L1 for them all.
constexpr int kBlockVectors = 32;

// Rows of vectors, `step` floats apart.
struct StencilRows {
  float* first;
  ptrdiff_t step;
};

// Of a tile's input rows: whether the first or the last K / 2 are zeros around the image, which are left out.
enum Edges { kInside = 0, kTop = 1, kBottom = 2 };
template <int K, int INPUTS, int EDGES>
constexpr bool is_zeros(int i) {
  return (EDGES & kTop && i < K / 2) || (EDGES & kBottom && i >= INPUTS - K / 2);
}

// Kernel columns [kx, kx + N) of stencil_vectors, in turn: what is added to one sum waits for what was.
template <int W, int K, int KX, int Step, int ROWS, int EDGES, int U, int N>
LANAS_INLINE void stencil_columns(Vec<W> (*acc)[U][ROWS], const float* in, const ptrdiff_t* column,
                                  const Vec<W>* held, const float* weights, const StencilShape& s, int kx) {
  Vec<W> w[N][K];
  const float* from[N];
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 8
    for (int ky = 0; ky < K; ++ky)
      w[n][ky] = held ? held[ky * KX + kx + n] : in_register(load<W>(weights + (ky * KX + kx + n) * W));
    from[n] = opaque(in + column[kx + n]);
  }
  constexpr int kInputs = Step * (ROWS - 1) + K;
#pragma GCC unroll 24
  for (int i = 0; i < kInputs; ++i)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      const int count = is_zeros<K, kInputs, EDGES>(i) ? 0 : U;
#pragma GCC unroll 2
      for (int u = 0; u < count; ++u) {
        const Vec<W> x = in_register(load<W>(from[n] + ptrdiff_t(u * s.period) * W));
#pragma GCC unroll 8
        for (int t = 0; t < ROWS; ++t)
          if (0 <= i - Step * t && i - Step * t < K)
            multiply_add(acc[n % kChains<W, K>][u][t], w[n][i - Step * t], x);
      }
      from[n] = opaque(from[n] + s.row_step);
    }
}

// The vectors at out and in and the one `period` further on (U of them), of all rows of a tile; weights:
// [K*KX][W] of their phase, held: the same in registers, or null.
template <int W, int K, int KX, int Step, int ROWS, int EDGES, int U>
LANAS_INLINE void stencil_vectors(StencilRows out, const float* in, const ptrdiff_t* column,
                                  const Vec<W>* held, const float* weights, const StencilShape& s, bool add) {
  const ptrdiff_t apart = ptrdiff_t(s.period) * W;
  Vec<W> acc[kChains<W, K>][U][ROWS] = {};
  if (add) {
    const float* row = opaque(out.first);
#pragma GCC unroll 8
    for (int t = 0; t < ROWS; ++t, row = opaque(row + out.step))
#pragma GCC unroll 2
      for (int u = 0; u < U; ++u) acc[0][u][t] = load<W>(row + u * apart);
  }
  constexpr int N = kChains<W, K>;
  if constexpr (N == 2) {  // code for one pair of columns: more would fall out of the caches for code
#pragma GCC unroll 1
    for (int kx = 0; kx + N <= KX; kx = opaque(kx + N))
      stencil_columns<W, K, KX, Step, ROWS, EDGES, U, N>(acc, in, column, held, weights, s, kx);
  } else {
#pragma GCC unroll 8
    for (int kx = 0; kx + N <= KX; kx += N)
      stencil_columns<W, K, KX, Step, ROWS, EDGES, U, N>(acc, in, column, held, weights, s, kx);
  }
  if constexpr (KX % N != 0)
    stencil_columns<W, K, KX, Step, ROWS, EDGES, U, 1>(acc, in, column, held, weights, s, KX - 1);
  float* row = out.first;
#pragma GCC unroll 8
  for (int t = 0; t < ROWS; ++t, row = opaque(row + out.step))
#pragma GCC unroll 2
    for (int u = 0; u < U; ++u) {
      if constexpr (kChains<W, K> == 2) acc[0][u][t] += acc[1][u][t];
      store<W>(row + u * apart, acc[0][u][t]);
    }
}

// out[t][v] (+)= sum_{ky,kx} w[ky,kx] in[Step*t + ky][v + column kx]; add: to what out holds. PACED: asks
// for lines of ahead meanwhile; without, a kernel of 3 takes a sixth less time at 4 channels.
template <int W, int K, int KX, int Step, int ROWS, int EDGES, bool PACED>
LANAS_INLINE void stencil_loops(StencilRows out, const float* in, const float* weights, const StencilShape& s,
                                bool add, Ahead* ahead) {
  if constexpr (K == 0) {
    for (int v = 0, phase = 0; v < s.vectors; ++v, phase = phase + 1 == s.period ? 0 : phase + 1) {
      const float* w = weights + ptrdiff_t(phase) * s.k * s.k_columns * W;
      Vec<W> acc[ROWS] = {};
      for (int t = 0; add && t < ROWS; ++t) acc[t] = load<W>(out.first + t * out.step + v * W);
      for (int ky = 0; ky < s.k; ++ky)
        for (int kx = 0; kx < s.k_columns; ++kx, w += W)
          for (int t = 0; t < ROWS; ++t)
            acc[t] += load<W>(w) * load<W>(in + (Step * t + ky) * s.row_step + s.column[kx] + v * W);
      for (int t = 0; t < ROWS; ++t) store<W>(out.first + t * out.step + v * W, acc[t]);
    }
  } else {
    ptrdiff_t column[KX];
    for (int kx = 0; kx < KX; ++kx) column[kx] = s.column[kx];
    constexpr bool kHolds = !kFewRegisters<W> && kChains<W, K> == 1;  // weights, in registers
    constexpr int kHeld = kHolds ? K * KX : 0;
    constexpr int U = kFewRegisters<W> && ROWS < kTileRows ? 2 : 1;
    const int block = std::max(1, kBlockVectors / s.period) * s.period;
    for (int begin = 0; begin < s.vectors; begin += block) {
      const int end = std::min(begin + block, s.vectors);
      for (int phase = 0; phase < s.period; ++phase) {
        const float* const table = weights + ptrdiff_t(phase) * K * KX * W;
        Vec<W> held[kHeld + 1];
#pragma GCC unroll 16
        for (int i = 0; i < kHeld; ++i) held[i] = in_register(load<W>(table + i * W));
        const auto vectors = [&](auto count, int v) LANAS_LAMBDA {
          constexpr int N = decltype(count)::value;
          if constexpr (PACED) ahead->some(K * KX * ROWS * N);
          stencil_vectors<W, K, KX, Step, ROWS, EDGES, N>({out.first + v * W, out.step}, in + v * W, column,
                                                          kHolds ? held : nullptr, table, s, add);
        };
        int v = begin + phase;
        for (; v + (U - 1) * s.period < end; v += U * s.period) vectors(Count<U>(), v);
        if (U > 1 && v < end) vectors(Count<1>(), v);
      }
    }
  }
}

// Kernel columns [Column, Column + COLUMNS) of the sums of one phase.
template <int W, int K, int Step, int ROWS, int EDGES, int Column, int COLUMNS>
LANAS_INLINE void stencil_gradient_columns(float* sums, StencilRows g, const float* in, const StencilShape& s,
                                           int phase, Ahead* ahead) {
  constexpr int kInputs = Step * (ROWS - 1) + K;
  Vec<W> acc[K][COLUMNS];
#pragma GCC unroll 8
  for (int ky = 0; ky < K; ++ky)
#pragma GCC unroll 8
    for (int kx = 0; kx < COLUMNS; ++kx) acc[ky][kx] = load<W>(sums + (ky * K + Column + kx) * W);
  for (int v = phase; v < s.vectors; v += s.period) {
    ahead->some(K * COLUMNS * ROWS);
    Vec<W> d[ROWS];
    const float* row = g.first + v * W;
#pragma GCC unroll 8
    for (int t = 0; t < ROWS; ++t, row = opaque(row + g.step)) d[t] = load<W>(row);
    const float* from[COLUMNS];
#pragma GCC unroll 8
    for (int kx = 0; kx < COLUMNS; ++kx) from[kx] = opaque(in + s.column[Column + kx] + v * W);
    const auto tap = [&](int i, int kx) LANAS_LAMBDA {
      const float* const at = from[kx];
      from[kx] = opaque(from[kx] + s.row_step);
      if (is_zeros<K, kInputs, EDGES>(i)) return;
      const Vec<W> x = in_register(load<W>(at));
#pragma GCC unroll 8
      for (int t = 0; t < ROWS; ++t)
        if (0 <= i - Step * t && i - Step * t < K) multiply_add(acc[i - Step * t][kx], d[t], x);
    };
    if constexpr (kFewRegisters<W>) {  // few sums: as far as can be from one addition to a sum to its next
#pragma GCC unroll 24
      for (int i = 0; i < kInputs; ++i)
#pragma GCC unroll 8
        for (int kx = 0; kx < COLUMNS; ++kx) tap(i, kx);
    } else {
#pragma GCC unroll 8
      for (int kx = 0; kx < COLUMNS; ++kx)
#pragma GCC unroll 24
        for (int i = 0; i < kInputs; ++i) tap(i, kx);
    }
  }
#pragma GCC unroll 8
  for (int ky = 0; ky < K; ++ky)
#pragma GCC unroll 8
    for (int kx = 0; kx < COLUMNS; ++kx) store<W>(sums + (ky * K + Column + kx) * W, acc[ky][kx]);
}

// sums[phase][ky,kx] += sum_{t,v} g[t][v] in[Step*t + ky][v + column kx]; lanes are added up at the end.
template <int W, int K, int Step, int ROWS, int EDGES>
LANAS_INLINE void stencil_gradient_loops(float* sums, StencilRows g, const float* in, const StencilShape& s,
                                         Ahead* ahead) {
  if constexpr (K == 0) {
    for (int v = 0, phase = 0; v < s.vectors; ++v, phase = phase + 1 == s.period ? 0 : phase + 1) {
      float* sum = sums + ptrdiff_t(phase) * s.k * s.k * W;
      for (int ky = 0; ky < s.k; ++ky)
        for (int kx = 0; kx < s.k; ++kx, sum += W) {
          Vec<W> acc = load<W>(sum);
          for (int t = 0; t < ROWS; ++t)
            acc += load<W>(g.first + t * g.step + v * W) *
                   load<W>(in + (Step * t + ky) * s.row_step + s.column[kx] + v * W);
          store<W>(sum, acc);
        }
    }
  } else {
    constexpr bool kPairs = kFewRegisters<W> && K > 3;
    for (int phase = 0; phase < s.period; ++phase, sums += K * K * W)
      if constexpr (kPairs) {
        static_assert(K == 5);
        stencil_gradient_columns<W, K, Step, ROWS, EDGES, 0, 2>(sums, g, in, s, phase, ahead);
        stencil_gradient_columns<W, K, Step, ROWS, EDGES, 2, 2>(sums, g, in, s, phase, ahead);
        stencil_gradient_columns<W, K, Step, ROWS, EDGES, 4, 1>(sums, g, in, s, phase, ahead);
      } else {
        stencil_gradient_columns<W, K, Step, ROWS, EDGES, 0, K>(sums, g, in, s, phase, ahead);
      }
  }
}

// Calls f in a function of its own with the edges at which a tile lies, an integral constant.
template <int W, int K, int Step, int ROWS, class F>
LANAS_INLINE void with_edges(const StencilShape& s, F&& f) {
  constexpr int kFirst = K / 2 - 1, kLast = Step * (ROWS - 1) + K - K / 2;
  const auto with = [&](auto edges) LANAS_LAMBDA { isolated<W>([=]() LANAS_LAMBDA { f(edges); }); };
  if constexpr (K > 1 && W > 4) {
    const bool top = s.first + kFirst * s.apart < 0, bottom = s.first + kLast * s.apart >= s.height;
    if (top && bottom) return with(Count<kTop | kBottom>());
    if (top) return with(Count<kTop>());
    if (bottom) return with(Count<kBottom>());
  }
  with(Count<kInside>());
}
template <int W, int K, int Step, int ROWS, int KX = K>
LANAS_INLINE void stencil(StencilRows out, const float* in, const float* weights, const StencilShape& s,
                          bool add = false, Ahead* ahead = nullptr) {
  with_flag(K > 0 && ahead, [&](auto is_paced) LANAS_LAMBDA {
    with_edges<W, K, Step, ROWS>(s, [=, &s](auto edges) LANAS_LAMBDA {
      stencil_loops<W, K, KX, Step, ROWS, edges, is_paced>(out, in, weights, s, add, ahead);
    });
  });
}
template <int W, int K, int Step, int ROWS>
LANAS_INLINE void stencil_gradient(float* sums, StencilRows g, const float* in, const StencilShape& s,
                                   Ahead* ahead) {
  // Of large kernels the sums leave no room for eight rows; half a tile's code is there once.
  constexpr int kRows = K > 0 && (kFewRegisters<W> || K > 3) ? 4 : ROWS;
  if constexpr (kRows < ROWS) {
    stencil_gradient<W, K, Step, kRows>(sums, g, in, s, ahead);
    g.first += kRows * g.step, in += kRows * Step * s.row_step;
    stencil_gradient<W, K, Step, ROWS - kRows>(sums, g, in, s.from(kRows * Step * s.apart), ahead);
  } else {
    with_edges<W, K, Step, ROWS>(s, [=, &s](auto edges) LANAS_LAMBDA {
      stencil_gradient_loops<W, K, Step, ROWS, edges>(sums, g, in, s, ahead);
    });
  }
}

// Calls tile(first row, rows) with rows `most`, of eight also 4, or 1: `step` is the distance between the
// rows of a tile. In one place, as everything is inlined there: with several the code outgrows the
// processor's cache.
template <class Tile>
LANAS_INLINE void for_tiles(int begin, int end, int step, int most, Tile&& tile) {
  for (int o = begin, first = 0; o < end;) {
    const int rows = o + most * step <= end ? most : most == kTileRows && o + 4 * step <= end ? 4 : 1;
    tile(o + first, rows);
    if (rows > 1 && ++first < step) continue;
    o += rows > 1 ? rows * step : 1, first = 0;
  }
}

// Calls f(K, Step, ROWS) as integral constants. Kernel sizes 2, 3 and 5 in tiles of rows are worth their
// own code where vectors are wide; for the rest K = 0.
template <int W, class F>
LANAS_INLINE void with_constants(int k, int step, int rows, F&& f) {
  const auto choose = [&](auto jump) LANAS_LAMBDA {
    constexpr Count<0> any;
    if (rows == 1) return f(any, jump, Count<1>());
    constexpr Count<4> four;
    if constexpr (W > 4)
      if (rows == kTileRows) {
        constexpr Count<kTileRows> eight;
        if (k == 2) return f(Count<2>(), jump, eight);
        if (k == 3) return f(Count<3>(), jump, eight);
        return f(Count<5>(), jump, eight);
      }
    if constexpr (W > 4) {
      if (k == 2) return f(Count<2>(), jump, four);
      if (k == 3) return f(Count<3>(), jump, four);
      if (k == 5) return f(Count<5>(), jump, four);
    }
    f(any, jump, four);
  };
  if (step == 1)
    choose(Count<1>());
  else
    choose(Count<2>());
}

// Calls f(K, KX, ROWS) for the rows and columns of the kernel of one parity of x at a stride of 2: those of 3
// and 5 come apart into ones of 1 to 3.
template <int W, class F>
LANAS_INLINE void with_taps(int k, int k_columns, int rows, F&& f) {
  const auto square = [&](auto size, auto, auto tile) LANAS_LAMBDA { f(size, size, tile); };
  if (k == k_columns && k > 1) return with_constants<W>(k, 1, rows, square);
  constexpr Count<1> one;
  constexpr Count<2> two;
  constexpr Count<3> three;
  const auto choose = [&](auto tile) LANAS_LAMBDA {
    if constexpr (W > 4) {
      if (k == 1 && k_columns == 1) return f(one, one, tile);
      if (k == 1 && k_columns == 2) return f(one, two, tile);
      if (k == 2 && k_columns == 1) return f(two, one, tile);
      if (k == 2 && k_columns == 3) return f(two, three, tile);
      if (k == 3 && k_columns == 2) return f(three, two, tile);
    }
    f(Count<0>(), Count<0>(), tile);
  };
  if (rows == 1) return f(Count<0>(), Count<0>(), one);
  if constexpr (W > 4)
    if (rows == kTileRows) return choose(Count<kTileRows>());
  choose(Count<4>());
}

}  // namespace lanas::cpu
