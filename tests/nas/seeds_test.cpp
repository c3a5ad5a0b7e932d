// Several runs in one table, and the accuracy-latency front of one.
#include "nas/seeds.h"

#include <gtest/gtest.h>

#include "nas/report_text.h"

namespace lanas::test {
namespace {

RunReport report_of(uint64_t seed, std::vector<std::tuple<std::string, double, double>> networks) {
  RunReport report;
  report.seed = seed;
  for (const auto& [name, accuracy, ms] : networks) {
    NetworkResult n;
    n.name = name;
    n.genotype = resolve_genotype("DARTS_V1");
    n.test_accuracy = accuracy;
    n.latency_ms.median_ms = ms;
    report.networks.push_back(n);
  }
  return report;
}

TEST(Seeds, MeanAndDeviation) {
  const Spread s = spread_of({1, 2, 6});
  EXPECT_DOUBLE_EQ(s.mean, 3);
  EXPECT_DOUBLE_EQ(s.deviation, std::sqrt(7.0));
  EXPECT_EQ(spread_of({4}).deviation, 0);
  EXPECT_THROW(spread_of({}), Error);
}

TEST(Seeds, OneRowPerNetwork) {
  const std::vector<RunReport> reports = {
      report_of(0, {{"lambda0", 0.80, 0.4}, {"random0", 0.7, 0.3}}),
      report_of(1, {{"lambda0", 0.84, 0.5}}),
      report_of(2, {{"lambda0", 0.82, 0.6}, {"random0", 0.9, 0.3}}),
  };
  const std::string table = seeds_table(reports);
  EXPECT_NE(table.find("82.00 +- 2.00"), std::string::npos) << table;
  EXPECT_NE(table.find("0.500 +- 0.100"), std::string::npos) << table;
  const nlohmann::json json = seeds_json(reports);
  ASSERT_EQ(json.at("networks").size(), 2u);
  EXPECT_EQ(json["networks"][0]["count"], 3);
  EXPECT_EQ(json["networks"][1]["name"], "random0");
  EXPECT_EQ(json["networks"][1]["count"], 2);
  EXPECT_NEAR(json["networks"][1]["test_accuracy"]["mean"].get<double>(), 0.8, 1e-12);
  EXPECT_EQ(json["seeds"], nlohmann::json({0, 1, 2}));
  EXPECT_EQ(json["runs"].size(), 3u);
}

TEST(Front, HoldsWhatNoOtherNetworkBeats) {
  const RunReport report = report_of(0, {{"slow", 0.9, 0.5},
                                         {"worse", 0.8, 0.5},
                                         {"fast", 0.7, 0.1},
                                         {"middle", 0.85, 0.3},
                                         {"dominated", 0.84, 0.31}});
  std::vector<std::string> names;
  for (const NetworkResult* n : accuracy_latency_front(report)) names.push_back(n->name);
  EXPECT_EQ(names, (std::vector<std::string>{"fast", "middle", "slow"}));
  EXPECT_EQ(report_json(report).at("front"), nlohmann::json(names));
}

}  // namespace
}  // namespace lanas::test
