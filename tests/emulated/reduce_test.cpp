// reduce.cuh under emulation: exact sums of small integers in all thread orders, and the same bits for real
// numbers.
#ifndef LANAS_EMULATE
#define LANAS_EMULATE
#endif
#include "kernels/core/reduce.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/core/random.cuh"
#include "kernels/core/tensor.h"

namespace lanas {
namespace {

using simt::Order;

constexpr simt::Settings kOrders[] = {
    {Order::forward, 0}, {Order::reverse, 0}, {Order::shuffled, 1}, {Order::shuffled, 2}};

Stream& cuda() {
  static Stream stream(Device::cuda);
  return stream;
}

std::vector<float> noise(size_t count, uint64_t seed) {
  std::vector<float> v(count);
  Random random(seed);
  for (float& x : v) x = random.normal();
  return v;
}

__global__ void sums_kernel(float* out, const float* in, int64_t n) {
  float sums[3] = {0, 0, -INFINITY};
  for (int64_t i : grid_stride(n)) {
    sums[0] += in[i];
    sums[1] += in[i] * in[i];
    sums[2] = fmaxf(sums[2], in[i]);
  }
  const float largest = block_max(sums[2]);
  float two[2] = {sums[0], sums[1]};
  block_sums<2>(two);
  const double again = block_sum(double(sums[0]));
  float* o = out + (blockIdx.x * blockDim.x + threadIdx.x) * 4;  // every thread has every result
  o[0] = two[0];
  o[1] = two[1];
  o[2] = largest;
  o[3] = float(again);
}

TEST(Reduce, BlockSumsInEveryThread) {
  const int64_t n = 1003;
  std::vector<float> in(size_t(n), 0.0f);
  for (size_t i = 0; i < in.size(); ++i) in[i] = float(int(i * 7 % 13) - 5);
  for (const simt::Settings& order : kOrders)
    for (const unsigned threads : {32u, 64u, 224u, 1024u}) {
      const simt::ScopedSettings scope(order);
      const unsigned blocks = 2;
      std::vector<float> out(blocks * threads * 4, -1.0f);
      launch(sums_kernel, blocks, threads, 0, cuda(), out.data(), in.data(), n);
      for (unsigned b = 0; b < blocks; ++b) {
        float sum = 0, squares = 0, largest = -INFINITY;
        for (size_t i = 0; i < in.size(); ++i)
          if (i / threads % blocks == b) {
            sum += in[i];
            squares += in[i] * in[i];
            largest = std::max(largest, in[i]);
          }
        for (unsigned t = 0; t < threads; ++t) {
          const float* o = &out[(b * threads + t) * 4];
          ASSERT_EQ(o[0], sum) << threads;
          ASSERT_EQ(o[1], squares);
          ASSERT_EQ(o[2], largest);
          ASSERT_EQ(o[3], sum);
        }
      }
    }
}

TEST(Reduce, SameBitsInEveryOrder) {
  const std::vector<float> in = noise(5000, 1);
  std::vector<std::vector<float>> results;
  for (const simt::Settings& order : kOrders) {
    const simt::ScopedSettings scope(order);
    std::vector<float> out(4 * 128 * 4);
    launch(sums_kernel, 4, 128, 0, cuda(), out.data(), in.data(), int64_t{5000});
    results.push_back(out);
  }
  for (const auto& r : results) EXPECT_EQ(r, results[0]);
}

__global__ void column_kernel(float* out, const float* in, int64_t pixels, int c) {
  float* scratch = dynamic_shared<float>();
  const unsigned channel = threadIdx.x % unsigned(c), row = threadIdx.x / unsigned(c);
  const unsigned rows = blockDim.x / unsigned(c);
  float sum = 0;
  if (row < rows)
    for (int64_t p = int64_t{blockIdx.x} * rows + row; p < pixels; p += int64_t{gridDim.x} * rows)
      sum += in[p * c + channel];
  const float first = column_sum(sum, unsigned(c), scratch);
  const float twice = column_sum(2 * sum, unsigned(c), scratch);  // the scratch can be used again at once
  if (row == 0) out[blockIdx.x * unsigned(c) + channel] = twice - first;
}

TEST(Reduce, ColumnSums) {
  for (const simt::Settings& order : kOrders)
    for (const int c : {1, 3, 4, 12, 16, 36, 64, 128}) {
      const simt::ScopedSettings scope(order);
      const int64_t pixels = 301;
      const unsigned blocks = 2, threads = 128;
      std::vector<float> in(size_t(pixels * c)), out(blocks * size_t(c), -1.0f);
      for (size_t i = 0; i < in.size(); ++i) in[i] = float(int(i * 11 % 17) - 8);
      launch(column_kernel, blocks, threads, threads * sizeof(float), cuda(), out.data(), in.data(), pixels,
             c);
      for (int k = 0; k < c; ++k) {
        float sum = 0;
        for (int64_t p = 0; p < pixels; ++p) sum += in[size_t(p * c + k)];
        EXPECT_EQ(out[size_t(k)] + out[size_t(c + k)], sum) << "c " << c << " channel " << k;
      }
    }
}

template <int kVec>
__global__ void scale_kernel(Tensor y, Tensor x, float factor) {
  const int packs = x.c / kVec;
  for (int64_t i : grid_stride(x.pixels() * packs)) {
    const int64_t pixel = i / packs, c = i % packs * kVec;
    Pack<kVec> v = load<kVec>(x.pixel(pixel) + c);
    for (float& value : v.v) value *= factor;
    store<kVec>(y.pixel(pixel) + c, v);
  }
}

TEST(Reduce, PacksServeStridedViews) {
  alignas(16) static float buffer[2][2 * 3 * 5 * 40];
  const auto view = [&](int i, int c, int stride, int offset) {
    return Tensor(buffer[i] + offset, {2, 3, 5, c}, stride);
  };
  EXPECT_EQ(pack_width(view(0, 16, 40, 4)), 4);
  EXPECT_EQ(pack_width(view(0, 16, 40, 4), view(1, 16, 40, 2)), 2);
  EXPECT_EQ(pack_width(view(0, 6, 6, 0)), 2);
  EXPECT_EQ(pack_width(view(0, 4, 5, 0)), 1);
  EXPECT_EQ(pack_width(view(0, 3, 4, 0), Tensor()), 1);
  EXPECT_EQ(pack_width(Tensor()), 4);
  for (const simt::Settings& order : kOrders)
    for (const auto& [c, stride, offset] : {std::array{16, 40, 4}, {6, 38, 2}, {3, 7, 1}}) {
      const simt::ScopedSettings scope(order);
      for (auto& half : buffer)
        for (size_t i = 0; i < std::size(half); ++i) half[i] = float(i);
      const Tensor x = view(0, c, stride, offset), y = view(1, c, stride, offset);
      const int width = pack_width(x, y);
      EXPECT_EQ(width, c == 16 ? 4 : c == 6 ? 2 : 1);
      const auto kernel = width == 4 ? scale_kernel<4> : width == 2 ? scale_kernel<2> : scale_kernel<1>;
      launch(kernel, grid_blocks(x.size() / width, 32, 3), 32, 0, cuda(), y, x, 3.0f);
      for (size_t i = 0; i < std::size(buffer[1]); ++i) {
        const int64_t at = int64_t(i) - offset;
        const bool inside = at >= 0 && at % stride < c && at / stride < 30;
        ASSERT_EQ(buffer[1][i], inside ? 3 * float(i) : float(i)) << i;
      }
    }
  const Tensor odd = view(0, 16, 40, 1);
  EXPECT_THROW(launch(scale_kernel<4>, 1, 32, 0, cuda(), odd, odd, 1.0f), Error);
}

TEST(Reduce, GridBlocks) {
  EXPECT_EQ(grid_blocks(0, 256), 1u);
  EXPECT_EQ(grid_blocks(256, 256), 1u);
  EXPECT_EQ(grid_blocks(257, 256), 2u);
  EXPECT_EQ(grid_blocks(int64_t{1} << 40, 256), 2048u);
}

}  // namespace
}  // namespace lanas
