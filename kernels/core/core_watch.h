// core_watch.h -- whether the cores that this program runs on work for it alone right now.
// On a rented machine the other hardware thread of a core is often somebody else's, and takes a tenth to a
// third of its speed away for milliseconds to minutes at a time, which no clock or counter in here shows. A
// few microseconds of loads, arithmetic and stores within the first-level cache do: a core that is alone
// does a vector of them a cycle, one that is shared needs 1.06 to 2. (A chain of multiplications, each
// waiting for the one before, takes the same cycles either way: it is the clock.) So a timed run counts if
// the core was alone just before it, every fifth of a millisecond within and just after, and in the run
// before as well: the other thread's data push ours out of the caches that they share.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "kernels/core/timing.h"

namespace lanas {

class CoreWatch {
 public:
  // Of the cores that `threads` threads run on. Waits for at most max_wait_share (0 or more, else Error) of
  // the time of the runs that count, and ten seconds. A processor that needs more than 1.1 cycles a vector
  // alone is looked at for as long as one measurement may wait first, then judged by the fastest it was seen.
  CoreWatch(int threads, double max_wait_share);
  // The same on a probe (cycles per vector) and a clock (ms) of the caller's.
  CoreWatch(std::function<double()> probe, double max_wait_share, std::function<double()> clock);

  // A measurement begins: it may wait two seconds, or max_wait_share times two, of what all of them may.
  void begin() { waited_here_ms_ = 0; }
  bool may_wait() const;

  // A timed run: start() before it, which waits until alone as long as it may; look() now and then within;
  // finish() at its end: whether it counts. The run's time, in ms as all here, is that on the clock less
  // paused_ms(), and goes to counted or lost.
  void start();
  void look();
  bool finish();
  double paused_ms() const { return paused_ms_; }
  void counted(double ms) { worked_ms_ += ms; }
  void lost(double ms);
  double waited_ms() const { return waited_ms_; }  // with the runs lost while more could be waited

 private:
  static constexpr int kBins = 400;
  static constexpr double kBinCycles = 0.01;

  bool alone();            // probes once
  double fastest() const;  // cycles that a probe takes where the core is alone, of all so far

  std::function<double()> probe_, clock_;
  double max_wait_share_;
  std::array<int64_t, kBins> seen_{};  // probes by their cycles, in steps of kBinCycles
  int64_t count_ = 0;
  double worked_ms_ = 0, waited_ms_ = 0, waited_here_ms_ = 0;
  bool alone_ = true, warm_ = false;      // all along the run at work; all along the one before
  double paused_ms_ = 0, looked_ms_ = 0;  // what looking took of it; when last looked, on the clock
};

}  // namespace lanas
