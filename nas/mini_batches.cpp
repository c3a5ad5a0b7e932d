// mini_batches.cpp -- which images are used when: splits, epoch orders and random batches as pure functions
// of their seeds (Philox streams, Fisher-Yates).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/core/random.cuh"
#include "nas/image_data.h"

namespace lanas {
namespace {

// Streams of one seed, far apart from each other and from other draws of the same seed.
constexpr uint64_t kSplitStream = uint64_t{0x53504c54} << 32;
constexpr uint64_t kEpochStream = uint64_t{0x45504f43} << 32;
constexpr uint64_t kDrawStream = uint64_t{0x44524157} << 32;

}  // namespace

std::vector<std::vector<int>> split(uint64_t seed, int total, int count,
                                    const std::vector<double>& fractions) {
  CHECK(total > 0 && count >= 0 && count <= total, "split: count ", count, " of ", total,
        " images, expected 0 (all) to ", total);
  CHECK(!fractions.empty(), "split: no fractions, expected at least one");
  std::vector<int> order(static_cast<size_t>(total));
  std::iota(order.begin(), order.end(), 0);
  Random random(seed, kSplitStream);
  random.shuffle(order);
  const int used = count == 0 ? total : count;
  std::vector<std::vector<int>> parts;
  double fraction_sum = 0;
  int begin = 0;
  for (double fraction : fractions) {
    CHECK(fraction > 0 && fraction <= 1, "split: fraction ", fraction, ", expected above 0, at most 1");
    fraction_sum += fraction;
    CHECK(fraction_sum <= 1 + 1e-9, "split: the fractions sum to ", fraction_sum, ", expected at most 1");
    const int end = std::min(used, int(std::lround(fraction_sum * used)));
    CHECK(end > begin, "split: fraction ", fraction, " of ", used, " images is empty, expected at least one");
    parts.emplace_back(order.begin() + begin, order.begin() + end);
    begin = end;
  }
  return parts;
}

MiniBatches::MiniBatches(std::vector<int> indices, int batch, uint64_t seed)
    : indices_(std::move(indices)), order_(indices_), drawn_(indices_), batch_(batch), seed_(seed) {
  CHECK(batch >= 1 && size_t(batch) <= indices_.size(), "MiniBatches: batch ", batch, " does not fit ",
        indices_.size(), " images, expected 1 to ", indices_.size());
}

std::span<const int> MiniBatches::epoch_batch(int epoch, int step) {
  CHECK(epoch >= 0, "MiniBatches: epoch ", epoch, " is negative");
  CHECK(step >= 0 && step < per_epoch(), "MiniBatches: step ", step, ", expected 0 to ", per_epoch() - 1);
  if (epoch != epoch_) {
    order_ = indices_;
    Random random(seed_, kEpochStream + uint64_t(epoch));
    random.shuffle(order_);
    epoch_ = epoch;
  }
  return std::span<const int>(order_).subspan(size_t(step) * size_t(batch_), size_t(batch_));
}

std::span<const int> MiniBatches::random_batch(uint64_t draw) {
  // the first `batch` steps of a shuffle of the given order
  Random random(seed_, kDrawStream + draw);
  const size_t count = indices_.size();
  std::copy(indices_.begin(), indices_.end(), drawn_.begin());
  for (size_t i = 0; i < size_t(batch_); ++i)
    std::swap(drawn_[i], drawn_[i + random.below(uint32_t(count - i))]);
  return std::span<const int>(drawn_).first(size_t(batch_));
}

}  // namespace lanas
