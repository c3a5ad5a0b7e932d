// segments.h -- consecutive segments of a row, as an argument of a kernel.
#pragma once

#include <span>

#include "kernels/core/check.h"

namespace lanas {

struct Segments {
  static constexpr int kMost = 64;
  int count = 0;
  int end[kMost] = {};  // segment k is [begin(k), end[k])

  constexpr int begin(int k) const { return k == 0 ? 0 : end[k - 1]; }
  constexpr int of(int column) const {  // the segment that holds a column
    int k = 0;
    while (column >= end[k]) ++k;
    return k;
  }

  static Segments from(const char* op, std::span<const int> lengths) {
    CHECK(lengths.size() <= kMost, op, ": ", lengths.size(), " segments, at most ", kMost, " on cuda");
    Segments s;
    for (const int length : lengths) {
      s.end[s.count] = s.begin(s.count) + length;
      ++s.count;
    }
    return s;
  }
};

}  // namespace lanas
