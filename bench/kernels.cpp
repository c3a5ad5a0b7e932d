// kernels.cpp -- `bench_latency kernels`: what the time of a network (inference) or of a supernet's training
// step is made of. Every op is timed in its place in the pass, pass after pass, in turn with whole passes:
// the sum over ops stands beside the end-to-end time (bench/profile.h says of which passes), and what the sum
// lacks (gaps, clearing, our loop) is a row of its own. Besides: hot, the op again at once after itself;
// cold, after the caches were flushed. Rows are ops of one name, pass and shape. --sweep tells how a
// network's time grows instead: the staircase.
#include <algorithm>
#include <cmath>
#include <map>

#include "bench/ceilings.h"
#include "bench/common.h"
#include "bench/loading.h"
#include "bench/plot.h"
#include "bench/profile.h"
#include "kernels/core/timing.h"
#include "nas/settings.h"
#include "predictor/mlp.h"

namespace lanas::bench {
namespace {

double quantile_or_unknown(const std::vector<double>& times, double q) {
  return times.empty() ? kUnknown : quantile(times, q);
}

// A network on a tape, ready to run.
struct ProfiledNetwork {
  ParameterStore weights;
  InferenceNetwork net;
  std::unique_ptr<Plan> plan;
  Work work;

  ProfiledNetwork(Stream& stream, const NetworkConfig& config, const Genotype& genotype, uint64_t seed)
      : weights(stream.device()), net(config, genotype, weights) {
    weights.allocate(seed);
    fill_inputs(stream, net.tape, net.images, {}, config.classes, seed);
    plan = std::make_unique<Plan>(net.tape, PlanOptions{.outputs = {net.logits}},
                                  std::make_shared<Workspace>(stream.device()));
    work = inference_work(stream, net.tape, *plan);
  }
};

struct KernelsCommand {
  Common common;
  std::string genotype, supernet, sweep, plot;
  std::vector<int> values;
  bool predictor = false, loading = false;
  NetworkConfig network{.channels = 36, .layers = 20, .batch = 1};
  int partial = 4, repeats = 20, cold_repeats = 3;
  CLI::App* sub = nullptr;

  CLI::App* add(CLI::App& app) {
    sub = app.add_subcommand("kernels", "what the time of a network or of a supernet's step is made of");
    add_common(*sub, common, true);
    add_network(*sub, network);
    auto* g = sub->add_option("--genotype", genotype, "inference of a network: published name, file or text");
    sub->add_option("--supernet", supernet,
                    "a bilevel step of darts or pc-darts (then 16 channels, 8 layers, batch 64)")
        ->excludes(g);
    sub->add_flag("--predictor", predictor, "a training step of the latency predictor's mlp, 224-128-64-1")
        ->excludes(g);
    sub->add_flag("--loading", loading,
                  "the order of an epoch of 25,000 images and a training batch of them (then of 64)")
        ->excludes(g);
    sub->add_option("--sweep", sweep,
                    "channels, batch or threads: the network's time, op by op over the whole batch, at each "
                    "of --values; `network` times batches as they are deployed, in chunks")
        ->needs(g);
    sub->add_option("--values", values, "of the sweep")->delimiter(',');
    sub->add_option("--plot", plot, "draw the sweep, or the ops' shares, into an SVG file");
    sub->add_option("--partial", partial, "K of pc-darts")->capture_default_str();
    sub->add_option("--repeats", repeats, "timed passes")->capture_default_str();
    sub->add_option("--cold-repeats", cold_repeats, "passes with flushed caches")->capture_default_str();
    return sub;
  }

  void run() {
    Stream stream = common.stream();
    CHECK(int(!supernet.empty()) + int(!genotype.empty()) + int(predictor) + int(loading) == 1,
          "kernels: expected --genotype, --supernet, --predictor or --loading");
    check_network(network);
    check_range("--repeats", repeats, 1, 100'000);
    check_range("--cold-repeats", cold_repeats, 0, 100'000);
    if (!sweep.empty()) return run_sweep();
    const Ceilings ceilings = measure_ceilings(stream);
    if (predictor) return run_predictor(stream, ceilings);
    if (loading) return run_loading(stream, ceilings);
    supernet.empty() ? run_network(stream, ceilings) : run_supernet(stream, ceilings);
  }

  ProfileConfig profile_config() const { return {repeats, repeats, cold_repeats, common.quiet}; }

  void run_network(Stream& stream, const Ceilings& ceilings) {
    const Genotype g = resolve_genotype(genotype);
    ProfiledNetwork net(stream, network, g, common.seed);
    profile(stream, net.work, profile_config());
    report(stream, net.work, ceilings,
           {{"genotype", write_genotype(g)}, {"network", to_json(network)}, {"macs", net.plan->macs()}});
  }

  // The shapes of the latency predictor: one row is the search's pass, a batch that of its training.
  void run_predictor(Stream& stream, const Ceilings& ceilings) {
    constexpr int kInputs = 224;
    const int batch = sub->count("--batch") ? network.batch : 512;
    ParameterStore weights(stream.device());
    Tape tape(stream.device());
    const Var x = tape.input({batch, 1, 1, kInputs});
    add_mlp(weights, "", kInputs, {128, 64}, 0.3f);
    const Var loss = mean_rows(tape, apply_mlps(tape, weights, {""}, x));
    weights.allocate(common.seed);
    fill_inputs(stream, tape, x, {}, 1, common.seed);
    Plan plan(tape,
              {.outputs = {loss}, .loss = loss, .wanted = {&weights}, .wanted_inputs = {}, .training = true},
              std::make_shared<Workspace>(stream.device()));
    Work work;
    add_steps(work, stream, tape, plan, 0, plan.forward_steps(), "forward");
    add_steps(work, stream, tape, plan, plan.forward_steps(), plan.steps(), "backward");
    work.begin = [&] {
      stream.activate();
      plan.bind();
    };
    work.whole = [&] {
      plan.forward(stream);
      plan.backward(stream);
    };
    profile(stream, work, profile_config());
    report(stream, work, ceilings, {{"predictor", "224-128-64-1"}, {"batch", batch}, {"macs", plan.macs()}});
  }

  void run_loading(Stream& stream, const Ceilings& ceilings) {
    constexpr int kImages = 25'000;  // half of CIFAR-10's training images, as in the published search
    const int batch = sub->count("--batch") ? network.batch : 64;
    Loading images(stream, std::max(kImages, batch), network.image, batch, common.seed);
    Work work = images.work();
    profile(stream, work, profile_config());
    report(stream, work, ceilings, {{"loading", std::max(kImages, batch)}, {"batch", batch}});
  }

  void run_sweep() const;

  void run_supernet(Stream& stream, const Ceilings& ceilings) {
    SupernetConfig config = supernet_config(supernet);
    if (sub->count("--channels")) config.channels = network.channels;
    if (sub->count("--layers")) config.layers = network.layers;
    if (sub->count("--batch")) config.batch = network.batch;
    config.image = network.image;
    config.classes = network.classes;
    if (supernet == "pc-darts") config.partial = partial;
    TrainingStep step(stream, config, common.seed);
    Work work = training_work(stream, step);
    profile(stream, work, profile_config());
    report(stream, work, ceilings, {{"supernet", supernet}, {"network", to_json(config)}});
  }

  // before: the ceilings measured before the work; they are measured again after it.
  void report(Stream& stream, const Work& work, const Ceilings& before, const Json& what) const;
  void draw_shares(const Work& work, double end_to_end) const;
};

// A row with what follows from it.
struct Derived {
  const Row& row;
  double end_to_end, each_ms, gb_s, gflop_s, of_memory, of_fma;
  Derived(const Row& r, double end_to_end_ms, const Ceilings& ceilings)
      : row(r),
        end_to_end(end_to_end_ms),
        each_ms(r.total_ms / r.count),
        gb_s(r.cost.bytes() > 0 ? 1e-6 * r.cost.bytes() / each_ms : kUnknown),
        gflop_s(r.cost.flops > 0 ? 1e-6 * r.cost.flops / each_ms : kUnknown),
        of_memory(r.cost.bytes() > 0 ? ceilings.memory_ms(r.cost) / each_ms : kUnknown),
        of_fma(gflop_s / ceilings.fma_gflop_s) {}

  std::vector<Cell> cells() const {
    return {row.name,
            row.pass,
            row.shape,
            row.count,
            Cell(row.total_ms, 4),
            Cell(100 * row.total_ms / end_to_end, 1),
            Cell(each_ms, 4),
            Cell(quantile(row.in_place_ms, 0.1), 4),
            Cell(quantile(row.in_place_ms, 0.9), 4),
            Cell(quantile_or_unknown(row.hot_ms, 0.5), 4),
            Cell(quantile_or_unknown(row.cold_ms, 0.5), 4),
            Cell(row.cost.flops / 1e6, 3),
            Cell(row.cost.bytes() / 1e6, 3),
            Cell(gb_s, 1),
            Cell(gflop_s, 1),
            Cell(100 * of_memory, 0),
            Cell(100 * of_fma, 0)};
  }

  Json json() const {
    Json json = {{"op", row.name},
                 {"pass", row.pass},
                 {"shape", row.shape},
                 {"count", row.count},
                 {"total_ms", row.total_ms},
                 {"share", row.total_ms / end_to_end},
                 {"each_ms", each_ms},
                 {"flops", row.cost.flops},
                 {"bytes", row.cost.bytes()},
                 {"bytes_written", row.cost.written},
                 {"gb_s", number(gb_s)},
                 {"gflop_s", number(gflop_s)},
                 {"of_memory", number(of_memory)},
                 {"of_fma", number(of_fma)},
                 {"p10_ms", quantile(row.in_place_ms, 0.1)},
                 {"p90_ms", quantile(row.in_place_ms, 0.9)}};
    for (const auto& [name, times] : {std::pair{"hot", &row.hot_ms}, {"cold", &row.cold_ms}}) {
      json[join(name, "_ms")] = number(quantile_or_unknown(*times, 0.5));
      json[join(name, "_p10_ms")] = number(quantile_or_unknown(*times, 0.1));
      json[join(name, "_p90_ms")] = number(quantile_or_unknown(*times, 0.9));
    }
    return json;
  }
};

// How near the ops that multiply come to their ceiling: the time that arithmetic or traffic alone would take,
// whichever is more, over the op's. An op whose tensors stand in a cache has less traffic than it is charged.
// The least is of those with a thousandth of the FLOPs or more.
struct OfCeiling {
  double flops = 0, ms = 0, weighted = 0, least = kUnknown;
  std::string least_op;

  OfCeiling(const std::vector<Row>& rows, const Ceilings& ceilings) {
    for (const Row& row : rows)
      if (row.cost.flops > 0) flops += row.count * row.cost.flops, ms += row.total_ms;
    for (const Row& row : rows) {
      const double all_flops = row.count * row.cost.flops, each_ms = row.total_ms / row.count;
      if (all_flops == 0) continue;
      const double share = std::max(ceilings.fma_ms(row.cost), ceilings.memory_ms(row.cost)) / each_ms;
      weighted += all_flops * share;
      if (least <= share || all_flops < 1e-3 * flops) continue;
      least = share, least_op = join(row.name, ' ', row.pass, ' ', row.shape);
    }
  }
  Json json(const Ceilings& ceilings) const {
    return {{"weighted", number(weighted / flops)},
            {"least", number(least)},
            {"least_op", least_op},
            {"gflop_s", number(1e-6 * flops / ms)},
            {"of_fma", number(1e-6 * flops / ms / ceilings.fma_gflop_s)}};
  }
  std::string note(const Ceilings& ceilings) const {
    if (flops == 0) return "";
    const auto percent = [](double share) { return std::lround(100 * share); };
    return join("ops that multiply, weighted by FLOPs: ", percent(weighted / flops),
                "% of their ceiling (arithmetic or traffic, whichever takes longer), ",
                percent(1e-6 * flops / ms / ceilings.fma_gflop_s), "% of multiply-add; least ",
                percent(least), "%: ", least_op, '\n');
  }
};

void KernelsCommand::report(Stream& stream, const Work& work, const Ceilings& before,
                            const Json& what) const {
  const Ceilings ceilings = greater_of(before, measure_ceilings(stream));
  const std::vector<double>& whole = work.whole_ms;
  const bool graph = stream.device() == Device::cuda;
  const double end_to_end = work.mean_calm(whole), plain = work.mean_calm(work.plain_ms);
  TextTable table{{"op", "pass", "shape", "count", "total_ms", "share_%", "each_ms", "p10_ms", "p90_ms",
                   "hot_ms", "cold_ms", "MFLOP", "MB", "GB/s", "GFLOP/s", "memory_%", "fma_%"},
                  {}};
  Json rows = Json::array();
  double sum = 0;
  const std::vector<Row> groups = group(work);
  const OfCeiling of_ceiling(groups, ceilings);
  for (const Row& row : groups) {
    const Derived derived(row, end_to_end, ceilings);
    sum += row.total_ms;
    table.rows.push_back(derived.cells());
    rows.push_back(derived.json());
  }
  auto total_row = [&](const char* name, double ms) {
    std::vector<Cell> cells = {name, "", "", "", Cell(ms, 4), Cell(100 * ms / end_to_end, 1)};
    cells.resize(table.columns.size(), Cell(""));
    table.rows.push_back(std::move(cells));
  };
  total_row("sum of the ops", sum);
  total_row("unexplained", end_to_end - sum);
  total_row(graph ? "end to end, one graph" : "end to end", end_to_end);
  if (graph) total_row("end to end, launch by launch", plain);
  Json json = {{"rows", rows},
               {"sum_ms", sum},
               {"end_to_end_ms", end_to_end},
               {"end_to_end_p10_ms", quantile(whole, 0.1)},
               {"end_to_end_p90_ms", quantile(whole, 0.9)},
               {"plain_launches_ms", plain},
               {"unexplained_ms", end_to_end - sum},
               {"explained", sum / end_to_end},
               {"copy_gb_s", number(ceilings.copy_gb_s)},
               {"read_gb_s", number(ceilings.read_gb_s > 0 ? ceilings.read_gb_s : kUnknown)},
               {"fma_gflop_s", number(ceilings.fma_gflop_s)},
               {"of_ceiling", of_ceiling.json(ceilings)},
               {"repeats", whole.size()},
               {"machine", machine_json(stream)}};
  json.update(what);
  char read[40] = "", notes[200];
  if (ceilings.read_gb_s > 0) std::snprintf(read, sizeof read, "read %.1f GB/s, ", ceilings.read_gb_s);
  std::snprintf(notes, sizeof notes,
                "ceilings measured in this run: copy %.1f GB/s, %smultiply-add %.1f GFLOP/s\n",
                ceilings.copy_gb_s, read, ceilings.fma_gflop_s);
  if (!plot.empty()) draw_shares(work, end_to_end);
  output(common, json, table, notes + of_ceiling.note(ceilings));
}

// Share of the end-to-end time by the name of the op.
void KernelsCommand::draw_shares(const Work& work, double end_to_end) const {
  std::map<std::string, double> by_name;
  for (const Row& row : group(work)) by_name[row.name] += 100 * row.total_ms / end_to_end;
  std::vector<PlotSeries> bars;
  for (const auto& [name, share] : by_name)
    bars.push_back({name, "impulses lw 16", {{double(bars.size() + 1), share}}});
  draw_plot(plot, {.x_label = "op", .y_label = "share of the end-to-end time, %"}, bars);
}

// End to end and by op: where a step of the staircase comes from.
void KernelsCommand::run_sweep() const {
  CHECK(sweep == "channels" || sweep == "batch" || sweep == "threads",
        "--sweep: expected channels, batch or threads, found '", sweep, "'");
  std::vector<int> at = values;
  if (at.empty())
    at = sweep == "channels" ? std::vector<int>{4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64}
         : sweep == "batch"  ? std::vector<int>{1, 2, 3, 4, 6, 8, 12, 16, 24, 32}
                             : std::vector<int>{1, 2};
  const Genotype g = resolve_genotype(genotype);
  TextTable table{
      {sweep, "ms", "p10_ms", "p90_ms", "ms_per_image", "MMAC", "GFLOP/s", "longest_op", "its_ms"}, {}};
  Json rows = Json::array();
  PlotSeries line{"end to end", "linespoints pt 7 ps 0.5 lw 2", {}}, ops{"sum of the ops", line.style, {}};
  for (const int value : at) {
    check_range("--values", value, 1, 4096);
    NetworkConfig config = network;
    if (sweep == "channels") config.channels = value;
    if (sweep == "batch") config.batch = value;
    Stream stream(parse_device(common.device), sweep == "threads" ? value : common.threads);
    ProfiledNetwork net(stream, config, g, common.seed);
    profile(stream, net.work, {repeats, 0, 0, common.quiet});
    std::map<std::string, double> by_name;
    double sum = 0;
    for (const Row& row : group(net.work)) sum += row.total_ms, by_name[row.name] += row.total_ms;
    const auto longest = std::max_element(by_name.begin(), by_name.end(),
                                          [](const auto& a, const auto& b) { return a.second < b.second; });
    const std::vector<double>& whole = net.work.whole_ms;
    const double ms = net.work.mean_calm(whole), mmac = 1e-6 * double(net.plan->macs());
    table.rows.push_back({value, Cell(ms, 4), Cell(quantile(whole, 0.1), 4), Cell(quantile(whole, 0.9), 4),
                          Cell(ms / config.batch, 4), Cell(mmac, 3), Cell(2 * mmac * config.batch / ms, 1),
                          longest->first, Cell(longest->second, 4)});
    rows.push_back({{sweep, value},
                    {"ms", ms},
                    {"p10_ms", quantile(whole, 0.1)},
                    {"p90_ms", quantile(whole, 0.9)},
                    {"sum_ms", sum},
                    {"mmac", mmac},
                    {"ops_ms", by_name}});
    line.rows.push_back({double(value), ms});
    ops.rows.push_back({double(value), sum});
  }
  if (!plot.empty()) draw_plot(plot, {.x_label = sweep, .y_label = "ms"}, {line, ops});
  const Json json = {{"genotype", write_genotype(g)},
                     {"network", to_json(network)},
                     {"sweep", sweep},
                     {"rows", rows},
                     {"machine", machine_json(common.stream())}};
  output(common, json, table);
}

}  // namespace

void add_kernels(CLI::App& app) { add_command<KernelsCommand>(app); }

}  // namespace lanas::bench
