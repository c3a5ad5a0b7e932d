// settings.h -- configurations as JSON: what a checkpoint belongs to, what a report records.
#pragma once

#include <nlohmann/json.hpp>

#include "nas/retrain.h"
#include "nas/search.h"

namespace lanas {

nlohmann::json to_json(const SupernetConfig& config);
nlohmann::json to_json(const NetworkConfig& config);
nlohmann::json to_json(const LatencyLossConfig& config);
nlohmann::json to_json(const SearchConfig& config);
nlohmann::json to_json(const RetrainConfig& config);
nlohmann::json to_json(const SearchEpoch& epoch);
nlohmann::json to_json(const RetrainEpoch& epoch);
SearchEpoch search_epoch_from_json(const nlohmann::json& json);
RetrainEpoch retrain_epoch_from_json(const nlohmann::json& json);

// Throws Error naming `path` and the first setting that differs.
void check_same_settings(const nlohmann::json& found, const nlohmann::json& expected,
                         const std::string& path);

}  // namespace lanas
