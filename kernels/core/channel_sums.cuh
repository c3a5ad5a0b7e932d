// channel_sums.cuh -- sums over the pixels of views [pixels][c], per channel, in two kernels. In the first a
// block's threads stand [rows][columns], a column being a pack of channels; every block sums its pixels in
// registers, over the warp by shuffles and over the warps in shared memory, and writes one row of partial
// sums. The second kernel adds the rows, in double, in a fixed order.
//   template <int kPack> __global__ void sum_kernel(float* partial, Tensor x, int columns) {
//     sum_channels<kPack, 1>(partial, x.pixels(), x.c, columns, [&](int64_t p, int c, auto& sums) {
//       const Pack<kPack> in = load<kPack>(x.pixel(p) + c);
//       for (int k = 0; k < kPack; ++k) sums[0][k] += in.v[k];
//     });
//   }
#pragma once

#include <algorithm>

#include "kernels/core/packs.cuh"

namespace lanas {

constexpr unsigned kSumThreads = 256;  // of a block of either kernel
constexpr int kAddColumns = 8;         // of a block of the second kernel: one sector of partial sums

// The launch of the first kernel: grid (pieces, groups of channels), kSumThreads threads.
struct ChannelLayout {
  int columns = 1, groups = 1;  // columns: a power of two up to 32
  unsigned pieces = 1;          // rows of partial sums
  dim3 grid() const { return dim3(pieces, unsigned(groups)); }
};

// For c channels in packs of `pack`; a row of partial sums has `row_floats` floats, and the stream's scratch
// also holds `other_floats`. A thread gets `per_thread` pixels or more.
inline ChannelLayout channel_layout(const char* op, int c, int pack, int64_t pixels, int64_t row_floats,
                                    int64_t other_floats = 0, int per_thread = 4) {
  const int packs = c / pack;
  ChannelLayout layout;
  while (layout.columns < 32 && layout.columns < packs) layout.columns *= 2;
  const auto padded = [=](int columns) { return (packs + columns - 1) / columns * columns; };
  for (int columns = layout.columns; columns > 8; columns /= 2)  // fewer idle threads; 8 packs are a line
    if (padded(columns / 2) < padded(layout.columns)) layout.columns = columns / 2;
  layout.groups = padded(layout.columns) / layout.columns;
  const int64_t most = (int64_t(kStreamScratch / sizeof(float)) - other_floats) / row_floats;
  CHECK(most >= 1, op, ": the sums of ", row_floats, " numbers do not fit in the stream's scratch");
  layout.pieces = grid_blocks(pixels, int64_t{kSumThreads} / layout.columns * per_thread,
                              unsigned(std::min<int64_t>(most, 512)));
  return layout;
}

// sums[s][k] of all threads of a block in `columns` columns, added per column: channel `first` + column *
// kPack + k goes to row[s * c + channel] where it is below c. All kSumThreads threads call it.
template <int kPack, int kSums>
__device__ __forceinline__ void write_channel_sums(float* row, float (&sums)[kSums][kPack], int columns,
                                                   int first, int c) {
  constexpr int kChannelSumTag = 0x5e02, kWarps = int(kSumThreads) / 32;
  float* shared = static_shared<float, kWarps * kSums * 32 * kPack, kChannelSumTag>();  // [warp][s][channel]
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, width = columns * kPack;
  __syncthreads();                                    // the readers of an earlier call are done
  for (int lanes = 16; lanes >= columns; lanes /= 2)  // outside, so that the sums go side by side
#pragma unroll
    for (int s = 0; s < kSums; ++s)
#pragma unroll
      for (int k = 0; k < kPack; ++k) sums[s][k] += __shfl_xor_sync(kFullWarp, sums[s][k], lanes);
#pragma unroll
  for (int s = 0; s < kSums; ++s)
#pragma unroll
    for (int k = 0; k < kPack; ++k)
      if (lane < columns) shared[(warp * kSums + s) * width + lane * kPack + k] = sums[s][k];
  __syncthreads();
  for (int i = int(threadIdx.x); i < kSums * width; i += int(kSumThreads)) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += shared[w * kSums * width + i];
    const int s = i / width, channel = first + i - s * width;
    if (channel < c) row[int64_t{s} * c + channel] = sum;
  }
}

// The first kernel: body(pixel, channel, sums) for this thread's packs, then partial[piece][s][c]. kUnroll: 4
// keeps four pixels' loads in flight; 1 for a body that does so by itself.
template <int kPack, int kSums, int kUnroll = 4, class Body>
__device__ __forceinline__ void sum_channels(float* partial, int64_t pixels, int c, int columns, Body body) {
  float sums[kSums][kPack] = {};
  const int rows = int(kSumThreads) / columns, first = int(blockIdx.y) * columns * kPack,
            channel = first + int(threadIdx.x) % columns * kPack;
  if (channel < c) {
    const int64_t step = int64_t{gridDim.x} * rows;
#pragma unroll kUnroll
    for (int64_t p = int64_t{blockIdx.x} * rows + threadIdx.x / unsigned(columns); p < pixels; p += step)
      body(p, channel, sums);
  }
  write_channel_sums<kPack, kSums>(partial + int64_t{blockIdx.x} * kSums * c, sums, columns, first, c);
}

// values[k] becomes its sum over all threads of this thread's column, in a block of kSumThreads threads in
// kAddColumns columns; the result is defined in threads below kAddColumns. All threads call it. Two barriers,
// whatever kCount.
template <int kCount>
__device__ __forceinline__ void add_rows(double (&values)[kCount]) {
  constexpr int kAddTag = 0x5e03, kWarps = int(kSumThreads) / 32;
  double* shared = static_shared<double, kCount * kWarps * kAddColumns, kAddTag>();  // [k][warp][column]
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  __syncthreads();  // the readers of an earlier call are done
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
#pragma unroll
    for (int lanes = 16; lanes >= kAddColumns; lanes /= 2)
      values[k] += __shfl_xor_sync(kFullWarp, values[k], lanes);
    if (lane < kAddColumns) shared[(k * kWarps + warp) * kAddColumns + lane] = values[k];
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    values[k] = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) values[k] += shared[(k * kWarps + w) * kAddColumns + lane % kAddColumns];
  }
}

// The second kernel, of kSumThreads threads in kAddColumns columns: sums[k] is the sum over the pieces of
// partial[piece * row_floats + first + k * step], where first is this thread's column (the same for all its
// rows) and below row_floats if `inside`. The result is defined in threads below kAddColumns. All threads
// call it.
template <int kCount>
__device__ __forceinline__ void add_pieces(double (&sums)[kCount], const float* partial, int pieces,
                                           int64_t row_floats, int64_t first, int64_t step, bool inside) {
  constexpr int kRows = int(kSumThreads) / kAddColumns;
#pragma unroll
  for (int k = 0; k < kCount; ++k) sums[k] = 0;
  if (inside) {
#pragma unroll 4
    for (int piece = int(threadIdx.x) / kAddColumns; piece < pieces; piece += kRows)
#pragma unroll
      for (int k = 0; k < kCount; ++k) sums[k] += double(partial[piece * row_floats + first + k * step]);
  }
  add_rows(sums);
}

// The channel of this thread in the second kernel, in blocks of kAddColumns channels, and its grid.
__device__ __forceinline__ int added_channel() {
  return int(blockIdx.x) * kAddColumns + int(threadIdx.x) % kAddColumns;
}
inline unsigned add_blocks(int64_t columns) { return unsigned((columns + kAddColumns - 1) / kAddColumns); }

}  // namespace lanas
