// separable_conv_weights.cuh -- the gradients of the units' weights: dp = dy^T d with d computed again, a
// tile of pixels at a time; dw[t] = sum of dd z, a column of taps per block. dy is put together from its
// factors where it is read. Both are partial sums per block; those of all units are added by one last kernel.
#pragma once

#include "kernels/ops/separable_conv.cuh"

namespace lanas {
namespace {

// dp of one unit.
struct PointwiseGradient {
  Unit unit;
  GradientView<float> dy;
};

// A block's tile of dp: threads stand [slice of the pixels][kColumns quads of cin][kColumns quads of cout].
// With TF32 pixels lie 8 or 24 banks apart, for operands of 4 pixels x 8 channels, in products of 16
// channels.
template <int kColumns, bool kTf32>
struct GradientTile
    : std::conditional_t<kTf32, StagedTile<4 * kUnitThreads / kColumns, 4 * kColumns, 8, 0, 16>,
                         StagedTile<4 * kUnitThreads / kColumns, 4 * kColumns>> {
  static constexpr int kSize = GradientTile::kPixels, kWidth = 4 * kColumns, kThreads = kColumns * kColumns,
                       kSlices = kUnitThreads / kThreads,
                       kLeft = kSlices < 8 ? kSlices : 8;  // once the slices of a warp are added
  static_assert(2 * GradientTile::kFloats * sizeof(float) <= 48 * 1024 &&
                    2 * GradientTile::kFloats >= kLeft * kWidth * kWidth,
                "static shared memory of a block");
};

// product += g^T d of a block's tiles: a thread has 4 channels of cout and 4 of cin, and a slice of the
// pixels.
template <int kColumns, class Tile>
struct ThreadGradients {
  float product[4][4] = {};  // [j][c]

  // Of a tile with this many channels.
  __device__ __forceinline__ void add(const float* g, const float* d, int outputs, int inputs) {
    const int i = thread_again(), column = i % kColumns * 4, quad = i % Tile::kThreads / kColumns * 4;
    if (quad >= inputs || column >= outputs) return;
#pragma unroll 4
    for (int p = i / Tile::kThreads; p < Tile::kSize; p += Tile::kSlices) {
      const Pack<4> from = load<4>(g + Tile::at(p) + column), in = load<4>(d + Tile::at(p) + quad);
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int c = 0; c < 4; ++c) product[j][c] += from.v[j] * in.v[c];
    }
  }
  // To sums[slice left][j][c].
  __device__ __forceinline__ void write(float* sums) {
    const int lane = int(threadIdx.x) % 32, thread = int(threadIdx.x) % Tile::kThreads,
              slice = int(threadIdx.x) * Tile::kLeft / kUnitThreads;
    sums += (slice * Tile::kWidth + thread % kColumns * 4) * Tile::kWidth + thread / kColumns * 4;
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
#pragma unroll
        for (int lanes = 16; lanes >= Tile::kThreads; lanes /= 2)
          product[j][c] += __shfl_xor_sync(kFullWarp, product[j][c], lanes);
        if (lane < Tile::kThreads) sums[j * Tile::kWidth + c] = product[j][c];
      }
  }
};

// The same on the tensor cores: a warp has up to 2 x 2 products of 16 channels of cout and 8 of cin, and one
// of the slices that are left.
template <class Tile>
struct WarpGradients {
  static constexpr int kDown = Tile::kWidth == 16 ? 1 : 2, kAcross = 2, kRows = kDown * kProductRows,
                       kColumns = kAcross * kProductColumns, kGroupsDown = Tile::kWidth / kRows,
                       kGroups = kGroupsDown * (Tile::kWidth / kColumns);
  static_assert(kGroups * Tile::kLeft == kUnitThreads / 32, "a group of products and a slice for every warp");
  float product[kDown * kAcross][4] = {};

  // The first j and c of a warp.
  __device__ __forceinline__ static int row(int warp) { return warp % kGroupsDown * kRows; }
  __device__ __forceinline__ static int column(int warp) { return warp % kGroups / kGroupsDown * kColumns; }
  // Nothing is staged, and nothing wanted, beyond so many channels of cout and cin.
  __device__ __forceinline__ void add(const float* g, const float* d, int outputs, int inputs) {
    const int warp = thread_again() / 32;
    if (row(warp) >= outputs || column(warp) >= inputs) return;
    g += row(warp), d += column(warp);
#pragma unroll 2
    for (int p = warp / kGroups * kProductDepth; p < Tile::kSize; p += Tile::kLeft * kProductDepth)
      warp_products<true, kDown, kAcross>(
          product, [&](int j, int k) { return g[Tile::at(p + k) + j]; },
          [&](int c, int k) { return d[Tile::at(p + k) + c]; });
  }
  __device__ __forceinline__ void write(float* sums) const {
    const int warp = int(threadIdx.x) / 32;
    sums += (warp / kGroups * Tile::kWidth + row(warp)) * Tile::kWidth + column(warp);
    for_products<kAcross>(product, [&](int j, int c, float value) { sums[j * Tile::kWidth + c] = value; });
  }
};

// Grid (pieces, groups of cin x groups of cout, units). partial[unit][piece][cout][cin] = sum of dy d.
template <int kPack, int kColumns, bool kNorm, bool kTf32>
__global__ void __launch_bounds__(kUnitThreads, 2)
    pointwise_gradient_kernel(const __grid_constant__ UnitBatch<PointwiseGradient> batch, Shape y,
                              float* partial) {
  using Tile = GradientTile<kColumns, kTf32>;
  float* d = static_shared<float, 2 * Tile::kFloats, 0>();
  float* g = d + Tile::kFloats;
  const PointwiseGradient& work = batch.at[blockIdx.z];
  const int cin = work.unit.x.c, chunks = (cin + Tile::kWidth - 1) / Tile::kWidth,
            first = int(blockIdx.y) % chunks * Tile::kWidth,
            first_j = int(blockIdx.y) / chunks * Tile::kWidth;
  const unsigned pixels = unsigned(y.n) * unsigned(y.h) * unsigned(y.w);
  std::conditional_t<kTf32, WarpGradients<Tile>, ThreadGradients<kColumns, Tile>> gradients;
  for (unsigned begin = blockIdx.x * unsigned(Tile::kSize); begin < pixels;
       begin += gridDim.x * unsigned(Tile::kSize)) {
    __syncthreads();
    stage_gradient<kPack, Tile, false>(g, work.dy, begin, first_j);
    stage_depthwise<kPack, Tile, kNorm>(d, work.unit, y, begin, first);
    __syncthreads();
    gradients.add(g, d, y.c - first_j, cin - first);
  }
  __syncthreads();
  gradients.write(d);
  __syncthreads();
  partial += (int64_t{blockIdx.z} * gridDim.x + blockIdx.x) * y.c * cin;
  for (int i = int(threadIdx.x); i < Tile::kWidth * Tile::kWidth; i += kUnitThreads) {
    float sum = 0;
#pragma unroll
    for (int s = 0; s < Tile::kLeft; ++s) sum += d[s * Tile::kWidth * Tile::kWidth + i];
    const int j = first_j + i / Tile::kWidth, c = first + i % Tile::kWidth;
    if (j < y.c && c < cin) partial[j * cin + c] = sum;
  }
}

// Grid (pieces, groups of channels, units x slots): a slot is a column of taps of a unit with strips, one tap
// of any other. partial[unit][piece][row_floats] with [kx][ky][c] in each row; dd [unit][pixels][c].
template <int kPack, bool kNorm>
__global__ void __launch_bounds__(kSumThreads)
    depthwise_gradient_kernel(const __grid_constant__ UnitBatch<Unit> batch, float* partial, Tensor dd,
                              int slots, int row_floats, int columns) {
  const int u = int(blockIdx.z) / slots, slot = int(blockIdx.z) % slots;
  const Unit& unit = batch.at[u];
  if (slot >= (unit.strips ? unit.kernel : unit.kernel * unit.kernel)) return;  // all threads of the block
  const int rows = int(kSumThreads) / columns, first_c = int(blockIdx.y) * columns * kPack,
            c = first_c + int(threadIdx.x) % columns * kPack, row = int(threadIdx.x) / columns;
  const unsigned pixels = unsigned(dd.pixels());
  dd.data += int64_t{u} * dd.size();
  partial += (int64_t{u} * gridDim.x + blockIdx.x) * row_floats;
  if constexpr (kPack == 4)
    if (unit.strips) {
      const StripActivation<kNorm> activation(unit, c < dd.c ? c : 0);
      with_stencil<kNorm ? 1 : 2>(unit, [&](auto stencil) {
        using S = decltype(stencil);
        float sums[S::kKernel][4] = {};
        for (unsigned p = blockIdx.x * unsigned(rows) + unsigned(row); c < dd.c && p < pixels / kStrip;
             p += gridDim.x * unsigned(rows)) {
          const Place at = place_of_strip(p, dd.h, dd.w);
          const int ix = at.x * S::kStride + slot * S::kDilation - S::kPadding;
          if (unsigned(ix) >= unsigned(unit.x.w)) continue;
          Pack<4> g[kStrip];
          load_span<kStrip>(g, dd, at.n, at.y, 1, at.x, c, Identity());
#pragma unroll
          for (int r = 0; r < S::kClasses; ++r) {
            Pack<4> z[S::kSpan];
            load_span<S::kSpan>(z, unit.x, at.n, at.y * S::kStride - S::kPadding + r, S::kDilation, ix, c,
                                activation);
#pragma unroll
            for (int ky = 0; ky < S::kKernel; ++ky)
#pragma unroll
              for (int m = 0; m < S::kRows; ++m)
#pragma unroll
                for (int k = 0; k < 4; ++k)
                  sums[ky][k] += g[m * S::kClasses + r].v[k] * z[m * S::kJump + ky].v[k];
          }
        }
        write_channel_sums<4, S::kKernel>(partial + slot * S::kKernel * dd.c, sums, columns, first_c, dd.c);
      });
      return;
    }
  const Activation<kPack> activation(unit, c < dd.c ? c : 0);
  float sums[1][kPack] = {};
  const int kx = slot / unit.kernel, ky = slot % unit.kernel;
  for (unsigned p = blockIdx.x * unsigned(rows) + unsigned(row); c < dd.c && p < pixels;
       p += gridDim.x * unsigned(rows)) {
    const Place at = place_of(p, dd.h, dd.w);
    const int iy = unit.input(at.y, ky), ix = unit.input(at.x, kx);
    if (unsigned(iy) >= unsigned(unit.x.h) || unsigned(ix) >= unsigned(unit.x.w)) continue;
    const Pack<kPack> g = load<kPack>(dd.pixel(p) + c),
                      z = activation(load<kPack>(unit.x.at(at.n, iy, ix) + c));
#pragma unroll
    for (int k = 0; k < kPack; ++k) sums[0][k] += g.v[k] * z.v[k];
  }
  write_channel_sums<kPack, 1>(partial + slot * dd.c, sums, columns, first_c, dd.c);
}

// to[i] = beta to[i] + sum over the pieces of partial[piece][i]; with a kernel, to is [ky][kx][c] and partial
// [kx][ky][c] in each piece.
struct Addition {
  float* to;
  const float* partial;
  int pieces, row_floats, count, kernel;
  float beta;

  __device__ __forceinline__ int source(int i) const {
    if (kernel <= 1) return i;
    const int c = count / (kernel * kernel), tap = i / c, ky = tap / kernel, kx = tap - ky * kernel;
    return (kx * kernel + ky) * c + i - tap * c;
  }
};
struct Additions {
  Addition at[2 * kMostUnits];
  int size;
  void add(Addition next) { at[size++] = next; }
};

// Grid (blocks of kAddColumns numbers, additions).
template <int kWhich = 0>
__global__ void add_gradients_kernel(const __grid_constant__ Additions batch) {
  const Addition& add = batch.at[blockIdx.y];
  const int i = added_channel();
  double sums[1];
  add_pieces(sums, add.partial, add.pieces, add.row_floats, add.source(i), 0, i < add.count);
  if (threadIdx.x < unsigned(kAddColumns) && i < add.count)
    add.to[i] = float(add.beta == 0 ? sums[0] : sums[0] + double(add.beta) * double(add.to[i]));
}

// One launch's units on the host.
struct UnitsBackward {
  std::span<const SeparableConv<float>> ops;
  std::span<const SeparableConvGradient<float>> gradients;
  std::span<const GradientView<float>> dys;
  std::span<const UnitInput> inputs;
  Tensor dd;  // of the first unit; the others' follow
  Shape y;

  int size() const { return int(ops.size()); }
  Unit unit(int u) const { return Unit::from(ops[size_t(u)], inputs[size_t(u)].x); }
};

// Partial sums of dp from `scratch` on, at most `floats`; what is to be added goes to `additions`.
void launch_pointwise_gradients(Stream& stream, const UnitsBackward& all, float* scratch, int64_t floats,
                                Additions& additions) {
  UnitBatch<PointwiseGradient> batch = {};
  bool quads = true, wanted = false;
  for (int u = 0; u < all.size(); ++u) {
    batch.at[u] = {all.unit(u), all.dys[size_t(u)]};
    quads = quads && takes_quads(batch.at[u].unit) && takes_quads(batch.at[u].dy);
    wanted = wanted || all.gradients[size_t(u)].d_pointwise;
  }
  if (!wanted) return;
  const int cin = all.inputs[0].x.c;
  with_columns(std::max(cin, all.y.c), [&](auto columns) {
    using Tile = GradientTile<columns(), false>;  // of the same size with TF32
    const auto groups = [](int channels) { return unsigned((channels + Tile::kWidth - 1) / Tile::kWidth); };
    const dim3 tile(1, groups(cin) * groups(all.y.c), unsigned(all.size()));
    const int64_t size = int64_t{cin} * all.y.c, tiles = (all.y.pixels() + Tile::kSize - 1) / Tile::kSize,
                  most = floats / (size * all.size());
    CHECK(most >= 1, "separable_conv_backward: d_pointwise of ", size, " numbers is too large");
    const int64_t pieces = std::min({tiles, most, std::max<int64_t>(1, 6 * kFull / (tile.y * tile.z))});
    with_quads(quads, bool(batch.at[0].unit.norm), [&](auto pack, auto norm) {
      with_precision<pack(), columns()>([&](auto tf32) {
        launch(pointwise_gradient_kernel<pack(), columns(), norm(), tf32()>,
               dim3(unsigned(pieces), tile.y, tile.z), kUnitThreads, 0, stream, batch, all.y, scratch);
      });
    });
    for (int u = 0; u < all.size(); ++u)
      if (const SeparableConvGradient<float>& g = all.gradients[size_t(u)]; g.d_pointwise)
        additions.add({g.d_pointwise.data, scratch + u * pieces * size, int(pieces), int(size), int(size), 1,
                       g.beta_d_pointwise});
  });
}

void launch_depthwise_gradients(Stream& stream, const UnitsBackward& all, float* scratch, int64_t floats,
                                Additions& additions) {
  UnitBatch<Unit> batch = {};
  bool quads = true, wanted = false;
  int slots = 1, taps = 1;
  for (int u = 0; u < all.size(); ++u) {
    const Unit& unit = batch.at[u] = all.unit(u);
    quads = quads && takes_quads(unit);
    wanted = wanted || all.gradients[size_t(u)].d_depthwise;
    taps = std::max(taps, unit.kernel * unit.kernel);
  }
  if (!wanted) return;
  for (int u = 0; u < all.size(); ++u) {
    batch.at[u].strips = batch.at[u].strips && quads;
    slots = std::max(slots, batch.at[u].kernel * (batch.at[u].strips ? 1 : batch.at[u].kernel));
  }
  const int c = all.dd.c, row_floats = taps * c;
  with_quads(quads, bool(batch.at[0].norm), [&](auto pack, auto norm) {
    ChannelLayout layout =
        channel_layout("separable_conv_backward", c, pack, all.dd.pixels(), int64_t{row_floats} * all.size(),
                       kPartialFloats - floats, all.size() > 2 ? 16 : 4);
    layout.pieces =
        std::min(layout.pieces, std::max(1u, 20u * kFull / unsigned(layout.groups * slots * all.size())));
    launch(depthwise_gradient_kernel<pack(), norm()>,
           dim3(layout.pieces, unsigned(layout.groups), unsigned(slots * all.size())), kSumThreads, 0, stream,
           batch, scratch, all.dd, slots, row_floats, layout.columns);
    for (int u = 0; u < all.size(); ++u)
      if (const SeparableConvGradient<float>& g = all.gradients[size_t(u)]; g.d_depthwise)
        additions.add({g.d_depthwise.data, scratch + u * int64_t{layout.pieces} * row_floats,
                       int(layout.pieces), row_floats, int(g.d_depthwise.size()), batch.at[u].kernel,
                       g.beta_d_depthwise});
  });
}

void launch_additions(Stream& stream, const Additions& additions) {
  if (additions.size == 0) return;
  int most = 0;
  for (int i = 0; i < additions.size; ++i) most = std::max(most, additions.at[i].count);
  launch(add_gradients_kernel<>, dim3(add_blocks(most), unsigned(additions.size)), kSumThreads, 0, stream,
         additions);
}

}  // namespace
}  // namespace lanas
