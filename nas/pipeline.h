// pipeline.h -- the main job, end to end: measure architectures, learn their latency, search without and with
// the latency term, draw random architectures for comparison, retrain each, measure each, test each once,
// report. Every stage leaves its result in the run's folder and is skipped when that result is already there,
// so a run that was stopped or killed goes on where it was when the same command is given again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "nas/campaign.h"
#include "nas/cost.h"
#include "nas/report.h"
#include "nas/retrain.h"
#include "nas/search.h"

namespace lanas {

struct RunConfig {
  std::string preset = "quick";
  std::string data_folder = kDefaultDataFolder;
  std::string folder;         // of the run; empty: runs/<date>-<preset>-<seed>
  std::string latency_table;  // a finished campaign to use instead of measuring; empty: measure
  Device device = Device::cpu;
  int threads = 0;  // 0: all cores
  uint64_t seed = 0;
  int latency_samples = 1000;  // architectures measured for the predictor
  double predictor_test_fraction = 0.2;
  std::vector<double> lambdas = {0};  // one search each; the first is "lambda0" where 0, the others "latency"
  std::vector<double> targets_ms;     // latencies to be met, one search each: "latency-target"
  std::vector<CostMetric> metrics = {CostMetric::latency};  // what lambdas above 0 and targets hold down
  int random_networks = 1;                                  // random genotypes retrained beside them
  CampaignConfig campaign;
  SearchConfig search;
  RetrainConfig retrain;
  int final_rounds = 5;  // of measuring each network at the end, in turn
  int final_tries = 40;  // of each, while the controls are off
  bool quiet = false;
  bool resume = false;                 // the folder must hold a run; else it must not
  std::string resume_folder;           // what messages say to go on with; empty: folder
  std::vector<std::string> arguments;  // the command line, kept in the folder for resuming
};

// Named settings: "quick" (the demo: Fashion-MNIST, minutes on two cores), "darts", "darts-second-order",
// "pc-darts" (the published search and evaluation settings). Throws Error listing them for another name.
RunConfig preset(const std::string& name);
std::vector<std::string> preset_names();

// Fills in what follows from other settings (seeds, image side, classes, the latency network), then runs.
// Settings, images and a given latency table are checked before the folder is made.
RunReport run_pipeline(RunConfig config);

// What latency means for these settings: that of the network which is retrained, in the campaign's batch and
// threads, without the auxiliary head.
LatencyConfig measured_latency(const RunConfig& config);

// runs/DATE-PRESET-WHAT: where a run goes that was not told a folder.
std::string default_folder(const RunConfig& config, const std::string& what);

// The command line that the run in `folder` was started with; Error naming the folder if it holds no run.
std::vector<std::string> read_run_arguments(const std::string& folder);

// The settings that a run's folder belongs to.
nlohmann::json to_json(const RunConfig& config);

}  // namespace lanas
