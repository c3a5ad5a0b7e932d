// reduce.cuh -- what most kernels share: grid-stride loops, 16-byte loads and stores, sums over a warp and a
// block. Every sum is taken in one fixed order, so the same launch gives the same bits. For a sum over the
// whole grid, each block writes its partial to memory and a second kernel of one block adds the partials: no
// atomics. The number of blocks comes from grid_blocks(), which depends on the size alone, never on the
// device.
#pragma once

#include "kernels/core/launch.cuh"

namespace lanas {

// Blocks for `count` elements at `per_block` each, at most `most` (the kernel loops over the rest).
inline unsigned grid_blocks(int64_t count, int64_t per_block, unsigned most = 2048) {
  const int64_t blocks = (count + per_block - 1) / per_block;
  return blocks < 1 ? 1 : blocks < int64_t{most} ? unsigned(blocks) : most;
}

// for (int64_t i : grid_stride(count)): the indices of this thread in a one-dimensional launch, one grid
// apart.
struct GridStride {
  int64_t first, step, count;
  struct Iterator {
    int64_t i, step;
    __device__ __forceinline__ int64_t operator*() const { return i; }
    __device__ __forceinline__ void operator++() { i += step; }
    __device__ __forceinline__ bool operator!=(int64_t end) const { return i < end; }
  };
  __device__ __forceinline__ Iterator begin() const { return {first, step}; }
  __device__ __forceinline__ int64_t end() const { return count; }
};

__device__ __forceinline__ GridStride grid_stride(int64_t count) {
  return {int64_t{blockIdx.x} * blockDim.x + threadIdx.x, int64_t{gridDim.x} * blockDim.x, count};
}

__device__ __forceinline__ unsigned block_thread() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
__device__ __forceinline__ unsigned block_threads() { return blockDim.x * blockDim.y * blockDim.z; }

// kCount floats that move as one: 4 are one 16-byte load, 2 one of 8 bytes. A kernel templated on kCount has
// its scalar form for channel counts that 4 does not divide.
template <int kCount>
struct alignas(4 * kCount) Pack {
  static_assert(kCount == 1 || kCount == 2 || kCount == 4, "a load moves 4, 8 or 16 bytes");
  float v[kCount];
};

template <int kCount>
__device__ __forceinline__ void check_aligned([[maybe_unused]] const float* p) {
#ifndef __CUDACC__
  CHECK(reinterpret_cast<uintptr_t>(p) % (4 * kCount) == 0, "load/store: the address of a pack of ", kCount,
        " floats is not a multiple of ", 4 * kCount, " bytes");
#endif
}
template <int kCount>
__device__ __forceinline__ Pack<kCount> load(const float* p) {
  check_aligned<kCount>(p);
  return *reinterpret_cast<const Pack<kCount>*>(p);
}
template <int kCount>
__device__ __forceinline__ void store(float* p, const Pack<kCount>& value) {
  check_aligned<kCount>(p);
  *reinterpret_cast<Pack<kCount>*>(p) = value;
}

// The widest pack (4, 2 or 1 floats) that every given view [n,h,w,c] can be read and written with: it divides
// the channels and the pixel strides, and the first element is aligned to it. Null views fit any width.
template <class... Views>
int pack_width(const Views&... views) {
  const auto fits = [&](int width) {
    return (
        (!views.data || (views.c % width == 0 && views.stride % width == 0 &&
                         reinterpret_cast<uintptr_t>(views.data) % (sizeof(float) * unsigned(width)) == 0)) &&
        ...);
  };
  return fits(4) ? 4 : fits(2) ? 2 : 1;
}

constexpr unsigned kFullWarp = 0xffffffffu;

// The sum, or the largest value, over the warp, in every lane. All 32 lanes call it.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(kFullWarp, value, bits);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, bits));
  return value;
}

// values[k] becomes its sum over the block, in every thread. All threads of the block call it; their number
// is a multiple of 32. Two barriers, whatever kCount.
template <int kCount, class T>
__device__ __forceinline__ void block_sums(T (&values)[kCount]) {
  constexpr int kBlockSumTag = 0x5e00;
  T* partial = static_shared<T, 32 * kCount, kBlockSumTag>();  // [warp][k]
  const unsigned thread = block_thread(), lane = thread % 32, warp = thread / 32,
                 warps = block_threads() / 32;
  __syncthreads();  // the readers of an earlier call are done
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const T sum = warp_sum(values[k]);
    if (lane == 0) partial[warp * kCount + k] = sum;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kCount; ++k) values[k] = warp_sum(lane < warps ? partial[lane * kCount + k] : T(0));
}

template <class T>
__device__ __forceinline__ T block_sum(T value) {
  T values[1] = {value};
  block_sums<1>(values);
  return values[0];
}

// Largest value over the block, in every thread; as block_sums.
__device__ __forceinline__ float block_max(float value) {
  constexpr int kBlockMaxTag = 0x5e01;
  float* partial = static_shared<float, 32, kBlockMaxTag>();
  const unsigned thread = block_thread(), lane = thread % 32, warp = thread / 32,
                 warps = block_threads() / 32;
  __syncthreads();
  value = warp_max(value);
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  return warp_max(partial[lane < warps ? lane : 0]);
}

// Sum over the threads t with the same t % columns, in those with t < columns (the others' result is
// undefined): per-channel sums of a block whose threads stand [rows][columns]. Threads past rows * columns, a
// remainder, must hold 0 or take no part in a column: rows = threads / columns. `scratch` is shared memory of
// one T per thread. All threads of the block call it.
template <class T>
__device__ __forceinline__ T column_sum(T value, unsigned columns, T* scratch) {
  const unsigned thread = block_thread(), rows = block_threads() / columns, row = thread / columns;
  __syncthreads();
  scratch[thread] = value;
  for (unsigned left = rows; left > 1;) {  // the upper half is added to the lower
    const unsigned half = (left + 1) / 2;
    __syncthreads();
    if (row + half < left) scratch[thread] += scratch[thread + half * columns];
    left = half;
  }
  __syncthreads();
  return scratch[thread];
}

}  // namespace lanas
