// fit_source.h -- what `fit` and `transfer` learn from: campaigns of this program, or columns of any table.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "nas/campaign.h"
#include "predictor/dataset.h"

namespace lanas::bench {

struct Source {
  Dataset data;
  std::vector<double> macs;  // per row; empty for a table
  double noise_mape = 0;     // 0: not known
  std::string setting;
  CostMetric metric = CostMetric::latency;
};

// Several files are the shards of one campaign: of one setting, no architecture twice. A counted metric can
// be asked of a campaign of latencies too: it is counted for its architectures.
Source read_campaigns(const std::vector<std::string>& paths, std::optional<CostMetric> metric = {});

// Error where columns are missing, a target is not above 0, or (unless allow_copies) a line repeats another.
Source read_columns(const std::string& path, const std::vector<std::string>& features,
                    const std::string& target, bool allow_copies);

}  // namespace lanas::bench
