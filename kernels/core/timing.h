// timing.h -- wall clock and order statistics. All times are in milliseconds.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace lanas {

inline double now_ms() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// The q-quantile (0 <= q <= 1) of a non-empty sample, with linear interpolation between order statistics.
inline double quantile(std::vector<double> sample, double q) {
  std::sort(sample.begin(), sample.end());
  const double position = q * double(sample.size() - 1);
  const size_t below = size_t(position);
  const size_t above = std::min(below + 1, sample.size() - 1);
  return sample[below] + (position - double(below)) * (sample[above] - sample[below]);
}

}  // namespace lanas
