// Tests of ./bench_latency as a user starts it: the fields of its JSON and whether they make sense, and the
// line that wrong input gets.
#include <gtest/gtest.h>

#include <cmath>

#include "nas/genotype.h"
#include "tests/programs/bench_program.h"

namespace lanas::test {
namespace {

TEST_F(BenchLatency, FitsAnyTable) {
  write_text(at("t.csv"), table(100));
  const Json json = measure(fit("t.csv"));
  for (const char* key :
       {"test_mape", "test_median_ape", "within_5", "within_10", "spearman", "kendall", "mae", "linear_mape",
        "linear_spearman", "mlp_alone_mape", "n_train", "n_test", "seconds"})
    EXPECT_TRUE(json[key].is_number()) << key;
  EXPECT_EQ(json["n_train"], 70);
  EXPECT_EQ(json["n_test"], 30);
  EXPECT_LT(json["test_mape"], 0.05);
  EXPECT_GT(json["spearman"], 0.95);
  EXPECT_LE(json["test_mape"].get<double>(), 1.05 * json["linear_mape"].get<double>());
  EXPECT_EQ(measure(fit("t.csv"))["test_mape"], json["test_mape"]) << "same seed, other numbers";
}

TEST_F(BenchLatency, RefusesWrongWords) {
  refuse_bench({"nope"},
               {"bench_latency: expected sample, fit, network, predict, step, transfer or kernels"});
  refuse_bench({"network", "--genotype", "DARTS_V2", "--batchs", "3"},
               {"network: unknown option --batchs (did you mean --batch, --batches?)"});
  refuse_bench({"network", "--genotype", "DARTS_V2", "--batch", "few"}, {"--batch = few: expected a number"});
  refuse_bench({"network"}, {"--genotype is required"});
  refuse_bench({"kernels", "--genotype", "DARTS_V2", "--supernet", "darts"}, {"--genotype", "--supernet"});
}

TEST_F(BenchLatency, RefusesWrongTables) {
  const std::string good = table(80);
  const auto refused = [&](const std::string& text, const Words& parts) {
    write_text(at("t.csv"), text);
    refuse_bench(fit("t.csv"), parts + Words{"t.csv"});
  };
  refused("", {});
  refused("a,b,c,cost_ms\n", {"no rows"});
  refused(good.substr(0, good.size() - 3), {"81"});
  refused(good + "0,0,0,1.02\n", {"82", "copy", "line 2"});
  refused(good + "0,0,4,nan\n", {"82"});
  refused(good + "0,0,4,0\n", {"82"});
  refused(good + "0,0,4,-1\n", {"82"});
  refused(good + "0,0,4\n", {"82"});
  refused("a,b,cost_ms\n1,2,3\n", {"'c'"});
  write_text(at("one.csv"), table(1));
  refuse_bench({"fit", "--data", "one.csv", "--features", "a,b", "--target", "cost_ms"}, {"1 rows"});
  refuse_bench({"fit", "--data", "none.csv", "--features", "a", "--target", "cost_ms"}, {"none.csv"});
  write_text(at("t.csv"), good);
  refuse_bench({"fit", "--data", "t.csv", "--features", "a", "--target", "b_ms"}, {"b_ms"});
  refuse_bench({"fit", "--data", "t.csv", "--features", "a", "--target", "cost_ms", "--train", "80"},
               {"--train", "80"});
  refuse_bench({"fit", "--data", "t.csv"}, {"--features"});
  refuse_bench({"fit"}, {"--campaign"});
}

TEST_F(BenchLatency, FitsACampaignAndPredicts) {
  write_latency_table(at("latency.csv"), 125);
  const Json json = measure({"fit", "--campaign", "latency.csv", "--train", "100", "--curve", "--threads",
                             "1", "--no-mlp-alone", "--save", "p.safetensors", "--csv", "fit.csv"});
  EXPECT_EQ(json["curve"].size(), 2u);
  EXPECT_EQ(json["curve"][1]["samples"], 100);
  EXPECT_DOUBLE_EQ(json["curve"][1]["mape"], json["test_mape"]);
  EXPECT_TRUE(json["macs_mape"].is_number());
  EXPECT_TRUE(json["mlp_alone_mape"].is_null());
  EXPECT_TRUE(read_text(at("fit.csv")).starts_with("model,mape_%"));

  const Json prediction = measure({"predict", "--predictor", "p.safetensors", "--genotype", "DARTS_V2"});
  EXPECT_EQ(prediction["edges"].size(), 16u);
  EXPECT_LE(prediction["low_ms"], prediction["ms"]);
  EXPECT_LE(prediction["ms"], prediction["high_ms"]);
  const CellGenotype normal = canonical(resolve_genotype("DARTS_V2")).normal;
  EXPECT_EQ(prediction["edges"][0]["op"], op_name(normal[0].op));
  EXPECT_TRUE(std::isfinite(prediction["edges"][0]["contribution_ms"].get<double>()));

  refuse_bench({"predict", "--predictor", "latency.csv", "--genotype", "DARTS_V2"}, {"latency.csv"});
  refuse_bench({"predict", "--predictor", "p.safetensors", "--genotype", "nonsense"}, {"nonsense"});
  refuse_bench({"fit", "--campaign", "latency.csv,latency.csv"}, {"latency.csv"});
  refuse_bench({"fit", "--campaign", "p.safetensors"}, {"p.safetensors"});
}

TEST_F(BenchLatency, SamplesAndGoesOn) {
  const Words words =
      tiny("sample") + Words{"--out", "s.csv",    "--count", "4",       "--stretch", "8",      "--max-redos",
                             "0",     "--max-ms", "6",       "--shard", "1/2",       "--seed", "3"};
  const Json json = measure(words);
  EXPECT_EQ(json["architectures"], 4);
  EXPECT_EQ(json["repeated"], 4);
  EXPECT_GT(json["architectures_per_second"], 0);
  EXPECT_GT(json["min_ms"], 0);
  EXPECT_LE(json["min_ms"], json["median_ms"]);
  EXPECT_TRUE(json["noise_mape"].is_number());
  EXPECT_TRUE(json["noise_median"].is_number());
  EXPECT_GE(json["waited_share"], 0);
  EXPECT_LT(json["waited_share"], 1);
  const std::string before = read_text(at("s.csv"));
  measure(words);
  EXPECT_EQ(read_text(at("s.csv")), before) << "a finished campaign was measured again";
  refuse_bench(words + Words{"--channels", "5"}, {"s.csv", "channels"});
  refuse_bench(words + Words{"--shard", "2/2"}, {"--shard", "2/2"});
  refuse_bench(words + Words{"--shard", "1/2x"}, {"--shard", "1/2x"});
  refuse_bench(words + Words{"--max-wait-share", "-1"}, {"--max-wait-share"});
  refuse_bench(words + Words{"--max-redo-share", "-1"}, {"--max-redo-share"});
}

TEST_F(BenchLatency, TellsTheDistributionAndCompares) {
  const Words words =
      tiny("network") + Words{"--genotype", "DARTS_V2", "--batches", "1,2", "--repeats", "20"};
  const Json first = measure(words);
  ASSERT_EQ(first["rows"].size(), 2u);
  for (const Json& row : first["rows"]) {
    EXPECT_EQ(row["times_ms"].size(), 20u);
    EXPECT_GT(row["p1_ms"], 0);
    EXPECT_LE(row["p1_ms"], row["p50_ms"]);
    EXPECT_LE(row["p50_ms"], row["p99_ms"]);
    EXPECT_EQ(row["p50_ms"], row["median_ms"]);
  }
  EXPECT_EQ(first["rows"][0]["macs"], first["rows"][1]["macs"]);
  write_text(at("first.json"), first.dump());
  const Json second = measure(words + Words{"--against", "first.json"});
  for (const Json& row : second["rows"]) {
    const Json& against = row["against"];
    EXPECT_GT(against["ratio"], 0);
    EXPECT_LE(against["low"], against["high"]);
  }
  write_text(at("other.json"), "{\"rows\": 3}");
  refuse_bench(words + Words{"--against", "other.json"}, {"other.json"});
  refuse_bench(words + Words{"--against", "stdout.txt"}, {"stdout.txt"});
  refuse_bench(tiny("network") + Words{"--genotype", "DARTS_V2", "--against", "first.json", "--batches", "3"},
               {"first.json"});
  refuse_bench(words + Words{"--image", "0"}, {"--image"});
  refuse_bench(words + Words{"--json", "-", "--csv", "-"}, {"--csv"});
}

TEST_F(BenchLatency, TimesATrainingStep) {
  for (const Words& what : {Words{"--supernet", "darts"}, Words{"--supernet", "pc-darts", "--partial", "2"},
                            Words{"--genotype", "DARTS_V1"}}) {
    const Json json = measure(tiny("step") + what + Words{"--repeats", "3", "--warmup", "1"});
    EXPECT_GT(json["p10_ms"], 0) << what[1];
    EXPECT_LE(json["p10_ms"], json["median_ms"]);
    EXPECT_LE(json["median_ms"], json["p90_ms"]);
    const int64_t parts = json["workspace_bytes"].get<int64_t>() + json["parameter_bytes"].get<int64_t>() +
                          json["gradient_bytes"].get<int64_t>() + json["optimiser_bytes"].get<int64_t>() +
                          json["input_bytes"].get<int64_t>();
    EXPECT_EQ(json["peak_bytes"].get<int64_t>(), parts);
    EXPECT_GE(json["parameter_bytes"].get<int64_t>(), 4 * json["parameters"].get<int64_t>());
  }
  refuse_bench({"step", "--supernet", "nas"}, {"nas"});
  refuse_bench({"step"}, {"--supernet"});
}

TEST_F(BenchLatency, ExplainsTheTime) {
  for (const bool training : {false, true}) {
    const Words what = training ? Words{"--supernet", "pc-darts", "--cold-repeats", "0"}
                                : Words{"--genotype", "DARTS_V2", "--cold-repeats", "1"};
    const Json json = measure(tiny("kernels") + what + Words{"--repeats", "3"});
    double sum = 0, flops = 0, weighted = 0, least = 1e9;
    std::vector<std::pair<double, double>> shares;  // of FLOPs
    bool convolution = false;
    int updates = 0, shuffles = 0;
    for (const Json& row : json["rows"]) {
      // The nodes of a cell read 2 to 5 states of 4 channels, of which an edge takes one and 3 bypass it.
      if (row["op"] == "channel_shuffle" && row["pass"] == "weight forward" &&
          row["shape"] == "2x8x8x1>2x8x8x4") {
        EXPECT_EQ(row["count"], 4);
        EXPECT_EQ(row["bytes"], 4 * (2 * 8 * 8 * (1 + 4 + 3.5 * 3) + 3.5)) << "the mean of the four";
        ++shuffles;
      }
      updates += row["pass"].get<std::string>().ends_with("update") && row["bytes"] > 0 && row["gb_s"] > 0;
      sum += row["total_ms"].get<double>();
      EXPECT_GT(row["each_ms"], 0) << row;
      EXPECT_GE(row["count"], 1);
      if (const double bytes = row["bytes"]; bytes > 0) {  // what is both read and written is copied
        const double written = row["bytes_written"], copied = std::min(bytes - written, written);
        const double ms = 1e-6 * ((copied + written) / json["copy_gb_s"].get<double>() +
                                  (bytes - written - copied) / json["read_gb_s"].get<double>());
        EXPECT_NEAR(row["of_memory"].get<double>(), ms / row["each_ms"].get<double>(),
                    1e-9 * ms / row["each_ms"].get<double>())
            << row;
      }
      if (row["flops"] > 0) {
        const double share = std::max(row["of_memory"].get<double>(), row["of_fma"].get<double>());
        flops += row["flops"].get<double>() * row["count"].get<double>();
        weighted += share * row["flops"].get<double>() * row["count"].get<double>();
        shares.emplace_back(row["flops"].get<double>() * row["count"].get<double>(), share);
      }
      convolution |= row["op"].get<std::string>().starts_with("separable_conv") && row["flops"] > 0 &&
                     row["bytes"] > 0 && row["hot_ms"] > 0 && (training || row["cold_ms"] > 0);
    }
    EXPECT_TRUE(convolution);
    EXPECT_EQ(updates, training ? 2 : 0) << "adam, and clip and sgd";
    EXPECT_EQ(shuffles, training ? 1 : 0);
    EXPECT_NEAR(sum, json["sum_ms"], 1e-9 * sum);
    EXPECT_NEAR(json["end_to_end_ms"].get<double>() - sum, json["unexplained_ms"], 1e-9 * sum);
    EXPECT_GT(json["copy_gb_s"], 0);
    EXPECT_GT(json["read_gb_s"], 0);
    EXPECT_GT(json["fma_gflop_s"], 0);
    const Json& of_ceiling = json["of_ceiling"];
    EXPECT_NEAR(of_ceiling["weighted"].get<double>(), weighted / flops, 1e-9 * weighted / flops);
    for (const auto& [work, share] : shares)
      if (work >= 1e-3 * flops) least = std::min(least, share);
    EXPECT_NEAR(of_ceiling["least"].get<double>(), least, 1e-9 * least);
    EXPECT_LE(of_ceiling["least"].get<double>(), of_ceiling["weighted"].get<double>());
  }
  refuse_bench({"kernels", "--supernet", "nas"}, {"nas"});
}

}  // namespace
}  // namespace lanas::test
