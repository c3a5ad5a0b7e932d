// `run` as a comparison: several seeds in one table, a penalty on multiply-adds beside the latency term,
// random genotypes, and the baseline's option.
#include <cmath>

#include "tests/programs/tiny.h"

namespace lanas::test {
namespace {

using Json = nlohmann::json;

class ComparisonTest : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    write_images(at("data"));
    write_latency_table(at("table.csv"));
  }
  Words words(const std::string& out) const {
    return tiny_run(out) + Words{"--latency", "table.csv",     "--epochs", "1",         "--frozen-epochs",
                                 "0",         "--eval-epochs", "1",        "--lambdas", "0,0.05"};
  }
};

TEST_F(ComparisonTest, SlowSeedsAndMetricsInOneTable) {
  const Words compared = words("out") + Words{"--seeds", "0,1",     "--metric", "latency,macs", "--baseline",
                                              "random",  "--count", "1",        "--json",       "seeds.json"};
  const Outcome outcome = succeed(compared);
  const char* const names[] = {"lambda0", "latency", "macs", "random0"};
  const Json table = json("seeds.json");
  EXPECT_EQ(table, json("out/seeds.json"));
  EXPECT_EQ(table.at("seeds"), Json({0, 1}));
  ASSERT_EQ(table.at("networks").size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const Json& row = table["networks"][i];
    EXPECT_EQ(row.at("name"), names[i]);
    EXPECT_EQ(row.at("count"), 2);
    EXPECT_NE(outcome.out.find(names[i]), std::string::npos);
    double sum = 0, difference = 0;
    for (int seed = 0; seed < 2; ++seed) {
      const Json& run = table.at("runs")[size_t(seed)];
      EXPECT_EQ(run.at("seed"), seed);
      EXPECT_EQ(run, json("out/seed-" + std::to_string(seed) + "/results.json"));
      const double accuracy = run["networks"][i].at("test_accuracy");
      sum += accuracy;
      difference = accuracy - difference;
    }
    EXPECT_NEAR(row.at("test_accuracy").at("mean"), sum / 2, 1e-12);
    EXPECT_NEAR(row["test_accuracy"].at("deviation"), std::abs(difference) / std::sqrt(2.0), 1e-12);
  }
  EXPECT_EQ(table["runs"][0]["networks"][2]["metric"], "macs");
  EXPECT_EQ(table["runs"][0]["networks"][1]["metric"], "latency");
  refuse(compared, {"out", "holds a run already", "--resume"});
  for (const std::string& folder : {std::string("out"), std::string("out/"), at("out").string()}) {
    succeed({"run", "--resume", folder, "--json", "again.json"});
    EXPECT_EQ(json("again.json"), table) << folder;
  }
  refuse({"run", "--resume", "out/seed-0", "--seeds", "4"}, {"out/seed-0", "one seed"});
}

TEST_F(ComparisonTest, SlowWithoutABaseline) {
  succeed(words("out") + Words{"--lambdas", "0", "--count", "3", "--baseline", "none", "--json", "r.json"});
  EXPECT_EQ(json("r.json").at("networks").size(), 1u);
  refuse(words("x") + Words{"--baseline", "best"}, {"--baseline", "random or none", "best"});
}

}  // namespace
}  // namespace lanas::test
