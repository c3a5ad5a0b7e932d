// transfer.h -- the cost on a new device from few measurements. The model is a Gaussian process that is
// linear in three blocks of features: what predictors of other devices say, the counts of every op wherever
// it stands, and the code itself. Each block has a prior variance of its own,
//   cov(f(x), f(x')) = a s(x).s(x') + b c(x).c(x') + d e(x).e(x') + mean,   y = f(x) + noise
// and the prediction averages over a grid of (a, b, d, noise), weighted by their marginal likelihood
// (Rasmussen and Williams 2006, ch. 2 and 5). Few samples thus lean on the sources, many on themselves.
#pragma once

#include <vector>

#include "predictor/dataset.h"

namespace lanas {

// Architectures as the model sees them.
struct TransferRows {
  Dataset code;                              // y is not read
  std::vector<std::vector<double>> sources;  // [predictor][row]: its cost
};

class Transfer {
 public:
  // `candidates`: the architectures that can be measured. group[column] is the number of the count that the
  // code's column adds to (-1: none).
  Transfer(const TransferRows& candidates, const std::vector<int>& group);

  // Numbers of the candidates to measure, best first: each time the one whose cost is least known. A longer
  // list begins with the shorter.
  std::vector<int> choose(int count) const;

  // From the measured costs y of these candidates; at least 2.
  void adapt(const std::vector<int>& rows, const std::vector<double>& y);

  std::vector<double> predict(const TransferRows& rows) const;

 private:
  static constexpr int kBlocks = 3;
  std::vector<double> features(const TransferRows& rows) const;  // [rows, width], centred and scaled

  std::vector<int> group_;
  int counts_ = 0, code_ = 0, sources_ = 0;
  int begin_[kBlocks + 1] = {};  // of each block in a row of features
  std::vector<double> centre_, scale_;
  std::vector<double> candidates_;  // features
  int rows_ = 0;
  std::vector<double> weights_;  // of the adapted model, by feature
  double intercept_ = 0;
};

// [rows, counts]: how often each row has each group, for a ridge on op counts.
Dataset count_features(const Dataset& code, const std::vector<int>& group);

}  // namespace lanas
