#include "nas/latency.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/graph.h"
#include "kernels/core/limits.h"
#include "kernels/core/random.cuh"
#include "nas/machine.h"

namespace lanas {
namespace {

constexpr uint64_t kWeightSeed = 1, kImageStream = 0x1A7E;

void check_config(const LatencyConfig& c) {
  CHECK(c.warmup >= 0 && c.min_repeats >= 1 && c.max_repeats >= c.min_repeats,
        "latency: expected warmup >= 0 and 1 <= min_repeats <= max_repeats, found ", c.warmup, ", ",
        c.min_repeats, " and ", c.max_repeats);
  CHECK(c.network.batch >= 1 && c.threads >= 1, "latency: expected batch and threads of at least 1, found ",
        c.network.batch, " and ", c.threads);
}

}  // namespace

std::optional<CoreWatch> core_watch(const LatencyConfig& config) {
  check_config(config);
  if (config.device != Device::cpu || config.max_wait_share == 0) return {};
  return CoreWatch(config.threads, config.max_wait_share);
}

double median_spread(std::span<const double> sorted) {
  const double n = double(sorted.size()), reach = 0.98 * std::sqrt(n);
  if (n < 6) return std::numeric_limits<double>::infinity();
  const auto low = size_t(std::lround(n / 2 - reach) - 1), high = size_t(std::lround(n / 2 + reach));
  return (sorted[high] - sorted[low]) / 2 / sorted[sorted.size() / 2];
}

namespace {

// Times of repeats, ascending.
struct Repeats {
  std::vector<double> ms;
  double total_ms = 0;

  void add(double one_ms, double all_ms) {
    ms.insert(std::upper_bound(ms.begin(), ms.end(), one_ms), one_ms);
    total_ms += all_ms;
  }
  bool settled(const LatencyConfig& config) const {
    if (int(ms.size()) < config.min_repeats) return false;
    return int(ms.size()) >= config.max_repeats || total_ms >= config.max_total_ms ||
           (total_ms >= config.min_total_ms && median_spread(ms) <= config.spread);
  }
};

}  // namespace

std::vector<double> time_until_settled(const std::function<void()>& run, const LatencyConfig& config,
                                       const std::function<double()>& clock, CoreWatch* watch) {
  check_config(config);
  double fastest = std::numeric_limits<double>::infinity();
  for (int i = 0; i < std::max(1, config.warmup); ++i) {
    const double start = clock();
    run();
    fastest = std::min(fastest, clock() - start);
  }
  int passes = 1;  // to a repeat
  if (fastest < config.min_repeat_ms)
    passes = int(std::min(1000.0, std::ceil(config.min_repeat_ms / std::max(fastest, 1e-4))));
  if (watch) watch->begin();
  Repeats alone, all;
  while (true) {
    if (watch) watch->start();
    const double start = clock();
    for (int i = 0; i < passes; ++i) run();
    const double ms = clock() - start - (watch ? watch->paused_ms() : 0);
    const bool counts = !watch || watch->finish();
    all.add(ms / passes, ms);
    if (counts) alone.add(ms / passes, ms);
    if (watch) counts ? watch->counted(ms) : watch->lost(ms);
    if (alone.settled(config)) return alone.ms;
    if (watch && !watch->may_wait() && all.settled(config))
      return int(alone.ms.size()) >= config.min_repeats ? alone.ms : all.ms;
  }
}

Latency summarise(std::span<const double> sorted) {
  const std::vector<double> times(sorted.begin(), sorted.end());
  return {quantile(times, 0.5), quantile(times, 0.1), quantile(times, 0.9), int(times.size())};
}

CsvNotes latency_setting(const LatencyConfig& config) {
  const Machine machine = describe_machine();
  const NetworkConfig& network = config.network;
  return {{"device", device_name(config.device)},
          {"cpu", config.device == Device::cpu ? machine.cpu
                                               : join(backend::device_description(), " on ", machine.cpu)},
          {"isa", machine.isa},
          {"threads", std::to_string(config.threads)},
          {"batch", std::to_string(network.batch)},
          {"channels", std::to_string(network.channels)},
          {"layers", std::to_string(network.layers)},
          {"classes", std::to_string(network.classes)},
          {"image", std::to_string(network.image)}};
}

std::string setting_text(const CsvNotes& setting) {
  std::string text;
  for (const auto& [key, value] : setting) {
    text += text.empty() ? "" : "/";
    if (key == "threads" || key == "batch") text += key[0];
    if (key == "channels" || key == "layers") text += char(key[0] - 'a' + 'A');
    text += value;
  }
  std::replace(text.begin(), text.end(), ',', ' ');
  std::replace(text.begin(), text.end(), '"', ' ');
  return text;
}

LatencyMeter::LatencyMeter(const LatencyConfig& config)
    : config_(config), stream_(config.device, config.threads), watch_(core_watch(config)) {
  const NetworkConfig& network = config.network;
  CHECK(network.image > 0, "latency: image side ", network.image);
  images_.resize(size_t(Shape{network.batch, network.image, network.image, 3}.size()));
  Random random(kWeightSeed, kImageStream);
  for (float& v : images_) v = random.normal();
}

std::vector<double> LatencyMeter::times(const Genotype& genotype, int64_t* macs) {
  ParameterStore weights(config_.device);
  InferencePlan plan(config_.network, genotype, weights, stream_, &memory_);
  weights.allocate(kWeightSeed);
  upload(stream_, plan.images().data, images_.data(), images_.size() * sizeof(float));
  if (macs) *macs = plan.macs();
  std::function<void()> look;
  if (watch_) look = [&] { watch_->look(); };
  const auto forward = [&] { plan.forward(stream_, look); };
  if (config_.device == Device::cuda) forward();  // libraries set themselves up before the recording
  Graph graph;
  graph.record(stream_, forward);
  const auto run = [&] {
    graph.replay(stream_);
    stream_.synchronize();
  };
  std::vector<double> sorted = time_until_settled(run, config_, now_ms, watch_ ? &*watch_ : nullptr);
  // Arithmetic on NaN, infinite or subnormal numbers may be slower than on others.
  const Tensor device_logits = plan.logits();
  std::vector<float> logits(size_t(device_logits.size()));
  download(stream_, logits.data(), device_logits.data, logits.size() * sizeof(float));
  for (const float v : logits) CHECK(std::isnormal(v), "latency: the random network's output is ", v);
  return sorted;
}

Latency LatencyMeter::measure(const Genotype& genotype) {
  int64_t macs = 0;
  Latency latency = summarise(times(genotype, &macs));
  latency.macs = macs;
  return latency;
}

}  // namespace lanas
