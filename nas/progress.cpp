#include "nas/progress.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "kernels/core/check.h"
#include "kernels/core/timing.h"

namespace lanas {

std::string format_seconds(double seconds) {
  const auto s = static_cast<long long>(std::llround(std::fmax(seconds, 0)));
  char text[32];
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
  return text;
}

Progress::Progress(std::string label, int64_t total, bool quiet)
    : label_(std::move(label)),
      total_(total),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO)),
      start_ms_(now_ms()) {}

Progress::~Progress() {
  if (!quiet_ && terminal_ && !finished_) std::fputc('\n', stderr);
}

void Progress::update(int64_t done, const std::string& note) {
  const double now = now_ms();
  if (first_ < 0) first_ = done, first_ms_ = now;
  if (quiet_ || now - shown_ms_ < (terminal_ ? 200 : 10'000)) return;
  shown_ms_ = now;
  show(done, note);
}

void Progress::finish(const std::string& note) {
  finished_ = true;
  if (quiet_) return;
  std::fprintf(stderr, "%s%-22s done in %s  %s%s\n", terminal_ ? "\r" : "", label_.c_str(),
               format_seconds((now_ms() - start_ms_) / 1000).c_str(), note.c_str(),
               terminal_ ? "\x1b[K" : "");
}

std::function<void(int64_t, int64_t, double)> show_steps(Progress& progress) {
  return [&progress](int64_t step, int64_t steps, double loss) {
    progress.set_total(steps);
    progress.update(step, join("loss ", loss));
  };
}

void Progress::show(int64_t done, const std::string& note) {
  const double seconds = (now_ms() - first_ms_) / 1000;
  const std::string left = done > first_
                               ? format_seconds(seconds / double(done - first_) * double(total_ - done))
                               : std::string("?");
  std::fprintf(stderr, "%s%-22s %3d%%  %lld/%lld  left %s  %s%s", terminal_ ? "\r" : "", label_.c_str(),
               int(100 * done / (total_ > 0 ? total_ : 1)), static_cast<long long>(done),
               static_cast<long long>(total_), left.c_str(), note.c_str(), terminal_ ? "\x1b[K" : "\n");
  std::fflush(stderr);
}

}  // namespace lanas
