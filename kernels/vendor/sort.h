// sort.h -- pairs in the order of their keys; equal keys keep the order in which they were given. On the host
// the standard library's stable sort, on cuda CUB's radix sort (cuda.h): the same order everywhere.
#pragma once

#include <cstdint>

namespace lanas::host {

// keys and values: `count` of each, which must not overlap the results.
void sort_pairs(uint32_t* sorted_keys, const uint32_t* keys, int* sorted_values, const int* values,
                int count);

}  // namespace lanas::host
