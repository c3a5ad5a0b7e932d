// Each fault planted in a kernel is found by the emulator, in all thread orders, with file and line.
#ifndef LANAS_EMULATE
#define LANAS_EMULATE
#endif
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/core/launch.cuh"
#include "tests/support/simt_orders.h"

namespace lanas {
namespace {

using simt::Order;
using simt::Settings;

// Without the barrier each thread sees its neighbour's value only where the neighbour happens to run first.
__global__ void neighbour(float* out, bool with_barrier) {
  float* shared = dynamic_shared<float>();
  const unsigned t = threadIdx.x;
  shared[t] = float(t);
  if (with_barrier) __syncthreads();
  out[t] = t == 0 ? 0 : shared[t - 1];
}

TEST(SimtFaults, MissingBarrierShowsInAnotherOrder) {
  std::vector<float> expected(64);
  for (size_t t = 1; t < 64; ++t) expected[t] = float(t - 1);
  for (const Settings& settings : all_simt_settings()) {
    const simt::ScopedSettings scope(settings);
    std::vector<float> right(64), wrong(64);
    launch(neighbour, 1, 64, 64 * sizeof(float), emulated_stream(), right.data(), true);
    launch(neighbour, 1, 64, 64 * sizeof(float), emulated_stream(), wrong.data(), false);
    EXPECT_EQ(right, expected);
    EXPECT_EQ(wrong == expected, settings.order == Order::forward);
  }
}

// The same without the implicit lock-step of a warp.
__global__ void warp_neighbour(int* out, bool with_barrier) {
  int* shared = static_shared<int, 32>();
  shared[threadIdx.x] = int(threadIdx.x);
  if (with_barrier) __syncwarp();
  out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

TEST(SimtFaults, MissingWarpBarrierShows) {
  in_all_orders([&] {
    std::vector<int> right(32), wrong(32);
    launch(warp_neighbour, 1, 32, 0, emulated_stream(), right.data(), true);
    launch(warp_neighbour, 1, 32, 0, emulated_stream(), wrong.data(), false);
    for (int t = 0; t < 32; ++t) EXPECT_EQ(right[size_t(t)], t ^ 1);
    EXPECT_NE(wrong, right);
  });
}

constexpr int kDivergentLine = __LINE__ + 3;
__global__ void divergent_barrier(int) {
  if (threadIdx.x < 7)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void early_return(int n) {
  if (int(threadIdx.x) >= n) return;
  __syncthreads();
}
__global__ void late_return(int n) {
  __syncthreads();
  if (int(threadIdx.x) < n) __syncthreads();
}
__global__ void barrier_against_shuffle(int n) {
  if (int(threadIdx.x) < n)
    __syncthreads();
  else
    __syncwarp();
}

TEST(SimtFaults, DivergentBarriersAreReportedWithFileAndLine) {
  in_all_orders([&] {
    std::string error = error_of([] { launch(divergent_barrier, 2, 64, 0, emulated_stream(), 0); });
    expect_has(error, {"simt_faults_test.cpp", "divergent barrier", "thread 7"});
    expect_has(error, {join("simt_faults_test.cpp:", kDivergentLine, ": __syncthreads"),
                       join("simt_faults_test.cpp:", kDivergentLine + 2, ":")});
    error = error_of([] { launch(early_return, 1, 64, 0, emulated_stream(), 40); });
    expect_has(error, {"40 of 64 threads wait here", "thread 40 has exited", "simt_faults_test.cpp"});
    error = error_of([] { launch(late_return, 1, 64, 0, emulated_stream(), 63); });
    expect_has(error, {"63 of 64", "thread 63 has exited"});
    error = error_of([] { launch(barrier_against_shuffle, 1, 32, 0, emulated_stream(), 4); });
    expect_has(error, {"__syncwarp", "thread 0", "(__syncthreads)", "diverged"});
    EXPECT_EQ(error_of([] { launch(early_return, 1, 64, 0, emulated_stream(), 64); }),
              "");  // and the emulator goes on
  });
}

__global__ void exited_lane(int n, unsigned mask) {
  if (int(threadIdx.x) >= n) return;
  __shfl_xor_sync(mask, 1.0f, 1);
}
__global__ void divergent_shuffle(int* out) {
  int v = 0;
  if (threadIdx.x % 2)
    v = __shfl_xor_sync(0xffffffffu, 1, 1);
  else
    v = __shfl_xor_sync(0xffffffffu, 2, 1);
  out[threadIdx.x] = v;
}
__global__ void different_masks() { __syncwarp(threadIdx.x % 2 ? 0xffffffffu : 0x7fffffffu); }
__global__ void foreign_mask() { __ballot_sync(0xfu, 1); }
__global__ void source_outside_mask() {
  if (threadIdx.x < 16) __shfl_sync(0xffffu, 1, 20);
}

TEST(SimtFaults, WrongMasksAndDivergentShuffles) {
  in_all_orders([&] {
    std::vector<int> out(32);
    std::string error = error_of([] { launch(exited_lane, 1, 32, 0, emulated_stream(), 20, 0xffffffffu); });
    expect_has(error, {"simt_faults_test.cpp:", "0xffffffff", "has exited"});
    EXPECT_EQ(error_of([] { launch(exited_lane, 1, 32, 0, emulated_stream(), 16, 0xffffu); }), "");
    error = error_of([] { launch(exited_lane, 1, 48, 0, emulated_stream(), 48, 0xffffffffu); });
    expect_has(error, {"names lane 16", "past the end of the block"});
    error = error_of([&] { launch(divergent_shuffle, 1, 32, 0, emulated_stream(), out.data()); });
    expect_has(error, {"simt_faults_test.cpp:", "shuffle", "diverged"});
    expect_has(error_of([] { launch(different_masks, 1, 32, 0, emulated_stream()); }),
               {"simt_faults_test.cpp:", "0x7fffffff"});
    expect_has(error_of([] { launch(foreign_mask, 1, 32, 0, emulated_stream()); }),
               {"not in its own mask 0xf"});
    expect_has(error_of([] { launch(source_outside_mask, 1, 32, 0, emulated_stream()); }), {"reads lane 20"});
  });
}

__global__ void nothing() {}
__global__ void asks_dynamic(int* out) { out[0] = dynamic_shared<int>()[0]; }
__global__ void much_static() { static_shared<float, 12 * 1024 + 1>(); }

TEST(SimtFaults, SizesPastTheLimits) {
  int out = 0;
  const std::string here = join("simt_faults_test.cpp:", __LINE__ + 1, ": launch");
  expect_has(error_of([] { launch(nothing, 1, 1025, 0, emulated_stream()); }), {here, "1025x1x1", "1024"});
  expect_has(error_of([] { launch(nothing, 1, dim3(1, 1, 65), 0, emulated_stream()); }), {"1x1x65"});
  expect_has(error_of([] { launch(nothing, 1, 0, 0, emulated_stream()); }), {"0x1x1"});
  expect_has(error_of([] { launch(nothing, 0, 1, 0, emulated_stream()); }), {"a grid of 0x1x1"});
  expect_has(error_of([] { launch(nothing, dim3(1, 65536), 1, 0, emulated_stream()); }), {"1x65536x1"});
  expect_has(error_of([] { launch(nothing, 1, 1, 227 * 1024 + 1, emulated_stream()); }),
             {"232449 bytes", "232448"});
  expect_has(error_of([&] { launch(asks_dynamic, 1, 1, 0, emulated_stream(), &out); }),
             {"asked for 0 bytes"});
  expect_has(error_of([] { launch(much_static, 1, 1, 0, emulated_stream()); }), {"static", "49156", "49152"});
  EXPECT_EQ(error_of([] { launch(nothing, 3, 1024, 227 * 1024, emulated_stream()); }), "");
  Stream cpu;
  expect_has(error_of([&] { launch(nothing, 1, 1, 0, cpu); }), {"the stream is on the cpu"});
}

__global__ void writes_at(int index) {
  volatile float* shared = dynamic_shared<float>();
  if (threadIdx.x == 0) shared[index] = 1;
}
__global__ void writes_static_at(int index) {
  volatile float* shared = static_shared<float, 10>();
  if (threadIdx.x == 0) shared[index] = 1;
}

TEST(SimtFaults, WritePastSharedMemory) {
  EXPECT_EQ(error_of([] { launch(writes_at, 1, 32, 40, emulated_stream(), 9); }), "");
  EXPECT_EQ(error_of([] { launch(writes_static_at, 1, 32, 0, emulated_stream(), 9); }), "");
#ifdef __SANITIZE_ADDRESS__
  EXPECT_DEATH(launch(writes_at, 1, 32, 40, emulated_stream(), 10), "heap-buffer-overflow");
  EXPECT_DEATH(launch(writes_static_at, 1, 32, 0, emulated_stream(), 10), "heap-buffer-overflow");
#else
  expect_has(error_of([] { launch(writes_at, 1, 32, 40, emulated_stream(), 10); }),
             {"simt_faults_test.cpp:", "dynamic", "40 bytes"});
  expect_has(error_of([] { launch(writes_static_at, 1, 32, 0, emulated_stream(), 10); }),
             {"static", "40 bytes"});
#endif
}

__global__ void reads_unwritten(float* out) {
  float* dynamic = dynamic_shared<float>();
  float* fixed = static_shared<float, 8>();
  out[blockIdx.x * 8 + threadIdx.x] = dynamic[threadIdx.x] + (threadIdx.x % 2 ? fixed[threadIdx.x] : 0.0f);
  dynamic[threadIdx.x] = fixed[threadIdx.x] = 1;  // must not be seen by the next block
}

TEST(SimtFaults, UninitialisedSharedMemoryIsNan) {
  in_all_orders([&] {
    std::vector<float> out(24, 0.0f);
    launch(reads_unwritten, 3, 8, 8 * sizeof(float), emulated_stream(), out.data());
    for (const float v : out) EXPECT_TRUE(std::isnan(v));
  });
}

// A kernel that takes what another block wrote sees it only if that block happened to run before.
__global__ void block_chain(int* out) { out[blockIdx.x + 1] = out[blockIdx.x] + 1; }

TEST(SimtFaults, DependenceBetweenBlocksShowsInAnotherOrder) {
  for (const Settings& settings : all_simt_settings()) {
    const simt::ScopedSettings scope(settings);
    std::vector<int> out(17, 0);
    launch(block_chain, 16, 1, 0, emulated_stream(), out.data());
    EXPECT_EQ(out[16] == 16, settings.order == Order::forward);
  }
}

struct CountsLife {
  int* alive;
  explicit CountsLife(int* count) : alive(count) { ++*alive; }
  ~CountsLife() { --*alive; }
};
__global__ void fails_with_locals(int* alive, int* reached) {
  const CountsLife local(alive);
  *reached = std::max(*reached, *alive);
  __syncthreads();
  if (threadIdx.x == 31) throw Error("planted");
  __syncthreads();
}

TEST(SimtFaults, AFailedBlockIsUnwound) {
  in_all_orders([&] {
    int alive = 0, reached = 0;
    EXPECT_EQ(error_of([&] { launch(fails_with_locals, 1, 64, 0, emulated_stream(), &alive, &reached); }),
              "planted");
    EXPECT_EQ(alive, 0);
    EXPECT_EQ(reached, 64);
  });
}

}  // namespace
}  // namespace lanas
