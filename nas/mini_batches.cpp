// mini_batches.cpp -- which images are used when: splits, epoch orders and random batches as pure functions
// of their seeds (Philox streams; Fisher-Yates, and for an epoch's order a sort by random keys).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/core/random.cuh"
#include "kernels/ops/shuffle.h"
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

MiniBatches::MiniBatches(Stream& stream, std::vector<int> indices, int batch, uint64_t seed)
    : indices_(std::move(indices)), drawn_(indices_), batch_(batch), seed_(seed) {
  CHECK(batch >= 1 && size_t(batch) <= indices_.size(), "MiniBatches: batch ", batch, " does not fit ",
        indices_.size(), " images, expected 1 to ", indices_.size());
  const size_t bytes = indices_.size() * sizeof(int);
  for (Memory* memory : {&given_, &order_}) *memory = Memory(stream.device(), bytes);
  random_ = Memory(stream.device(), size_t(batch) * sizeof(int));
  scratch_ = Memory(stream.device(), shuffle_scratch_bytes(stream, int(indices_.size())));
  upload(stream, given_.data(), indices_.data(), bytes);
}

const int* MiniBatches::epoch_batch(Stream& stream, int epoch, int step) {
  CHECK(epoch >= 0, "MiniBatches: epoch ", epoch, " is negative");
  CHECK(step >= 0 && step < per_epoch(), "MiniBatches: step ", step, ", expected 0 to ", per_epoch() - 1);
  auto* order = static_cast<int*>(order_.data());
  if (epoch != epoch_)
    shuffle(stream, order, static_cast<const int*>(given_.data()), int(indices_.size()), seed_,
            kEpochStream + uint64_t(epoch), scratch_.data());
  epoch_ = epoch;
  return order + int64_t{step} * batch_;
}

const int* MiniBatches::random_batch(Stream& stream, uint64_t draw) {
  // the first `batch` steps of a shuffle of the given order
  Random random(seed_, kDrawStream + draw);
  const size_t count = indices_.size();
  std::copy(indices_.begin(), indices_.end(), drawn_.begin());
  for (size_t i = 0; i < size_t(batch_); ++i)
    std::swap(drawn_[i], drawn_[i + random.below(uint32_t(count - i))]);
  upload(stream, random_.data(), drawn_.data(), size_t(batch_) * sizeof(int));
  return static_cast<const int*>(random_.data());
}

}  // namespace lanas
