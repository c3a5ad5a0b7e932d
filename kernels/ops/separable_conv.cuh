// separable_conv.cuh -- the unit's forward kernel on the device. A block makes a tile of output pixels for up
// to 64 output channels: 16 input channels at a time it computes the depthwise result from x (normalised and
// rectified as it is read; the taps come from the cache) into shared memory and multiplies it by the
// pointwise weights, 4 channels of several pixels per thread in registers. The sums of the tile and its
// squares about the tile's mean go to partial statistics. The same kernel with transposed weights makes dd =
// dy p.
#pragma once

#include "kernels/core/channel_sums.cuh"
#include "kernels/ops/separable_conv.h"

namespace lanas {
namespace {

constexpr int kUnitThreads = 256;
constexpr int kChunk = 16;  // input channels at a time
constexpr int kPitch = 20;  // floats of a pixel's chunk in shared memory: 8 pixels fall in different banks

// A SeparableConv as the kernels want it.
struct Unit {
  const float *depthwise, *pointwise;  // depthwise null: none, kernel 1
  NormView<float> norm;
  int kernel, stride, dilation, padding, offset;
  bool relu, transposed;  // transposed: pointwise [cin][cout] instead of [cout][cin]

  static Unit from(const SeparableConv<float>& op) {
    return {op.has_depthwise() ? op.depthwise.data : nullptr,
            op.pointwise.data,
            op.norm,
            op.kernel(),
            op.stride,
            op.dilation,
            op.padding(),
            op.offset,
            op.relu,
            op.transposed};
  }
  // dd = dy p of an op with these pointwise weights.
  static Unit transposed_product(const float* pointwise) {
    return {nullptr, pointwise, {}, 1, 1, 1, 0, 0, false, true};
  }
  // The row or column of x under tap t of output row or column o.
  __device__ __forceinline__ int input(int o, int t) const {
    return o * stride + offset + t * dilation - padding;
  }
};

// z = relu(scale x + shift) for a pack of channels.
template <int kPack>
struct Activation {
  Pack<kPack> scale, shift;
  bool relu;

  __device__ __forceinline__ Activation(const Unit& unit, int c) : relu(unit.relu) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const bool norm = unit.norm.mean, affine = unit.norm.gamma;
      const float gain = norm ? unit.norm.inv_std[c + k] * (affine ? unit.norm.gamma[c + k] : 1.0f) : 1.0f;
      scale.v[k] = gain;
      shift.v[k] = norm ? (affine ? unit.norm.beta[c + k] : 0.0f) - unit.norm.mean[c + k] * gain : 0.0f;
    }
  }
  __device__ __forceinline__ Pack<kPack> operator()(Pack<kPack> x) const {
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      x.v[k] = x.v[k] * scale.v[k] + shift.v[k];
      if (relu) x.v[k] = x.v[k] > 0 ? x.v[k] : 0.0f;
    }
    return x;
  }
};

// The depthwise result at one output pixel. kKernel 0: any kernel.
template <int kPack, int kKernel>
__device__ __forceinline__ Pack<kPack> depthwise_at(const Unit& unit, const Tensor& x,
                                                    const Activation<kPack>& activation, int n, int oy,
                                                    int ox, int c) {
  const int kernel = kKernel > 0 ? kKernel : unit.kernel;
  Pack<kPack> sum = {};
#pragma unroll 1
  for (int ky = 0; ky < kernel; ++ky) {
    const int iy = unit.input(oy, ky);
    if (iy < 0 || iy >= x.h) continue;
#pragma unroll
    for (int kx = 0; kx < kernel; ++kx) {
      const int ix = unit.input(ox, kx);
      if (ix < 0 || ix >= x.w) continue;
      const Pack<kPack> z = activation(load<kPack>(x.at(n, iy, ix) + c));
      if (unit.depthwise) {
        const Pack<kPack> w = load<kPack>(unit.depthwise + (ky * kernel + kx) * x.c + c);
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum.v[k] += w.v[k] * z.v[k];
      } else {
        sum = z;
      }
    }
  }
  return sum;
}

// The number of channels of the chunk at `first`, rounded up to 4; those past cin are zeros.
__device__ __forceinline__ int chunk_size(int cin, int first) {
  return min(kChunk, (cin - first + 3) / 4 * 4);
}

// to[pixel][kPitch] = the depthwise result of `pixels` output pixels from `begin` on, channels [first, first
// + chunk); zeros past the last output pixel (of h x w images) and past cin.
template <int kPack, int kKernel>
__device__ __forceinline__ void stage_depthwise(float* to, const Unit& unit, const Tensor& x, int h, int w,
                                                int64_t begin, int pixels, int first, int chunk) {
  const int packs = chunk / kPack, column = int(threadIdx.x) % packs, slots = kUnitThreads / packs,
            slot = int(threadIdx.x) / packs, c = first + column * kPack;
  if (slot >= slots) return;
  const bool inside = c < x.c;
  const Activation<kPack> activation(unit, inside ? c : 0);
  for (int i = slot; i < pixels; i += slots) {
    const int64_t p = begin + i;
    const int n = int(p / (int64_t{h} * w)), at = int(p - int64_t{n} * h * w), oy = at / w, ox = at - oy * w;
    Pack<kPack> d = {};
    if (inside && n < x.n) d = depthwise_at<kPack, kKernel>(unit, x, activation, n, oy, ox, c);
    store<kPack>(to + i * kPitch + column * kPack, d);
  }
}

template <int kPack>
__device__ __forceinline__ void stage_depthwise(float* to, const Unit& unit, const Tensor& x, int h, int w,
                                                int64_t begin, int pixels, int first, int chunk) {
  if (unit.kernel == 1)
    stage_depthwise<kPack, 1>(to, unit, x, h, w, begin, pixels, first, chunk);
  else if (unit.kernel == 3)
    stage_depthwise<kPack, 3>(to, unit, x, h, w, begin, pixels, first, chunk);
  else if (unit.kernel == 5)
    stage_depthwise<kPack, 5>(to, unit, x, h, w, begin, pixels, first, chunk);
  else
    stage_depthwise<kPack, 0>(to, unit, x, h, w, begin, pixels, first, chunk);
}

// The 4 kColumns output channels of a block's tile: threads stand [rows][kColumns], each has 4 channels of
// kPixels pixels, rows apart.
template <int kColumns, int kPixels>
struct UnitTile {
  static constexpr int kRows = kUnitThreads / kColumns, kSize = kRows * kPixels, kChannels = 4 * kColumns;
  static_assert((kSize * kPitch + kChunk * kChannels + 32 * int(kSumThreads) / 32 * 4) * sizeof(float) <=
                    48 * 1024,
                "static shared memory of a block");
};

// What is added at the end: y = product + bias + beta y, and where the partial statistics go.
struct UnitEnd {
  const float* bias;  // or null
  float beta;
  float* partial;     // [tile][2][cout]: sum of y, sum of squares about the tile's mean; or null
  bool vector_store;  // y takes packs of 4
};

template <int kColumns, int kPixels>
__device__ __forceinline__ void write_statistics(float* row, const float (&y)[kPixels][4], const bool* inside,
                                                 int count, int first, int channels) {
  float sums[1][4] = {}, squares[1][4] = {};
#pragma unroll
  for (int p = 0; p < kPixels; ++p)
#pragma unroll
    for (int k = 0; k < 4; ++k) sums[0][k] += inside[p] ? y[p][k] : 0.0f;
  write_channel_sums<4, 1>(row, sums, kColumns, first, channels);
  __syncthreads();
  const int c = first + int(threadIdx.x) % kColumns * 4;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float mean = c + k < channels ? row[c + k] / float(count) : 0.0f;
#pragma unroll
    for (int p = 0; p < kPixels; ++p) {
      const float d = inside[p] ? y[p][k] - mean : 0.0f;
      squares[0][k] += d * d;
    }
  }
  write_channel_sums<4, 1>(row + channels, squares, kColumns, first, channels);
}

// Grid (tiles, groups of 4 kColumns output channels).
template <int kPack, int kColumns, int kPixels>
__global__ void unit_forward_kernel(Tensor y, Tensor x, Unit unit, UnitEnd end) {
  using Tile = UnitTile<kColumns, kPixels>;
  float* staged = static_shared<float, Tile::kSize * kPitch, 0>();
  float* weights = static_shared<float, kChunk * Tile::kChannels, 1>();  // [c][j]
  const int column = int(threadIdx.x) % kColumns, row = int(threadIdx.x) / kColumns,
            first_j = int(blockIdx.y) * Tile::kChannels, j = first_j + column * 4;
  const int64_t begin = int64_t{blockIdx.x} * Tile::kSize;
  float sums[kPixels][4] = {};
  for (int first = 0; first < x.c; first += kChunk) {
    const int chunk = chunk_size(x.c, first);
    __syncthreads();
    stage_depthwise<kPack>(staged, unit, x, y.h, y.w, begin, Tile::kSize, first, chunk);
    for (int i = int(threadIdx.x); i < chunk * Tile::kChannels; i += kUnitThreads) {
      const int c = first + i / Tile::kChannels, to = first_j + i % Tile::kChannels;
      const bool inside = c < x.c && to < y.c;
      weights[i] = !inside ? 0.0f : unit.pointwise[unit.transposed ? c * y.c + to : to * x.c + c];
    }
    __syncthreads();
    for (int c = 0; c < chunk; c += 4) {
      Pack<4> w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) w[i] = load<4>(weights + (c + i) * Tile::kChannels + column * 4);
#pragma unroll
      for (int p = 0; p < kPixels; ++p) {
        const Pack<4> d = load<4>(staged + (row + p * Tile::kRows) * kPitch + c);
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int k = 0; k < 4; ++k) sums[p][k] += d.v[i] * w[i].v[k];
      }
    }
  }
  bool inside[kPixels];
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    const int64_t pixel = begin + row + p * Tile::kRows;
    inside[p] = pixel < y.pixels();
    if (!inside[p]) continue;
    float* to = y.pixel(pixel) + j;
    if (end.vector_store && j < y.c) {
      Pack<4> out;
#pragma unroll
      for (int k = 0; k < 4; ++k) out.v[k] = sums[p][k] + (end.bias ? end.bias[j + k] : 0.0f);
      accumulate<4>(to, out, end.beta);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (j + k < y.c) accumulate<1>(to + k, {sums[p][k] + (end.bias ? end.bias[j + k] : 0.0f)}, end.beta);
    }
  }
  if (!end.partial) return;  // the same for the whole grid
  const int count = int(min(int64_t{Tile::kSize}, y.pixels() - begin));
  write_statistics<kColumns, kPixels>(end.partial + int64_t{blockIdx.x} * 2 * y.c, sums, inside, count,
                                      first_j, y.c);
}

// Blocks of kAddColumns channels: the tiles' sums and squares about their means become those of all pixels.
template <int kWhich = 0>
__global__ void unit_statistics_kernel(float* mean, float* inv_std, const float* partial, int tiles,
                                       int tile_pixels, int channels, int64_t pixels, float eps) {
  double* shared_mean = static_shared<double, kAddColumns>();
  const int c = added_channel();
  const double sum = add_pieces(partial, tiles, 2 * channels, c, c < channels);
  if (threadIdx.x < unsigned(kAddColumns)) shared_mean[threadIdx.x] = sum / double(pixels);
  __syncthreads();
  const double center = shared_mean[int(threadIdx.x) % kAddColumns];
  double squares = 0;
  if (c < channels) {
#pragma unroll 4
    for (int t = int(threadIdx.x) / kAddColumns; t < tiles; t += int(kSumThreads) / kAddColumns) {
      const float* row = partial + int64_t{t} * 2 * channels + c;
      const double count = double(min(int64_t{tile_pixels}, pixels - int64_t{t} * tile_pixels)),
                   d = double(row[0]) / count - center;
      squares += double(row[channels]) + count * d * d;
    }
  }
  squares = column_sum(squares, unsigned(kAddColumns), static_shared<double, int(kSumThreads), 1>());
  if (threadIdx.x >= unsigned(kAddColumns) || c >= channels) return;
  mean[c] = float(center);
  inv_std[c] = float(1 / sqrt(squares / double(pixels) + double(eps)));
}

// use(columns, pixels), both as constants: the tile for this output. Small outputs get small tiles, so that
// there are some blocks for every multiprocessor.
template <class Use>
void with_tile(int64_t pixels, int channels, Use use) {
  const auto with_columns = [&](auto columns) {
    constexpr int kMost = columns() == 1 ? 1 : 4;  // of pixels per thread
    using Large = UnitTile<columns(), kMost>;
    const int64_t groups = (channels + Large::kChannels - 1) / Large::kChannels;
    if ((pixels + Large::kSize - 1) / Large::kSize * groups >= 264)
      use(columns, std::integral_constant<int, kMost>());
    else
      use(columns, std::integral_constant<int, 1>());
  };
  if (channels <= 4)
    with_columns(std::integral_constant<int, 1>());
  else if (channels <= 16)
    with_columns(std::integral_constant<int, 4>());
  else if (channels <= 32)
    with_columns(std::integral_constant<int, 8>());
  else
    with_columns(std::integral_constant<int, 16>());
}

// Packs of 4 channels of x and the depthwise weights, or single ones.
template <class Use, class... Views>
void with_quads(Use use, const Views&... views) {
  if (pack_width(views...) == 4)
    use(std::integral_constant<int, 4>());
  else
    use(std::integral_constant<int, 1>());
}

inline Tensor depthwise_view(const Unit& unit, int channels) {
  return unit.depthwise ? row_view(unit.depthwise, channels) : Tensor{};
}

// y = beta y + unit(x) + bias; and the statistics of y where mean is given.
void launch_unit(Stream& stream, Tensor y, Tensor x, const Unit& unit, const float* bias, float beta,
                 float* mean, float* inv_std, float eps) {
  with_tile(y.pixels(), y.c, [&](auto columns, auto pixels) {
    using Tile = UnitTile<columns(), pixels()>;
    const int64_t tiles = (y.pixels() + Tile::kSize - 1) / Tile::kSize;
    const size_t bytes = size_t(tiles) * 2 * size_t(y.c) * sizeof(float);
    CHECK(!mean || bytes <= kStreamScratch, "separable_conv_forward: the statistics of y ", y.shape(),
          " do not fit in the stream's scratch");
    UnitEnd end{bias, beta, nullptr, pack_width(y) == 4};
    if (mean) end.partial = static_cast<float*>(stream_scratch(stream, bytes));
    const dim3 grid(unsigned(tiles), unsigned((y.c + Tile::kChannels - 1) / Tile::kChannels));
    with_quads(
        [&](auto pack) {
          launch(unit_forward_kernel<pack(), columns(), pixels()>, grid, kUnitThreads, 0, stream, y, x, unit,
                 end);
        },
        x, depthwise_view(unit, x.c));
    if (mean)
      launch(unit_statistics_kernel<>, add_blocks(y.c), kSumThreads, 0, stream, mean, inv_std, end.partial,
             int(tiles), Tile::kSize, y.c, y.pixels(), eps);
  });
}

}  // namespace
}  // namespace lanas
