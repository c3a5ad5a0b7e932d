// Tests of campaigns by visits with a fake meter: slow moments, a slow start, budget, resume at any byte, the
// value of a row, refusals.
#include "nas/campaign_visits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "tests/support/fake_campaign.h"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

class VisitsTest : public testing::Test {
 protected:
  void SetUp() override {
    config_.seed = 7;
    config_.count = 23;
    config_.stretch = 5;
    config_.second_count = 6;
    config_.visits = 2;
    config_.max_redos = 4;
    config_.max_redo_share = 1;
    slow_while([](int64_t) { return 1.0; });
  }

  // The machine is slower by factor(rows in the file): a resumed campaign sees the same machine.
  void slow_while(const std::function<double(int64_t)>& factor) {
    config_.measure = [this, factor](const Genotype& genotype) {
      return fake(genotype, factor(lines(read_file(path_)) - head()));
    };
  }

  // Lines before the first row: the setting, seed, shard, shards, visits, tolerance, and the columns.
  int64_t head() const { return int64_t(latency_setting(config_.latency).size()) + 5 + 1; }

  void expect_true_values(const Campaign& campaign) {
    for (const auto* rows : {&campaign.rows, &campaign.second_pass})
      for (const MeasuredArchitecture& row : *rows)
        EXPECT_NEAR(row.latency.median_ms, true_ms(genotype_from_key(row.key)), 1e-9) << row.index;
  }

  std::string error_of(const std::function<void()>& run) {
    try {
      run();
    } catch (const Error& error) {
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  const TempFolder folder_;
  const std::string path_ = folder_ / "latency.csv";
  CampaignConfig config_;
};

constexpr int kReference = kControls * kReferenceRounds;

TEST_F(VisitsTest, ACalmCampaignVisitsEveryRowTwiceInRoundsApart) {
  const Campaign campaign = run_campaign(path_, config_);
  ASSERT_EQ(campaign.rows.size(), 23u);
  EXPECT_EQ(campaign.second_pass.size(), 8u);
  expect_true_values(campaign);
  EXPECT_EQ(campaign.rows[4].index, 4u);
  EXPECT_EQ(campaign.rows[4].latency.repeats, 20);
  EXPECT_EQ(campaign.rows_unsettled, 0);
  EXPECT_EQ(campaign.unsettled, 0);
  EXPECT_EQ(campaign.noise_mape, 0);
  EXPECT_EQ(campaign.noise_median, 0);
  EXPECT_EQ(campaign.measured_per_row, 2);
  EXPECT_GT(campaign.rows_per_second, 0);
  EXPECT_EQ(campaign.setting, latency_setting(config_.latency));

  const CampaignLog log(read_table(path_));
  for (const auto& [row, visits] : log.all_visits()) {
    ASSERT_EQ(visits.size(), 2u);
    if (row.first == 1) {
      EXPECT_GE(visits[1].stretch - visits[0].stretch, 2) << row.second;
    }
  }
  for (size_t i = 1; i < log.stretches().size(); ++i)
    EXPECT_LE(log.stretches()[i].attempts[0].samples.size(), 5u);
}

TEST_F(VisitsTest, ASlowMomentIsMeasuredAgain) {
  slow_while([](int64_t row) { return row >= kReference + 16 && row < kReference + 40 ? 1.2 : 1; });
  const Campaign campaign = run_campaign(path_, config_);
  expect_true_values(campaign);
  EXPECT_EQ(campaign.rows_unsettled, 0);
  EXPECT_EQ(campaign.max_drift, 0);
  EXPECT_EQ(campaign.noise_mape, 0);
  EXPECT_EQ(campaign.measured_per_row, 2 + 15.0 / 31);  // three rounds of five rows
}

TEST_F(VisitsTest, ARowThatIsSlowWhileTheControlsAreNotIsMeasuredAgain) {
  slow_while([](int64_t row) { return row == kReference + 1 || row == kReference + 11 ? 1.1 : 1; });
  const Campaign campaign = run_campaign(path_, config_);
  expect_true_values(campaign);
  EXPECT_EQ(campaign.rows_unsettled, 0);
  EXPECT_EQ(campaign.max_drift, 0);
  EXPECT_EQ(campaign.measured_per_row, 2 + 2.0 / 31);
}

TEST_F(VisitsTest, ACampaignBegunInASlowMomentMendsItself) {
  // The reference and the first two rounds are slow, all alike: they look settled until the machine is back.
  slow_while([](int64_t row) { return row < kReference + 16 ? 1.3 : 1; });
  const Campaign campaign = run_campaign(path_, config_);
  expect_true_values(campaign);
  EXPECT_EQ(campaign.rows_unsettled, 0);
  EXPECT_EQ(campaign.max_drift, 0);
  EXPECT_EQ(campaign.control_ms, true_ms(control_genotypes()[1]));
}

TEST_F(VisitsTest, ResumesAtAnyByte) {
  config_.count = 9;
  config_.second_count = 2;
  slow_while([](int64_t row) { return row < kReference + 5 || (row > 50 && row < 62) ? 1.1 : 1; });
  const Campaign whole = run_campaign(path_, config_);
  EXPECT_GT(whole.measured_per_row, 2);
  const std::string full = read_file(path_);
  const auto still = config_.measure;
  for (size_t cut = 0; cut < full.size(); cut += cut < 400 ? 19 : 61) {
    write_file(path_, full.substr(0, cut));
    const int64_t kept = lines(full.substr(0, cut));
    int measured = 0;
    config_.measure = [&](const Genotype& genotype) {
      ++measured;
      return still(genotype);
    };
    run_campaign(path_, config_);
    ASSERT_EQ(read_file(path_), full) << "cut at byte " << cut;
    ASSERT_EQ(measured, lines(full) - std::max(kept, head())) << "cut at byte " << cut;
  }
  config_.measure = [](const Genotype&) -> Latency { throw Error("measured"); };
  EXPECT_EQ(run_campaign(path_, config_).rows_per_second, 0);
  EXPECT_EQ(read_file(path_), full);
}

TEST_F(VisitsTest, GoesOnWithMore) {
  run_campaign(path_, config_);
  const std::string before = read_file(path_);
  config_.count = 40;
  const Campaign more = run_campaign(path_, config_);
  EXPECT_EQ(more.rows.size(), 40u);
  EXPECT_TRUE(read_file(path_).starts_with(before));
}

TEST_F(VisitsTest, AMachineThatNeverSettlesEndsWithinTheBudget) {
  int calls = 0;  // every measurement is 5% above the one before, until it starts again
  config_.measure = [&](const Genotype& genotype) { return fake(genotype, std::pow(1.05, calls++ % 13)); };
  config_.max_redo_share = 0.5;
  const Campaign campaign = run_campaign(path_, config_);
  EXPECT_EQ(campaign.rows.size(), 23u);
  EXPECT_GT(campaign.rows_unsettled, 0);
  EXPECT_GT(campaign.noise_mape, 0.01);
  EXPECT_GT(campaign.measured_per_row, 2);
  EXPECT_LE(campaign.measured_per_row, 3);  // 31 rows, two visits each and half as many again
  config_.max_redos = 0;
  EXPECT_EQ(run_campaign(path_ + ".none", config_).measured_per_row, 2);
}

TEST_F(VisitsTest, AValueIsTheLowestPairThatAgreesWhereTheControlsHeld) {
  auto visit = [](int round, double ms) { return CampaignLog::Visit{round, {3, 9, {ms, ms, ms, 10, 5}}}; };
  const std::vector<bool> holds = {false, true, true, true, true, false, false};
  RowValue value = row_value({visit(1, 1.3), visit(2, 1.0), visit(3, 1.31), visit(4, 1.01)}, holds, 0.02);
  EXPECT_TRUE(value.settled);
  EXPECT_DOUBLE_EQ(value.measured.latency.median_ms, 1.005);
  EXPECT_EQ(value.measured.latency.repeats, 20);
  EXPECT_EQ(value.measured.latency.macs, 5);
  EXPECT_EQ(value.measured.index, 3u);
  EXPECT_EQ(value.rounds, (std::vector<int>{2, 4}));
  value =
      row_value({visit(1, 1.3), visit(2, 1.0), visit(3, 1.31)}, holds, 0.02);  // the pair above a lone one
  EXPECT_TRUE(value.settled);
  EXPECT_DOUBLE_EQ(value.measured.latency.median_ms, 1.305);
  value = row_value({visit(1, 1.3), visit(2, 1.1), visit(5, 1.1)}, holds, 0.02);  // round 5 does not hold
  EXPECT_FALSE(value.settled);
  EXPECT_DOUBLE_EQ(value.measured.latency.median_ms, 1.1);
  EXPECT_EQ(value.rounds, std::vector<int>{2});
  value = row_value({visit(5, 1.2), visit(6, 1.1)}, holds, 0.02);
  EXPECT_FALSE(value.settled);
  EXPECT_DOUBLE_EQ(value.measured.latency.median_ms, 1.1);
}

TEST_F(VisitsTest, ACountedCostIsCountedOnce) {
  config_.metric = CostMetric::macs;
  config_.measure = nullptr;
  const Campaign campaign = run_campaign(path_, config_);
  EXPECT_EQ(campaign.measured_per_row, 1);
  EXPECT_EQ(campaign.noise_median, 0);
}

TEST_F(VisitsTest, RefusesFilesOfOtherRules) {
  run_campaign(path_, config_);
  config_.tolerance = 0.03;
  EXPECT_EQ(error_of([&] { run_campaign(path_, config_); }),
            path_ + ": refuses to append: it holds tolerance=0.02, expected tolerance=0.03");
  config_.visits = 1;
  EXPECT_NE(error_of([&] { run_campaign(path_, config_); }).find("refuses to append"), std::string::npos);
  run_campaign(path_ + ".old", config_);
  config_.visits = 2;
  EXPECT_NE(error_of([&] { run_campaign(path_ + ".old", config_); }).find("refuses to append"),
            std::string::npos);
  config_.tolerance = 1;
  EXPECT_NE(error_of([&] { run_campaign(path_, config_); }).find("a tolerance between 0 and 1"),
            std::string::npos);
}

TEST_F(VisitsTest, WrongRowsAreRefusedWithTheirLine) {
  run_campaign(path_, config_);
  std::vector<std::string> text;
  const std::string full = read_file(path_);
  for (size_t at = 0; at < full.size();) {
    const size_t end = full.find('\n', at) + 1;
    text.push_back(full.substr(at, end - at));
    at = end;
  }
  const size_t row = size_t(head()) + kReference;  // the first of round 1
  auto broken = [&](const std::function<void(std::vector<std::string>&)>& change) {
    std::vector<std::string> changed = text;
    change(changed);
    std::string joined;
    for (const std::string& line : changed) joined += line;
    write_file(path_, joined);
    return error_of([&] { read_campaign(path_); });
  };
  EXPECT_EQ(broken([&](auto& t) { t.insert(t.begin() + int64_t(row), t[row]); }),
            path_ + ":" + std::to_string(row + 2) + ": index 0 stands in pass 1 of round 1 already");
  EXPECT_EQ(broken([&](auto& t) { t[row].replace(0, 4, "1,1,"); }),
            path_ + ":" + std::to_string(row + 1) + ": attempt 1 of index 0 where its visit 0 was expected");
  EXPECT_TRUE(broken([&](auto& t) {
                t.erase(t.begin() + int64_t(row) + 7);
              }).ends_with("round 2 begins before the controls of round 1"));
  EXPECT_TRUE(broken([&](auto& t) {
                t.erase(t.begin() + int64_t(row), t.begin() + int64_t(row) + 8);
              }).ends_with("round 2 does not follow round 0"));
  EXPECT_TRUE(broken([&](auto& t) {
                t.erase(t.begin() + head(), t.begin() + int64_t(row));
              }).ends_with("round 1 begins before the controls' reference is complete"));
  EXPECT_TRUE(broken([&](auto& t) {
                std::replace(t.begin(), t.end(), std::string("# visits=2\n"), std::string("# visits=1\n"));
              }).ends_with("expected the note visits from 2 to 1000, found 1"));
  EXPECT_TRUE(broken([&](auto& t) {
                std::replace(t.begin(), t.end(), std::string("# tolerance=0.02\n"),
                             std::string("# tolerance=x\n"));
              }).ends_with("expected the note tolerance between 0 and 1, found 'x'"));
}

}  // namespace
}  // namespace lanas
