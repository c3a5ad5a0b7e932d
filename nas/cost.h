// cost.h -- what a search may hold down: the measured latency of the deployed network, or a cost that is
// counted from it: its multiply-adds, or the memory that it needs at its peak. Counted costs are exact; they
// go through the same campaign, predictor and loss as a latency.
#pragma once

#include <string>
#include <string_view>

#include "nas/latency.h"

namespace lanas {

enum class CostMetric { latency, peak_memory, macs };

// "latency", "peak-memory" or "macs"; Error with the list otherwise.
CostMetric parse_metric(std::string_view name);
const char* metric_name(CostMetric metric);
// "ms", "MiB" or "MMAC" (a million multiply-adds of one image).
const char* metric_unit(CostMetric metric);

// A counted cost of the deployed network, in the metric's unit: multiply-adds of one image (convolutions and
// final linear layer), or weights, images and the planned workspace of a pass over the batch on the cpu, on
// one thread (InferencePlan). Error for latency, which is measured (LatencyMeter).
double count_cost(CostMetric metric, const NetworkConfig& network, const Genotype& genotype);

// The network of a setting's notes; Error starting with `path` where one is missing or wrong.
NetworkConfig network_of_setting(const CsvNotes& setting, const std::string& path);

// latency_setting, for a counted cost without what it does not depend on and with the note metric=NAME.
CsvNotes cost_setting(CostMetric metric, const LatencyConfig& config);

}  // namespace lanas
