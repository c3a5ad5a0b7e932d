#include "predictor/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "kernels/core/check.h"
#include "kernels/core/timing.h"

namespace lanas {
namespace {

std::vector<double> relative_errors(const std::vector<double>& predicted, const std::vector<double>& actual) {
  CHECK(predicted.size() == actual.size(), "metrics: ", predicted.size(), " predictions for ", actual.size(),
        " measurements");
  CHECK(!actual.empty(), "metrics: no samples");
  std::vector<double> errors(actual.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    CHECK(std::isfinite(predicted[i]) && std::isfinite(actual[i]) && actual[i] != 0, "metrics: sample ", i,
          " is predicted ", predicted[i], " and measured ", actual[i]);
    errors[i] = std::abs(predicted[i] - actual[i]) / std::abs(actual[i]);
  }
  return errors;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

double share_at_most(const std::vector<double>& values, double bound) {
  return double(std::count_if(values.begin(), values.end(), [bound](double v) { return v <= bound; })) /
         double(values.size());
}

double cheapest_tenth_of(const std::vector<double>& errors, const std::vector<double>& actual) {
  std::vector<size_t> order(actual.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return actual[i] < actual[j]; });
  const size_t count = (actual.size() + 9) / 10;
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += errors[order[i]];
  return sum / double(count);
}

// Sorts values by merging and returns how many pairs stood in the wrong order.
int64_t sort_counting_swaps(std::vector<double>& values) {
  int64_t swaps = 0;
  std::vector<double> merged(values.size());
  for (size_t half = 1; half < values.size(); half *= 2) {
    for (size_t begin = 0; begin < values.size(); begin += 2 * half) {
      const size_t middle = std::min(begin + half, values.size()),
                   end = std::min(begin + 2 * half, values.size());
      size_t left = begin, right = middle;
      for (size_t out = begin; out < end; ++out) {
        const bool take_right = left == middle || (right < end && values[right] < values[left]);
        if (take_right) swaps += int64_t(middle - left);
        merged[out] = take_right ? values[right++] : values[left++];
      }
    }
    values.swap(merged);
  }
  return swaps;
}

// Pairs inside runs of equal neighbours: sum over the runs of t (t - 1) / 2.
template <class Equal>
int64_t tied_pairs(size_t count, Equal&& equal_to_next) {
  int64_t pairs = 0, run = 1;
  for (size_t i = 0; i + 1 < count; ++i) {
    run = equal_to_next(i) ? run + 1 : 1;
    pairs += run - 1;
  }
  return pairs;
}

}  // namespace

std::vector<double> average_ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return values[i] < values[j]; });
  std::vector<double> ranks(values.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (size_t k = i; k < end; ++k) ranks[order[k]] = 0.5 * double(i + 1 + end);
    i = end;
  }
  return ranks;
}

double spearman(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK(a.size() == b.size(), "spearman: ", a.size(), " values against ", b.size());
  const std::vector<double> ra = average_ranks(a), rb = average_ranks(b);
  const double centre = 0.5 * double(a.size() + 1);
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < ra.size(); ++i) {
    ab += (ra[i] - centre) * (rb[i] - centre);
    aa += (ra[i] - centre) * (ra[i] - centre);
    bb += (rb[i] - centre) * (rb[i] - centre);
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

double kendall_tau_b(const std::vector<double>& a, const std::vector<double>& b) {
  CHECK(a.size() == b.size(), "kendall_tau_b: ", a.size(), " values against ", b.size());
  const size_t n = a.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t i, size_t j) { return a[i] != a[j] ? a[i] < a[j] : b[i] < b[j]; });
  std::vector<double> second(n);
  for (size_t i = 0; i < n; ++i) second[i] = b[order[i]];
  const auto same_a = [&](size_t i) { return a[order[i]] == a[order[i + 1]]; };
  const int64_t ties_a = tied_pairs(n, same_a);
  const int64_t ties_both =
      tied_pairs(n, [&](size_t i) { return same_a(i) && b[order[i]] == b[order[i + 1]]; });
  const int64_t discordant = sort_counting_swaps(second);
  const int64_t ties_b = tied_pairs(n, [&](size_t i) { return second[i] == second[i + 1]; });
  const int64_t pairs = int64_t(n) * (int64_t(n) - 1) / 2;
  // concordant - discordant, where concordant + discordant = pairs without a tie in a or b
  const int64_t difference = pairs - ties_a - ties_b + ties_both - 2 * discordant;
  const double scale = std::sqrt(double(pairs - ties_a) * double(pairs - ties_b));
  return scale > 0 ? double(difference) / scale : 0;
}

double mean_relative_error(const std::vector<double>& predicted, const std::vector<double>& actual) {
  return mean(relative_errors(predicted, actual));
}

double share_within(const std::vector<double>& predicted, const std::vector<double>& actual,
                    double fraction) {
  return share_at_most(relative_errors(predicted, actual), fraction);
}

double cheapest_tenth_error(const std::vector<double>& predicted, const std::vector<double>& actual) {
  return cheapest_tenth_of(relative_errors(predicted, actual), actual);
}

Metrics evaluate(const std::vector<double>& predicted, const std::vector<double>& actual) {
  const std::vector<double> errors = relative_errors(predicted, actual);
  Metrics m;
  m.mape = mean(errors);
  m.median_ape = quantile(errors, 0.5);
  m.within_1 = share_at_most(errors, 0.01);
  m.within_5 = share_at_most(errors, 0.05);
  m.within_10 = share_at_most(errors, 0.10);
  m.spearman = spearman(predicted, actual);
  m.kendall = kendall_tau_b(predicted, actual);
  for (size_t i = 0; i < actual.size(); ++i) m.mae += std::abs(predicted[i] - actual[i]);
  m.mae /= double(actual.size());
  m.cheapest_tenth = cheapest_tenth_of(errors, actual);
  return m;
}

}  // namespace lanas
