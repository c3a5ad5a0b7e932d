// decode.h -- from a searched alpha to a genotype that meets a latency target, verified by measuring. Of the
// decodings of alpha that are predicted within [0.9 T, T] the 16 with the largest sum of log strengths are
// measured; the best-scoring one whose measured median lies there is measured twice more and, if the median
// of the three lies there too, is the answer. A predictor that is off by a factor (a machine in another mood)
// is corrected by what has been measured, and the next 16 are tried.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "nas/search_space.h"
#include "predictor/linear.h"
#include "predictor/regressor.h"

namespace lanas {

constexpr double kTargetLow = 0.9;  // a target T is met in [0.9 T, T]

struct DecodeConfig {
  double target_ms = 0;
  double low = kTargetLow;
  int count = 16;        // measured in a round
  int rounds = 4;        // at most
  double margin = 0.02;  // preferred are decodings this much inside: measuring again may differ by it
};

struct VerifiedGenotype {
  Genotype genotype;
  double log_strength = 0;  // sum over the kept edges of log(softmax(alpha) * softmax(beta))
  double predicted_ms = 0, measured_ms = 0;
  int measurements = 1;  // of which measured_ms is the median: 3 where it was the best so far, else 1
};

struct Decoding {
  std::vector<VerifiedGenotype> tried;  // in the order measured
  int chosen = -1;                      // index into tried; -1: none lies in the band
};

struct LatencyRange {
  Genotype fastest, slowest;
  double low_ms = 0, high_ms = 0;  // predicted
};

class Decoder {
 public:
  // The regressor must outlive this. Only genotypes for which the caps hold are looked at.
  explicit Decoder(const Regressor& regressor, const OperationCaps& caps = {});

  // The ends of the search space, by coordinate descent over the nodes from the best of a linear model.
  LatencyRange range() const;
  Decoding decode(const ArchitectureValues& architecture, const DecodeConfig& config,
                  const std::function<double(const Genotype&)>& measure_ms) const;
  // The `count` best-scoring genotypes predicted within [low_ms, high_ms] that `taken` does not hold (by
  // key), best first; fewer where fewer were found. Exact among the first few thousand decodings of alpha;
  // beyond them latency shifts the strengths, by as much as leads into the band.
  std::vector<VerifiedGenotype> candidates(const ArchitectureValues& architecture, double low_ms,
                                           double high_ms, const DecodeConfig& config,
                                           const std::vector<uint64_t>& taken) const;

 private:
  using Strengths = std::array<LogStrengths, 2>;
  std::vector<double> predict(const std::vector<ScoredGenotype>& genotypes) const;
  Strengths shifted(const Strengths& strengths, double per_ms) const;
  Genotype extreme(int sign) const;

  const Regressor& regressor_;
  OperationCaps caps_;
  LinearModel linear_;  // of the predictions on random genotypes
};

// Error with both ends unless some network can lie in the band of the target.
void check_target(double target_ms, double low, double fastest_ms, double slowest_ms);

// A word on it for logs and errors: "none of 64 decodings measured in [0.27, 0.3] ms, the nearest 0.32 ms".
std::string describe(const Decoding& decoding, const DecodeConfig& config);
nlohmann::json to_json(const Decoding& decoding);
Decoding decoding_from_json(const nlohmann::json& json);

}  // namespace lanas
