#include "bench/fit_source.h"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/core/parallel.h"

namespace lanas::bench {
namespace {

// A line that repeats another one to the last cell is a copy, not a second measurement.
void refuse_copies(const Table& table) {
  std::map<std::string, int> seen;
  for (int r = 0; r < table.rows(); ++r) {
    std::string line;
    for (int c = 0; c < int(table.columns().size()); ++c) line += std::string(table.cell(r, c)) + '\n';
    const auto [at, added] = seen.emplace(std::move(line), table.line(r));
    if (!added) table.fail(r, join("a copy of line ", at->second, " (--allow-copies takes it)"));
  }
}

std::vector<double> targets(const Campaign& campaign, CostMetric metric, const std::string& path) {
  if (metric == campaign.metric) return latency_dataset(campaign).y;
  std::vector<double> y(campaign.rows.size());
  if (metric == CostMetric::macs) {
    for (size_t i = 0; i < y.size(); ++i) y[i] = 1e-6 * double(campaign.rows[i].latency.macs);
    return y;
  }
  CHECK(metric != CostMetric::latency, path, ": holds ", metric_name(campaign.metric), ", no latencies");
  const NetworkConfig network = network_of_setting(campaign.setting, path);
  parallel_for(int64_t(y.size()), [&](int64_t i) {
    y[size_t(i)] = count_cost(metric, network, genotype_from_key(campaign.rows[size_t(i)].key));
  });
  return y;
}

}  // namespace

Source read_campaigns(const std::vector<std::string>& paths, std::optional<CostMetric> metric) {
  Source source;
  std::set<std::pair<uint64_t, uint64_t>> seen;  // seed and index: the place in a sequence
  CsvNotes setting;
  double noise = 0, pairs = 0;
  for (const std::string& path : paths) {
    const Campaign campaign = read_campaign(path);
    if (&path == &paths.front()) setting = campaign.setting;
    CHECK(campaign.setting == setting, path, ": measured on ", setting_text(campaign.setting), ", but ",
          paths.front(), " on ", setting_text(setting));
    for (const MeasuredArchitecture& row : campaign.rows)
      CHECK(seen.emplace(campaign.seed, row.index).second, path, ": architecture ", row.index, " of seed ",
            campaign.seed, " is in an earlier file too");
    source.metric = metric.value_or(campaign.metric);
    const Dataset data = latency_dataset(campaign);
    source.data.columns = data.columns;
    source.data.rows += data.rows;
    source.data.x.insert(source.data.x.end(), data.x.begin(), data.x.end());
    const std::vector<double> y = targets(campaign, source.metric, path);
    source.data.y.insert(source.data.y.end(), y.begin(), y.end());
    const Dataset macs = macs_dataset(campaign);
    source.macs.insert(source.macs.end(), macs.y.begin(), macs.y.end());
    if (campaign.second_pass.empty() || source.metric != campaign.metric) continue;
    noise += campaign.noise_mape * double(campaign.second_pass.size());
    pairs += double(campaign.second_pass.size());
  }
  if (pairs > 0) source.noise_mape = noise / pairs;
  source.setting = setting_text(setting);
  return source;
}

Source read_columns(const std::string& path, const std::vector<std::string>& features,
                    const std::string& target, bool allow_copies) {
  CHECK(std::find(features.begin(), features.end(), target) == features.end(), "--features: ", target,
        " is the target");
  const Table table = read_table(path);
  CHECK(table.rows() > 0, path, ": holds no rows");
  for (const std::string& feature : features) table.column(feature);
  table.column(target);
  if (!allow_copies) refuse_copies(table);
  Source source;
  source.data = read_dataset(table, features, target);
  return source;
}

}  // namespace lanas::bench
