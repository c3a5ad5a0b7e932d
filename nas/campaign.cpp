#include "nas/campaign.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <thread>

#include "nas/campaign_log.h"
#include "nas/interrupt.h"

namespace lanas {
namespace {

struct Item {
  int pass;
  uint64_t index;
};

// The first pass in order, then the architectures that are measured twice, in order: so every pair lies about
// as far apart.
std::vector<Item> work_list(const CampaignConfig& config) {
  auto index = [&](int64_t k) { return uint64_t(k) * uint64_t(config.shards) + uint64_t(config.shard); };
  std::vector<Item> items;
  for (int64_t k = 0; k < config.count; ++k) items.push_back({1, index(k)});
  if (config.second_count == 0 || config.metric != CostMetric::latency) return items;
  const int64_t step = std::clamp<int64_t>(config.count / config.second_count, 1, config.second_every);
  for (int64_t k = 0; k < config.count; k += step) items.push_back({2, index(k)});
  return items;
}

CsvNotes campaign_notes(const CampaignConfig& config) {
  CsvNotes notes = cost_setting(config.metric, config.latency);
  notes.insert(notes.begin(), {{"seed", std::to_string(config.seed)},
                               {"shard", std::to_string(config.shard)},
                               {"shards", std::to_string(config.shards)}});
  return notes;
}

void check_config(const CampaignConfig& c) {
  CHECK(c.count >= 1 && c.stretch >= 1 && c.max_redos >= 0 && c.second_every >= 1 && c.second_count >= 0,
        "campaign: expected count, stretch and second_every of at least 1, found ", c.count, ", ", c.stretch,
        " and ", c.second_every);
  CHECK(c.shards >= 1 && c.shard >= 0 && c.shard < c.shards, "campaign: expected a shard from 0 to ",
        c.shards - 1, ", found ", c.shard);
}

// What the middle control takes now, over its reference.
double control_ratio(LatencyMeter& meter, double reference_ms) {
  return meter.measure(control_genotypes()[1]).median_ms / reference_ms;
}

class Runner {
 public:
  Runner(const std::string& path, const CampaignConfig& config)
      : path_(path),
        config_(config),
        setting_(setting_text(cost_setting(config.metric, config.latency))),
        writer_(path, CampaignLog::columns(config.metric), campaign_notes(config)),
        log_(read_table(path)),
        items_(work_list(config)) {
    if (!config_.measure && config_.metric == CostMetric::latency) meter_.emplace(config_.latency);
  }

  void run() {
    reference();
    for (const Item& item : items_) known_ += log_.has(item.pass, item.index);
    redo_budget_ = std::max(2, int(config_.max_redo_share * double(items_.size()) / double(config_.stretch)));
    show_progress();
    while (continue_stretch() || start_stretch()) {
    }
  }

  double rows_per_second() const { return double(measured_) / seconds(); }
  double waited_share() const {
    return meter_ ? (meter_->waited_ms() - start_waited_ms_) / 1000 / seconds() : 0;
  }

 private:
  Latency measure(const Genotype& genotype) {
    if (stop_requested()) throw Interrupted(join(path_, ": stopped; the same command goes on from here"));
    if (meter_) return meter_->measure(genotype);
    return config_.measure ? config_.measure(genotype) : counted(genotype);
  }

  Latency counted(const Genotype& genotype) const {
    const NetworkConfig& network = config_.latency.network;
    const double cost = count_cost(config_.metric, network, genotype);
    const double mmac =
        config_.metric == CostMetric::macs ? cost : count_cost(CostMetric::macs, network, genotype);
    return {cost, cost, cost, 1, std::llround(1e6 * mmac)};
  }

  void append(int stretch, int attempt, int pass, uint64_t index, const Genotype& genotype) {
    const CampaignLog::Row row{stretch, attempt, pass, {index, genotype_key(genotype), measure(genotype)}};
    writer_.append(CampaignLog::cells(row, setting_, config_.metric));
    log_.add(row);
  }

  void measure_controls(int stretch, int attempt) {
    const std::array<Genotype, kControls> controls = control_genotypes();
    const size_t done = log_.attempt(stretch, attempt).controls.size();
    for (size_t i = done; i < kControls; ++i) append(stretch, attempt, 0, i, controls[i]);
  }

  void reference() {
    if (meter_)  // a processor that has been idle needs a moment to reach its speed
      for (const Genotype& control : control_genotypes()) measure(control);
    start_ms_ = now_ms(), start_waited_ms_ = meter_ ? meter_->waited_ms() : 0;
    for (int round = 0; round < kReferenceRounds; ++round) {
      if (meter_ && round > 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      measure_controls(0, round);
    }
  }

  void sample(int stretch, int attempt, const Item& item) {
    append(stretch, attempt, item.pass, item.index, sample_architecture(config_.seed, item.index).genotype);
    known_ += attempt == 0;
    ++measured_;
    show_progress();
  }

  // The next architecture that has no row yet; none at the campaign's end.
  std::optional<Item> next_item() {
    while (next_ < items_.size() && log_.has(items_[next_].pass, items_[next_].index)) ++next_;
    if (next_ == items_.size()) return {};
    return items_[next_];
  }

  // Fills and closes the last stretch's attempt, or begins another. False: the stretch is settled.
  bool continue_stretch() {
    const int number = int(log_.stretches().size()) - 1;
    if (number == 0) return false;
    int attempt = int(log_.stretches()[number].attempts.size()) - 1;
    if (log_.attempt(number, attempt).closed()) {
      drift_ = log_.deviation(log_.attempt(number, attempt));
      if (drift_ <= config_.tolerance || attempt >= config_.max_redos || log_.redos() >= redo_budget_)
        return false;
      ++attempt;
    }
    if (attempt == 0)
      fill_stretch(number);
    else
      repeat_stretch(number, attempt);
    measure_controls(number, attempt);
    return true;
  }

  bool start_stretch() {
    const std::optional<Item> item = next_item();
    if (!item) return false;
    sample(int(log_.stretches().size()), 0, *item);
    return true;
  }

  void fill_stretch(int number) {
    if (!log_.attempt(number, 0).controls.empty()) return;
    while (int(log_.attempt(number, 0).samples.size()) < config_.stretch) {
      const std::optional<Item> item = next_item();
      if (!item) return;
      sample(number, 0, *item);
    }
  }

  void repeat_stretch(int number, int attempt) {
    const std::vector<CampaignLog::Row> rows = log_.attempt(number, 0).samples;
    for (size_t i = log_.attempt(number, attempt).samples.size(); i < rows.size(); ++i)
      sample(number, attempt, {rows[i].pass, rows[i].measured.index});
  }

  double seconds() const { return std::max(1e-6, (now_ms() - start_ms_) / 1000); }

  void show_progress() {
    if (!config_.progress) return;
    const int64_t total = int64_t(items_.size()), left = total - known_;
    config_.progress({known_, total, measured_ > 0 ? double(left) / rows_per_second() : 0, drift_});
  }

  const std::string& path_;
  const CampaignConfig& config_;
  std::string setting_;
  CsvWriter writer_;
  CampaignLog log_;
  std::vector<Item> items_;
  std::optional<LatencyMeter> meter_;
  size_t next_ = 0;
  int64_t known_ = 0, measured_ = 0;
  int redo_budget_ = 0;
  double start_ms_ = now_ms(), start_waited_ms_ = 0, drift_ = 0;
};

void add_noise(Campaign& campaign) {
  auto by_index = [](const MeasuredArchitecture& a, const MeasuredArchitecture& b) {
    return a.index < b.index;
  };
  std::vector<double> noise;
  for (const MeasuredArchitecture& second : campaign.second_pass) {
    const auto first = std::lower_bound(campaign.rows.begin(), campaign.rows.end(), second, by_index);
    if (first == campaign.rows.end() || first->index != second.index) continue;
    const double m1 = first->latency.median_ms, m2 = second.latency.median_ms;
    noise.push_back(std::abs(m1 - m2) / (std::sqrt(2.0) * (m1 + m2) / 2));
  }
  if (campaign.metric != CostMetric::latency) return;
  campaign.noise_mape = campaign.noise_median = std::numeric_limits<double>::quiet_NaN();
  if (noise.empty()) return;
  campaign.noise_mape = std::accumulate(noise.begin(), noise.end(), 0.0) / double(noise.size());
  campaign.noise_median = quantile(noise, 0.5);
}

Dataset dataset(const Campaign& campaign, double (*target)(const Latency&)) {
  Dataset data;
  data.columns = kCodeSize;
  for (const MeasuredArchitecture& row : campaign.rows) {
    const std::array<float, kCodeSize> code = encode(genotype_from_key(row.key));
    data.x.insert(data.x.end(), code.begin(), code.end());
    data.y.push_back(target(row.latency));
    ++data.rows;
  }
  return data;
}

}  // namespace

Campaign run_campaign(const std::string& path, const CampaignConfig& config) {
  check_config(config);
  double rate = 0, waited = 0;
  {
    Runner runner(path, config);
    runner.run();
    rate = runner.rows_per_second();
    waited = runner.waited_share();
  }
  Campaign campaign = read_campaign(path);
  campaign.rows_per_second = rate;
  campaign.waited_share = waited;
  return campaign;
}

SteadyTimes steady_times(LatencyMeter& meter, const Genotype& genotype, double control_ms, double tolerance,
                         int tries) {
  SteadyTimes best;
  double best_off = std::numeric_limits<double>::infinity();
  for (int i = 0; i < tries && best_off > tolerance; ++i) {
    if (stop_requested()) throw Interrupted("stopped");
    if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const double before = control_ratio(meter, control_ms);
    if (std::abs(before - 1) > tolerance && i + 1 < tries && !best.ms.empty()) continue;
    std::vector<double> times = meter.times(genotype);
    const double after = control_ratio(meter, control_ms);
    const double off = std::max(std::abs(before - 1), std::abs(after - 1));
    if (off >= best_off) continue;
    best_off = off;
    best = {std::move(times), (before + after) / 2, off};
  }
  return best;
}

SteadyTimes steady_rounds(std::span<const SteadyTimes> rounds, double tolerance) {
  CHECK(!rounds.empty(), "steady_rounds: no rounds");
  const auto off = [](const SteadyTimes& round) { return round.control_off; };
  SteadyTimes all = *std::ranges::min_element(rounds, {}, off);
  if (all.control_off > tolerance) return all;
  all = {{}, 0, 0};
  int count = 0;
  for (const SteadyTimes& round : rounds) {
    if (round.control_off > tolerance) continue;
    all.ms.insert(all.ms.end(), round.ms.begin(), round.ms.end());
    all.control += round.control, ++count;
    all.control_off = std::max(all.control_off, round.control_off);
  }
  all.control /= count;
  std::ranges::sort(all.ms);
  return all;
}

Campaign read_campaign(const std::string& path) {
  const Table table = read_table(path);
  const CampaignLog log(table);
  CHECK(log.reference_done(), path, ": ends before the controls' reference is complete");
  Campaign campaign;
  campaign.control_ms = log.reference_ms(1);
  campaign.seed = std::stoull(table.note("seed"));
  campaign.metric = CampaignLog::metric(table);
  for (const auto& note : table.notes())
    if (note.first != "seed" && note.first != "shard" && note.first != "shards")
      campaign.setting.push_back(note);
  for (size_t i = 1; i < log.stretches().size(); ++i) {
    const CampaignLog::Stretch& stretch = log.stretches()[i];
    const int best = log.best_attempt(stretch);
    if (best < 0) continue;
    const CampaignLog::Attempt& attempt = stretch.attempts[size_t(best)];
    for (const CampaignLog::Row& row : attempt.samples)
      (row.pass == 1 ? campaign.rows : campaign.second_pass).push_back(row.measured);
    const double drift = log.deviation(attempt);
    campaign.max_drift = std::max(campaign.max_drift, drift);
    campaign.mean_drift += drift;
    campaign.unsettled += drift > kControlTolerance;
    campaign.redone += stretch.attempts.size() > 1;
    ++campaign.stretches;
  }
  if (campaign.stretches > 0) campaign.mean_drift /= campaign.stretches;
  CHECK(!campaign.rows.empty(), path, ": holds no complete stretch of measured architectures");
  for (std::vector<MeasuredArchitecture>* rows : {&campaign.rows, &campaign.second_pass})
    std::sort(rows->begin(), rows->end(), [](const auto& a, const auto& b) { return a.index < b.index; });
  add_noise(campaign);
  return campaign;
}

Dataset latency_dataset(const Campaign& campaign) {
  return dataset(campaign, [](const Latency& latency) { return latency.median_ms; });
}

Dataset macs_dataset(const Campaign& campaign) {
  return dataset(campaign, [](const Latency& latency) { return double(latency.macs); });
}

}  // namespace lanas
