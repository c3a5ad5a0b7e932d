// Tests of nas/latency: when measuring stops, on a fake clock, and one real measurement.
#include "nas/latency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nas/campaign_log.h"

namespace lanas {
namespace {

// A run that takes the given milliseconds, one after another, on a clock of its own.
struct FakeRun {
  std::vector<double> ms;
  size_t calls = 0;
  double time = 0;
  std::function<void()> run() {
    return [this] { time += ms[calls++ % ms.size()]; };
  }
  std::function<double()> clock() {
    return [this] { return time; };
  }
};

LatencyConfig tiny() {
  LatencyConfig config;
  config.network = {.channels = 4, .layers = 3, .classes = 10, .image = 16, .batch = 1};
  config.min_total_ms = 1;
  config.max_wait_share = 0;  // tests run side by side
  return config;
}

TEST(Latency, MedianSpreadIsThatOfTheOrderStatistics) {
  EXPECT_TRUE(std::isinf(median_spread(std::vector<double>{1, 2, 3, 4, 5})));
  const std::vector<double> nine = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_DOUBLE_EQ(median_spread(nine), (8.0 - 2.0) / 2 / 5);  // ranks 2 and 8: 96.1%
  std::vector<double> hundred(100);
  for (int i = 0; i < 100; ++i) hundred[size_t(i)] = 100 + i;
  EXPECT_DOUBLE_EQ(median_spread(hundred), (160.0 - 139.0) / 2 / 150);  // ranks 40 and 61: 96.5%
}

TEST(Latency, StopsWhenSettled) {
  LatencyConfig config;
  FakeRun steady{{1.0}};
  EXPECT_EQ(time_until_settled(steady.run(), config, steady.clock()).size(), 10u);
  EXPECT_EQ(steady.calls, 13u);

  config.min_total_ms = 25;
  FakeRun longer{{1.0}};
  EXPECT_EQ(time_until_settled(longer.run(), config, longer.clock()).size(), 25u);

  FakeRun noisy{{1.0, 1.5, 2.0, 3.0}};
  EXPECT_EQ(time_until_settled(noisy.run(), config, noisy.clock()).size(), 100u);

  config.max_total_ms = 50;
  FakeRun slow{{10.0, 13.0, 19.0}};
  EXPECT_EQ(time_until_settled(slow.run(), config, slow.clock()).size(), 10u);
}

TEST(Latency, OutliersDoNotMoveTheMedian) {
  FakeRun run{{1.0, 1.001, 1.002, 9.0, 1.001}};
  const Latency latency = summarise(time_until_settled(run.run(), {}, run.clock()));
  EXPECT_NEAR(latency.median_ms, 1.001, 1e-9);
  EXPECT_NEAR(latency.p10_ms, 1.0, 1e-3);
  EXPECT_GT(latency.p90_ms, latency.median_ms);
}

TEST(Latency, ShortRunsAreTimedSeveralAtOnce) {
  FakeRun run{{0.03}};
  const std::vector<double> times = time_until_settled(run.run(), {}, run.clock());
  EXPECT_NEAR(times.front(), 0.03, 1e-9);
  EXPECT_NEAR(times.back(), 0.03, 1e-9);
  EXPECT_EQ((run.calls - 3) / times.size(), 7u);  // 0.21 ms a repeat
}

// Every third pass is beside another thread and takes half as long again: it and the one after it do not
// count.
TEST(Latency, PassesThatWereNotAloneDoNotCount) {
  LatencyConfig config;
  config.warmup = 1;
  FakeRun pass{{1.0}};
  bool shared = false;
  CoreWatch watch([&] { return shared ? 1.7 : 1.05; }, 1, pass.clock());
  const auto run = [&] {
    shared = pass.calls % 3 == 2;
    pass.time += shared ? 1.5 : pass.calls % 3 == 0 ? 1.2 : 1.0;
    ++pass.calls;
    watch.look();
    shared = false;
  };
  const std::vector<double> times = time_until_settled(run, config, pass.clock(), &watch);
  ASSERT_EQ(times.size(), 10u);
  for (const double ms : times) EXPECT_NEAR(ms, 1, 1e-9);
  EXPECT_EQ(pass.calls, 32u);  // passes 4, 7, ... 31 count
}

TEST(Latency, WherePassesAreNeverAloneAllCount) {
  LatencyConfig config;
  FakeRun pass{{1.0}};
  bool shared = false;
  double probes = 0;
  CoreWatch watch([&] { return probes += 1, shared ? 1.7 : 1.05; }, 0, [&] { return pass.time + probes; });
  shared = true;
  const std::vector<double> times = time_until_settled(
      pass.run(), config, [&] { return pass.time + probes; }, &watch);
  EXPECT_EQ(times.size(), 10u);
  EXPECT_NEAR(times.front(), 1, 1e-9);
  EXPECT_NEAR(watch.waited_ms(), 2000, 5);
}

TEST(Latency, SettingsNameWhatDiffers) {
  LatencyConfig config = tiny();
  const CsvNotes setting = latency_setting(config);
  EXPECT_EQ(setting, latency_setting(config));
  EXPECT_EQ(setting[0], std::make_pair(std::string("device"), std::string("cpu")));
  const std::string text = setting_text(setting);
  EXPECT_TRUE(text.ends_with("/t1/b1/C4/L3/10/16")) << text;
  EXPECT_EQ(text.find(','), text.npos);
  config.threads = 2;
  EXPECT_NE(setting, latency_setting(config));
}

TEST(Latency, BadConfigurationsAreRefused) {
  LatencyConfig config = tiny();
  config.min_repeats = 0;
  EXPECT_THROW(LatencyMeter{config}, Error);
  config = tiny();
  config.threads = 0;
  EXPECT_THROW(LatencyMeter{config}, Error);
}

TEST(Latency, MeasuresRealNetworks) {
  LatencyMeter meter(tiny());
  for (const Genotype& genotype : control_genotypes()) {
    const Latency latency = meter.measure(genotype);
    EXPECT_GT(latency.p10_ms, 0);
    EXPECT_LE(latency.p10_ms, latency.median_ms);
    EXPECT_LE(latency.median_ms, latency.p90_ms);
    EXPECT_GE(latency.repeats, 10);
    EXPECT_EQ(latency.macs, count_network(tiny().network, genotype).macs);
  }
}

// Numbers that vanish or overflow would falsify the latency of deep networks: measuring refuses them.
TEST(Latency, RandomNetworksStayInRange) {
  LatencyConfig config = tiny();
  config.network.layers = 20;
  config.min_repeats = config.max_repeats = config.warmup = 1;
  LatencyMeter meter(config);
  for (OpKind op : {OpKind::max_pool_3x3, OpKind::avg_pool_3x3, OpKind::skip_connect, OpKind::sep_conv_5x5,
                    OpKind::dil_conv_3x3}) {
    Genotype genotype;
    for (int edge = 0; edge < kPairs; ++edge)
      genotype.normal[edge] = genotype.reduce[edge] = {op, edge % 2 ? edge / 2 + 1 : 0};
    EXPECT_GT(meter.measure(genotype).median_ms, 0) << op_name(op);
  }
}

}  // namespace
}  // namespace lanas
