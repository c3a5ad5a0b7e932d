// transfer_report.h -- how well a cost on a new device is predicted from k measurements and predictors of
// other devices (transfer.h), beside what k measurements give alone: a mlp from scratch, ridge on the code,
// and ridge on op counts. The model chooses which candidates to measure; the baselines have k random ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "predictor/metrics.h"
#include "predictor/transfer.h"

namespace lanas {

struct TransferOptions {
  std::vector<int> samples = {5, 10, 20, 50, 100};  // ascending
  uint64_t seed = 0;                                // of the baselines' random samples and starting weights
  bool mlp = true;                                  // train the mlps (most of the time)
};

struct TransferResult {
  int samples = 0;
  std::string model;  // "transfer", "mlp", "ridge", "counts"; "ridge, chosen" and "counts, chosen": of the
                      // model's choice
  Metrics metrics;
};

// Tested on `test`, whose costs stand in test.code.y, as the candidates' in candidates.code.y. `chosen`,
// where given, receives the candidates in the order in which the model would measure them.
std::vector<TransferResult> transfer_report(const TransferRows& candidates, const TransferRows& test,
                                            const std::vector<int>& group, const TransferOptions& options,
                                            std::vector<int>* chosen = nullptr);

// Four mlps, each trained on all rows but a fold on which it stops, averaged: for as few as 4 rows.
std::vector<double> mlp_from_scratch(const Dataset& train, const Dataset& test, uint64_t seed);

}  // namespace lanas
