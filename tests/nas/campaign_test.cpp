// Tests of nas/campaign with a fake meter: resume at any byte, controls and redone stretches, noise,
// refusals.
#include "nas/campaign.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "nas/campaign_log.h"
#include "nas/interrupt.h"
#include "tests/support/fake_campaign.h"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

constexpr int kReference = kControls * kReferenceRounds;  // rows of stretch 0

class CampaignTest : public testing::Test {
 protected:
  void SetUp() override {
    config_.seed = 7;
    config_.count = 23;
    config_.stretch = 5;
    config_.second_count = 6;
    config_.measure = [](const Genotype& genotype) { return fake(genotype); };
  }
  void TearDown() override { stop_flag = 0; }

  // The machine is slower by `factor` while the file has `from` to `to` lines: a function of the file, so
  // that a resumed campaign sees the same machine.
  void drift_between(int64_t from, int64_t to, double factor) {
    config_.measure = [this, from, to, factor](const Genotype& genotype) {
      const int64_t at = lines(read_file(path_));
      return fake(genotype, at >= from && at < to ? factor : 1);
    };
  }

  // Lines before the first row: the setting, seed, shard, shards, and the columns.
  int64_t head() const { return int64_t(latency_setting(config_.latency).size()) + 3 + 1; }

  std::string error_of(const std::function<void()>& run) {
    try {
      run();
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_EQ(text.find('\n'), text.npos) << text;
      return text;
    }
    ADD_FAILURE() << "no error";
    return "";
  }

  const TempFolder folder_;
  const std::string path_ = folder_ / "latency.csv";
  CampaignConfig config_;
};

TEST(SteadyRounds, CountThoseNearTheReference) {
  const std::vector<SteadyTimes> rounds = {
      {{5, 7}, 1.7, 0.7}, {{2, 4}, 1.01, 0.015}, {{9}, 1.3, 0.3}, {{1, 3}, 0.99, 0.01}};
  const SteadyTimes steady = steady_rounds(rounds, 0.02);
  EXPECT_EQ(steady.ms, (std::vector<double>{1, 2, 3, 4}));
  EXPECT_DOUBLE_EQ(steady.control, 1);
  EXPECT_EQ(steady.control_off, 0.015);
  const SteadyTimes nearest = steady_rounds(rounds, 0.005);
  EXPECT_EQ(nearest.ms, rounds[3].ms);
  EXPECT_EQ(nearest.control_off, 0.01);
  EXPECT_THROW(steady_rounds({}, 0.02), Error);
}

TEST_F(CampaignTest, HoldsTheSequence) {
  const Campaign campaign = run_campaign(path_, config_);
  ASSERT_EQ(campaign.rows.size(), 23u);
  for (size_t i = 0; i < 23; ++i) {
    const Genotype genotype = sample_architecture(7, i).genotype;
    EXPECT_EQ(campaign.rows[i].index, i);
    EXPECT_EQ(campaign.rows[i].key, genotype_key(genotype));
    EXPECT_EQ(campaign.rows[i].latency.median_ms, true_ms(genotype));
    EXPECT_EQ(campaign.rows[i].latency.p10_ms, true_ms(genotype) * 0.9);
    EXPECT_EQ(campaign.rows[i].latency.repeats, 10);
  }
  EXPECT_EQ(campaign.second_pass.size(), 8u);  // every third: 0, 3, ... 21
  EXPECT_EQ(campaign.stretches, 7);            // 31 rows, five at a time
  EXPECT_EQ(campaign.redone, 0);
  EXPECT_EQ(campaign.noise_mape, 0);
  EXPECT_EQ(campaign.max_drift, 0);
  EXPECT_GT(campaign.rows_per_second, 0);
  EXPECT_EQ(campaign.seed, 7u);
  EXPECT_EQ(campaign.setting, latency_setting(config_.latency));

  const Dataset data = latency_dataset(campaign);
  EXPECT_EQ(data.rows, 23);
  EXPECT_EQ(data.columns, 224);
  EXPECT_EQ(data.y[3], campaign.rows[3].latency.median_ms);
  const auto code = encode(sample_architecture(7, 3).genotype);
  EXPECT_TRUE(std::equal(code.begin(), code.end(), data.row(3)));
  EXPECT_EQ(macs_dataset(campaign).y[5], 12345);
}

TEST_F(CampaignTest, TheControlsDiffer) {
  std::set<uint64_t> keys;
  for (const Genotype& control : control_genotypes()) {
    check_genotype(control);
    keys.insert(genotype_key(control));
  }
  EXPECT_EQ(keys.size(), 3u);
}

TEST_F(CampaignTest, ResumesAtAnyByte) {
  config_.count = 9;
  config_.second_count = 2;
  drift_between(head() + kReference + 9, head() + kReference + 16, 1.1);  // a stretch is redone on the way
  const Campaign whole = run_campaign(path_, config_);
  EXPECT_EQ(whole.redone, 1);
  const std::string full = read_file(path_);
  const auto still = config_.measure;
  for (size_t cut = 0; cut < full.size(); cut += cut < 400 ? 7 : 23) {
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
}

TEST_F(CampaignTest, StopsBetweenRows) {
  run_campaign(path_, config_);
  const std::string full = read_file(path_);
  std::filesystem::remove(path_);
  int measured = 0;
  const auto measure = config_.measure;
  config_.measure = [&](const Genotype& genotype) {
    if (++measured == 15) stop_flag = 1;
    return measure(genotype);
  };
  EXPECT_THROW(run_campaign(path_, config_), Interrupted);
  EXPECT_EQ(measured, 15);
  stop_flag = 0;
  run_campaign(path_, config_);
  EXPECT_EQ(read_file(path_), full);
}

TEST_F(CampaignTest, AFinishedCampaignMeasuresNothing) {
  run_campaign(path_, config_);
  const std::string full = read_file(path_);
  config_.measure = [](const Genotype&) -> Latency { throw Error("measured"); };
  const Campaign again = run_campaign(path_, config_);
  EXPECT_EQ(again.rows.size(), 23u);
  EXPECT_EQ(again.rows_per_second, 0);
  EXPECT_EQ(read_file(path_), full);
}

TEST_F(CampaignTest, GoesOnWithMore) {
  run_campaign(path_, config_);
  const std::string before = read_file(path_);
  config_.count = 40;
  const Campaign more = run_campaign(path_, config_);
  EXPECT_EQ(more.rows.size(), 40u);
  EXPECT_TRUE(read_file(path_).starts_with(before));
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(more.rows[i].index, i);
}

TEST_F(CampaignTest, ShardsAreDisjoint) {
  std::set<uint64_t> seen;
  for (int shard = 0; shard < 3; ++shard) {
    config_.shard = shard;
    config_.shards = 3;
    const Campaign campaign = run_campaign(path_ + std::to_string(shard), config_);
    for (const MeasuredArchitecture& row : campaign.rows) {
      EXPECT_EQ(row.index % 3, uint64_t(shard));
      EXPECT_EQ(row.key, genotype_key(sample_architecture(7, row.index).genotype));
      seen.insert(row.index);
    }
  }
  EXPECT_EQ(seen.size(), 69u);
  EXPECT_EQ(*seen.rbegin(), 68u);
  EXPECT_NE(error_of([&] { run_campaign(path_ + "0", config_); }).find("refuses to append: it holds shard=0"),
            std::string::npos);
}

TEST_F(CampaignTest, NoiseIsThatOfThePairs) {
  int calls = 0;
  config_.measure = [&](const Genotype& genotype) {
    // The reference controls, then 23 + 8 samples, and 3 controls after every 5 of them
    const int at = calls++ - kReference, stretch = at / 8, row = stretch * 5 + at % 8;
    return fake(genotype, at >= 0 && at % 8 < 5 && row >= 23 && row < 31 ? (row % 2 ? 1.04 : 0.98) : 1);
  };
  const Campaign campaign = run_campaign(path_, config_);
  ASSERT_EQ(campaign.second_pass.size(), 8u);
  const double high = 0.04 / (std::sqrt(2.0) * 1.02), low = 0.02 / (std::sqrt(2.0) * 0.99);
  EXPECT_NEAR(campaign.noise_mape, (high + low) / 2, 1e-12);
  EXPECT_EQ(campaign.redone, 0);

  config_.second_count = 0;
  EXPECT_TRUE(std::isnan(run_campaign(path_ + ".single", config_).noise_mape));
}

TEST_F(CampaignTest, ADriftedStretchIsMeasuredAgain) {
  // Stretch 2, rows 5 to 9: lines head() + kReference + 8 .. + 8 more.
  drift_between(head() + kReference + 8, head() + kReference + 16, 1.1);
  const Campaign campaign = run_campaign(path_, config_);
  EXPECT_EQ(campaign.redone, 1);
  EXPECT_EQ(campaign.stretches, 7);
  EXPECT_EQ(campaign.max_drift, 0);
  ASSERT_EQ(campaign.rows.size(), 23u);
  for (const MeasuredArchitecture& row : campaign.rows)
    EXPECT_EQ(row.latency.median_ms, true_ms(genotype_from_key(row.key)));
  EXPECT_EQ(lines(read_file(path_)), head() + kReference + 7 * 3 + 31 + 8);
}

TEST_F(CampaignTest, ASmallDriftIsAccepted) {
  drift_between(head() + kReference + 8, head() + kReference + 16, 1.015);
  const Campaign campaign = run_campaign(path_, config_);
  EXPECT_EQ(campaign.redone, 0);
  EXPECT_NEAR(campaign.max_drift, 0.015, 1e-9);
  EXPECT_NEAR(campaign.mean_drift, 0.015 / 7, 1e-9);
}

TEST_F(CampaignTest, ALastingDriftEndsInTheRecord) {
  drift_between(head() + kReference + 8, 1 << 30, 0.9);
  config_.max_redo_share = 0.5;  // of 31 / 5 = 6.2 stretches: 3 redos
  const Campaign campaign = run_campaign(path_, config_);
  EXPECT_EQ(campaign.rows.size(), 23u);
  EXPECT_EQ(campaign.stretches, 7);
  EXPECT_EQ(campaign.redone, 2);  // one twice, one once
  EXPECT_EQ(campaign.unsettled, 6);
  EXPECT_NEAR(campaign.max_drift, 0.1, 1e-9);
  EXPECT_NEAR(campaign.mean_drift, 0.1 * 6 / 7, 1e-9);
}

TEST_F(CampaignTest, TheSteadiestAttemptCounts) {
  config_.measure = [&](const Genotype& genotype) {  // attempts of stretch 1 at 1.2, 1.05 and 1.3
    const int64_t at = lines(read_file(path_)) - head() - kReference;
    return fake(genotype, at < 0 || at >= 24 ? 1 : at < 8 ? 1.2 : at < 16 ? 1.05 : 1.3);
  };
  const Campaign campaign = run_campaign(path_, config_);
  EXPECT_NEAR(campaign.max_drift, 0.05, 1e-9);
  for (size_t i = 0; i < campaign.rows.size(); ++i)
    EXPECT_NEAR(campaign.rows[i].latency.median_ms,
                true_ms(genotype_from_key(campaign.rows[i].key)) * (i < 5 ? 1.05 : 1), 1e-9);
}

TEST_F(CampaignTest, RefusesAnotherSetting) {
  run_campaign(path_, config_);
  const std::string full = read_file(path_);
  CampaignConfig other = config_;
  other.seed = 8;
  EXPECT_EQ(error_of([&] { run_campaign(path_, other); }),
            path_ + ": refuses to append: it holds seed=7, expected seed=8");
  other = config_;
  other.latency.threads = 2;
  EXPECT_EQ(error_of([&] { run_campaign(path_, other); }),
            path_ + ": refuses to append: it holds threads=1, expected threads=2");
  other = config_;
  other.latency.network.channels = 8;
  EXPECT_EQ(error_of([&] { run_campaign(path_, other); }),
            path_ + ": refuses to append: it holds channels=36, expected channels=8");
  write_file(path_, "a,b\n1,2\n");
  EXPECT_NE(error_of([&] { run_campaign(path_, config_); }).find("refuses to append"), std::string::npos);
  EXPECT_NE(error_of([&] { read_campaign(path_); }).find("not a latency campaign"), std::string::npos);
  EXPECT_EQ(read_file(path_), "a,b\n1,2\n");
}

TEST_F(CampaignTest, WrongRowsAreRefusedWithTheirLine) {
  run_campaign(path_, config_);
  const std::string full = read_file(path_);
  std::vector<std::string> text;
  for (size_t at = 0; at < full.size();) {
    const size_t end = full.find('\n', at) + 1;
    text.push_back(full.substr(at, end - at));
    at = end;
  }
  const size_t row = size_t(head()) + kReference + 8;  // the first of stretch 2
  auto broken = [&](const std::function<void(std::vector<std::string>&)>& change) {
    std::vector<std::string> changed = text;
    change(changed);
    std::string joined;
    for (const std::string& line : changed) joined += line;
    write_file(path_, joined);
    return error_of([&] { read_campaign(path_); });
  };
  const std::string place = path_ + ":" + std::to_string(row + 1) + ": ";
  auto replace = [&](const std::string& from, const std::string& to) {
    return broken([&](std::vector<std::string>& t) {
      const size_t at = t[row].find(from);
      ASSERT_NE(at, std::string::npos) << t[row];
      t[row].replace(at, from.size(), to);
    });
  };
  const std::string key = std::to_string(genotype_key(sample_architecture(7, 5).genotype));
  EXPECT_TRUE(replace(key, "1").starts_with(place + "key 1 is not that of index 5"));
  EXPECT_TRUE(replace(key + ",", key + ",-").starts_with(place + "column latency_ms: '-"));
  EXPECT_TRUE(replace(key + ",", key + ",nan").starts_with(place + "column latency_ms: 'nan"));
  EXPECT_TRUE(replace("sample", "simple").starts_with(place + "column kind: expected sample or control"));
  EXPECT_TRUE(replace("/t1/", "/t2/").starts_with(place + "setting cpu/"));
  EXPECT_EQ(replace("2,0,", "3,0,"), place + "attempt 0 of stretch 3 does not follow attempt 0 of stretch 1");
  EXPECT_TRUE(broken([&](auto& t) {
                t.insert(t.begin() + int64_t(row), t[row]);
              }).ends_with(":" + std::to_string(row + 2) + ": index 5 stands in pass 1 already"));
  EXPECT_TRUE(broken([&](auto& t) {
                t.erase(t.begin() + int64_t(row) - 1);
              }).ends_with("stretch 2 begins before the controls of stretch 1"));
  EXPECT_TRUE(
      broken([&](auto& t) { t.back().pop_back(); }).ends_with("the last line is cut (it has no line break)"));
  EXPECT_TRUE(broken([&](auto& t) {
                t.resize(size_t(head()) + kReference + 3);
              }).ends_with("holds no complete stretch of measured architectures"));
  EXPECT_NE(broken([&](auto& t) { t.clear(); }).find("the file is empty"), std::string::npos);
}

TEST_F(CampaignTest, SteadyTimesStopWhenAskedTo) {
  LatencyConfig config;
  config.network = {.channels = 4, .layers = 3, .batch = 1};
  LatencyMeter meter(config);
  stop_flag = 1;
  EXPECT_THROW(steady_times(meter, resolve_genotype("DARTS_V2"), 1.0), Interrupted);
}

TEST_F(CampaignTest, ReportsProgress) {
  std::vector<CampaignProgress> seen;
  config_.progress = [&](const CampaignProgress& progress) { seen.push_back(progress); };
  run_campaign(path_, config_);
  ASSERT_EQ(seen.size(), 32u);
  EXPECT_EQ(seen.front().done, 0);
  EXPECT_EQ(seen.back().done, 31);
  EXPECT_EQ(seen.back().total, 31);
  EXPECT_EQ(seen.back().eta_seconds, 0);
  EXPECT_GT(seen[5].eta_seconds, 0);
}

}  // namespace
}  // namespace lanas
