#include "nas/run_log.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "autograd/checkpoint.h"
#include "nas/machine.h"

namespace lanas {

using Json = nlohmann::json;

namespace {

// A kill while a line was being written leaves a part of it, which must not become the start of the next.
void drop_cut_line(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  const std::string text = read_file(path);
  const size_t end = text.rfind('\n');
  const size_t whole = end == text.npos ? 0 : end + 1;
  if (whole < text.size()) std::filesystem::resize_file(path, whole, ignored);
}

}  // namespace

RunLog::RunLog(const std::string& folder) : folder_(folder) {
  drop_cut_line(folder_ + "/log.jsonl");
  const std::string path = folder_ + "/stages.json";
  if (!std::filesystem::exists(path)) return;
  const Json json = Json::parse(read_file(path), nullptr, false);
  CHECK(json.is_array(), path, ": expected a JSON list of [name, seconds]");
  for (const Json& entry : json) {
    CHECK(entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_number(), path,
          ": expected [name, seconds], found ", entry.dump());
    stages_.emplace_back(entry[0], entry[1]);
  }
}

void RunLog::event(const std::string& kind, const Json& fields) {
  Json line = {{"time", utc_time()}, {"event", kind}};
  line.update(fields);
  const std::string path = folder_ + "/log.jsonl";
  std::ofstream out(path, std::ios::app);
  out << line.dump() + "\n";
  out.flush();
  CHECK(out, path, ": cannot be written");
}

void RunLog::stage(const std::string& name, double seconds) {
  auto found = std::find_if(stages_.begin(), stages_.end(), [&](const auto& s) { return s.first == name; });
  if (found == stages_.end()) found = stages_.insert(stages_.end(), {name, 0});
  found->second += seconds;
  Json json = Json::array();
  for (const auto& s : stages_) json.push_back({s.first, s.second});
  replace_file(folder_ + "/stages.json", json.dump() + "\n");
  event("stage", {{"name", name}, {"seconds", seconds}});
}

}  // namespace lanas
