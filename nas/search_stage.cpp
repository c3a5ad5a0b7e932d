#include "nas/search_stage.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "autograd/checkpoint.h"
#include "nas/progress.h"
#include "nas/report_text.h"
#include "nas/settings.h"

namespace lanas {
namespace {

using Json = nlohmann::json;

constexpr double kRandomWithin = 0.05;
constexpr int kRandomTries = 500'000;

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

// Random genotypes one after another with their predicted latencies, which come a thousand at a time.
class Draws {
 public:
  Draws(const Regressor& regressor, uint64_t seed)
      : regressor_(regressor), random_(seed, 0x72616e646f6du), next_(kBlock) {}

  std::pair<Genotype, double> next() {
    if (next_ == kBlock) refill();
    const size_t at = next_++;
    return {genotypes_[at], ms_[at]};
  }

 private:
  static constexpr size_t kBlock = 1000;

  void refill() {
    genotypes_.clear();
    std::vector<float> rows;
    for (size_t i = 0; i < kBlock; ++i) {
      genotypes_.push_back(sample_genotype(random_));
      const auto code = encode(genotypes_.back());
      rows.insert(rows.end(), code.begin(), code.end());
    }
    ms_ = regressor_.predict(rows.data(), int(kBlock));
    next_ = 0;
  }

  const Regressor& regressor_;
  Random random_;
  std::vector<Genotype> genotypes_;
  std::vector<double> ms_;
  size_t next_;
};

// The cost of every measured architecture: its code, and the cost in the metric's unit.
Dataset cost_dataset(const Campaign& campaign, CostMetric metric, const NetworkConfig& network) {
  Dataset data = latency_dataset(campaign);
  if (metric == CostMetric::latency) return data;
  for (int r = 0; r < data.rows; ++r)
    data.y[size_t(r)] = count_cost(metric, network, genotype_from_key(campaign.rows[size_t(r)].key));
  return data;
}

}  // namespace

SearchStage::SearchStage(const RunConfig& config, Stream& stream, const ImageData& data,
                         const Campaign& campaign, const Regressor& regressor, RunLog& log, Say say)
    : config_(config),
      stream_(stream),
      data_(data),
      campaign_(campaign),
      regressor_(regressor),
      log_(log),
      say_(std::move(say)) {}

std::vector<SearchStage::Job> SearchStage::jobs() const {
  std::vector<Job> jobs;
  const auto zeros = std::count(config_.lambdas.begin(), config_.lambdas.end(), 0.0);
  const bool several = ssize(config_.lambdas) - zeros > 1;
  if (zeros > 0) jobs.push_back({"lambda0"});
  for (const CostMetric metric : config_.metrics) {
    const std::string name = metric_name(metric);
    for (const double lambda : config_.lambdas)
      if (lambda > 0) jobs.push_back({several ? join(name, lambda) : name, metric, lambda, 0});
    for (const double target : config_.targets_ms)
      jobs.push_back(
          {join(name, "-target", config_.targets_ms.size() > 1 ? join(target) : ""), metric, 0, target});
  }
  return jobs;
}

const SearchStage::Penalty& SearchStage::penalty(CostMetric metric) {
  const auto [at, made] = penalties_.try_emplace(metric);
  if (!made) return at->second;
  const Dataset data = cost_dataset(campaign_, metric, config_.campaign.latency.network);
  at->second.reference = mean(data.y);
  if (metric == CostMetric::latency) return at->second;
  RegressorConfig fit;
  fit.seed = config_.seed;
  fit.unit = metric_unit(metric);
  at->second.counted.emplace(Regressor::fit(data, fit, stream_));
  return at->second;
}

double SearchStage::penalty_at(CostMetric metric, double ms) const {
  if (metric == CostMetric::latency) return ms;
  constexpr size_t kNearest = 20;
  std::vector<MeasuredArchitecture> rows = campaign_.rows;
  std::sort(rows.begin(), rows.end(), [&](const MeasuredArchitecture& a, const MeasuredArchitecture& b) {
    return std::abs(a.latency.median_ms - ms) < std::abs(b.latency.median_ms - ms);
  });
  std::vector<double> costs;
  for (size_t i = 0; i < std::min(kNearest, rows.size()); ++i)
    costs.push_back(count_cost(metric, config_.campaign.latency.network, genotype_from_key(rows[i].key)));
  return mean(costs);
}

double SearchStage::measure_ms(const Genotype& genotype) {
  if (!meter_) meter_.emplace(config_.campaign.latency);
  const SteadyTimes times =
      steady_times(*meter_, genotype, campaign_.control_ms, kControlTolerance, config_.final_tries);
  const double ms = summarise(times.ms).median_ms;
  return times.control_off > kControlTolerance ? ms / times.control : ms;
}

void SearchStage::check_targets() {
  if (config_.targets_ms.empty()) return;
  decoder_.emplace(regressor_, config_.search.caps);
  const LatencyRange range = decoder_->range();
  // A host that is slow just now must not make a target look out of reach that the campaign has seen met.
  double fastest = measure_ms(range.fastest);
  for (const MeasuredArchitecture& row : campaign_.rows)
    if (config_.search.caps.hold(genotype_from_key(row.key)))
      fastest = std::min(fastest, row.latency.median_ms);
  const double slowest = measure_ms(range.slowest);
  say_("latency range", join(fixed(fastest, 3), " to ", fixed(slowest, 3), " ms measured, ",
                             fixed(range.low_ms, 3), " to ", fixed(range.high_ms, 3), " ms predicted"));
  for (const double target : config_.targets_ms) check_target(target, DecodeConfig{}.low, fastest, slowest);
}

SearchConfig SearchStage::settings(const Job& job) {
  SearchConfig search = config_.search;
  search.metric = job.metric;
  search.latency.lambda = job.lambda;
  search.latency.reference_ms = penalty(job.metric).reference;
  search.latency.target_ms = job.target_ms > 0 ? penalty_at(job.metric, job.target_ms) : 0;
  return search;
}

NetworkResult SearchStage::search(const Job& job) {
  NetworkResult network;
  network.name = job.name;
  network.lambda = job.lambda;
  network.metric = metric_name(job.metric);
  network.target_ms = job.target_ms;
  Progress progress("search " + job.name, 1, config_.quiet);
  SearchHooks hooks;
  hooks.on_step = show_steps(progress);
  hooks.measure_ms = [&](const Genotype& genotype) {
    if (!meter_) meter_.emplace(config_.campaign.latency);
    return meter_->measure(genotype).median_ms;
  };
  hooks.on_epoch = [&](const SearchEpoch& e) {
    log_.event("search epoch", {{"network", job.name}, {"result", to_json(e)}});
    say_("  epoch " + std::to_string(e.epoch + 1),
         join("validation accuracy ", percent(e.valid_accuracy), ", predicted ", fixed(e.hard_ms, 3),
              " ms (soft ", fixed(e.soft_ms, 3), " ms", e.measured_ms > 0 ? ", measured " : "",
              e.measured_ms > 0 ? fixed(e.measured_ms, 3) + " ms" : "", ")",
              job.target_ms > 0 ? join(", lambda ", fixed(e.lambda, 3)) : "", ", skips ", e.skips_normal, "+",
              e.skips_reduce, ", entropy ", fixed(e.alpha_entropy, 3)));
  };
  const std::optional<Regressor>& counted = penalty(job.metric).counted;
  const SearchResult result =
      lanas::search(stream_, settings(job), data_, &regressor_, file("search-" + job.name + ".safetensors"),
                    hooks, counted ? &*counted : nullptr);
  progress.finish();
  network.genotype = result.genotype;
  network.search = result.history;
  if (job.target_ms > 0) {
    const Decoding decoding = decode(job, result.architecture);
    network.genotype = decoding.tried[size_t(decoding.chosen)].genotype;
    network.decoded_ms = decoding.tried[size_t(decoding.chosen)].measured_ms;
    network.lambda = result.history.empty() ? 0 : result.history.back().lambda;
  }
  return network;
}

Decoding SearchStage::decode(const Job& job, const ArchitectureValues& architecture) {
  DecodeConfig config;
  config.target_ms = job.target_ms;
  const std::string path = file("decode-" + job.name + ".json");
  if (std::ifstream kept(path); kept) {
    const Json json = Json::parse(kept, nullptr, false);
    CHECK(!json.is_discarded(), path, ": is not JSON");
    return decoding_from_json(json);
  }
  const Decoding decoding =
      decoder_->decode(architecture, config, [&](const Genotype& g) { return measure_ms(g); });
  say_("decode " + job.name, describe(decoding, config));
  CHECK(decoding.chosen >= 0, "--target-ms ", job.target_ms, ": ", describe(decoding, config));
  replace_file(path, to_json(decoding).dump(2) + "\n");
  return decoding;
}

std::vector<NetworkResult> SearchStage::random(const std::vector<NetworkResult>& searched) {
  const auto fast = std::max_element(searched.begin(), searched.end(),
                                     [](const auto& a, const auto& b) { return a.lambda < b.lambda; });
  const double target = config_.targets_ms.empty() ? 0 : config_.targets_ms.back();
  const DecodeConfig band;
  const double middle = target > 0 ? (1 + band.low) / 2 * target : predict_ms(regressor_, fast->genotype);
  std::vector<NetworkResult> drawn;
  Draws draws(regressor_, config_.seed);
  for (int tries = 0; int(drawn.size()) < config_.random_networks && tries < kRandomTries; ++tries) {
    NetworkResult network;
    const auto [genotype, predicted_ms] = draws.next();
    network.genotype = genotype;
    network.name = join("random", drawn.size());
    const std::string path = file(network.name + ".genotype");
    if (target > 0 && std::filesystem::exists(path)) {  // what an earlier start has measured
      network.genotype = resolve_genotype(path);
    } else {
      if (std::abs(predicted_ms / middle - 1) > kRandomWithin) continue;
      if (target > 0) {
        const double ms = measure_ms(network.genotype) / target;
        if (ms < band.low + band.margin || ms > 1 - band.margin) continue;
      }
    }
    const bool twice = std::any_of(drawn.begin(), drawn.end(), [&](const NetworkResult& other) {
      return genotype_key(other.genotype) == genotype_key(network.genotype);
    });
    if (!twice) drawn.push_back(network);
  }
  if (int(drawn.size()) < config_.random_networks)
    say_("random genotypes", join("only ", drawn.size(), " of ", config_.random_networks,
                                  " found within 5% of ", fixed(middle, 3), " ms"));
  return drawn;
}

}  // namespace lanas
