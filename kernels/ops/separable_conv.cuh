// separable_conv.cuh -- forward of up to kMostUnits units of one output shape in one launch. A block makes a
// tile of output pixels for up to 64 output channels of one unit: it puts the depthwise result, computed from
// x as it is read, into shared memory and multiplies it by the pointwise weights, 4 channels of several
// pixels per thread in registers or, with TF32, on the tensor cores. The tile's sums about one of its values
// go to partial statistics. The same kernel with transposed weights makes dd = dy p.
#pragma once

#include <vector>

#include "kernels/ops/batch_norm.cuh"
#include "kernels/ops/separable_conv_unit.cuh"

namespace lanas {
namespace {

// The 4 kColumns output channels of a block's tile: threads stand [rows][kColumns], each has 4 channels of
// the kPerThread pixels from kPerThread row on. As many input channels are staged at a time.
// With TF32 pixels lie 4 or 20 banks apart, so that the 8 pixels x 4 channels of an operand meet no bank
// twice, and channels are summed in eights.
template <int kColumns, int kPerThread, bool kTf32>
struct UnitTile
    : std::conditional_t<kTf32, StagedTile<kUnitThreads / kColumns * kPerThread, 4 * kColumns, 4, 0, 8>,
                         StagedTile<kUnitThreads / kColumns * kPerThread, 4 * kColumns>> {
  static constexpr int kSize = UnitTile::kPixels, kChannels = 4 * kColumns, kWeightPitch = kChannels + 4;
  static_assert((UnitTile::kFloats + kChannels * kWeightPitch + 8 * int(kSumThreads) + kChannels) *
                        sizeof(float) <=
                    48 * 1024,
                "static shared memory of a block");
};

// Where a thread's pixels go.
struct Destination {
  float* first;
  int64_t step;
};

// One unit's forward: y = product + bias + beta y. kNorm: what units in packs of 4 have; any other has true.
template <bool kNorm>
struct UnitForward {
  Unit unit;
  Tensor y;
  const float* bias;  // or null
  float beta;
  bool vector_store;                       // y takes packs of 4
  static constexpr int kBlocks = 2;        // at once on a multiprocessor, for which registers must suffice
  static constexpr bool kSingles = kNorm;  // packs of 1 are asked for too

  template <int kPack, class Tile>
  __device__ __forceinline__ void stage(float* to, const Shape& shape, unsigned begin, int first) const {
    stage_depthwise<kPack, Tile, kNorm>(to, unit, shape, begin, first);
  }
  __device__ __forceinline__ Destination pixels(unsigned p) const {
    const Place at = place_in_tile(p, y.h, y.w);
    return {y.at(at.n, at.y, at.x), int64_t{y.stride} * (y.h % kStrip == 0 ? y.w : 1)};
  }
  // Of the product: read again behind the depthwise part, where registers are dear.
  __device__ __forceinline__ static int thread() { return thread_again(); }
  __device__ __forceinline__ const float* weights() const { return unit.pointwise; }
  __device__ __forceinline__ bool transposed() const { return unit.transposed; }
};

// y = dd = dy p.
struct UnitProduct {
  GradientView<float> dy;
  const float* pointwise;
  Tensor y;
  bool vector_store;
  static constexpr int kBlocks = 4;
  static constexpr bool kSingles = true;
  static constexpr const float* bias = nullptr;
  static constexpr float beta = 0;

  template <int kPack, class Tile>
  __device__ __forceinline__ void stage(float* to, const Shape&, unsigned begin, int first) const {
    stage_gradient<kPack, Tile, true>(to, dy, begin, first);
  }
  __device__ __forceinline__ Destination pixels(unsigned p) const { return {y.pixel(p), y.stride}; }
  __device__ __forceinline__ static int thread() { return int(threadIdx.x); }
  __device__ __forceinline__ const float* weights() const { return pointwise; }
  __device__ __forceinline__ static constexpr bool transposed() { return true; }
};

// row [3][channels]: the tile's sums of y - s, of its squares, and s, the value at the tile's first pixel.
template <int kColumns, int kPixels>
__device__ __forceinline__ void write_statistics(float* row, const float (&y)[kPixels][4], const bool* inside,
                                                 int first, int channels) {
  constexpr int kSampleTag = 2;
  float* sample = static_shared<float, 4 * kColumns, kSampleTag>();
  const int column = int(threadIdx.x) % kColumns * 4;
  if (int(threadIdx.x) < kColumns) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      sample[column + k] = y[0][k];
      if (first + column + k < channels) row[2 * channels + first + column + k] = y[0][k];
    }
  }
  __syncthreads();
  float sums[2][4] = {};
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const float d = inside[p] ? y[p][k] - sample[column + k] : 0.0f;
      sums[0][k] += d;
      sums[1][k] += d * d;
    }
  write_channel_sums<4, 2>(row, sums, kColumns, first, channels);
}

// The product of a tile on the tensor cores: a warp has kPixels products of 16 pixels and 8 channels, four of
// them as a square.
template <class Tile, int kPixels>
struct WarpProducts {
  static constexpr int kSquare = kPixels == 4 ? 2 : 1, kRows = kSquare * kProductRows,
                       kColumns = kSquare * kProductColumns, kDown = Tile::kSize / kRows;

  // The first pixel and the first channel of a warp.
  __device__ __forceinline__ static int row() { return int(threadIdx.x) / 32 % kDown * kRows; }
  __device__ __forceinline__ static int column() { return int(threadIdx.x) / 32 / kDown * kColumns; }
  // sums += staged [pixels][chunk] weights [channels][chunk]^T.
  __device__ __forceinline__ static void add(float (&sums)[kPixels][4], const float* staged,
                                             const float* weights, int chunk) {
    const int first = row();
    weights += column() * Tile::kWeightPitch;
    for (int c = 0; c < chunk; c += kProductDepth)
      warp_products<true, kSquare, kSquare>(
          sums, [&](int m, int k) { return staged[Tile::at(first + m) + c + k]; },
          [&](int n, int k) { return weights[n * Tile::kWeightPitch + c + k]; });
  }
  // From the lanes of the products, through the tile, to threads of 4 channels of kPixels pixels.
  __device__ __forceinline__ static void share(float (&sums)[kPixels][4], float* staged, int first_pixel,
                                               int first_channel) {
    const int first_row = row(), first_column = column();
    __syncthreads();  // the tile's readers are done
    for_products<kSquare>(
        sums, [&](int m, int n, float value) { staged[Tile::at(first_row + m) + first_column + n] = value; });
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const Pack<4> from = load<4>(staged + Tile::at(first_pixel + p) + first_channel);
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[p][k] = from.v[k];
    }
  }
};

// Grid (tiles, groups of 4 kColumns output channels, units). partial[unit][tile][3][cout] of
// write_statistics, or null.
template <int kPack, int kColumns, int kPixels, class Work, bool kTf32>
__global__ void __launch_bounds__(kUnitThreads, Work::kBlocks)
    unit_product_kernel(const __grid_constant__ UnitBatch<Work> batch, Shape shape, int cin, float* partial) {
  using Tile = UnitTile<kColumns, kPixels, kTf32>;
  constexpr int kChunk = Tile::kChunk, kChannels = Tile::kChannels, kWeights = kChunk * kChannels;
  float* staged = static_shared<float, Tile::kFloats, 0>();
  float* weights = static_shared<float, kChunk * Tile::kWeightPitch, 1>();  // [c][j], with kTf32 [j][c]
  const Work& work = batch.at[blockIdx.z];
  const int first_j = int(blockIdx.y) * kChannels;
  const unsigned begin = blockIdx.x * unsigned(Tile::kSize),
                 pixels = unsigned(shape.n) * unsigned(shape.h) * unsigned(shape.w);
  float sums[kPixels][4] = {};
  for (int first = 0; first < cin; first += kChunk) {
    const int chunk = Tile::size(cin, first);
    const auto weight = [&](int i) {
      const int fast = i % kChunk, slow = i / kChunk, c = first + (work.transposed() ? slow : fast),
                to = first_j + (work.transposed() ? fast : slow);
      const bool inside = i < kWeights && c < cin && to < shape.c;
      return inside ? work.weights()[work.transposed() ? c * shape.c + to : to * cin + c] : 0.0f;
    };
    const auto keep = [&](int i, float value) {
      const int fast = i % kChunk, slow = i / kChunk;
      weights[work.transposed() != kTf32 ? slow * Tile::kWeightPitch + fast
                                         : fast * Tile::kWeightPitch + slow] = value;
    };
    const int thread = int(threadIdx.x);
    const float early = kWeights <= kUnitThreads ? weight(thread) : 0.0f;  // on its way during the tile
    __syncthreads();
    if (kWeights > kUnitThreads)
#pragma unroll 4
      for (int i = thread; i < kWeights; i += kUnitThreads) keep(i, weight(i));
    work.template stage<kPack, Tile>(staged, shape, begin, first);
    if (kWeights <= kUnitThreads && thread < kWeights) keep(thread, early);
    __syncthreads();
    if constexpr (kTf32) {
      WarpProducts<Tile, kPixels>::add(sums, staged, weights, chunk);
    } else {
      const int mine = work.thread(), column = mine % kColumns, row = mine / kColumns;
      for (int c = 0; c < chunk; c += 4) {
        Pack<4> w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) w[i] = load<4>(weights + (c + i) * Tile::kWeightPitch + column * 4);
#pragma unroll
        for (int p = 0; p < kPixels; ++p) {
          const Pack<4> d = load<4>(staged + Tile::at(row * kPixels + p) + c);
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int k = 0; k < 4; ++k) sums[p][k] += d.v[i] * w[i].v[k];
        }
      }
    }
  }
  const int mine = work.thread(), row = mine / kColumns, j = first_j + mine % kColumns * 4;
  if constexpr (kTf32) WarpProducts<Tile, kPixels>::share(sums, staged, row * kPixels, mine % kColumns * 4);
  const float* bias = work.bias;
  const float beta = work.beta;
  const Destination destination = work.pixels(begin + unsigned(row * kPixels));
  bool inside[kPixels];
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    inside[p] = begin + unsigned(row * kPixels + p) < pixels;
    if (!inside[p]) continue;
    float* to = destination.first + p * destination.step + j;
    if (work.vector_store && j < shape.c) {
      Pack<4> out;
#pragma unroll
      for (int k = 0; k < 4; ++k) out.v[k] = sums[p][k] + (bias ? bias[j + k] : 0.0f);
      accumulate<4>(to, out, beta);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (j + k < shape.c) accumulate<1>(to + k, {sums[p][k] + (bias ? bias[j + k] : 0.0f)}, beta);
    }
  }
  if (!partial) return;  // the same for the whole grid
  write_statistics<kColumns, kPixels>(partial + (int64_t{blockIdx.z} * gridDim.x + blockIdx.x) * 3 * shape.c,
                                      sums, inside, first_j, shape.c);
}

// Where a unit's statistics go; running ones null: not moved.
struct UnitStatistics {
  float *mean, *inv_std, *running_mean, *running_var;
};

// Grid (blocks of kAddColumns channels, 1, units): the tiles' sums become the moments of all pixels, in
// double: a tile's sum is a + count s, its sum of squares b + 2 s a + count s s.
template <int kWhich = 0>
__global__ void unit_statistics_kernel(const __grid_constant__ UnitBatch<UnitStatistics> batch,
                                       const float* partial, int tiles, int tile_pixels, int channels,
                                       int pixels, float eps) {
  const UnitStatistics& to = batch.at[blockIdx.z];
  const int c = added_channel();
  double sums[2] = {};  // of y, of its squares
  if (c < channels) {
    const float* row = partial + int64_t{blockIdx.z} * tiles * 3 * channels + c;
#pragma unroll 4
    for (int t = int(threadIdx.x) / kAddColumns; t < tiles; t += int(kSumThreads) / kAddColumns) {
      const float* at = row + int64_t{t} * 3 * channels;
      const double a = double(at[0]), b = double(at[channels]), s = double(at[2 * channels]),
                   count = double(min(tile_pixels, pixels - t * tile_pixels));
      sums[0] += a + count * s;
      sums[1] += b + s * (2 * a + count * s);
    }
  }
  const double share = 1.0 / pixels;
  add_rows(sums);
  if (threadIdx.x >= unsigned(kAddColumns) || c >= channels) return;
  const double mean = sums[0] * share, var = fmax(sums[1] * share - mean * mean, 0.0);
  to.mean[c] = float(mean);
  to.inv_std[c] = float(rsqrt(var + double(eps)));
  move_running(to.running_mean, to.running_var, c, mean, var, pixels);
}

// use(columns, pixels), both as constants: the tile for these outputs. Few outputs get small tiles, so that
// there is a block for every multiprocessor.
template <class Use>
void with_tile(int64_t pixels, int channels, int units, Use use) {
  with_columns(channels, [&](auto columns) {
    using Large = UnitTile<columns(), 4, false>;
    const int64_t groups = (channels + Large::kChannels - 1) / Large::kChannels;
    if ((pixels + Large::kSize - 1) / Large::kSize * groups * units >= kFull)
      use(columns, std::integral_constant<int, 4>());
    else
      use(columns, std::integral_constant<int, 1>());
  });
}

// The products of `units` works of one output shape; the statistics of their results where there are any.
template <class Work>
void launch_products(Stream& stream, const UnitBatch<Work>& batch, int units, Shape y, int cin, bool quads,
                     const UnitBatch<UnitStatistics>* statistics, float eps) {
  CHECK(y.pixels() < (int64_t{1} << 31), "separable_conv: y ", y, " is too large for one kernel");
  with_tile(y.pixels(), y.c, units, [&](auto columns, auto pixels) {
    using Tile = UnitTile<columns(), pixels(), false>;  // of the same size with TF32
    const int64_t tiles = (y.pixels() + Tile::kSize - 1) / Tile::kSize;
    const size_t bytes = size_t(units) * size_t(tiles) * 3 * size_t(y.c) * sizeof(float);
    CHECK(!statistics || bytes <= kStreamScratch, "separable_conv_forward: the statistics of ", units, " y ",
          y, " do not fit in the stream's scratch");
    float* partial = statistics ? static_cast<float*>(stream_scratch(stream, bytes)) : nullptr;
    const dim3 grid(unsigned(tiles), unsigned((y.c + Tile::kChannels - 1) / Tile::kChannels),
                    unsigned(units));
    with_quads<Work::kSingles>(quads, [&](auto pack) {
      with_precision<pack(), columns()>([&](auto tf32) {
        launch(unit_product_kernel<pack(), columns(), pixels(), Work, tf32()>, grid, kUnitThreads, 0, stream,
               batch, y, cin, partial);
      });
    });
    if (statistics)
      launch(unit_statistics_kernel<>, dim3(add_blocks(y.c), 1, unsigned(units)), kSumThreads, 0, stream,
             *statistics, partial, int(tiles), Tile::kSize, y.c, int(y.pixels()), eps);
  });
}

// The x of every unit, and whether it is that of the unit before.
struct UnitInput {
  Tensor x;
  bool shared;
};
inline std::vector<UnitInput> unit_inputs(std::span<const SeparableInput> inputs) {
  std::vector<UnitInput> each;
  for (const SeparableInput& input : inputs)
    for (int u = 0; u < input.units; ++u) each.push_back({input.x, u > 0});
  return each;
}

constexpr int64_t kPartialFloats = int64_t(kStreamScratch / sizeof(float));

// How many units like this one can go together, so that their partial sums fit in the stream's scratch: the
// statistics of a tile of 64 pixels or more, or of four tiles a multiprocessor; in backward half of it for
// either kind of weights.
inline size_t most_units(const SeparableConv<float>& op, Shape x) {
  const Shape y = op.output_shape(x);
  const int64_t tiles = std::max<int64_t>(y.pixels() / 64 + 1, 4 * kFull),
                each = std::max(
                    {3 * tiles * y.c, int64_t{2} * y.c * x.c, int64_t{2} * op.kernel() * op.kernel() * x.c});
  return size_t(std::clamp<int64_t>(kPartialFloats / each, 1, kMostUnits));
}

// use(begin, end) for ranges of units that one launch takes: of one output shape and number of input
// channels, all with a norm or none.
template <class Use>
void for_batches(std::span<const SeparableConv<float>> ops, std::span<const UnitInput> inputs, Use use) {
  const auto output = [&](size_t u) { return ops[u].output_shape(inputs[u].x.shape()); };
  const auto alike = [&](size_t a, size_t b) {
    return inputs[a].x.c == inputs[b].x.c && output(a) == output(b) && bool(ops[a].norm) == bool(ops[b].norm);
  };
  for (size_t begin = 0, end = 1; begin < ops.size(); begin = end, ++end) {
    size_t most = most_units(ops[begin], inputs[begin].x.shape());
    while (end < ops.size() && alike(begin, end)) {
      most = std::min(most, most_units(ops[end], inputs[end].x.shape()));
      if (end - begin >= most) break;
      ++end;
    }
    use(begin, end);
  }
}

}  // namespace
}  // namespace lanas
