// kernels.cpp -- `bench_latency kernels`: what the time of a network (inference) or of a supernet's training
// step is made of. Every op is timed in its place in the pass, pass after pass, in turn with whole passes:
// the sum over ops stands beside the end-to-end time, and what the sum lacks (gaps, clearing, our loop) is a
// row of its own. Besides: hot, the op again at once after itself; cold, after the caches were flushed. Rows
// are ops of one name, pass and shape.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "bench/ceilings.h"
#include "bench/common.h"
#include "bench/op_cost.h"
#include "bench/training_step.h"
#include "kernels/core/timing.h"
#include "kernels/ops/elementwise.h"
#include "nas/interrupt.h"
#include "nas/progress.h"
#include "nas/settings.h"

namespace lanas::bench {
namespace {

struct Item {
  std::string name, pass, shape;
  OpCost cost;
  std::function<void()> run;  // waits for the device
  std::vector<double> in_place_ms, hot_ms, cold_ms;
};

// A pass as a list of items, and as a whole.
struct Work {
  std::vector<Item> items;
  std::function<void()> begin;  // before the items run one by one
  std::function<void()> whole;
};

void add_steps(Work& work, Stream& stream, const Tape& tape, Plan& plan, int begin, int end,
               const std::string& pass, const ParameterStore* wanted) {
  for (int s = begin; s < end; ++s) {
    const bool backward = s >= plan.forward_steps();
    work.items.push_back({plan.op(s).name,
                          pass,
                          op_shape(tape, plan.op(s)),
                          op_cost(tape, plan.op(s), backward, wanted),
                          [&stream, &plan, s] {
                            plan.run_step(stream, s);
                            stream.synchronize();
                          },
                          {},
                          {},
                          {}});
  }
}

Work training_work(Stream& stream, TrainingStep& step) {
  Work work;
  const std::vector<TrainingStep::Part> parts = step.parts();
  for (const TrainingStep::Part& part : parts) {
    Plan& plan = *part.plan;
    add_steps(work, stream, step.tape(), plan, 0, plan.forward_steps(), part.name + " forward", nullptr);
    const std::string backward = part.name + " backward";
    work.items.push_back({"fill",
                          backward,
                          "1x1x1x1",
                          {0, sizeof(float)},
                          [&stream, part] { fill(stream, part.plan->grad(part.loss), 1.f); },
                          {},
                          {},
                          {}});
    add_steps(work, stream, step.tape(), plan, plan.forward_steps(), plan.steps(), backward, part.wanted);
    work.items.push_back({part.update_name,
                          part.name + " update",
                          join(part.wanted->slab_floats(), " floats"),
                          {},
                          [&stream, &step, part] {
                            (step.*part.update)();
                            stream.synchronize();
                          },
                          {},
                          {},
                          {}});
  }
  work.begin = [&stream, parts] {
    stream.activate();
    for (const TrainingStep::Part& part : parts) part.plan->bind();
  };
  work.whole = [&step] { step.run(); };
  return work;
}

struct Row {
  std::string name, pass, shape;
  int count = 0;
  double total_ms = 0;  // sum of the ops' medians
  OpCost cost;          // of one op
  std::vector<double> in_place_ms, hot_ms, cold_ms;
};

std::vector<Row> group(const std::vector<Item>& items) {
  std::map<std::string, size_t> index;
  std::vector<Row> rows;
  for (const Item& item : items) {
    const auto [at, added] = index.emplace(item.name + "|" + item.pass + "|" + item.shape, rows.size());
    if (added) rows.push_back({item.name, item.pass, item.shape, 0, 0, item.cost, {}, {}, {}});
    Row& row = rows[at->second];
    ++row.count;
    row.total_ms += quantile(item.in_place_ms, 0.5);
    row.in_place_ms.insert(row.in_place_ms.end(), item.in_place_ms.begin(), item.in_place_ms.end());
    row.hot_ms.insert(row.hot_ms.end(), item.hot_ms.begin(), item.hot_ms.end());
    row.cold_ms.insert(row.cold_ms.end(), item.cold_ms.begin(), item.cold_ms.end());
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.total_ms > b.total_ms; });
  return rows;
}

double timed(const std::function<void()>& run) {
  const double start = now_ms();
  run();
  return now_ms() - start;
}

double quantile_or_unknown(const std::vector<double>& times, double q) {
  return times.empty() ? kUnknown : quantile(times, q);
}

class Profiler {
 public:
  Profiler(Stream& stream, Work& work, int repeats, int cold_repeats, bool quiet)
      : stream_(stream), work_(work), repeats_(repeats), cold_repeats_(cold_repeats), quiet_(quiet) {}

  // Times of whole passes; the items' go into the items.
  std::vector<double> run() {
    Progress progress("kernels", 2 * repeats_ + cold_repeats_, quiet_);
    int64_t done = 0;
    auto next = [&](const char* what) {
      if (stop_requested()) throw Interrupted("kernels: stopped");
      progress.update(++done, what);
    };
    std::vector<double> whole;
    work_.whole();
    for (int i = 0; i < repeats_; ++i, next("in place")) {
      whole.push_back(timed(work_.whole));
      work_.begin();
      for (Item& item : work_.items) item.in_place_ms.push_back(timed(item.run));
    }
    for (int i = 0; i < repeats_; ++i, next("hot")) pass_hot();
    work_.whole();
    for (int i = 0; i < cold_repeats_; ++i, next("cold")) pass_cold();
    progress.finish();
    return whole;
  }

 private:
  // Running an op twice doubles what it adds to its output; the next pass begins anew. Updates are not run
  // twice: weights would change by gradients that mean nothing.
  void pass_hot() {
    work_.begin();
    for (Item& item : work_.items) {
      if (item.pass.ends_with("update")) continue;
      item.run();
      item.hot_ms.push_back(timed(item.run));
    }
  }

  // Flushing takes far longer than an op: only the first few ops of each kind.
  void pass_cold() {
    CacheFlusher flusher(stream_);
    std::map<std::string, int> seen;
    work_.begin();
    for (Item& item : work_.items) {
      if (item.pass.ends_with("update")) continue;
      const bool wanted = seen[item.name + "|" + item.pass + "|" + item.shape]++ < 2;
      if (wanted) flusher.flush();
      const double ms = timed(item.run);
      if (wanted) item.cold_ms.push_back(ms);
    }
  }

  Stream& stream_;
  Work& work_;
  int repeats_, cold_repeats_;
  bool quiet_;
};

struct KernelsCommand {
  Common common;
  std::string genotype, supernet;
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
    sub->add_option("--partial", partial, "K of pc-darts")->capture_default_str();
    sub->add_option("--repeats", repeats, "timed passes")->capture_default_str();
    sub->add_option("--cold-repeats", cold_repeats, "passes with flushed caches")->capture_default_str();
    return sub;
  }

  void run() {
    Stream stream = common.stream();
    CHECK(supernet.empty() != genotype.empty(), "kernels: expected --genotype or --supernet");
    check_network(network);
    check_range("--repeats", repeats, 1, 100'000);
    check_range("--cold-repeats", cold_repeats, 0, 100'000);
    const Ceilings ceilings = measure_ceilings(stream);
    supernet.empty() ? run_network(stream, ceilings) : run_supernet(stream, ceilings);
  }

  void run_network(Stream& stream, const Ceilings& ceilings) {
    const Genotype g = resolve_genotype(genotype);
    ParameterStore weights(stream.device());
    InferenceNetwork net(network, g, weights);
    weights.allocate(common.seed);
    fill_inputs(stream, net.tape, net.images, {}, network.classes, common.seed);
    Plan plan(net.tape, {.outputs = {net.logits}, .loss = {}, .wanted = {}, .wanted_inputs = {}},
              std::make_shared<Workspace>(stream.device()));
    Work work;
    add_steps(work, stream, net.tape, plan, 0, plan.steps(), "inference", nullptr);
    work.begin = [&] {
      stream.activate();
      plan.bind();
    };
    work.whole = [&] {
      plan.forward(stream);
      stream.synchronize();
    };
    const std::vector<double> whole = Profiler(stream, work, repeats, cold_repeats, common.quiet).run();
    report(stream, work, whole, ceilings,
           {{"genotype", write_genotype(g)}, {"network", to_json(network)}, {"macs", plan.macs()}});
  }

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
    const std::vector<double> whole = Profiler(stream, work, repeats, cold_repeats, common.quiet).run();
    report(stream, work, whole, ceilings, {{"supernet", supernet}, {"network", to_json(config)}});
  }

  void report(const Stream& stream, const Work& work, const std::vector<double>& whole,
              const Ceilings& ceilings, const Json& what) const;
};

// A row with what follows from it.
struct Derived {
  const Row& row;
  double end_to_end, each_ms, gb_s, gflop_s, of_copy, of_fma;
  Derived(const Row& r, double end_to_end_ms, const Ceilings& ceilings)
      : row(r),
        end_to_end(end_to_end_ms),
        each_ms(r.total_ms / r.count),
        gb_s(r.cost.bytes > 0 ? 1e-6 * r.cost.bytes / each_ms : kUnknown),
        gflop_s(r.cost.flops > 0 ? 1e-6 * r.cost.flops / each_ms : kUnknown),
        of_copy(gb_s / ceilings.copy_gb_s),
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
            Cell(row.cost.bytes / 1e6, 3),
            Cell(gb_s, 1),
            Cell(gflop_s, 1),
            Cell(100 * of_copy, 0),
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
                 {"bytes", row.cost.bytes},
                 {"gb_s", number(gb_s)},
                 {"gflop_s", number(gflop_s)},
                 {"of_copy", number(of_copy)},
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

void KernelsCommand::report(const Stream& stream, const Work& work, const std::vector<double>& whole,
                            const Ceilings& ceilings, const Json& what) const {
  const double end_to_end = quantile(whole, 0.5);
  TextTable table{{"op", "pass", "shape", "count", "total_ms", "share_%", "each_ms", "p10_ms", "p90_ms",
                   "hot_ms", "cold_ms", "MFLOP", "MB", "GB/s", "GFLOP/s", "copy_%", "fma_%"},
                  {}};
  Json rows = Json::array();
  double sum = 0;
  for (const Row& row : group(work.items)) {
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
  total_row("end to end", end_to_end);
  Json json = {{"rows", rows},
               {"sum_ms", sum},
               {"end_to_end_ms", end_to_end},
               {"end_to_end_p10_ms", quantile(whole, 0.1)},
               {"end_to_end_p90_ms", quantile(whole, 0.9)},
               {"unexplained_ms", end_to_end - sum},
               {"explained", sum / end_to_end},
               {"copy_gb_s", number(ceilings.copy_gb_s)},
               {"fma_gflop_s", number(ceilings.fma_gflop_s)},
               {"repeats", whole.size()},
               {"machine", machine_json(stream)}};
  json.update(what);
  char notes[200];
  std::snprintf(notes, sizeof notes,
                "ceilings measured in this run: copy %.1f GB/s, multiply-add %.1f GFLOP/s\n",
                ceilings.copy_gb_s, ceilings.fma_gflop_s);
  output(common, json, table, notes);
}

}  // namespace

void add_kernels(CLI::App& app) { add_command<KernelsCommand>(app); }

}  // namespace lanas::bench
