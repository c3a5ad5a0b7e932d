#include "kernels/core/core_watch.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/core/check.h"

namespace lanas {
namespace {

constexpr double kTolerance = 1.04;   // times the fastest; alone up to 1.02, shared from 1.06, mostly 1.6
constexpr double kAloneCycles = 1.1;  // a probe that fast has seen the core alone
constexpr int kLeastProbes = 3;
constexpr double kFirstWaitMs = 10'000;   // all measurements together, before any has counted
constexpr double kLongestWaitMs = 2'000;  // one measurement, and looking for kAloneCycles at the beginning
constexpr double kLookEveryMs = 0.2;

// Milliseconds of one cycle: a chain of multiplications (3 cycles) and additions (1).
[[gnu::noinline]] double cycle_ms() {
  constexpr int kSteps = 1000;
  uint64_t x = 1;
  const double start = now_ms();
  for (int i = 0; i < kSteps; ++i) x = x * x + 1;
  const double ms = now_ms() - start;
  volatile uint64_t kept = x;  // else there would be nothing to compute
  (void)kept;
  return ms / (4 * kSteps);
}

// Cycles per vector of 16 bytes that is read, multiplied, added to and written: eleven passes over 16 KiB,
// half of a first-level cache, which need the core's load, store and arithmetic units all at once; about 4
// us.
[[gnu::noinline]] double probe_core() {
  typedef float Vector __attribute__((vector_size(16)));
  constexpr int kVectors = 1024, kPasses = 11;
  alignas(64) thread_local Vector numbers[kVectors];
  const Vector factor = {0.5f, 0.5f, 0.5f, 0.5f}, step = {1, 1, 1, 1};
  auto pass = [&] {
#pragma GCC unroll 8
    for (Vector& v : numbers) v = v * factor + step;
    asm volatile("" ::: "memory");  // so that no two passes become one
  };
  pass();
  const double before = cycle_ms(), start = now_ms();
  for (int i = 0; i < kPasses; ++i) pass();
  const double ms = now_ms() - start;
  return ms / (kPasses * kVectors) / std::min(before, cycle_ms());  // an interrupted chain is a slow clock
}

double probe_cores(int threads) {
  if (threads == 1) return probe_core();
  double slowest = 0;
#pragma omp parallel for num_threads(threads) reduction(max : slowest) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) slowest = std::max(slowest, probe_core());
  return slowest;
}

}  // namespace

CoreWatch::CoreWatch(std::function<double()> probe, double max_wait_share, std::function<double()> clock)
    : probe_(std::move(probe)), clock_(std::move(clock)), max_wait_share_(max_wait_share) {
  CHECK(max_wait_share >= 0, "core watch: waiting for ", max_wait_share, " of the time measured");
  for (int i = 0; i < kLeastProbes; ++i) alone();
  // A core that is shared all the while would be taken for a slow one that is alone.
  const double begin = clock_();
  while (fastest() > kAloneCycles && clock_() - begin < kLongestWaitMs * std::max(1.0, max_wait_share_))
    alone();
}

CoreWatch::CoreWatch(int threads, double max_wait_share)
    : CoreWatch([threads] { return probe_cores(threads); }, max_wait_share, now_ms) {}

bool CoreWatch::alone() {
  const double cycles = probe_();
  ++count_;
  ++seen_[size_t(std::clamp(cycles / kBinCycles, 0.0, double(kBins - 1)))];
  return cycles <= kTolerance * fastest();
}

// The edge below which one probe in 2000 lies, and three at least: one in 10,000 is too fast, as both chains
// that are its clock were interrupted.
double CoreWatch::fastest() const {
  const int64_t wanted = std::max<int64_t>(kLeastProbes, count_ / 2000);
  int64_t below = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    below += seen_[size_t(bin)];
    if (below >= wanted) return (bin + 1) * kBinCycles;
  }
  return kBins * kBinCycles;
}

bool CoreWatch::may_wait() const {
  return waited_here_ms_ < kLongestWaitMs * std::max(1.0, max_wait_share_) &&
         waited_ms_ < kFirstWaitMs + max_wait_share_ * worked_ms_;
}

void CoreWatch::lost(double ms) {
  if (!may_wait()) return;
  waited_ms_ += ms;
  waited_here_ms_ += ms;
}

void CoreWatch::start() {
  alone_ = alone();
  warm_ = warm_ && alone_;
  while (!alone_ && may_wait()) {
    const double begin = clock_();
    alone_ = alone();
    lost(clock_() - begin);
  }
  paused_ms_ = 0;
  looked_ms_ = clock_();
}

void CoreWatch::look() {
  const double begin = clock_();
  if (!alone_ || begin - looked_ms_ < kLookEveryMs) return;
  alone_ = alone();
  looked_ms_ = clock_();
  paused_ms_ += looked_ms_ - begin;
}

bool CoreWatch::finish() {
  const bool before = warm_;
  warm_ = alone_ && alone();
  return before && warm_;
}

}  // namespace lanas
