// progress.h -- one line of progress with the time left: rewritten in place on a terminal, else a plain line
// every few seconds. Goes to standard error, so that --json - stays clean.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace lanas {

class Progress {
 public:
  Progress(std::string label, int64_t total, bool quiet);
  ~Progress();
  // The first call says what was done before, by a run that is now resumed: the time left goes by the rest.
  void update(int64_t done, const std::string& note = "");
  void set_total(int64_t total) { total_ = total; }
  void finish(const std::string& note = "");

 private:
  void show(int64_t done, const std::string& note);

  std::string label_;
  int64_t total_, first_ = -1;
  bool quiet_, terminal_, finished_ = false;
  double start_ms_, first_ms_ = 0, shown_ms_ = -1e9;
};

// A hook for search and retraining: shows step, steps and loss on `progress`, which must outlive it.
std::function<void(int64_t step, int64_t steps, double loss)> show_steps(Progress& progress);

// "3:07" or "1:02:09".
std::string format_seconds(double seconds);

}  // namespace lanas
