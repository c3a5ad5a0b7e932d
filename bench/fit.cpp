// fit.cpp -- `bench_latency fit`: trains the regressor on a part of a campaign or of any table and says how
// well it predicts the rest, beside ridge, the mlp alone, a look-up table, MACs alone and the noise of
// measuring.
#include <algorithm>
#include <optional>

#include "bench/common.h"
#include "bench/fit_source.h"
#include "bench/lookup.h"
#include "bench/plot.h"
#include "nas/interrupt.h"
#include "nas/progress.h"
#include "predictor/fit_report.h"
#include "predictor/linear.h"

namespace lanas::bench {
namespace {

struct FitCommand {
  Common common;
  std::vector<std::string> campaigns, features;
  std::string data, target, save, metric, lookup, plot, plot_macs, plot_curve;
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
    sub->add_option("--metric", metric, "latency, peak-memory or macs of the campaign's architectures")
        ->needs(campaign);
    sub->add_option("--lookup", lookup, "CSV of `sample --lookup`: a look-up table of ops to compare with")
        ->needs(campaign);
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
    sub->add_option("--plot", plot, "draw predicted against measured into an SVG file");
    sub->add_option("--plot-macs", plot_macs, "draw multiply-adds against the target")->needs(campaign);
    sub->add_option("--plot-curve", plot_curve, "draw the error against the number of samples")
        ->needs("--curve");
    sub->add_option("--save", save, "write the predictor (safetensors) for `predict` and lanas_train");
    return sub;
  }

  Source read() const {
    CHECK(campaigns.empty() != data.empty(), "fit: expected --campaign or --data");
    if (campaigns.empty()) {
      CHECK(!features.empty() && !target.empty(), "fit: --data needs --features and --target");
      return read_columns(data, features, target, allow_copies);
    }
    return read_campaigns(campaigns, metric.empty() ? std::nullopt : std::optional(parse_metric(metric)));
  }

  // Ridge on the number of MACs as the only feature, on the same split.
  Metrics macs_alone(const Source& source, const Split& split) const {
    Dataset by_macs{source.data.rows, 1, {}, source.data.y};
    for (double macs : source.macs) by_macs.x.push_back(float(macs / 1e6));
    const Dataset test = take_rows(by_macs, split.test);
    return evaluate(fit_ridge(take_rows(by_macs, split.train)).predict(test), test.y);
  }

  // The look-up table's sum as it stands but for a constant (what the ops leave out: stem, preprocessing,
  // head), and scaled as well; both fitted on the training rows.
  void add_lookup(const Source& source, const Split& split, Json& json, TextTable& table) const {
    const LookupTable ops = read_lookup(lookup, source.setting);
    Dataset by_sum{source.data.rows, 1, {}, source.data.y};
    for (int r = 0; r < source.data.rows; ++r) by_sum.x.push_back(float(ops.sum_ms(source.data.row(r))));
    const Dataset train_rows = take_rows(by_sum, split.train), test = take_rows(by_sum, split.test);
    double rest = 0;
    for (int r = 0; r < train_rows.rows; ++r)
      rest += (train_rows.y[size_t(r)] - double(train_rows.row(r)[0])) / train_rows.rows;
    std::vector<double> sums;
    for (int r = 0; r < test.rows; ++r) sums.push_back(double(test.row(r)[0]) + rest);
    const Metrics plain = evaluate(sums, test.y),
                  scaled = evaluate(fit_ridge(train_rows).predict(test), test.y);
    json.update({{"lookup_mape", plain.mape},
                 {"lookup_spearman", plain.spearman},
                 {"lookup_rest_ms", rest},
                 {"lookup_scaled_mape", scaled.mape}});
    add_row(table, "look-up table", plain);
    add_row(table, "look-up table, scaled", scaled);
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
    const std::string unit = target_unit(source);
    options.regressor.unit = unit;
    std::optional<Regressor> regressor;
    Progress progress("fit", 1, common.quiet);
    const FitReport report = fit_report(source.data, options, stream, &regressor);
    progress.finish(join(report.n_train, " rows"));
    if (!save.empty()) regressor->save(save);

    TextTable table{{"model", "mape_%", "median_%", "within_1_%", "within_5_%", "within_10_%", "spearman",
                     "kendall", "mae_" + (unit.empty() ? "target" : unit), "cheapest_tenth_%"},
                    {}};
    add_row(table, "regressor", report.test);
    add_row(table, "ridge", report.linear);
    Json json = report;
    if (!json.contains("mlp_alone_mape")) json["mlp_alone_mape"] = nullptr;
    json["unit"] = unit;
    for (const std::string name : {"mae", "linear_mae"}) {
      if (unit == "ms") break;
      json[name] = json[name + "_ms"];
      json.erase(name + "_ms");
    }
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
    json["metric"] = metric_name(source.metric);
    if (!lookup.empty()) {
      CHECK(source.metric == CostMetric::latency, "--lookup: holds times, the target is ",
            metric_name(source.metric));
      add_lookup(source, split, json, table);
    }
    if (curve) json["curve"] = curve_json(source, split, stream, table);
    draw(source, report, json);
    output(common, json, table, notes(report));
  }

  void draw(const Source& source, const FitReport& report, const Json& json) const {
    const std::string cost = join(
        source.metric == CostMetric::latency && source.macs.empty() ? "target" : metric_name(source.metric),
        ", ", metric_unit(source.metric));
    if (!plot.empty()) {
      PlotSeries points{"held-out rows", "points pt 7 ps 0.3", {}};
      for (const auto& [predicted, actual] : report.held_out) points.rows.push_back({actual, predicted});
      draw_plot(plot, {.x_label = "measured " + cost, .y_label = "predicted " + cost, .diagonal = true},
                {points});
    }
    if (!plot_macs.empty()) {
      PlotSeries points{"", "points pt 7 ps 0.2", {}};
      for (int r = 0; r < source.data.rows; ++r)
        points.rows.push_back({1e-6 * source.macs[size_t(r)], source.data.y[size_t(r)]});
      draw_plot(plot_macs, {.x_label = "multiply-adds, millions", .y_label = cost}, {points});
    }
    if (plot_curve.empty()) return;
    PlotSeries fitted{"regressor", "linespoints pt 7 ps 0.5 lw 2", {}}, linear{"ridge", fitted.style, {}};
    for (const Json& point : json["curve"]) {
      fitted.rows.push_back({point["samples"], 100 * point["mape"].get<double>()});
      linear.rows.push_back({point["samples"], 100 * point["linear_mape"].get<double>()});
    }
    draw_plot(plot_curve, {.x_label = "samples", .y_label = "mean relative error, %", .log_x = true},
              {fitted, linear});
  }

  // A table of numbers does not say what its target is.
  static std::string target_unit(const Source& source) {
    return source.metric == CostMetric::latency && source.macs.empty() ? "" : metric_unit(source.metric);
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
      std::snprintf(text, sizeof text, "the noise of one measurement is %.3f%%\n", 100 * r.noise_mape);
      all += text;
    }
    return all;
  }
};

}  // namespace

void add_fit(CLI::App& app) { add_command<FitCommand>(app); }

}  // namespace lanas::bench
