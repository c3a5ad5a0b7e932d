#include "nas/cost.h"

#include <cmath>
#include <utility>

#include "kernels/core/check.h"

namespace lanas {
namespace {

struct Name {
  CostMetric metric;
  const char *name, *unit;
};
constexpr Name kNames[] = {{CostMetric::latency, "latency", "ms"},
                           {CostMetric::peak_memory, "peak-memory", "MiB"},
                           {CostMetric::macs, "macs", "MMAC"}};

}  // namespace

CostMetric parse_metric(std::string_view name) {
  for (const Name& known : kNames)
    if (name == known.name) return known.metric;
  throw Error(join("--metric: expected latency, peak-memory or macs, found '", name.substr(0, 40), "'"));
}

const char* metric_name(CostMetric metric) { return kNames[int(metric)].name; }
const char* metric_unit(CostMetric metric) { return kNames[int(metric)].unit; }

double count_cost(CostMetric metric, const NetworkConfig& network, const Genotype& genotype) {
  CHECK(metric != CostMetric::latency, "count_cost: latency is measured, not counted");
  ParameterStore weights(Device::cpu);
  const InferencePlan plan(network, genotype, weights, Stream(Device::cpu, 1));
  if (metric == CostMetric::macs) return 1e-6 * double(plan.macs());
  return (double(plan.bytes()) + double(weights.slab_floats()) * sizeof(float)) / double(1 << 20);
}

NetworkConfig network_of_setting(const CsvNotes& setting, const std::string& path) {
  NetworkConfig network;
  for (const auto& [key, value] : {std::pair<const char*, int&>{"batch", network.batch},
                                   {"channels", network.channels},
                                   {"layers", network.layers},
                                   {"classes", network.classes},
                                   {"image", network.image}}) {
    std::string text;
    for (const auto& note : setting)
      if (note.first == key) text = note.second;
    double number = 0;
    CHECK(parse_number(text, number) && number >= 1 && number <= 1e6 && number == std::floor(number), path,
          ": expected the note ", key, " to be a whole number, found '", text, "'");
    value = int(number);
  }
  return network;
}

CsvNotes cost_setting(CostMetric metric, const LatencyConfig& config) {
  CsvNotes setting = latency_setting(config);
  if (metric == CostMetric::latency) return setting;
  CsvNotes counted = {{"metric", metric_name(metric)}};
  for (const auto& note : setting)
    if (note.first != "device" && note.first != "cpu" && note.first != "isa" && note.first != "threads")
      counted.push_back(note);
  return counted;
}

}  // namespace lanas
