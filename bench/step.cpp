// step.cpp -- `bench_latency step`: time and planned memory of one training step (bench/training_step.h) of a
// supernet or of a derived network.
#include <cmath>
#include <cstdio>

#include "bench/common.h"
#include "bench/training_step.h"
#include "nas/interrupt.h"
#include "nas/latency.h"
#include "nas/progress.h"
#include "nas/settings.h"

namespace lanas::bench {
namespace {

struct StepCommand {
  Common common;
  std::string supernet, genotype;
  NetworkConfig network{.channels = 16, .layers = 8, .batch = 64};
  int partial = 4, repeats = 11, warmup = 2;

  CLI::App* add(CLI::App& app) {
    common.threads = 0;
    CLI::App* sub = app.add_subcommand("step", "one training step: bilevel of a supernet, or of a network");
    add_common(*sub, common, true);
    add_network(*sub, network);
    auto* g = sub->add_option("--genotype", genotype, "a derived network: published name, file or text");
    sub->add_option("--supernet", supernet, "darts or pc-darts")->excludes(g);
    sub->add_option("--partial", partial, "K of pc-darts")->capture_default_str();
    sub->add_flag("--auxiliary", network.auxiliary, "a derived network with its auxiliary head");
    sub->add_option("--repeats", repeats, "timed steps")->capture_default_str();
    sub->add_option("--warmup", warmup, "steps before them")->capture_default_str();
    return sub;
  }

  void run() {
    Stream stream = common.stream();
    CHECK(supernet.empty() != genotype.empty(), "step: expected --supernet or --genotype");
    check_network(network);
    check_range("--repeats", repeats, 1, 1'000'000);
    check_range("--warmup", warmup, 0, 1'000'000);
    Json what;
    std::optional<TrainingStep> step;
    if (supernet.empty()) {
      const Genotype g = resolve_genotype(genotype);
      step.emplace(stream, network, g, common.seed);
      what = {{"genotype", write_genotype(g)}, {"network", to_json(network)}};
    } else {
      SupernetConfig config = supernet_config(supernet);
      config.channels = network.channels;
      config.layers = network.layers;
      config.image = network.image;
      config.classes = network.classes;
      config.batch = network.batch;
      if (supernet == "pc-darts") config.partial = partial;
      step.emplace(stream, config, common.seed);
      what = {{"supernet", supernet}, {"network", to_json(config)}};
    }
    const std::vector<double> times = time(*step);
    CHECK(std::isfinite(step->loss()), "step: the loss is not finite after ", warmup + repeats, " steps");
    report(*step, times, what, stream);
  }

  std::vector<double> time(TrainingStep& step) const {
    Progress progress("step", warmup + repeats, common.quiet);
    std::vector<double> times;
    for (int i = 0; i < warmup + repeats; ++i) {
      if (stop_requested()) throw Interrupted("step: stopped");
      const double start = now_ms();
      step.run();
      if (i >= warmup) times.push_back(now_ms() - start);
      progress.update(i + 1);
    }
    progress.finish();
    return times;
  }

  void report(const TrainingStep& step, const std::vector<double>& times, const Json& what,
              const Stream& stream) const {
    const TrainingStep::Bytes bytes = step.bytes();
    const double median = quantile(times, 0.5), p10 = quantile(times, 0.1), p90 = quantile(times, 0.9);
    Json json = {{"median_ms", median},
                 {"p10_ms", p10},
                 {"p90_ms", p90},
                 {"peak_bytes", bytes.total()},
                 {"workspace_bytes", bytes.workspace},
                 {"parameter_bytes", bytes.parameters},
                 {"gradient_bytes", bytes.gradients},
                 {"optimiser_bytes", bytes.optimiser},
                 {"input_bytes", bytes.inputs},
                 {"parameters", step.parameters()},
                 {"images_per_second", 1000 * network.batch / median},
                 {"repeats", times.size()},
                 {"seed", common.seed},
                 {"machine", machine_json(stream)}};
    json.update(what);
    const double mib = 1 << 20;
    const TextTable table{
        {"step", "median_ms", "p10_ms", "p90_ms", "images_per_s", "peak_MiB", "workspace_MiB", "parameters"},
        {{supernet.empty() ? "network" : supernet, Cell(median, 2), Cell(p10, 2), Cell(p90, 2),
          Cell(1000 * network.batch / median, 1), Cell(double(bytes.total()) / mib, 1),
          Cell(double(bytes.workspace) / mib, 1), step.parameters()}}};
    output(common, json, table);
  }
};

}  // namespace

void add_step(CLI::App& app) { add_command<StepCommand>(app); }

}  // namespace lanas::bench
