// sort.cpp -- see sort.h.
#include "kernels/vendor/sort.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace lanas::host {

void sort_pairs(uint32_t* sorted_keys, const uint32_t* keys, int* sorted_values, const int* values,
                int count) {
  std::vector<int> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [=](int a, int b) { return keys[a] < keys[b]; });
  for (int i = 0; i < count; ++i) {
    sorted_keys[i] = keys[order[size_t(i)]];
    sorted_values[i] = values[order[size_t(i)]];
  }
}

}  // namespace lanas::host
