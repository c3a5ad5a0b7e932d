// latency.h -- the measured inference latency of a derived network on this machine.
// The deployed form (InferencePlan: batch norm folded, memory reused) runs with random weights on a random
// image. After a warm-up, forward passes are timed until the median has settled: until the half-width of its
// 95% confidence interval, from order statistics (ranks n/2 - 0.98 sqrt(n) and n/2 + 1 + 0.98 sqrt(n)), is a
// small share of it. On the CPU those passes count that had their cores alone (CoreWatch), as far as waiting
// for it may go; where too few did, all count.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kernels/core/core_watch.h"
#include "nas/inference_plan.h"
#include "predictor/csv.h"

namespace lanas {

struct LatencyConfig {
  NetworkConfig network{.batch = 1};  // the network as it will be used; batch is the latency's
  Device device = Device::cpu;
  int threads = 1;

  int warmup = 3;  // forward passes before the first timed one
  int min_repeats = 10, max_repeats = 100;
  double spread = 0.01;        // settled: half-width of the interval <= spread * median
  double min_total_ms = 5;     // timed at least this long in all
  double max_total_ms = 2000;  // and no longer than this, once min_repeats are done
  double min_repeat_ms = 0.2;  // shorter passes are timed several to a repeat

  // Waiting for the cores to be this program's alone, as a share of the time of the passes that count; 0: all
  // count.
  double max_wait_share = 1;
};

struct Latency {
  double median_ms = 0, p10_ms = 0, p90_ms = 0;  // of one forward pass of the whole batch
  int repeats = 0;
  int64_t macs = 0;  // of one image
};

// Half of the width of the median's 95% confidence interval, relative to the median. sorted: ascending, not
// empty. Infinite below 6 values, whose extremes do not bound the median with 95% confidence.
double median_spread(std::span<const double> sorted);

// The watch over the cores that a measurement runs on; none on a GPU or where nothing may be waited.
std::optional<CoreWatch> core_watch(const LatencyConfig& config);
// Milliseconds of one call of run, ascending: one entry per repeat, taken until settled as config says.
std::vector<double> time_until_settled(const std::function<void()>& run, const LatencyConfig& config,
                                       const std::function<double()>& clock = now_ms,
                                       CoreWatch* watch = nullptr);
// Median, p10, p90 and number of ascending times.
Latency summarise(std::span<const double> sorted);

// Whose latency it is: device, cpu, isa, threads, batch, channels, layers, classes, image. Two measurements
// compare only if these are equal.
CsvNotes latency_setting(const LatencyConfig& config);
// The values of a setting in one cell, for instance "cpu/NAME/avx512/t1/b1/C16/L5/10/32".
std::string setting_text(const CsvNotes& setting);

// Measures one genotype after another, with the memory kept from one to the next.
class LatencyMeter {
 public:
  explicit LatencyMeter(const LatencyConfig& config);

  Latency measure(const Genotype& genotype);
  // All repeats, ascending. macs as in Latency, where wanted.
  std::vector<double> times(const Genotype& genotype, int64_t* macs = nullptr);
  double waited_ms() const { return watch_ ? watch_->waited_ms() : 0; }

 private:
  LatencyConfig config_;
  Stream stream_;
  std::optional<CoreWatch> watch_;
  InferenceMemory memory_;
  std::vector<float> images_;
};

}  // namespace lanas
