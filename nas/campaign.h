// campaign.h -- measures the architectures of a sequence (seed, index) into an append-only CSV.
// The rows come in stretches of about 50, each closed by measuring three fixed controls. Stretch 0 holds only
// the controls' reference: six rounds of them, of which the fastest counts. A stretch whose controls' median
// ratio to the reference is off by more than 2% is measured again as its next attempt, a few times at most. A
// reader takes of every stretch the closed attempt with the smallest deviation, and nothing else. Some
// architectures are measured a second time at the end: noise_mape = mean over them of |m1 - m2| / (sqrt(2)
// (m1 + m2) / 2). A counted cost (cost.h) goes through the same file, without noise and drift.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nas/cost.h"
#include "nas/search_space.h"
#include "predictor/dataset.h"

namespace lanas {

// Deviation of the controls from their reference up to which a machine counts as undisturbed.
inline constexpr double kControlTolerance = 0.02;

struct CampaignProgress {
  int64_t done = 0, total = 0;  // rows that need no measuring any more, of both passes
  double eta_seconds = 0;
  double drift = 0;  // of the controls when last measured
};

struct CampaignConfig {
  LatencyConfig latency;
  CostMetric metric = CostMetric::latency;
  uint64_t seed = 0;
  int64_t count = 1000;  // architectures; a finished campaign can be continued with more
  int shard = 0,
      shards = 1;    // this file holds the architectures shard, shard + shards, shard + 2 shards, ...
  int stretch = 50;  // rows between two measurements of the controls
  double tolerance = kControlTolerance;  // deviation of the controls above which a stretch is measured again
  int max_redos = 2;                     // of one stretch
  double max_redo_share = 0.25;          // of all stretches, and at least 2: then drift is only recorded
  int second_every = 10;                 // one architecture in so many is measured twice,
  int64_t second_count = 50;             // but at least so many of them, or all

  std::function<Latency(const Genotype&)> measure;  // empty: a LatencyMeter, or count_cost
  std::function<void(const CampaignProgress&)> progress;
};

struct MeasuredArchitecture {
  uint64_t index = 0;  // in the sequence
  uint64_t key = 0;    // genotype_key
  Latency latency;     // of a counted cost: all three are the cost, in its unit
};

struct Campaign {
  uint64_t seed = 0;
  CostMetric metric = CostMetric::latency;
  CsvNotes setting;                               // cost_setting's
  std::vector<MeasuredArchitecture> rows;         // first pass, by index
  std::vector<MeasuredArchitecture> second_pass;  // by index, each also among the rows
  double noise_mape = 0;                          // a fraction; NaN without a second pass, 0 if counted
  double noise_median = 0;                        // the same, of the pairs' median
  double mean_drift = 0, max_drift = 0;           // of the controls' ratio from 1, over the stretches taken
  int stretches = 0;                              // taken
  int redone = 0;                                 // of these, stretches measured more than once
  int unsettled = 0;                              // of these, stretches whose controls never came within 2%
  double control_ms = 0;                          // reference of the middle control
  double rows_per_second = 0;                     // of the run that measured, controls included; 0: none did
  double waited_share = 0;  // of its time, that it waited for its cores to be alone (LatencyConfig)
};

// Measures what the file at path lacks of config.count architectures, and gives all that it holds. A killed
// campaign goes on after its last whole row. Error where the file is of another setting, seed or shard, or
// not a campaign. Throws Interrupted after a stop signal, between two rows.
Campaign run_campaign(const std::string& path, const CampaignConfig& config);

// Error "path:line: ..." where a row is wrong: out of order, twice, of another setting, not of this sequence.
Campaign read_campaign(const std::string& path);

struct SteadyTimes {
  std::vector<double> ms;  // all repeats of one genotype, ascending
  double control = 1;      // what the middle control took meanwhile, over its reference
  double control_off = 0;  // how far it was from its reference before or after, relative
};
// Measured while the middle control is within tolerance of control_ms before and after; after `tries`
// attempts the one with the control nearest to it. Throws Interrupted after a stop signal, between attempts.
SteadyTimes steady_times(LatencyMeter& meter, const Genotype& genotype, double control_ms,
                         double tolerance = kControlTolerance, int tries = 40);

// Rounds of steady_times of one genotype, at least one: the times of those in which the control stayed within
// tolerance, together, ascending; of none such the round in which it came nearest.
SteadyTimes steady_rounds(std::span<const SteadyTimes> rounds, double tolerance = kControlTolerance);

// One row per architecture of the first pass: its 224-number code (search_space.h), its latency in ms or
// other cost in the metric's unit.
Dataset latency_dataset(const Campaign& campaign);
// The same with MACs as the target.
Dataset macs_dataset(const Campaign& campaign);

}  // namespace lanas
