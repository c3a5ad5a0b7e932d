#include "nas/seeds.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "nas/report_text.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

struct Column {
  const char* title;
  const char* key;
  double scale;
  int digits;
  double (*value)(const NetworkResult&);
};

const Column kColumns[] = {
    {"test accuracy %", "test_accuracy", 100, 2, [](const NetworkResult& n) { return n.test_accuracy; }},
    {"valid accuracy %", "valid_accuracy", 100, 2, [](const NetworkResult& n) { return n.valid_accuracy; }},
    {"measured ms", "measured_ms", 1, 3, [](const NetworkResult& n) { return n.latency_ms.median_ms; }},
    {"predicted ms", "predicted_ms", 1, 3, [](const NetworkResult& n) { return n.predicted_ms; }},
    {"parameters k", "parameters", 1e-3, 1, [](const NetworkResult& n) { return double(n.parameters); }},
    {"MACs M", "macs", 1e-6, 2, [](const NetworkResult& n) { return double(n.macs); }},
    {"skips", "skips", 1, 1, [](const NetworkResult& n) { return double(n.skips_normal + n.skips_reduce); }},
};

// Every network's results over the seeds, in the order of first appearance.
std::vector<std::pair<std::string, std::vector<const NetworkResult*>>> by_name(
    const std::vector<RunReport>& reports) {
  std::vector<std::pair<std::string, std::vector<const NetworkResult*>>> groups;
  for (const RunReport& report : reports)
    for (const NetworkResult& network : report.networks) {
      auto group =
          std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == network.name; });
      if (group == groups.end()) group = groups.insert(groups.end(), {network.name, {}});
      group->second.push_back(&network);
    }
  return groups;
}

Spread spread(const std::vector<const NetworkResult*>& networks, const Column& column) {
  std::vector<double> values;
  for (const NetworkResult* network : networks) values.push_back(column.value(*network));
  return spread_of(values);
}

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  CHECK(!values.empty(), "spread_of: no values");
  Spread s{std::accumulate(values.begin(), values.end(), 0.0) / double(values.size()), 0, int(values.size())};
  for (const double v : values) s.deviation += (v - s.mean) * (v - s.mean);
  s.deviation = values.size() > 1 ? std::sqrt(s.deviation / double(values.size() - 1)) : 0;
  return s;
}

std::string seeds_table(const std::vector<RunReport>& reports) {
  std::vector<std::vector<std::string>> rows = {{"network", "seeds"}};
  for (const Column& column : kColumns) rows[0].push_back(column.title);
  for (const auto& [name, networks] : by_name(reports)) {
    rows.push_back({name, std::to_string(networks.size())});
    for (const Column& column : kColumns) {
      const Spread s = spread(networks, column);
      rows.back().push_back(fixed(column.scale * s.mean, column.digits) + " +- " +
                            fixed(column.scale * s.deviation, column.digits));
    }
  }
  return aligned_table(rows) + "Mean +- standard deviation over the seeds (n - 1).\n";
}

Json seeds_json(const std::vector<RunReport>& reports) {
  Json seeds = Json::array(), networks = Json::array(), runs = Json::array();
  for (const RunReport& report : reports) {
    seeds.push_back(report.seed);
    runs.push_back(report_json(report));
  }
  for (const auto& [name, group] : by_name(reports)) {
    Json row = {{"name", name}, {"count", group.size()}};
    for (const Column& column : kColumns) {
      const Spread s = spread(group, column);
      row[column.key] = {{"mean", s.mean}, {"deviation", s.deviation}};
    }
    networks.push_back(row);
  }
  return {{"seeds", seeds}, {"networks", networks}, {"runs", runs}};
}

}  // namespace lanas
