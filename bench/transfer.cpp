// transfer.cpp -- `bench_latency transfer`: a new device from few samples (predictor/transfer.h). The
// target's table is known here, so that what k samples give can be said: a part of its rows is for testing,
// of the rest the model chooses which k to look at. Sources: other columns of the table, campaigns, or saved
// predictors.
#include <algorithm>
#include <map>
#include <set>

#include "bench/common.h"
#include "bench/fit_source.h"
#include "bench/plot.h"
#include "nas/interrupt.h"
#include "nas/progress.h"
#include "nas/search_space.h"
#include "predictor/regressor.h"
#include "predictor/transfer_report.h"

namespace lanas::bench {
namespace {

struct Pair {
  std::string source, target;
  std::vector<TransferResult> results;
  std::vector<int> chosen;  // rows of the target's table
};

struct TransferCommand {
  Common common;
  std::string data, target, target_campaign, plot;
  std::vector<std::string> features, sources, all_pairs, source_campaigns, predictors;
  TransferOptions options;
  int source_train = 1000, candidates = 1000, test = 1000;

  CLI::App* add(CLI::App& app) {
    common.threads = 0;
    CLI::App* sub = app.add_subcommand("transfer", "predict a new device from few samples and other devices");
    add_common(*sub, common, true);
    auto list = [&](const char* name, std::vector<std::string>& to, const char* help) {
      return sub->add_option(name, to, help)
          ->delimiter(',')
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    };
    auto* any = sub->add_option("--data", data, "a table with a column for each device");
    list("--features", features, "its feature columns")->needs(any);
    list("--sources", sources, "its columns of known devices, used together")->needs(any);
    sub->add_option("--target", target, "its column of the new device")->needs(any);
    list("--all-pairs", all_pairs, "instead: each of these columns from each other, and the mean")
        ->needs(any);
    auto* campaign =
        sub->add_option("--target-campaign", target_campaign, "CSV of `sample` on the new device");
    campaign->excludes(any);
    list("--source-campaign", source_campaigns, "CSVs of `sample` on known devices")->needs(campaign);
    list("--predictor", predictors, "saved predictors of known devices")->needs(campaign);
    sub->add_option("--samples", options.samples, "numbers of samples of the target")->delimiter(',');
    sub->add_option("--source-train", source_train, "rows that a source's predictor learns from")
        ->capture_default_str();
    sub->add_option("--candidates", candidates, "rows that can be chosen from")->capture_default_str();
    sub->add_option("--test", test, "rows to test on, at most a third of all")->capture_default_str();
    sub->add_flag("--mlp,!--no-mlp", options.mlp, "train the mlp from scratch as well");
    sub->add_option("--plot", plot, "draw Spearman against the number of samples into an SVG file");
    return sub;
  }

  void run() {
    Stream stream = common.stream();
    check_range("--source-train", source_train, 30, 10'000'000);
    check_range("--candidates", candidates, 10, 100'000);
    check_range("--test", test, 2, 10'000'000);
    options.seed = common.seed;
    std::sort(options.samples.begin(), options.samples.end());
    const std::vector<Pair> pairs = data.empty() ? campaigns(stream) : columns(stream);
    report(pairs, stream);
  }

  // ---- which rows are for what: numbers in the target's table
  struct Parts {
    std::vector<int> test, candidates, source;
  };
  Parts parts(const Dataset& rows) const {
    const int test_rows = std::min(test, rows.rows / 3);
    const Split split = split_by_architecture(rows, rows.rows - test_rows, common.seed);
    Parts parts;
    parts.test = split.test;
    parts.candidates = split.train;
    if (int(parts.candidates.size()) > candidates) parts.candidates.resize(size_t(candidates));
    parts.source.assign(
        split.train.rbegin(),
        split.train.rbegin() + std::min<std::ptrdiff_t>(source_train, std::ssize(split.train)));
    CHECK(options.samples.back() <= int(parts.candidates.size()), "--samples: expected at most ",
          parts.candidates.size(), ", the rows to choose from, found ", options.samples.back());
    return parts;
  }

  Pair evaluate_pair(const Dataset& rows, const std::vector<double>& y, const Parts& where,
                     const std::vector<const std::vector<double>*>& said,
                     const std::vector<int>& group) const {
    const auto part = [&](const std::vector<int>& numbers) {
      TransferRows out;
      out.code = take_rows(rows, numbers);
      for (size_t i = 0; i < numbers.size(); ++i) out.code.y[i] = y[size_t(numbers[i])];
      for (const std::vector<double>* all : said) {
        out.sources.emplace_back();
        for (int r : numbers) out.sources.back().push_back((*all)[size_t(r)]);
      }
      return out;
    };
    Pair pair;
    pair.results = transfer_report(part(where.candidates), part(where.test), group, options, &pair.chosen);
    for (int& row : pair.chosen) row = where.candidates[size_t(row)];
    return pair;
  }

  Regressor fit_source(Dataset rows, const std::vector<double>& y, Stream& stream) const {
    rows.y = y;
    RegressorConfig config;
    config.seed = common.seed;
    return Regressor::fit(rows, config, stream);
  }

  std::vector<Pair> columns(Stream& stream) const {
    CHECK(!features.empty(), "transfer: --data needs --features");
    CHECK(all_pairs.empty() != (sources.empty() && target.empty()),
          "transfer: expected --sources and --target, or --all-pairs");
    CHECK(all_pairs.empty() ? !sources.empty() && !target.empty() : all_pairs.size() >= 2,
          "transfer: expected both --sources and --target, or at least two columns of --all-pairs");
    std::vector<std::string> names = all_pairs.empty() ? sources : all_pairs;
    const Table table = read_table(data);
    const FeatureCoder coder(table, features);
    std::map<std::string, std::vector<double>> costs, said;
    if (all_pairs.empty()) costs[target] = read_dataset(table, features, target).y;
    Dataset rows = read_dataset(table, features, names[0]);
    const Parts where = parts(rows);
    Progress progress("sources", int64_t(names.size()), common.quiet);
    for (const std::string& name : names) {
      if (stop_requested()) throw Interrupted("stopped");
      CHECK(name != target, "--sources: ", name, " is the target");
      costs[name] = read_dataset(table, features, name).y;
      Dataset all = rows;
      all.y = costs[name];
      const Dataset train = take_rows(all, where.source);
      said[name] = fit_source(train, train.y, stream).predict(rows);
      progress.update(int64_t(said.size()));
    }
    progress.finish();
    std::vector<Pair> pairs;
    if (all_pairs.empty()) {
      std::vector<const std::vector<double>*> all;
      for (const std::string& name : names) all.push_back(&said[name]);
      pairs.push_back(evaluate_pair(rows, costs[target], where, all, coder.level_groups()));
      pairs.back().target = target;
      for (const std::string& name : names)
        pairs.back().source += (pairs.back().source.empty() ? "" : " ") + name;
      return pairs;
    }
    Progress pair_progress("pairs", int64_t(names.size() * (names.size() - 1)), common.quiet);
    for (const std::string& from : names)
      for (const std::string& to : names) {
        if (from == to) continue;
        if (stop_requested()) throw Interrupted("stopped");
        pairs.push_back(evaluate_pair(rows, costs[to], where, {&said[from]}, coder.level_groups()));
        pairs.back().source = from;
        pairs.back().target = to;
        pair_progress.update(int64_t(pairs.size()));
      }
    pair_progress.finish();
    return pairs;
  }

  // The source's rows of architectures that are not tested on: campaigns of one seed hold the same ones.
  static Dataset without(const Dataset& rows, const Dataset& tested, const std::string& path) {
    const auto code = [](const Dataset& of, int r) {
      return std::vector<float>(of.row(r), of.row(r) + of.columns);
    };
    std::set<std::vector<float>> codes;
    for (int r = 0; r < tested.rows; ++r) codes.insert(code(tested, r));
    std::vector<int> kept;
    for (int r = 0; r < rows.rows; ++r)
      if (!codes.contains(code(rows, r))) kept.push_back(r);
    CHECK(kept.size() >= 2, path, ": expected architectures other than the ", tested.rows,
          " of the target that are tested on, found ", kept.size());
    return take_rows(rows, kept);
  }

  std::vector<Pair> campaigns(Stream& stream) const {
    CHECK(!target_campaign.empty(), "transfer: expected --data or --target-campaign");
    CHECK(!source_campaigns.empty() || !predictors.empty(),
          "transfer: expected --source-campaign or --predictor");
    const Source source = read_campaigns({target_campaign});
    const Parts where = parts(source.data);
    std::vector<std::vector<double>> said;
    std::string names;
    for (const std::string& path : source_campaigns) {
      const Source other = read_campaigns({path});
      const Dataset train = without(other.data, take_rows(source.data, where.test), path);
      said.push_back(fit_source(train, train.y, stream).predict(source.data));
      names += (names.empty() ? "" : " ") + path;
    }
    for (const std::string& path : predictors) {
      const Regressor regressor = Regressor::load(path);
      CHECK(regressor.inputs() == kCodeSize, path, ": takes ", regressor.inputs(),
            " numbers, a genotype has ", kCodeSize);
      said.push_back(regressor.predict(source.data));
      names += (names.empty() ? "" : " ") + path;
    }
    std::vector<const std::vector<double>*> all;
    for (const std::vector<double>& s : said) all.push_back(&s);
    std::vector<int> group;  // op counts, apart for the two kinds of cell
    for (int i = 0; i < kCodeSize; ++i) group.push_back(i / kCellCode * kOps + i % kOps);
    std::vector<Pair> pairs = {evaluate_pair(source.data, source.data.y, where, all, group)};
    pairs[0].source = names;
    pairs[0].target = target_campaign;
    return pairs;
  }

  void report(const std::vector<Pair>& pairs, const Stream& stream) const {
    std::map<std::pair<int, std::string>, std::vector<Metrics>> mean;  // by samples and model
    std::vector<std::pair<int, std::string>> order;
    Json each = Json::array();
    for (const Pair& pair : pairs) {
      Json rows = Json::array();
      for (const TransferResult& r : pair.results) {
        rows.push_back({{"samples", r.samples},
                        {"model", r.model},
                        {"spearman", r.metrics.spearman},
                        {"mape", r.metrics.mape}});
        auto& all = mean[{r.samples, r.model}];
        if (all.empty()) order.emplace_back(r.samples, r.model);
        all.push_back(r.metrics);
      }
      each.push_back(
          {{"source", pair.source}, {"target", pair.target}, {"rows", rows}, {"chosen", pair.chosen}});
    }
    TextTable table{{"samples", "model", "spearman", "mape_%", "worst_spearman", "worst_mape_%"}, {}};
    Json means = Json::array();
    std::map<std::string, PlotSeries> series;
    for (const auto& key : order) {
      double spearman = 0, mape = 0, lowest = 1, highest = 0;
      for (const Metrics& m : mean[key]) {
        spearman += m.spearman / double(pairs.size());
        mape += m.mape / double(pairs.size());
        lowest = std::min(lowest, m.spearman);
        highest = std::max(highest, m.mape);
      }
      table.rows.push_back({key.first, key.second, Cell(spearman, 4), Cell(100 * mape, 3), Cell(lowest, 4),
                            Cell(100 * highest, 2)});
      means.push_back({{"samples", key.first},
                       {"model", key.second},
                       {"spearman", spearman},
                       {"mape", mape},
                       {"worst_spearman", lowest},
                       {"worst_mape", highest}});
      PlotSeries& s = series[key.second];
      s.title = key.second;
      s.style = "linespoints pt 7 ps 0.5 lw 2";
      s.rows.push_back({double(key.first), spearman});
    }
    if (!plot.empty()) {
      std::vector<PlotSeries> lines;
      for (const auto& [name, line] : series) lines.push_back(line);
      draw_plot(plot, {.x_label = "samples of the target", .y_label = "Spearman", .log_x = true}, lines);
    }
    const Json json = {{"means", means},
                       {"pairs", each},
                       {"seed", common.seed},
                       {"test", test},
                       {"candidates", candidates},
                       {"source_train", source_train},
                       {"machine", machine_json(stream)}};
    output(common, json, table,
           join(pairs.size(), pairs.size() == 1 ? " pair\n" : " pairs, means over them\n"));
  }
};

}  // namespace

void add_transfer(CLI::App& app) { add_command<TransferCommand>(app); }

}  // namespace lanas::bench
