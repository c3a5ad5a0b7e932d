// Each measure against its definition, stated independently where it can be.
#include "predictor/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/core/check.h"

namespace lanas {
namespace {

// Tau-b by looking at every pair.
double naive_kendall(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, free_a = 0, free_b = 0;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const int sa = (a[i] > a[j]) - (a[i] < a[j]), sb = (b[i] > b[j]) - (b[i] < b[j]);
      difference += sa * sb;
      free_a += sa != 0;
      free_b += sb != 0;
    }
  return difference / std::sqrt(free_a * free_b);
}

// Average rank by counting: values below, plus the middle of the equal ones.
std::vector<double> naive_ranks(const std::vector<double>& a) {
  std::vector<double> ranks;
  for (double v : a) {
    double below = 0, equal = 0;
    for (double w : a) below += w < v, equal += w == v;
    ranks.push_back(below + (equal + 1) / 2);
  }
  return ranks;
}

TEST(Metrics, ErrorsOfAHandMadeSample) {
  const std::vector<double> actual = {1, 2, 4, 8, 10}, predicted = {1.005, 2.08, 3.68, 8, 13};
  const Metrics m = evaluate(predicted, actual);  // relative errors 0.005 0.04 0.08 0 0.3
  EXPECT_NEAR(m.mape, 0.085, 1e-12);
  EXPECT_NEAR(m.median_ape, 0.04, 1e-12);
  EXPECT_NEAR(m.within_1, 0.4, 1e-12);
  EXPECT_NEAR(m.within_5, 0.6, 1e-12);
  EXPECT_NEAR(m.within_10, 0.8, 1e-12);
  EXPECT_NEAR(m.mae, (0.005 + 0.08 + 0.32 + 3) / 5, 1e-12);
  EXPECT_NEAR(m.cheapest_tenth, 0.005, 1e-12);
  EXPECT_EQ(m.spearman, 1);
  EXPECT_EQ(m.kendall, 1);
  EXPECT_EQ(mean_relative_error(predicted, actual), m.mape);
  EXPECT_EQ(share_within(predicted, actual, 0.1), m.within_10);
}

TEST(Metrics, CheapestTenthTakesTheLowestMeasurements) {
  std::vector<double> actual, predicted;
  for (int i = 0; i < 20; ++i) {
    actual.push_back(20 - i);
    predicted.push_back(i >= 18 ? 1.5 * (20 - i) : 20 - i);  // off only for the measurements 1 and 2
  }
  EXPECT_NEAR(cheapest_tenth_error(predicted, actual), 0.5, 1e-12);
}

TEST(Metrics, RankCorrelationsAgainstTheirDefinitions) {
  std::mt19937 random(1);
  for (int n : {2, 3, 10, 257}) {
    for (int levels : {3, 12, 100000}) {
      std::vector<double> a, b;
      for (int i = 0; i < n; ++i) {
        a.push_back(double(random() % uint32_t(levels)));
        b.push_back(a.back() + double(random() % uint32_t(levels)));
      }
      EXPECT_EQ(average_ranks(a), naive_ranks(a));
      const double expected = naive_kendall(a, b);
      if (std::isfinite(expected)) {
        EXPECT_NEAR(kendall_tau_b(a, b), expected, 1e-12);
        EXPECT_NEAR(kendall_tau_b(b, a), expected, 1e-12);
      }
      EXPECT_LE(std::abs(spearman(a, b)), 1 + 1e-12);
    }
  }
  // Without ties Spearman is 1 - 6 sum d^2 / (n (n^2 - 1)): d = 1 1 2 0 2, sum d^2 = 10
  EXPECT_NEAR(spearman({1, 2, 3, 4, 5}, {2, 1, 5, 4, 3}), 1 - 60.0 / 120, 1e-12);
  // With ties: ranks 1.5 1.5 3 against 1 2 3
  EXPECT_NEAR(spearman({7, 7, 9}, {1, 2, 3}), 1.5 / std::sqrt(1.5 * 2), 1e-12);
  EXPECT_EQ(spearman({1, 2, 3}, {3, 2, 1}), -1);
  EXPECT_EQ(kendall_tau_b({1, 2, 3}, {3, 2, 1}), -1);
  EXPECT_EQ(spearman({1, 1, 1}, {1, 2, 3}), 0);
  EXPECT_EQ(kendall_tau_b({1, 1, 1}, {1, 2, 3}), 0);
}

TEST(Metrics, RefusesWhatHasNoRelativeError) {
  EXPECT_THROW(evaluate({}, {}), Error);
  EXPECT_THROW(evaluate({1}, {1, 2}), Error);
  EXPECT_THROW(evaluate({1}, {0}), Error);
  EXPECT_THROW(evaluate({NAN}, {1}), Error);
}

}  // namespace
}  // namespace lanas
