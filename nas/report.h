// report.h -- what a run found, three ways: JSON for programs, a table for the terminal, and one HTML file
// with pictures that needs nothing from outside. Accuracies and errors are fractions, not percent; latencies
// are in ms, of one forward pass of the measured batch.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "nas/genotype.h"
#include "nas/latency.h"
#include "nas/retrain.h"
#include "nas/search.h"

namespace lanas {

struct NetworkResult {
  std::string name;                // "lambda0", "latency", "random0", ...
  double lambda = 0;               // of the search; 0 for random genotypes
  std::string metric = "latency";  // that lambda weighs
  double target_ms = 0;            // that the search was to meet; 0: none
  double decoded_ms = 0;           // with a target: measured when the genotype was chosen
  Genotype genotype;
  double test_accuracy = 0;   // of the retrained network, measured once, at the end
  double valid_accuracy = 0;  // the best epoch of retraining, on held-out training images
  int64_t parameters = 0;     // without the auxiliary head
  int64_t macs = 0;           // of one image
  double predicted_ms = 0;
  Latency latency_ms;
  double control_off = 0;  // how far the control network was from its reference meanwhile, relative, at most
  int skips_normal = 0, skips_reduce = 0;
  std::vector<SearchEpoch> search;     // empty for random genotypes
  std::vector<RetrainEpoch> training;  // of retraining
};

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();  // null in JSON, "-" in tables

// Errors are relative (a fraction of the measured latency), on architectures that training never saw.
struct PredictorResult {
  int n_train = 0, n_test = 0;
  double test_mape = kUnknown, within_5 = kUnknown, within_10 = kUnknown, spearman = kUnknown;
  double cheapest_tenth = kUnknown;  // mean relative error over the tenth with the lowest latency
  double linear_mape = kUnknown, linear_spearman = kUnknown;  // ridge regression on the same rows
  double noise_mape = kUnknown;  // of measuring itself: two passes over the same networks
  double mean_drift = kUnknown, max_drift = kUnknown;  // of the control networks through the campaign
  int stretches = 0, unsettled = 0;  // of the campaign; those whose controls never came within 2%
  std::vector<std::pair<double, double>> held_out;  // predicted and measured ms of the test rows
};

struct RunReport {
  std::string preset, data;  // "quick", "fashion-mnist"
  uint64_t seed = 0;
  std::string machine;  // processor, cores, instruction set, system
  std::string date;     // UTC, when the run ended
  std::vector<NetworkResult> networks;
  PredictorResult predictor;
  std::vector<std::pair<std::string, double>> stages;  // name and seconds, in order
  double seconds = 0;
  int64_t peak_bytes = 0;    // peak resident memory
  nlohmann::json config;     // all settings of the run
  CsvNotes latency_setting;  // whose latency: latency_setting() of the campaign
};

nlohmann::json report_json(const RunReport& report);
// The inverse. Error naming `source` where it is not such a report.
RunReport report_from_json(const nlohmann::json& json, const std::string& source = "report");

// Aligned lines for a terminal, ending with a line break: the networks, what the latency term changed, the
// predictor beside its noise, time and memory.
std::string report_table(const RunReport& report);

// Writes one HTML file. Cells are drawn by graphviz and curves by gnuplot, as inline SVG; where a program is
// not installed the page says so and gives text or a table instead. Error naming path if it cannot be
// written.
void write_report_html(const std::string& path, const RunReport& report);

}  // namespace lanas
