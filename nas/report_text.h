// report_text.h -- numbers and tables as the report writes them. A number that is not finite is unknown: "-".
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "nas/report.h"

namespace lanas {

inline std::string fixed(double value, int digits) {
  if (!std::isfinite(value)) return "-";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}
inline std::string signed_fixed(double value, int digits) {
  return std::isfinite(value) && value >= 0 ? "+" + fixed(value, digits) : fixed(value, digits);
}
// A fraction as percent.
inline std::string percent(double fraction, int digits = 1) {
  return std::isfinite(fraction) ? fixed(100 * fraction, digits) + "%" : "-";
}
// 12345 as "12.3 K"; K, M and G are powers of 1000.
inline std::string short_count(int64_t count) {
  if (count < 1000) return std::to_string(count);
  if (count < 1000'000) return fixed(double(count) / 1e3, 1) + " K";
  if (count < 1000'000'000) return fixed(double(count) / 1e6, count < 100'000'000 ? 2 : 1) + " M";
  return fixed(double(count) / 1e9, 2) + " G";
}

// The first row is the header; "test accuracy" and so on. Used by the terminal's table and the page's.
std::vector<std::vector<std::string>> network_rows(const RunReport& report);

// The search without the latency term, or null.
const NetworkResult* baseline_of(const RunReport& report);
// network's measured latency over the baseline's, minus 1; NaN without one.
double latency_change(const RunReport& report, const NetworkResult& network);
// One sentence per network searched with a latency or cost term: what the term changed; then the front.
std::vector<std::string> comparisons(const RunReport& report);
// The networks that no other one beats in both measured latency and test accuracy, fastest first.
std::vector<const NetworkResult*> accuracy_latency_front(const RunReport& report);
// Rows of cells as lines, the first column to the left, the others to the right; the first row is the header.
std::string aligned_table(const std::vector<std::vector<std::string>>& rows);
// Whether the final measurement of a network with a target lies in its band.
bool meets_target(const NetworkResult& network);
// One sentence per network searched for a target: whether the final measurement lies in its band.
std::vector<std::string> target_lines(const RunReport& report);
// Names the networks in whose final measurement the machine was not as in the campaign; empty where it was.
std::vector<std::string> disturbed_lines(const RunReport& report);
// The predictor beside ridge regression and the noise, one sentence per entry.
std::vector<std::string> predictor_lines(const PredictorResult& predictor);

}  // namespace lanas
