// shuffle.cu -- see shuffle.h.
#include "kernels/core/parallel.h"
#include "kernels/core/random.cuh"
#include "kernels/core/reduce.cuh"
#include "kernels/ops/shuffle.h"
#include "kernels/vendor/cuda.h"
#include "kernels/vendor/sort.h"

namespace lanas {

namespace {

constexpr unsigned kThreads = 128;  // of a block

// The four keys from position 4 * group on, as far as there are so many.
LANAS_HOST_DEVICE inline void write_keys(uint32_t* keys, int count, uint64_t seed, uint64_t draw,
                                         int64_t group) {
  const Random4 words = philox(seed, draw, uint64_t(group));
  for (int i = 0; i < 4; ++i)
    if (4 * group + i < count) keys[4 * group + i] = words.v[i];
}

int64_t groups(int count) { return (int64_t{count} + 3) / 4; }

// Scratch: keys, sorted keys, then what the sort needs.
size_t key_bytes(int count) { return align_up(size_t(count) * sizeof(uint32_t)); }

__global__ void shuffle_keys_kernel(uint32_t* keys, int count, uint64_t seed, uint64_t draw) {
  for (const int64_t group : grid_stride((int64_t{count} + 3) / 4))
    write_keys(keys, count, seed, draw, group);
}

}  // namespace

size_t shuffle_scratch_bytes(const Stream& stream, int count) {
  return 2 * key_bytes(count) + (stream.device() == Device::cuda ? cuda::sort_pairs_scratch_bytes(count) : 0);
}

void shuffle(Stream& stream, int* shuffled, const int* indices, int count, uint64_t seed, uint64_t draw,
             void* scratch) {
  CHECK(count >= 0, "shuffle: count ", count);
  if (count == 0) return;
  auto* keys = static_cast<uint32_t*>(scratch);
  auto* sorted = reinterpret_cast<uint32_t*>(static_cast<char*>(scratch) + key_bytes(count));
  if (stream.device() == Device::cpu) {
    for (int64_t group = 0; group < groups(count); ++group) write_keys(keys, count, seed, draw, group);
    return host::sort_pairs(sorted, keys, shuffled, indices, count);
  }
  launch(shuffle_keys_kernel, grid_blocks(groups(count), kThreads), kThreads, 0, stream, keys, count, seed,
         draw);
  cuda::sort_pairs(stream, sorted, keys, shuffled, indices, count,
                   static_cast<char*>(scratch) + 2 * key_bytes(count), cuda::sort_pairs_scratch_bytes(count));
}

}  // namespace lanas
