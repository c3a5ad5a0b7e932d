// fit.cpp -- `bench_latency fit`: trains the regressor on a part of a campaign or of any table and says how
// well it predicts the rest, beside ridge, the mlp alone, MACs alone and the noise of measuring.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "bench/common.h"
#include "nas/campaign.h"
#include "nas/interrupt.h"
#include "nas/progress.h"
#include "predictor/fit_report.h"
#include "predictor/linear.h"

namespace lanas::bench {
namespace {

struct Source {
  Dataset data;
  std::vector<double> macs;  // per row; empty for a table
  double noise_mape = 0;     // 0: not known
  std::string setting;
};

// Several files are the shards of one campaign: of one setting, no architecture twice.
Source read_campaigns(const std::vector<std::string>& paths) {
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
    const Dataset data = latency_dataset(campaign);
    source.data.columns = data.columns;
    source.data.rows += data.rows;
    source.data.x.insert(source.data.x.end(), data.x.begin(), data.x.end());
    source.data.y.insert(source.data.y.end(), data.y.begin(), data.y.end());
    const Dataset macs = macs_dataset(campaign);
    source.macs.insert(source.macs.end(), macs.y.begin(), macs.y.end());
    if (campaign.second_pass.empty()) continue;
    noise += campaign.noise_mape * double(campaign.second_pass.size());
    pairs += double(campaign.second_pass.size());
  }
  if (pairs > 0) source.noise_mape = noise / pairs;
  source.setting = setting_text(setting);
  return source;
}

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

struct FitCommand {
  Common common;
  std::vector<std::string> campaigns, features;
  std::string data, target, save;
  int train = 0;
  bool curve = false, mlp_alone = true, allow_copies = false;

  CLI::App* add(CLI::App& app) {
    common.threads = 0;
    CLI::App* sub =
        app.add_subcommand("fit", "train a predictor on a campaign or any table; its error on held-out rows");
    add_common(*sub, common, true);
    auto* campaign = sub->add_option("--campaign", campaigns, "CSV of `sample`, or several shards of one")
                         ->delimiter(',')
                         ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    auto* any = sub->add_option("--data", data, "any table instead")->excludes(campaign);
    sub->add_option("--features", features, "its feature columns; whole numbers are one-hot encoded")
        ->delimiter(',')
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->needs(any);
    sub->add_option("--target", target, "its column to predict")->needs(any);
    sub->add_flag("--allow-copies", allow_copies, "accept lines that repeat another one")->needs(any);
    sub->add_option("--train", train, "training rows; 0: four fifths")->capture_default_str();
    sub->add_flag("--mlp-alone,!--no-mlp-alone", mlp_alone, "fit the mlp without its linear part as well");
    sub->add_flag("--curve", curve, "the error against the number of samples too: train, train/2, ... to 50");
    sub->add_option("--save", save, "write the predictor (safetensors) for `predict` and lanas_train");
    return sub;
  }

  Source read() const {
    CHECK(campaigns.empty() != data.empty(), "fit: expected --campaign or --data");
    if (!campaigns.empty()) return read_campaigns(campaigns);
    CHECK(!features.empty() && !target.empty(), "fit: --data needs --features and --target");
    CHECK(std::find(features.begin(), features.end(), target) == features.end(), "--features: ", target,
          " is the target");
    const Table table = read_table(data);
    CHECK(table.rows() > 0, data, ": holds no rows");
    for (const std::string& feature : features) table.column(feature);
    table.column(target);
    if (!allow_copies) refuse_copies(table);
    return {read_dataset(table, features, target), {}, 0, ""};
  }

  // Ridge on the number of MACs as the only feature, on the same split.
  Metrics macs_alone(const Source& source, const Split& split) const {
    Dataset by_macs{source.data.rows, 1, {}, source.data.y};
    for (double macs : source.macs) by_macs.x.push_back(float(macs / 1e6));
    const Dataset test = take_rows(by_macs, split.test);
    return evaluate(fit_ridge(take_rows(by_macs, split.train)).predict(test), test.y);
  }

  // Fits on the first rows of the training part; always tested on the same rows.
  Json curve_json(const Source& source, const Split& split, Stream& stream, TextTable& table) const {
    std::vector<int> sizes;
    for (int size = int(split.train.size()); size >= 50 || sizes.empty(); size /= 2) sizes.push_back(size);
    std::reverse(sizes.begin(), sizes.end());
    const Dataset test = take_rows(source.data, split.test);
    Progress progress("curve", 2 * int64_t(split.train.size()), common.quiet);
    Json json = Json::array();
    int64_t done = 0;
    for (int size : sizes) {
      if (stop_requested()) throw Interrupted("stopped");
      const Dataset part =
          take_rows(source.data, {split.train.begin(), split.train.begin() + std::ptrdiff_t(size)});
      RegressorConfig config;
      config.seed = common.seed;
      const Metrics fitted = evaluate(Regressor::fit(part, config, stream).predict(test), test.y);
      const Metrics linear = evaluate(fit_ridge(part).predict(test), test.y);
      json.push_back({{"samples", size},
                      {"mape", fitted.mape},
                      {"within_10", fitted.within_10},
                      {"spearman", fitted.spearman},
                      {"linear_mape", linear.mape},
                      {"linear_spearman", linear.spearman}});
      add_row(table, join("regressor, ", size, " samples"), fitted);
      add_row(table, join("ridge, ", size, " samples"), linear);
      progress.update(done += size);
    }
    progress.finish();
    return json;
  }

  static void add_row(TextTable& table, const std::string& name, const Metrics& m) {
    table.rows.push_back({name, Cell(100 * m.mape, 3), Cell(100 * m.median_ape, 3), Cell(100 * m.within_1, 1),
                          Cell(100 * m.within_5, 1), Cell(100 * m.within_10, 1), Cell(m.spearman, 4),
                          Cell(m.kendall, 4), Cell(m.mae, 5), Cell(100 * m.cheapest_tenth, 3)});
  }

  void run() {
    Stream stream = common.stream();
    const Source source = read();
    if (train != 0) check_range("--train", train, 2, std::max(2, source.data.rows - 1));
    FitOptions options;
    options.train_rows = train;
    options.split_seed = options.regressor.seed = common.seed;
    options.mlp_alone = mlp_alone;
    options.noise_mape = source.noise_mape;
    std::optional<Regressor> regressor;
    Progress progress("fit", 1, common.quiet);
    const FitReport report = fit_report(source.data, options, stream, &regressor);
    progress.finish(join(report.n_train, " rows"));
    if (!save.empty()) regressor->save(save);

    TextTable table{{"model", "mape_%", "median_%", "within_1_%", "within_5_%", "within_10_%", "spearman",
                     "kendall", "mae_ms", "cheapest_tenth_%"},
                    {}};
    add_row(table, "regressor", report.test);
    add_row(table, "ridge", report.linear);
    Json json = report;
    if (!json.contains("mlp_alone_mape")) json["mlp_alone_mape"] = nullptr;
    json["seed"] = common.seed;
    json["machine"] = machine_json(stream);
    const Split split = split_by_architecture(source.data, split_rows(source.data), common.seed);
    if (!source.macs.empty()) {
      const Metrics macs = macs_alone(source, split);
      json.update(
          {{"macs_mape", macs.mape}, {"macs_spearman", macs.spearman}, {"macs_kendall", macs.kendall}});
      json["setting"] = source.setting;
      add_row(table, "MACs alone", macs);
    }
    if (curve) json["curve"] = curve_json(source, split, stream, table);
    output(common, json, table, notes(report));
  }

  int split_rows(const Dataset& rows) const { return train > 0 ? train : rows.rows * 4 / 5; }

  static std::string notes(const FitReport& r) {
    char text[400];
    std::snprintf(text, sizeof text,
                  "%d rows to train, %d to test, %.1f s; the 90%% interval holds %.1f%% of the test rows\n",
                  r.n_train, r.n_test, r.seconds, 100 * r.coverage_90);
    std::string all = text;
    if (r.mlp_alone_mape > 0) {
      std::snprintf(text, sizeof text, "mlp alone: mape %.3f%%\n", 100 * r.mlp_alone_mape);
      all += text;
    }
    if (r.noise_mape > 0) {
      std::snprintf(text, sizeof text, "measuring again differs by %.3f%%\n", 100 * r.noise_mape);
      all += text;
    }
    return all;
  }
};

}  // namespace

void add_fit(CLI::App& app) { add_command<FitCommand>(app); }

}  // namespace lanas::bench
