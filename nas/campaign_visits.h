// campaign_visits.h -- a campaign by visits: which rows a round measures, and what a row's visits are worth.
// A visit is one short measurement of a row; a round is up to `stretch` visits and the controls that close
// it. A round holds if its controls are within the tolerance of their reference, which is a low quantile of
// all measurements of a control in the file: a campaign that begins in a slow moment mends itself. A row is
// settled when two visits of rounds that hold agree within the tolerance; the lowest such pair is its value,
// since a machine is disturbed only towards slow. All of it follows from the file alone.
#pragma once

#include <vector>

#include "nas/campaign.h"
#include "nas/campaign_log.h"

namespace lanas {

struct CampaignItem {
  int pass;
  uint64_t index;
};

struct RoundPlan {
  std::vector<CampaignItem> items;  // in order; none: nothing is left to measure, or no budget for it
  int64_t done = 0;                 // rows that need no visit any more
  bool hurried = false;             // one of the items was measured in the round before
};
// What the open round, or else the next one, measures, given the closed rounds of the log. items: both
// passes in order. Rows that lack visits come first, those not seen for longest before others and, while
// there are rows never seen, none of the round before; then rows never seen.
RoundPlan plan_round(const CampaignLog& log, const std::vector<CampaignItem>& items,
                     const CampaignConfig& config);

struct RowValue {
  MeasuredArchitecture measured;
  bool settled = false;
  std::vector<int> rounds;  // that it was taken from
};
// Of the visits before round `end`, at least one: the mean of the lowest pair that agrees, of visits in
// rounds that hold; without a pair the lowest of these; without any the lowest of all. holds: by round.
RowValue row_value(const std::vector<CampaignLog::Visit>& visits, const std::vector<bool>& holds,
                   double tolerance);
// Whether each closed round holds, by its number; false for the open one and for the reference, round 0.
std::vector<bool> rounds_that_hold(const CampaignLog& log);

// Rows, drift and counts of a campaign by visits.
void take_visits(const CampaignLog& log, Campaign& campaign);

}  // namespace lanas
