// campaign_log.h -- the rows of a campaign's file, as stretches and their attempts; see campaign.h.
// Columns: stretch, attempt (0: first), kind (sample | control), pass (1 | 2; controls 0), index (in the
// sequence; of a control 0 to 2), key, latency_ms (median), p10_ms, p90_ms, repeats, macs, setting. A counted
// cost has cost_mib or cost_mmac in place of the three times.
#pragma once

#include <array>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "nas/campaign.h"

namespace lanas {

constexpr int kControls = 3;
constexpr int kReferenceRounds = 6;  // the fastest counts: a machine is disturbed only towards slow
// Cheap, middle and expensive: all skip connections, DARTS_V2, all separable 5x5 convolutions.
std::array<Genotype, kControls> control_genotypes();

class CampaignLog {
 public:
  struct Row {
    int stretch = 0, attempt = 0, pass = 0;  // pass 0: a control
    MeasuredArchitecture measured;
  };
  struct Attempt {
    std::vector<Row> samples;
    std::vector<double> controls;  // latency_ms of control 0, 1, 2, as far as measured
    bool closed() const { return int(controls.size()) == kControls; }
  };
  struct Stretch {
    std::vector<Attempt> attempts;
  };

  static std::vector<std::string> columns(CostMetric metric = CostMetric::latency);
  static std::vector<std::string> cells(const Row& row, const std::string& setting,
                                        CostMetric metric = CostMetric::latency);
  // Of a file, by its notes.
  static CostMetric metric(const Table& table);

  CampaignLog() = default;
  // Checks every row against the sequence that the notes state.
  explicit CampaignLog(const Table& table);

  // Adds a row; Error (without a place) where it does not continue the stretches.
  void add(const Row& row);

  const std::vector<Stretch>& stretches() const { return stretches_; }
  // Empty where it has no row yet.
  const Attempt& attempt(int stretch, int number) const;
  bool has(int pass, uint64_t index) const { return seen_.contains({pass, index}); }
  bool reference_done() const;
  double reference_ms(int control) const;  // the fastest of the reference rounds
  // |median over the controls of latency / reference - 1| of a closed attempt.
  double deviation(const Attempt& attempt) const;
  // The number of the closed attempt with the smallest deviation; -1 where none is closed.
  int best_attempt(const Stretch& stretch) const;
  int redos() const;  // attempts beyond the first, over all stretches

 private:
  Row read_row(const Table& table, int row) const;

  CostMetric metric_ = CostMetric::latency;
  std::vector<Stretch> stretches_;
  std::set<std::pair<int, uint64_t>> seen_;  // pass and index of the samples
};

}  // namespace lanas
