// search_stage.h -- the part of a run that ends in genotypes: one search per penalty and lambda or target,
// decoded and, with a target, verified by measuring; then random genotypes of equal latency. What was decided
// by measuring is kept in the run's folder, so that a resumed run decides the same.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nas/decode.h"
#include "nas/pipeline.h"
#include "nas/run_log.h"

namespace lanas {

class SearchStage {
 public:
  using Say = std::function<void(const std::string& label, const std::string& text)>;
  // All arguments must outlive this. `regressor` predicts ms.
  SearchStage(const RunConfig& config, Stream& stream, const ImageData& data, const Campaign& campaign,
              const Regressor& regressor, RunLog& log, Say say);

  struct Job {
    std::string name;
    CostMetric metric = CostMetric::latency;
    double lambda = 0;     // fixed, or
    double target_ms = 0;  // above 0: learned
  };
  std::vector<Job> jobs() const;
  // Error with the feasible range, as measured, if a target is out of reach.
  void check_targets();
  NetworkResult search(const Job& job);
  // Random genotypes as fast as the searched network with the last target (measured within its band), or,
  // without one, as that with the largest lambda (predicted within 5%).
  std::vector<NetworkResult> random(const std::vector<NetworkResult>& searched);

 private:
  struct Penalty {                     // what a search holds down
    std::optional<Regressor> counted;  // of a cost that is counted; latency has the run's own
    double reference = 0;              // its mean over the campaign
  };
  const Penalty& penalty(CostMetric metric);
  double penalty_at(CostMetric metric, double ms) const;  // of the measured networks of about this latency
  SearchConfig settings(const Job& job);
  Decoding decode(const Job& job, const ArchitectureValues& architecture);
  // The median; where the machine did not come back to what it was in the campaign, divided by what the
  // control network took more.
  double measure_ms(const Genotype& genotype);
  std::string file(const std::string& name) const { return config_.folder + "/" + name; }

  const RunConfig& config_;
  Stream& stream_;
  const ImageData& data_;
  const Campaign& campaign_;
  const Regressor& regressor_;
  RunLog& log_;
  Say say_;
  std::optional<Decoder> decoder_;
  std::optional<LatencyMeter> meter_;
  std::map<CostMetric, Penalty> penalties_;
};

}  // namespace lanas
