// dataset.h -- rows of numbers and one target each: what the predictor learns from. An architecture is a row
// of features; equal rows are the same architecture measured again, and a split never separates them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "predictor/csv.h"

namespace lanas {

struct Dataset {
  int rows = 0, columns = 0;
  std::vector<float> x;   // [rows, columns]
  std::vector<double> y;  // [rows]; a latency in ms, or any other cost

  const float* row(int r) const { return x.data() + size_t(r) * size_t(columns); }
};

// The given rows, in the given order (a row may be taken more than once).
Dataset take_rows(const Dataset& data, const std::vector<int>& rows);

// The number of each row's architecture: equal rows of x share one, numbered by first appearance.
std::vector<int> architecture_of_row(const Dataset& data);

// One row per architecture, in the order of first appearance, its target the mean over the equal rows.
Dataset merge_duplicates(const Dataset& data);

struct Split {
  std::vector<int> train, test;  // row numbers
};

// A seeded shuffle of the architectures; whole architectures go to train until it has at least train_rows
// rows, the rest is the test. Error unless 1 <= train_rows < rows and something is left to test.
Split split_by_architecture(const Dataset& data, int train_rows, uint64_t seed);

// 0..count-1 in an order that depends on the seed alone (the same on every machine).
std::vector<int> shuffled(int count, uint64_t seed);

// Turns table columns into features: a column of whole numbers with at most max_levels different values
// becomes one 0/1 feature per value; any other column of numbers is one feature, standardised with the mean
// and deviation of the table that the coder was made from.
class FeatureCoder {
 public:
  static constexpr int kMaxLevels = 64;
  FeatureCoder(const Table& table, const std::vector<std::string>& columns, int max_levels = kMaxLevels);

  int width() const;
  // For every feature: the number of its value among all values of one-hot columns (the same value in
  // different columns has one number), -1 for a standardised number. For counting how often a value stands.
  std::vector<int> level_groups() const;
  // [rows, width]; Error "path:line: ..." for a cell that is no number or a value the coder has not seen.
  std::vector<float> encode(const Table& table) const;

 private:
  struct Column {
    std::string name;
    std::vector<int64_t> levels;  // sorted; empty: a standardised number
    double mean = 0, deviation = 1;
  };
  std::vector<Column> columns_;
};

// Features and a strictly positive target column of a table. Error where there are no rows.
Dataset read_dataset(const Table& table, const std::vector<std::string>& features, const std::string& target);

}  // namespace lanas
