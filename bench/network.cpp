// network.cpp -- `bench_latency network`: the latency of one derived network as a distribution, over batch
// sizes and thread counts, and compared with an earlier measurement: ratio of medians with a 95% bootstrap
// interval (both samples drawn again with replacement, percentile method; Efron 1979). Passes that follow
// each other are not independent, so the interval is that of one sitting: repeat runs to see the machine's
// moods.
#include <algorithm>
#include <cstdio>

#include "bench/common.h"
#include "bench/plot.h"
#include "kernels/core/random.cuh"
#include "nas/interrupt.h"
#include "nas/latency.h"
#include "nas/progress.h"

namespace lanas::bench {
namespace {

constexpr double kPercentiles[] = {1, 5, 10, 25, 50, 75, 90, 95, 99};

struct Measured {
  int batch = 0, threads = 0;
  int64_t macs = 0;
  std::vector<double> times_ms;  // ascending
};

struct Ratio {
  double value = kUnknown, low = kUnknown, high = kUnknown;  // new / old
};

// Bins of equal width from the shortest time to the 99th percentile, or half as long again as the median
// where that is less; the last holds what is longer too.
struct Histogram {
  static constexpr int kBins = 20;
  double begin = 0, width = 0;
  std::vector<int> counts = std::vector<int>(kBins, 0);

  explicit Histogram(const std::vector<double>& times)
      : begin(times.front()),
        width(std::max(
            1e-9, (std::min(quantile(times, 0.99), 1.5 * quantile(times, 0.5)) - times.front()) / kBins)) {
    for (const double ms : times) ++counts[size_t(std::min(kBins - 1.0, (ms - begin) / width))];
  }
  Json json() const { return {{"begin_ms", begin}, {"width_ms", width}, {"counts", counts}}; }
  std::string text() const {
    const int most = *std::max_element(counts.begin(), counts.end());
    std::string lines;
    char line[64];
    for (int i = 0; i < kBins; ++i) {
      std::snprintf(line, sizeof line, "%s%10.4f ms %6d  ", i + 1 < kBins ? "  " : ">=", begin + i * width,
                    counts[size_t(i)]);
      lines += line + std::string(size_t(48 * counts[size_t(i)] / most), '#') + "\n";
    }
    return lines;
  }
};

double median_of_redraw(Random& random, const std::vector<double>& times, std::vector<double>& drawn) {
  drawn.resize(times.size());
  for (double& v : drawn) v = times[random.below(uint32_t(times.size()))];
  const auto middle = drawn.begin() + std::ptrdiff_t(drawn.size() / 2);
  std::nth_element(drawn.begin(), middle, drawn.end());
  return *middle;
}

Ratio ratio_of_medians(const std::vector<double>& now, const std::vector<double>& before, uint64_t seed) {
  constexpr int kDraws = 2000;
  Random random(seed, 0xB007);
  std::vector<double> ratios, drawn;
  for (int i = 0; i < kDraws; ++i) {
    const double a = median_of_redraw(random, now, drawn);
    ratios.push_back(a / median_of_redraw(random, before, drawn));
  }
  return {quantile(now, 0.5) / quantile(before, 0.5), quantile(ratios, 0.025), quantile(ratios, 0.975)};
}

// The times of the row of an earlier --json file with this batch and thread count; empty where it has none.
std::vector<double> times_in(const Json& json, const std::string& path, int batch, int threads) {
  try {
    for (const Json& row : json.at("rows")) {
      if (row.at("batch") != batch || row.at("threads") != threads) continue;
      auto times = row.at("times_ms").get<std::vector<double>>();
      CHECK(!times.empty() && *std::min_element(times.begin(), times.end()) > 0, path,
            ": its times are not all above 0");
      return times;
    }
  } catch (const Json::exception&) {
    throw Error(path + ": is not the --json of `bench_latency network`");
  }
  return {};
}

struct NetworkCommand {
  Common common;
  NetworkConfig network{.channels = 36, .layers = 20, .batch = 1};
  std::string genotype, against, plot;
  std::vector<int> batches, sweep_threads;
  int repeats = 200;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand("network", "the latency of one network as a distribution");
    add_common(*sub, common, true);
    add_network(*sub, network);
    sub->add_option("--genotype", genotype, "published name, file or text")->required();
    sub->add_option("--batches", batches, "several batch sizes, for instance 1,2,4,8")
        ->delimiter(',')
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_option("--sweep-threads", sweep_threads, "several thread counts, for instance 1,2")
        ->delimiter(',')
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    sub->add_option("--repeats", repeats, "timed passes of each")->capture_default_str();
    sub->add_option("--plot", plot,
                    "draw the histogram of one row, or the medians of a sweep, into an SVG file");
    sub->add_option("--against", against, "an earlier --json file of this command, to compare with");
    return sub;
  }

  void run() {
    const Stream stream = common.stream();
    check_network(network);
    check_range("--repeats", repeats, 6, 1'000'000);
    if (batches.empty()) batches = {network.batch};
    if (sweep_threads.empty()) sweep_threads = {stream.threads()};
    for (int batch : batches) check_range("--batches", batch, 1, 65536);
    for (int threads : sweep_threads) check_range("--sweep-threads", threads, 1, 4096);
    const Genotype g = resolve_genotype(genotype);
    const Json before = against.empty() ? Json() : read_json(against);
    if (!against.empty()) check_matches(before);
    Progress progress("network", int64_t(batches.size() * sweep_threads.size()), common.quiet);
    std::vector<Measured> measured;
    for (int threads : sweep_threads)
      for (int batch : batches) {
        if (stop_requested()) throw Interrupted("network: stopped");
        measured.push_back(measure(g, batch, threads, stream.device()));
        progress.update(int64_t(measured.size()), join("batch ", batch, ", threads ", threads));
      }
    progress.finish();
    report(g, measured, before, stream);
  }

  // Before measuring: whether there is anything to compare with.
  void check_matches(const Json& before) const {
    bool any = false;
    for (int threads : sweep_threads)
      for (int batch : batches) any |= !times_in(before, against, batch, threads).empty();
    CHECK(any, against, ": has no row of these batch sizes and thread counts");
  }

  Measured measure(const Genotype& g, int batch, int threads, Device device) const {
    LatencyConfig config;
    config.network = network;
    config.network.batch = batch;
    config.device = device;
    config.threads = threads;
    config.min_repeats = config.max_repeats = repeats;
    config.max_wait_share = 0;  // the distribution as it is, neighbours included
    config.min_repeat_ms = 0;   // of single passes, not of means of several
    Measured m{batch, threads, 0, {}};
    m.times_ms = LatencyMeter(config).times(g, &m.macs);
    return m;
  }

  void report(const Genotype& g, const std::vector<Measured>& measured, const Json& before,
              const Stream& stream) const {
    TextTable table{{"batch", "threads"}, {}};
    for (double p : kPercentiles) table.columns.push_back(join("p", p, "_ms"));
    for (const char* name : {"ms_per_image", "GFLOP/s"}) table.columns.push_back(name);
    if (!against.empty())
      for (const char* name : {"ratio", "ratio_low", "ratio_high"}) table.columns.push_back(name);
    Json rows = Json::array();
    for (const Measured& m : measured) {
      const double median = quantile(m.times_ms, 0.5);
      Json row = {{"batch", m.batch},
                  {"threads", m.threads},
                  {"median_ms", median},
                  {"macs", m.macs},
                  {"repeats", m.times_ms.size()},
                  {"times_ms", m.times_ms},
                  {"histogram", Histogram(m.times_ms).json()}};
      std::vector<Cell> cells = {m.batch, m.threads};
      for (double p : kPercentiles) {
        row[join("p", p, "_ms")] = quantile(m.times_ms, p / 100);
        cells.emplace_back(quantile(m.times_ms, p / 100), 4);
      }
      cells.emplace_back(median / m.batch, 4);
      cells.emplace_back(2e-6 * double(m.macs) * m.batch / median, 1);
      if (!against.empty()) {
        const std::vector<double> old = times_in(before, against, m.batch, m.threads);
        const Ratio ratio = old.empty() ? Ratio{} : ratio_of_medians(m.times_ms, old, common.seed);
        for (double v : {ratio.value, ratio.low, ratio.high}) cells.emplace_back(v, 4);
        row["against"] = {
            {"ratio", number(ratio.value)}, {"low", number(ratio.low)}, {"high", number(ratio.high)}};
      }
      rows.push_back(row);
      table.rows.push_back(cells);
    }
    const Json json = {{"genotype", write_genotype(g)},  {"channels", network.channels},
                       {"layers", network.layers},       {"image", network.image},
                       {"classes", network.classes},     {"rows", rows},
                       {"machine", machine_json(stream)}};
    if (!plot.empty()) draw(measured);
    const std::string shape = measured.size() == 1 ? Histogram(measured[0].times_ms).text() : "";
    output(common, json, table, shape + difference(json, before));
  }

  void draw(const std::vector<Measured>& measured) const {
    std::vector<PlotSeries> series;
    if (measured.size() == 1) {
      const Histogram histogram(measured[0].times_ms);
      series.push_back({"passes", "boxes fill solid 0.6", {}});
      for (int i = 0; i < Histogram::kBins; ++i)
        series[0].rows.push_back(
            {histogram.begin + (i + 0.5) * histogram.width, double(histogram.counts[size_t(i)])});
      return draw_plot(plot, {.x_label = "latency, ms (the last bar: and longer)", .y_label = "passes"},
                       series);
    }
    const bool by_batch = batches.size() > 1;  // else by threads; a line for each of the other
    for (const Measured& m : measured) {
      const std::string title = by_batch ? join(m.threads, " threads") : join("batch ", m.batch);
      auto at =
          std::find_if(series.begin(), series.end(), [&](const PlotSeries& s) { return s.title == title; });
      if (at == series.end()) at = series.insert(at, {title, "yerrorlines pt 7 ps 0.5 lw 2", {}});
      at->rows.push_back({double(by_batch ? m.batch : m.threads), quantile(m.times_ms, 0.5) / m.batch,
                          quantile(m.times_ms, 0.1) / m.batch, quantile(m.times_ms, 0.9) / m.batch});
    }
    draw_plot(plot, {.x_label = by_batch ? "batch" : "threads", .y_label = "ms per image, p10 to p90"},
              series);
  }

  // What else than time differs between the two measurements.
  std::string difference(const Json& now, const Json& before) const {
    std::string text;
    if (against.empty()) return text;
    for (const char* key : {"genotype", "channels", "layers", "image", "classes"})
      if (before.value(key, Json()) != now[key]) text += join(text.empty() ? "" : ", ", key);
    for (const char* key : {"cpu", "isa", "device"})
      if (before.value("machine", Json::object()).value(key, Json()) != now["machine"][key])
        text += join(text.empty() ? "" : ", ", key);
    return text.empty() ? "ratio: this run / " + against + "\n"
                        : "ratio: this run / " + against + ", which differs in " + text + "\n";
  }
};

}  // namespace

void add_network_command(CLI::App& app) { add_command<NetworkCommand>(app); }

}  // namespace lanas::bench
