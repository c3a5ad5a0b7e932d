// run_log.h -- what happened in a run, as JSON lines (log.jsonl), and how long each stage took over all its
// starts (stages.json): a run that was stopped and resumed reports the time of all its parts.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace lanas {

class RunLog {
 public:
  // Goes on with the logs in `folder`; Error if they cannot be written or stages.json is damaged.
  explicit RunLog(const std::string& folder);

  // Appends {"time": UTC, "event": kind, ...fields} as one line.
  void event(const std::string& kind, const nlohmann::json& fields);
  // Adds seconds to a stage, in the order of first appearance.
  void stage(const std::string& name, double seconds);
  const std::vector<std::pair<std::string, double>>& stages() const { return stages_; }

 private:
  std::string folder_;
  std::vector<std::pair<std::string, double>> stages_;
};

}  // namespace lanas
