#include "nas/campaign_visits.h"

#include <algorithm>
#include <set>

namespace lanas {
namespace {

// Visits in closed rounds; only the last may be in the open one.
size_t closed_visits(const std::vector<CampaignLog::Visit>& visits, int open_round) {
  return visits.size() - (!visits.empty() && visits.back().stretch >= open_round);
}

Latency mean(const Latency& a, const Latency& b) {
  return {(a.median_ms + b.median_ms) / 2, (a.p10_ms + b.p10_ms) / 2, (a.p90_ms + b.p90_ms) / 2,
          a.repeats + b.repeats, a.macs};
}

}  // namespace

std::vector<bool> rounds_that_hold(const CampaignLog& log) {
  std::vector<bool> holds(log.stretches().size(), false);
  for (size_t i = 1; i < holds.size(); ++i) {
    const CampaignLog::Attempt& round = log.stretches()[i].attempts[0];
    holds[i] = round.closed() && log.deviation(round) <= log.tolerance();
  }
  return holds;
}

RowValue row_value(const std::vector<CampaignLog::Visit>& visits, const std::vector<bool>& holds,
                   double tolerance) {
  std::vector<const CampaignLog::Visit*> held, all;
  for (const CampaignLog::Visit& visit : visits) {
    all.push_back(&visit);
    if (holds[size_t(visit.stretch)]) held.push_back(&visit);
  }
  auto faster = [](const CampaignLog::Visit* a, const CampaignLog::Visit* b) {
    return a->measured.latency.median_ms < b->measured.latency.median_ms;
  };
  std::stable_sort(held.begin(), held.end(), faster);
  for (size_t i = 1; i < held.size(); ++i) {
    const Latency &low = held[i - 1]->measured.latency, &high = held[i]->measured.latency;
    if (high.median_ms > low.median_ms * (1 + tolerance)) continue;
    RowValue value{held[i]->measured, true, {held[i - 1]->stretch, held[i]->stretch}};
    value.measured.latency = mean(low, high);
    return value;
  }
  const CampaignLog::Visit* lowest =
      held.empty() ? *std::min_element(all.begin(), all.end(), faster) : held.front();
  return {lowest->measured, false, {lowest->stretch}};
}

RoundPlan plan_round(const CampaignLog& log, const std::vector<CampaignItem>& items,
                     const CampaignConfig& config) {
  const int round = log.open_round();
  const std::vector<bool> holds = rounds_that_hold(log);
  struct Candidate {
    CampaignItem item;
    int last = 0;
    bool extra = false;
  };
  RoundPlan plan;
  std::vector<Candidate> candidates, fresh;
  int64_t base = 0, extra = 0;  // visits, the first config.visits of each row and the others
  std::vector<CampaignLog::Visit> visits;
  for (const CampaignItem& item : items) {
    const std::vector<CampaignLog::Visit>& all = log.visits(item.pass, item.index);
    visits.assign(all.begin(), all.begin() + int64_t(closed_visits(all, round)));
    const int count = int(visits.size());
    if (count == 0) {
      if (int(fresh.size()) < config.stretch) fresh.push_back({item});
      continue;
    }
    base += std::min(count, config.visits);
    extra += std::max(0, count - config.visits);
    if (count >= config.visits + config.max_redos ||
        (count >= config.visits && row_value(visits, holds, log.tolerance()).settled))
      ++plan.done;
    else
      candidates.push_back({item, visits.back().stretch, count >= config.visits});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.last < b.last; });
  // The budget grows with the rows seen, so that a slow hour at the start does not use up that of the end.
  const int64_t budget = std::max(int64_t(2) * config.stretch, int64_t(config.max_redo_share * double(base)));
  for (const Candidate& candidate : candidates) {
    if (int(plan.items.size()) >= config.stretch) break;
    const bool recent = candidate.last >= round - 1;
    if ((recent && !fresh.empty()) || (candidate.extra && extra >= budget)) continue;
    extra += candidate.extra;
    plan.hurried |= recent;
    plan.items.push_back(candidate.item);
  }
  for (size_t i = 0; i < fresh.size() && int(plan.items.size()) < config.stretch; ++i)
    plan.items.push_back(fresh[i].item);
  return plan;
}

void take_visits(const CampaignLog& log, Campaign& campaign) {
  const std::vector<bool> holds = rounds_that_hold(log);
  std::set<int> taken;
  int64_t measured = 0;
  std::vector<CampaignLog::Visit> visits;
  for (const auto& [row, all] : log.all_visits()) {
    visits.assign(all.begin(), all.begin() + int64_t(closed_visits(all, log.open_round())));
    if (visits.empty()) continue;
    const RowValue value = row_value(visits, holds, log.tolerance());
    (row.first == 1 ? campaign.rows : campaign.second_pass).push_back(value.measured);
    campaign.rows_unsettled += !value.settled;
    measured += int64_t(visits.size());
    taken.insert(value.rounds.begin(), value.rounds.end());
  }
  for (const int round : taken) {
    const double drift = log.deviation(log.attempt(round, 0));
    campaign.max_drift = std::max(campaign.max_drift, drift);
    campaign.mean_drift += drift / double(taken.size());
    campaign.unsettled += !holds[size_t(round)];
  }
  campaign.stretches = int(taken.size());
  campaign.measured_per_row =
      double(measured) / double(std::max<size_t>(1, campaign.rows.size() + campaign.second_pass.size()));
}

}  // namespace lanas
