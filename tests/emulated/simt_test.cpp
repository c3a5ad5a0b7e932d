// Correct kernels give one result under the emulator in all thread orders; launch lists; the cost of a
// barrier.
#ifndef LANAS_EMULATE
#define LANAS_EMULATE
#endif
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <numeric>

#include "kernels/core/launch.cuh"
#include "kernels/core/random.cuh"
#include "kernels/core/timing.h"
#include "tests/support/simt_orders.h"

namespace lanas {
namespace {

using simt::Order;
using simt::Switch;

__global__ void block_reduction(float* out, const float* in, int n) {
  float* partial = dynamic_shared<float>();
  const unsigned t = threadIdx.x;
  const int i = int(blockIdx.x * blockDim.x + t);
  partial[t] = i < n ? in[i] : 0;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) partial[t] += partial[t + half];
  }
  if (t == 0) out[blockIdx.x] = partial[0];
}

__global__ void __launch_bounds__(256) warp_reduction(float* out, const float* in) {
  float v = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (unsigned delta = 16; delta > 0; delta /= 2) v += __shfl_down_sync(0xffffffffu, v, delta);
  if (threadIdx.x % 32 == 0) out[(blockIdx.x * blockDim.x + threadIdx.x) / 32] = v;
}

template <int kTile>
__global__ void transpose(float* __restrict__ out, const float* __restrict__ in, int rows, int columns) {
  __shared__ float tile[kTile][kTile + 1];
  int x = int(blockIdx.x * kTile + threadIdx.x), y = int(blockIdx.y * kTile + threadIdx.y);
  if (x < columns && y < rows) tile[threadIdx.y][threadIdx.x] = in[y * columns + x];
  __syncthreads();
  x = int(blockIdx.y * kTile + threadIdx.x);
  y = int(blockIdx.x * kTile + threadIdx.y);
  if (x < rows && y < columns) out[y * rows + x] = tile[threadIdx.x][threadIdx.y];
}

__global__ void histogram(int* bins, const int* keys, int n) {
  int* mine = static_shared<int, 16>();
  if (threadIdx.x < 16) mine[threadIdx.x] = 0;
  __syncthreads();
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < unsigned(n); i += gridDim.x * blockDim.x)
    atomicAdd(&mine[keys[i]], 1);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], mine[threadIdx.x]);
}

std::vector<float> ramp(int n) {
  std::vector<float> v(size_t(n), 0.0f);
  std::iota(v.begin(), v.end(), 1.0f);
  return v;
}

TEST(Simt, BlockReduction) {
  const std::vector<float> in = ramp(1000);
  in_all_orders([&] {
    std::vector<float> out(8, -1.0f);
    launch(block_reduction, 8, 128, 128 * sizeof(float), emulated_stream(), out.data(), in.data(), 1000);
    for (int b = 0; b < 8; ++b)
      EXPECT_EQ(out[size_t(b)],
                std::accumulate(in.begin() + b * 128, in.begin() + std::min(1000, b * 128 + 128), 0.0f));
  });
}

TEST(Simt, WarpShuffleReduction) {
  const std::vector<float> in = ramp(512);
  in_all_orders([&] {
    std::vector<float> out(16, -1.0f);
    launch(warp_reduction, 2, 256, 0, emulated_stream(), out.data(), in.data());
    for (int w = 0; w < 16; ++w)
      EXPECT_EQ(out[size_t(w)], std::accumulate(in.begin() + w * 32, in.begin() + w * 32 + 32, 0.0f));
  });
}

TEST(Simt, TransposeThroughSharedMemory) {
  const int rows = 37, columns = 21;
  const std::vector<float> in = ramp(rows * columns);
  in_all_orders([&] {
    std::vector<float> out(in.size(), -1.0f);
    launch(transpose<8>, dim3(3, 5), dim3(8, 8), 0, emulated_stream(), out.data(), in.data(), rows, columns);
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) ASSERT_EQ(out[size_t(x * rows + y)], in[size_t(y * columns + x)]);
  });
}

TEST(Simt, HistogramWithIntegerAtomics) {
  std::vector<int> keys(2000), expected(16, 0);
  Random random(3);
  for (int& key : keys) ++expected[size_t(key = int(random.below(16)))];
  in_all_orders([&] {
    std::vector<int> bins(16, 0);
    launch(histogram, 3, 96, 0, emulated_stream(), bins.data(), keys.data(), 2000);
    EXPECT_EQ(bins, expected);
  });
}

__global__ void collectives(int* out) {
  const unsigned all = 0xffffffffu;
  const int lane = int(threadIdx.x) % 32;
  int* o = out + threadIdx.x * 8;
  o[0] = __shfl_sync(all, lane * 10, 5);
  o[1] = __shfl_sync(all, lane * 10, 3, 8);
  o[2] = __shfl_up_sync(all, lane, 2u);
  o[3] = __shfl_down_sync(all, lane, 3u, 16);
  o[4] = __shfl_xor_sync(all, lane, 7);
  o[5] = int(__ballot_sync(all, lane % 3 == 0));
  o[6] = __any_sync(all, lane == 31) * 2 + __all_sync(all, lane < 31);
  if (lane < 16) {  // a part of the warp, named by its mask
    __syncwarp(0xffffu);
    o[7] = int(__ballot_sync(0xffffu, 1));
  } else {
    o[7] = int(__shfl_xor_sync(0xffff0000u, double(lane), 1));
  }
}

TEST(Simt, ShufflesAndVotes) {
  in_all_orders([&] {
    std::vector<int> out(64 * 8, -1);
    launch(collectives, 1, 64, 0, emulated_stream(), out.data());
    int thirds = 0;
    for (int l = 0; l < 32; l += 3) thirds |= 1 << l;
    for (int t = 0; t < 64; ++t) {
      const int lane = t % 32;
      const int* o = &out[size_t(t) * 8];
      EXPECT_EQ(o[0], 50);
      EXPECT_EQ(o[1], (lane / 8 * 8 + 3) * 10);
      EXPECT_EQ(o[2], lane < 2 ? lane : lane - 2);
      EXPECT_EQ(o[3], lane % 16 + 3 < 16 ? lane + 3 : lane);
      EXPECT_EQ(o[4], lane ^ 7);
      EXPECT_EQ(o[5], thirds);
      EXPECT_EQ(o[6], 2);
      EXPECT_EQ(o[7], lane < 16 ? 0xffff : lane ^ 1);
    }
  });
}

__global__ void indices(int* out) {
  const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[b * blockDim.x * blockDim.y * blockDim.z + t] += 1;
}

TEST(Simt, EveryThreadOfAThreeDimensionalLaunchRunsOnce) {
  in_all_orders([&] {
    std::vector<int> out(24 * 30, 0);
    launch(indices, dim3(2, 3, 4), dim3(5, 3, 2), 0, emulated_stream(), out.data());
    EXPECT_EQ(out, std::vector<int>(24 * 30, 1));
  });
}

TEST(Simt, BfloatRoundsToNearestEven) {
  EXPECT_EQ(__bfloat162float(__float2bfloat16(1.0f)), 1.0f);
  EXPECT_EQ(__bfloat162float(__float2bfloat16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(__bfloat162float(__float2bfloat16(1.0f + 3 * 0x1p-8f)), 1.0f + 4 * 0x1p-8f);
  EXPECT_TRUE(std::isnan(__bfloat162float(__float2bfloat16(std::nanf("")))));
  EXPECT_EQ(__bfloat162float(__float2bfloat16(3.4e38f)), std::numeric_limits<float>::infinity());
}

__global__ void axpy(float* y, const float* x, float a, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] += a * x[i];
}

TEST(LaunchList, ReplaysInOrderWithArgumentsByValue) {
  std::vector<float> x(40, 1.0f), y(40, 0.0f);
  float a = 2;
  simt::LaunchList list;
  list.begin();
  launch(axpy, 2, 32, 0, emulated_stream(), y.data(), x.data(), a, 40);
  launch(axpy, 2, 32, 0, emulated_stream(), x.data(), y.data(), 1, 40);  // converted to the parameter's type
  EXPECT_EQ(simt::LaunchList::recording(), &list);
  list.end();
  EXPECT_EQ(y, std::vector<float>(40, 0.0f)) << "recorded, not run";
  a = 100;  // frozen at 2 in the list, as in a CUDA graph
  list.replay();
  EXPECT_EQ(y, std::vector<float>(40, 2.0f));
  EXPECT_EQ(x, std::vector<float>(40, 3.0f));
  list.replay();
  EXPECT_EQ(y, std::vector<float>(40, 8.0f));
  EXPECT_EQ(x, std::vector<float>(40, 11.0f));
  EXPECT_EQ(list.size(), 2u);
}

__global__ void no_work() {}

TEST(LaunchList, ChecksAtRecordingAndNests) {
  simt::LaunchList list, outer;
  list.begin();
  EXPECT_THROW(outer.begin(), Error);
  EXPECT_THROW(list.replay(), Error);
  EXPECT_THROW(launch(no_work, 1, 2000, 0, emulated_stream()), Error);
  launch(no_work, 1, 32, 0, emulated_stream());
  list.end();
  EXPECT_THROW(list.end(), Error);
  outer.begin();
  list.replay();
  list.replay();
  outer.end();
  EXPECT_EQ(outer.size(), 2u);
}

__global__ void many_barriers(int count) {
  for (int i = 0; i < count; ++i) __syncthreads();
}

TEST(SimtCost, NanosecondsPerThreadAndBarrier) {
  const int threads = 256, barriers = 400;
  for (const Switch context : {simt::kDefaultSwitch, Switch::ucontext}) {
    const simt::ScopedSettings scope({Order::forward, 0, context});
    std::vector<double> sample;
    for (int repeat = 0; repeat < 10; ++repeat) {
      const std::clock_t start = std::clock();  // processor time: other programs do not count
      launch(many_barriers, 1, threads, 0, emulated_stream(), barriers);
      sample.push_back(double(std::clock() - start) * (1e9 / CLOCKS_PER_SEC) / (threads * barriers));
    }
    const double ns = quantile(sample, 0);  // the least disturbed run
    RecordProperty(context == Switch::assembly ? "assembly_ns" : "ucontext_ns", std::to_string(ns));
    EXPECT_LT(ns, 20000) << "an emulated barrier takes far longer than a context switch";
  }
}

}  // namespace
}  // namespace lanas
