// Tests of kernels/core/core_watch, on a core that is alone or shared as the test says, and on the real one.
#include "kernels/core/core_watch.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/core/check.h"

namespace lanas {
namespace {

constexpr double kAlone = 1.05, kShared = 1.7;

// A core whose probes take what `cycles` says, one after another and the last for ever, probe_ms each on the
// clock.
struct FakeCore {
  std::vector<double> cycles;
  size_t probes = 0;
  double time = 0, probe_ms = 0.01;

  std::function<double()> probe() {
    return [this] {
      time += probe_ms;
      return cycles[std::min(probes++, cycles.size() - 1)];
    };
  }
  std::function<double()> clock() {
    return [this] { return time; };
  }
  void becomes(double now) { cycles = {now}; }
};

// One run of a millisecond with a look in its midst, at which the core becomes `within`.
bool run(CoreWatch& watch, FakeCore& core, double within = kAlone) {
  watch.start();
  core.time += 0.5;
  core.becomes(within);
  watch.look();
  core.becomes(kAlone);
  core.time += 0.5;
  return watch.finish();
}

TEST(CoreWatch, RunsCountAfterOneThatWasAloneToo) {
  FakeCore core{{kAlone}};
  CoreWatch watch(core.probe(), 1, core.clock());
  EXPECT_FALSE(run(watch, core)) << "the caches may still be another's";
  EXPECT_TRUE(run(watch, core));
  EXPECT_TRUE(run(watch, core));
  EXPECT_FALSE(run(watch, core, kShared));
  EXPECT_FALSE(run(watch, core)) << "the run before was disturbed";
  EXPECT_TRUE(run(watch, core));
  EXPECT_EQ(watch.waited_ms(), 0);
}

TEST(CoreWatch, LookingIsNotTheRunsTime) {
  FakeCore core{{kAlone}};
  CoreWatch watch(core.probe(), 1, core.clock());
  watch.start();
  const double start = core.time;
  for (int i = 0; i < 10; ++i) {
    core.time += 0.1;
    watch.look();
  }
  EXPECT_GT(watch.paused_ms(), 0);
  EXPECT_NEAR(core.time - start - watch.paused_ms(), 1, 1e-9);
}

TEST(CoreWatch, WaitsUntilAloneAndThenRunsOnceInVain) {
  FakeCore core{{kAlone}};
  CoreWatch watch(core.probe(), 1, core.clock());
  run(watch, core);
  core.cycles.assign(100, kShared);
  core.cycles.push_back(kAlone);
  core.probes = 0;
  EXPECT_FALSE(run(watch, core));
  EXPECT_NEAR(watch.waited_ms(), 1, 0.02);  // 100 probes
  EXPECT_TRUE(run(watch, core));
}

TEST(CoreWatch, WaitingEnds) {
  FakeCore core{{kAlone}};
  CoreWatch watch(core.probe(), 0.5, core.clock());
  for (int i = 0; i < 10; ++i) run(watch, core);
  core.becomes(kShared);
  core.probe_ms = 1;
  for (int measurement = 0; measurement < 10; ++measurement) {
    watch.begin();
    watch.start();  // two seconds each
    EXPECT_FALSE(watch.may_wait());
    EXPECT_FALSE(watch.finish());
  }
  EXPECT_NEAR(watch.waited_ms(), 10'000, 10);
  watch.begin();
  EXPECT_FALSE(watch.may_wait()) << "all ten seconds are gone";
  watch.counted(1000);
  EXPECT_TRUE(watch.may_wait()) << "half a second more";
  watch.lost(400);
  EXPECT_TRUE(watch.may_wait());
  watch.lost(101);
  EXPECT_FALSE(watch.may_wait());
}

// A watch that begins beside another thread looks until it has seen the core alone, for two seconds at most.
TEST(CoreWatch, LearnsWhatAloneIs) {
  FakeCore shared_first{std::vector<double>(1000, kShared)};
  shared_first.cycles.push_back(kAlone);
  CoreWatch watch(shared_first.probe(), 1, shared_first.clock());
  EXPECT_NEAR(shared_first.time, 10, 0.1);
  EXPECT_FALSE(run(watch, shared_first));
  EXPECT_TRUE(run(watch, shared_first));

  FakeCore slow{{2.5}};  // a processor that does less in a cycle
  CoreWatch of_slow(slow.probe(), 1, slow.clock());
  EXPECT_NEAR(slow.time, 2000, 0.1);
  of_slow.start();
  EXPECT_FALSE(of_slow.finish());
  of_slow.start();
  EXPECT_TRUE(of_slow.finish());
  EXPECT_EQ(of_slow.waited_ms(), 0);
}

TEST(CoreWatch, OneProbeThatIsTooFastDoesNotCount) {
  FakeCore core{{kAlone}};
  CoreWatch watch(core.probe(), 1, core.clock());
  core.cycles = {kAlone, 0.01, kAlone};
  core.probes = 0;
  for (int i = 0; i < 3; ++i) run(watch, core);
  EXPECT_TRUE(run(watch, core));
}

TEST(CoreWatch, WatchesRealCores) {
  for (const int threads : {1, 2}) {
    CoreWatch watch(threads, 0.01);
    watch.begin();
    watch.start();
    watch.look();
    watch.finish();
    EXPECT_GE(watch.paused_ms(), 0);
    EXPECT_GE(watch.waited_ms(), 0);
  }
  EXPECT_THROW(CoreWatch(1, -1), Error);
}

}  // namespace
}  // namespace lanas
