// sort_cub.cu -- see cuda.h. CUB's radix sort is stable, works in the scratch it is given and needs nothing
// from the host, so a graph can hold it.
#include <cub/device/device_radix_sort.cuh>

#include "kernels/core/native.cuh"
#include "kernels/vendor/cuda.h"

namespace lanas::cuda {

size_t sort_pairs_scratch_bytes(int count) {
  size_t bytes = 0;
  CUDA_CHECK(cub::DeviceRadixSort::SortPairs(
      nullptr, bytes, static_cast<const uint32_t*>(nullptr), static_cast<uint32_t*>(nullptr),
      static_cast<const int*>(nullptr), static_cast<int*>(nullptr), count));
  return bytes;
}

void sort_pairs(Stream& stream, uint32_t* sorted_keys, const uint32_t* keys, int* sorted_values,
                const int* values, int count, void* scratch, size_t scratch_bytes) {
  CUDA_CHECK(cub::DeviceRadixSort::SortPairs(scratch, scratch_bytes, keys, sorted_keys, values, sorted_values,
                                             count, 0, 8 * int(sizeof(uint32_t)), stream.native()->stream));
}

}  // namespace lanas::cuda
