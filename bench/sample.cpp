// sample.cpp -- `bench_latency sample`: measures architectures of the search space into a CSV
// (nas/campaign.h) that can be continued, alone or as one shard of several processes or machines.
#include <cctype>
#include <cstdio>

#include "bench/common.h"
#include "bench/lookup.h"
#include "nas/campaign.h"
#include "nas/progress.h"

namespace lanas::bench {
namespace {

struct SampleCommand {
  Common common;
  CampaignConfig config;
  std::string out, shard = "0/1", metric = "latency", lookup;

  CLI::App* add(CLI::App& app) {
    config.latency.network = {.channels = 8, .layers = 5, .batch = 1};  // the demo's network
    CLI::App* sub = app.add_subcommand("sample", "measure architectures of the search space into a CSV");
    add_common(*sub, common, false);
    add_network(*sub, config.latency.network);
    sub->add_option("--count", config.count, "architectures of this shard")->capture_default_str();
    sub->add_option("--shard", shard, "i/n: the architectures i, i + n, i + 2n, ...")->capture_default_str();
    sub->add_option("--out", out, "the CSV; a file of the same settings is continued")->required();
    sub->add_option("--metric", metric, "latency, peak-memory or macs; the last two are counted, not timed")
        ->capture_default_str();
    sub->add_option("--lookup", lookup, "first time every op on its own into this CSV, for `fit --lookup`");
    sub->add_option("--stretch", config.stretch, "architectures between two measurements of the controls")
        ->capture_default_str();
    sub->add_option("--tolerance", config.tolerance,
                    "drift of the controls above which a stretch is measured again")
        ->capture_default_str();
    sub->add_option("--max-redos", config.max_redos, "how often at most")->capture_default_str();
    sub->add_option("--max-redo-share", config.max_redo_share, "of all stretches, for all together")
        ->capture_default_str();
    sub->add_option("--max-wait-share", config.latency.max_wait_share,
                    "waiting while somebody else uses the core, as a share of the time of passes that count; "
                    "0: all passes count")
        ->capture_default_str();
    sub->add_option("--max-ms", config.latency.max_total_ms, "time for one architecture at most")
        ->capture_default_str();
    return sub;
  }

  void parse_shard() {
    int used = 0;
    const bool read = std::sscanf(shard.c_str(), "%d/%d%n", &config.shard, &config.shards, &used) == 2 &&
                      size_t(used) == shard.size();
    CHECK(read && config.shard >= 0 && config.shard < config.shards,
          "--shard: expected i/n with 0 <= i < n, found '", shard, "'");
  }

  void run() {
    const Stream stream = common.stream();
    check_network(config.latency.network);
    parse_shard();
    check_range("--count", config.count, 1, 100'000'000);
    check_range("--stretch", config.stretch, 1, 1'000'000);
    check_range("--max-redos", config.max_redos, 0, 1000);
    CHECK(config.tolerance > 0 && config.tolerance < 1,
          "--tolerance: expected more than 0 and less than 1, found ", config.tolerance);
    CHECK(config.latency.max_wait_share >= 0, "--max-wait-share: expected at least 0, found ",
          config.latency.max_wait_share);
    CHECK(config.max_redo_share >= 0, "--max-redo-share: expected at least 0, found ", config.max_redo_share);
    CHECK(config.latency.max_total_ms > 0, "--max-ms: expected more than 0, found ",
          config.latency.max_total_ms);
    config.metric = parse_metric(metric);
    config.seed = common.seed;
    config.latency.device = stream.device();
    config.latency.threads = stream.threads();
    if (!lookup.empty()) {
      CHECK(config.metric == CostMetric::latency, "--lookup: holds times, but --metric is ", metric);
      write_lookup(lookup, measure_lookup(config.latency), config.latency);
    }
    Progress progress("sample", 1, common.quiet);
    config.progress = [&](const CampaignProgress& p) {
      progress.set_total(p.total);
      char note[64];
      std::snprintf(note, sizeof note, "drift %.2f%%", 100 * p.drift);
      progress.update(p.done, note);
    };
    const Campaign campaign = run_campaign(out, config);
    progress.finish(join(campaign.rows.size(), " architectures"));
    report(campaign, stream);
  }

  void report(const Campaign& c, const Stream& stream) {
    std::vector<double> ms;
    for (const MeasuredArchitecture& row : c.rows) ms.push_back(row.latency.median_ms);
    const double low = quantile(ms, 0), middle = quantile(ms, 0.5), high = quantile(ms, 1);
    std::string unit = metric_unit(c.metric);
    for (char& letter : unit) letter = char(std::tolower(letter));
    const TextTable table{
        {"architectures", "min_" + unit, "median_" + unit, "max_" + unit, "per_second", "noise_%",
         "noise_median_%", "mean_drift_%", "max_drift_%", "waited_%", "stretches", "redone", "unsettled"},
        {{int64_t(c.rows.size()), Cell(low, 4), Cell(middle, 4), Cell(high, 4), Cell(c.rows_per_second, 2),
          Cell(100 * c.noise_mape, 2), Cell(100 * c.noise_median, 2), Cell(100 * c.mean_drift, 2),
          Cell(100 * c.max_drift, 2), Cell(100 * c.waited_share, 1), c.stretches, c.redone, c.unsettled}}};
    const Json json = {{"file", out},
                       {"architectures", c.rows.size()},
                       {"repeated", c.second_pass.size()},
                       {"metric", metric_name(c.metric)},
                       {"min_" + unit, low},
                       {"median_" + unit, middle},
                       {"max_" + unit, high},
                       {"architectures_per_second", c.rows_per_second},
                       {"noise_mape", number(c.noise_mape)},
                       {"noise_median", number(c.noise_median)},
                       {"waited_share", c.waited_share},
                       {"mean_drift", c.mean_drift},
                       {"max_drift", c.max_drift},
                       {"stretches", c.stretches},
                       {"stretches_redone", c.redone},
                       {"stretches_unsettled", c.unsettled},
                       {"control_" + unit, c.control_ms},
                       {"shard", config.shard},
                       {"shards", config.shards},
                       {"seed", config.seed},
                       {"setting", setting_text(c.setting)},
                       {"machine", machine_json(stream)}};
    output(common, json, table);
  }
};

}  // namespace

void add_sample(CLI::App& app) { add_command<SampleCommand>(app); }

}  // namespace lanas::bench
