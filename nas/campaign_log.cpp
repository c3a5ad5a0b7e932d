#include "nas/campaign_log.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/core/timing.h"

namespace lanas {
namespace {

uint64_t whole_note(const Table& table, const std::string& key) {
  const std::string text = table.note(key);
  uint64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  CHECK(!text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size(), table.path(),
        ": not a latency campaign: expected the note ", key, " to be a whole number, found '", text, "'");
  return value;
}

int64_t bounded(const Table& table, int row, const char* column, int64_t low, int64_t high) {
  const int64_t value = table.integer(row, table.column(column));
  if (value < low || value > high)
    table.fail(row, join("column ", column, ": ", value, " is not between ", low, " and ", high));
  return value;
}

const char* cost_column(CostMetric metric) { return metric == CostMetric::macs ? "cost_mmac" : "cost_mib"; }

}  // namespace

std::array<Genotype, kControls> control_genotypes() {
  Genotype cheap, expensive;
  for (int edge = 0; edge < kPairs; ++edge) {
    cheap.normal[edge] = cheap.reduce[edge] = {OpKind::skip_connect, edge % 2};
    expensive.normal[edge] = expensive.reduce[edge] = {OpKind::sep_conv_5x5, edge % 2};
  }
  return {cheap, resolve_genotype("DARTS_V2"), expensive};
}

std::vector<std::string> CampaignLog::columns(CostMetric metric) {
  if (metric != CostMetric::latency)
    return {"stretch", "attempt", "kind", "pass", "index", "key", cost_column(metric), "macs", "setting"};
  return {"stretch",    "attempt", "kind",   "pass",    "index", "key",
          "latency_ms", "p10_ms",  "p90_ms", "repeats", "macs",  "setting"};
}

CostMetric CampaignLog::metric(const Table& table) {
  const std::string name = table.note("metric");
  return name.empty() ? CostMetric::latency : parse_metric(name);
}

std::vector<std::string> CampaignLog::cells(const Row& row, const std::string& setting, CostMetric metric) {
  const Latency& latency = row.measured.latency;
  if (metric != CostMetric::latency)
    return {std::to_string(row.stretch),
            std::to_string(row.attempt),
            row.pass == 0 ? "control" : "sample",
            std::to_string(row.pass),
            std::to_string(row.measured.index),
            std::to_string(row.measured.key),
            csv_number(latency.median_ms),
            std::to_string(latency.macs),
            setting};
  return {std::to_string(row.stretch),          std::to_string(row.attempt),
          row.pass == 0 ? "control" : "sample", std::to_string(row.pass),
          std::to_string(row.measured.index),   std::to_string(row.measured.key),
          csv_number(latency.median_ms),        csv_number(latency.p10_ms),
          csv_number(latency.p90_ms),           std::to_string(latency.repeats),
          std::to_string(latency.macs),         setting};
}

CampaignLog::CampaignLog(const Table& table) : metric_(metric(table)) {
  const uint64_t seed = whole_note(table, "seed"), shard = whole_note(table, "shard"),
                 shards = whole_note(table, "shards");
  CHECK(shard < shards, table.path(), ": shard ", shard, " of ", shards);
  const std::array<Genotype, kControls> controls = control_genotypes();
  const int setting = table.column("setting");
  for (int r = 0; r < table.rows(); ++r) {
    const Row row = read_row(table, r);
    const uint64_t index = row.measured.index;
    if (table.cell(r, setting) != table.cell(0, setting))
      table.fail(r, join("setting ", table.cell(r, setting), " where the file's other rows have ",
                         table.cell(0, setting)));
    if (row.pass > 0 && index % shards != shard)
      table.fail(r, join("index ", index, " does not belong to shard ", shard, " of ", shards));
    const uint64_t expected =
        genotype_key(row.pass == 0 ? controls[index] : sample_architecture(seed, index).genotype);
    if (row.measured.key != expected)
      table.fail(r, join("key ", row.measured.key, " is not that of index ", index, ", ", expected));
    try {
      add(row);
    } catch (const Error& error) {
      table.fail(r, error.what());
    }
  }
}

CampaignLog::Row CampaignLog::read_row(const Table& table, int r) const {
  constexpr int64_t kMany = int64_t{1} << 62;
  const std::string_view kind = table.cell(r, table.column("kind"));
  if (kind != "sample" && kind != "control")
    table.fail(r, join("column kind: expected sample or control, found '", kind.substr(0, 40), "'"));
  const bool sample = kind == "sample";
  Row row;
  row.stretch = int(bounded(table, r, "stretch", 0, 1 << 30));
  row.attempt = int(bounded(table, r, "attempt", 0, 1 << 30));
  row.pass = int(bounded(table, r, "pass", sample ? 1 : 0, sample ? 2 : 0));
  row.measured.index = uint64_t(bounded(table, r, "index", 0, sample ? kMany : kControls - 1));
  row.measured.key = uint64_t(bounded(table, r, "key", 0, kMany));
  Latency& latency = row.measured.latency;
  latency.macs = bounded(table, r, "macs", 0, kMany);
  if (metric_ != CostMetric::latency) {
    latency.median_ms = table.positive(r, table.column(cost_column(metric_)));
    latency.p10_ms = latency.p90_ms = latency.median_ms;
    latency.repeats = 1;
    return row;
  }
  latency.median_ms = table.positive(r, table.column("latency_ms"));
  latency.p10_ms = table.positive(r, table.column("p10_ms"));
  latency.p90_ms = table.positive(r, table.column("p90_ms"));
  latency.repeats = int(bounded(table, r, "repeats", 1, 1 << 30));
  return row;
}

void CampaignLog::add(const Row& row) {
  const int last = int(stretches_.size()) - 1;
  const int attempts = last >= 0 ? int(stretches_[last].attempts.size()) : 0;
  if (row.stretch == last + 1 && row.attempt == 0) {
    CHECK(last < 0 || stretches_[last].attempts.back().closed(), "stretch ", row.stretch,
          " begins before the controls of stretch ", last);
    CHECK(last != 0 || reference_done(), "stretch 1 begins before the controls' reference is complete");
    stretches_.push_back({{{}}});
  } else if (row.stretch == last && row.attempt == attempts && stretches_[last].attempts.back().closed()) {
    stretches_[last].attempts.push_back({});
  } else {
    CHECK(row.stretch == last && row.attempt == attempts - 1, "attempt ", row.attempt, " of stretch ",
          row.stretch, " does not follow attempt ", attempts - 1, " of stretch ", last);
  }
  Stretch& stretch = stretches_.back();
  Attempt& attempt = stretch.attempts.back();
  CHECK(!attempt.closed(), "a row after the controls that closed attempt ", row.attempt, " of stretch ",
        row.stretch);
  const uint64_t index = row.measured.index;
  if (row.pass == 0) {
    CHECK(
        row.stretch == 0 || row.attempt == 0 || attempt.samples.size() == stretch.attempts[0].samples.size(),
        "the controls come before the end of the stretch");
    CHECK(index == attempt.controls.size(), "control ", index, " where control ", attempt.controls.size(),
          " was expected");
    attempt.controls.push_back(row.measured.latency.median_ms);
    return;
  }
  CHECK(row.stretch > 0 && attempt.controls.empty(), "a sample among the controls");
  if (row.attempt == 0) {
    CHECK(seen_.insert({row.pass, index}).second, "index ", index, " stands in pass ", row.pass, " already");
  } else {
    const std::vector<Row>& first = stretch.attempts[0].samples;
    const size_t at = attempt.samples.size();
    CHECK(at < first.size() && first[at].pass == row.pass && first[at].measured.index == index, "attempt ",
          row.attempt, " of stretch ", row.stretch, " does not repeat its rows in order");
  }
  attempt.samples.push_back(row);
}

const CampaignLog::Attempt& CampaignLog::attempt(int stretch, int number) const {
  static const Attempt none;
  if (stretch >= int(stretches_.size()) || number >= int(stretches_[stretch].attempts.size())) return none;
  return stretches_[stretch].attempts[number];
}

bool CampaignLog::reference_done() const {
  return !stretches_.empty() && int(stretches_[0].attempts.size()) >= kReferenceRounds &&
         stretches_[0].attempts[kReferenceRounds - 1].closed();
}

double CampaignLog::reference_ms(int control) const {
  double fastest = stretches_[0].attempts[0].controls[size_t(control)];
  for (int round = 1; round < kReferenceRounds; ++round)
    fastest = std::min(fastest, stretches_[0].attempts[size_t(round)].controls[size_t(control)]);
  return fastest;
}

double CampaignLog::deviation(const Attempt& attempt) const {
  std::vector<double> ratios;
  for (int control = 0; control < kControls; ++control)
    ratios.push_back(attempt.controls[size_t(control)] / reference_ms(control));
  return std::abs(quantile(ratios, 0.5) - 1);
}

int CampaignLog::best_attempt(const Stretch& stretch) const {
  int best = -1;
  for (int i = 0; i < int(stretch.attempts.size()); ++i)
    if (stretch.attempts[i].closed() &&
        (best < 0 || deviation(stretch.attempts[i]) < deviation(stretch.attempts[best])))
      best = i;
  return best;
}

int CampaignLog::redos() const {
  int count = 0;
  for (size_t i = 1; i < stretches_.size(); ++i) count += int(stretches_[i].attempts.size()) - 1;
  return count;
}

}  // namespace lanas
