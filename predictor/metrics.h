// metrics.h -- how well predictions meet measurements. Relative error of a sample = |p - a| / |a|.
// Spearman: Pearson's correlation of the ranks, ties sharing their average rank. Kendall: tau-b, by Knight's
// merge-sort count (JASA 61, 1966), O(n log n). Errors and shares are fractions, not percent.
#pragma once

#include <vector>

namespace lanas {

struct Metrics {
  double mape = 0, median_ape = 0;
  double within_1 = 0, within_5 = 0, within_10 = 0;  // shares of samples with at most that percent of error
  double spearman = 0, kendall = 0;                  // 0 where either side is constant
  double mae = 0;                                    // in the unit of the target
  double cheapest_tenth = 0;  // mape over the tenth of the samples with the lowest actual
};

// Error where the sizes differ, there is no sample, a value is not finite, or an actual value is 0.
Metrics evaluate(const std::vector<double>& predicted, const std::vector<double>& actual);

double mean_relative_error(const std::vector<double>& predicted, const std::vector<double>& actual);
double share_within(const std::vector<double>& predicted, const std::vector<double>& actual, double fraction);
double cheapest_tenth_error(const std::vector<double>& predicted, const std::vector<double>& actual);
double spearman(const std::vector<double>& a, const std::vector<double>& b);
double kendall_tau_b(const std::vector<double>& a, const std::vector<double>& b);
std::vector<double> average_ranks(const std::vector<double>& values);  // 1-based

}  // namespace lanas
