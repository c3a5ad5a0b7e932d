// Tests of ops/shuffle: every order is a permutation, a pure function of (seed, draw), and fair; of
// vendor/sort: equal keys keep their order.
#include "kernels/ops/shuffle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/vendor/sort.h"

namespace lanas {
namespace {

std::vector<int> shuffled(const std::vector<int>& indices, uint64_t seed, uint64_t draw) {
  Stream stream;
  const int count = int(indices.size());
  Memory scratch(Device::cpu, shuffle_scratch_bytes(stream, count));
  std::vector<int> result(indices.size(), -1);
  shuffle(stream, result.data(), indices.data(), count, seed, draw, scratch.data());
  return result;
}

std::vector<int> numbers(int count) {
  std::vector<int> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

TEST(Shuffle, IsAPermutationOfItsOwnDraw) {
  for (const int count : {0, 1, 2, 3, 5, 1000, 50001}) {
    const std::vector<int> given = numbers(count), first = shuffled(given, 7, 1);
    std::vector<int> sorted = first;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, given);
    EXPECT_EQ(shuffled(given, 7, 1), first);
    if (count < 100) continue;
    EXPECT_NE(first, given);
    EXPECT_NE(shuffled(given, 7, 2), first);
    EXPECT_NE(shuffled(given, 8, 1), first);
  }
  Stream stream;
  EXPECT_THROW(shuffle(stream, nullptr, nullptr, -1, 0, 0, nullptr), Error);
}

TEST(Shuffle, PutsEachIndexEverywhereEquallyOften) {
  constexpr int kCount = 6, kDraws = 6000;
  int times[kCount][kCount] = {};  // [index][place]
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    const std::vector<int> order = shuffled(numbers(kCount), 3, draw);
    for (int place = 0; place < kCount; ++place) ++times[order[size_t(place)]][place];
  }
  for (const auto& row : times)
    for (const int t : row) EXPECT_NEAR(t, kDraws / kCount, 5 * std::sqrt(double(kDraws) / kCount));
}

TEST(Shuffle, TheSortIsStable) {
  const std::vector<uint32_t> keys = {5, 0xFFFFFFFF, 5, 0, 5, 0};
  const std::vector<int> values = {10, 11, 12, 13, 14, 15};
  std::vector<uint32_t> sorted_keys(6);
  std::vector<int> sorted(6);
  host::sort_pairs(sorted_keys.data(), keys.data(), sorted.data(), values.data(), 6);
  EXPECT_EQ(sorted, (std::vector<int>{13, 15, 10, 12, 14, 11}));
  EXPECT_EQ(sorted_keys, (std::vector<uint32_t>{0, 0, 5, 5, 5, 0xFFFFFFFF}));
}

}  // namespace
}  // namespace lanas
