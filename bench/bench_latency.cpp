// bench_latency.cpp -- the command line: sample (measure many architectures), fit (a predictor, and how good
// it is), transfer (a new device from few samples), network (one network's latency as a distribution),
// predict, step (a training step), kernels (what a network's time is made of). Exit codes: 0 done, 2 wrong
// input or a failure told in one line, 130 stopped by a signal.
#include "bench/common.h"
#include "nas/command_line.h"

namespace lanas::bench {
namespace {

void run(int argc, char** argv) {
  CLI::App app{"LaNAS: measures, explains and predicts latency.", "bench_latency"};
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_sample(app);
  add_fit(app);
  add_network_command(app);
  add_predict(app);
  add_step(app);
  add_transfer(app);
  add_kernels(app);
  parse_words(app, {argv + 1, argv + argc});
}

}  // namespace
}  // namespace lanas::bench

int main(int argc, char** argv) { return lanas::run_program("bench_latency", argc, argv, lanas::bench::run); }
