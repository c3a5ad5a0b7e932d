// Tests of ./bench_latency on files that are wrong, on transfer between devices, on counted costs, look-up
// tables, sweeps and plots.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "nas/genotype.h"
#include "tests/programs/bench_program.h"

namespace lanas::test {
namespace {

class BenchTables : public BenchLatency {
 protected:
  // Three devices whose costs are related: the first two almost proportional.
  static std::string devices(int rows) {
    std::string text = "a,b,c,one_ms,two_ms,three_ms\n";
    for (int i = 0; i < rows; ++i) {
      const int a = i % 5, b = i / 5 % 5, c = i / 25 % 5;
      const double one = 2 + a + 0.5 * b * (1 + 0.1 * c) + 0.2 * c;
      text += join(a, ',', b, ',', c, ',', one, ',', 3 * one + 0.02 * a * b, ',', 4 + 0.1 * a + b + 0.3 * c,
                   '\n');
    }
    return text;
  }
  static Words transfer(const std::string& file) {
    return {"transfer", "--data",    file,   "--features", "a,b,c", "--source-train", "60", "--test",
            "30",       "--samples", "5,10", "--threads",  "1"};
  }
  static double mean_of(const Json& json, const std::string& model, int samples, const char* key) {
    for (const Json& row : json["means"])
      if (row["model"] == model && row["samples"] == samples) return row[key];
    ADD_FAILURE() << "no " << model;
    return 0;
  }
};

TEST_F(BenchTables, TransfersFromAnotherDevice) {
  write_text(at("d.csv"), devices(125));
  const Json json =
      measure(transfer("d.csv") + Words{"--sources", "one_ms", "--target", "two_ms", "--plot", "t.svg"});
  EXPECT_EQ(json["pairs"].size(), 1u);
  EXPECT_EQ(json["pairs"][0]["chosen"].size(), 10u);
  EXPECT_EQ(json["means"].size(), 12u);  // six models, twice
  EXPECT_LT(mean_of(json, "transfer", 10, "mape"), mean_of(json, "ridge", 10, "mape"));
  EXPECT_LT(mean_of(json, "transfer", 10, "mape"), mean_of(json, "mlp", 10, "mape"));
  EXPECT_GT(mean_of(json, "transfer", 10, "spearman"), 0.97);
  EXPECT_TRUE(read_text(at("t.svg")).find("<svg") != std::string::npos);

  const Json all = measure(transfer("d.csv") + Words{"--all-pairs", "one_ms,two_ms,three_ms", "--no-mlp"});
  EXPECT_EQ(all["pairs"].size(), 6u);
  const Json both = measure(transfer("d.csv") + Words{"--sources", "one_ms,three_ms", "--target", "two_ms"});
  EXPECT_EQ(both["pairs"][0]["source"], "one_ms three_ms");
  EXPECT_GT(mean_of(both, "transfer", 10, "spearman"), 0.97);
}

TEST_F(BenchTables, TransfersBetweenCampaigns) {
  write_latency_table(at("s.csv"), 240);  // the source without the 30 architectures tested on
  const Json json = measure({"transfer", "--target-campaign", "s.csv", "--source-campaign", "s.csv",
                             "--samples", "8", "--test", "30", "--threads", "1", "--no-mlp"});
  EXPECT_EQ(json["means"].size(), 5u);
  EXPECT_GT(mean_of(json, "transfer", 8, "spearman"), 0.9) << "it is the same device";
}

TEST_F(BenchTables, RefusesWrongTransfers) {
  write_text(at("d.csv"), devices(125));
  refuse_bench(transfer("d.csv") + Words{"--sources", "one_ms"}, {"--target"});
  refuse_bench(transfer("d.csv") + Words{"--sources", "one_ms", "--target", "one_ms"}, {"one_ms"});
  refuse_bench(transfer("d.csv") + Words{"--sources", "none_ms", "--target", "one_ms"}, {"none_ms"});
  refuse_bench(transfer("d.csv") + Words{"--sources", "two_ms", "--target", "one_ms", "--samples", "3"},
               {"samples"});
  refuse_bench(transfer("d.csv") + Words{"--sources", "two_ms", "--target", "one_ms", "--samples", "100"},
               {"--samples"});
  refuse_bench({"transfer"}, {"--data"});
  write_latency_table(at("s.csv"), 40);
  refuse_bench({"transfer", "--target-campaign", "s.csv"}, {"--source-campaign"});
  refuse_bench({"transfer", "--target-campaign", "d.csv", "--source-campaign", "s.csv"}, {"d.csv"});
}

TEST_F(BenchTables, RefusesWrongCampaigns) {
  write_latency_table(at("good.csv"), 40);
  const std::string good = read_text(at("good.csv"));
  const size_t header = good.find("stretch,"), end = good.find('\n', header) + 1;
  const auto refused = [&](const std::string& text, const Words& parts) {
    write_text(at("bad.csv"), text);
    refuse_bench({"fit", "--campaign", "bad.csv"}, parts + Words{"bad.csv"});
  };
  refused("", {"empty"});
  refused(good.substr(0, end), {"reference"});                               // no rows
  refused(good.substr(0, good.size() - 5), {"cut"});                         // cut within a row
  refused(good.substr(header), {"seed"});                                    // no notes
  refused(good.substr(0, end) + good.substr(good.find('\n', end) + 1), {});  // the first row is missing
  const size_t last = good.rfind('\n', good.size() - 2) + 1;
  refused(good + good.substr(last), {});  // the last row twice
  // A cell of the first sample: another device, no number, nothing, zero, below zero.
  const size_t sample = good.find(",sample,");
  const size_t begin = good.rfind('\n', sample) + 1, stop = good.find('\n', begin);
  std::vector<std::string> cells;
  for (size_t from = begin; from <= stop;) {
    const size_t to = std::min(good.find(',', from), stop);
    cells.push_back(good.substr(from, to - from));
    from = to + 1;
  }
  ASSERT_EQ(cells.size(), 12u);
  const auto with = [&](size_t column, const std::string& cell) {
    std::string row;
    for (size_t i = 0; i < cells.size(); ++i) row += (i ? "," : "") + (i == column ? cell : cells[i]);
    return good.substr(0, begin) + row + good.substr(stop);
  };
  for (const char* wrong : {"nan", "0", "-1", "", "inf", "x"}) refused(with(6, wrong), {"latency_ms"});
  refused(with(11, "cuda/H100"), {"setting"});
  refused(with(5, "12"), {"key"});
  refused(with(9, "0"), {"repeats"});
  refused(with(10, "-1"), {"macs"});
  // Files of two devices; a column that is not there.
  std::string other = good;
  for (size_t at = other.find("threads=1"); at != std::string::npos; at = other.find("threads=1"))
    other[at + 8] = '2';
  write_text(at("other.csv"), other);
  refuse_bench({"fit", "--campaign", "good.csv,other.csv"}, {"other.csv"});
  std::string renamed = good;
  renamed.replace(renamed.find("latency_ms"), 10, "seconds_ms");
  refused(renamed, {"latency_ms"});
}

TEST_F(BenchTables, SamplesCountedCosts) {
  for (const std::string metric : {"macs", "peak-memory"}) {
    const Words words = tiny("sample") + Words{"--out", metric + ".csv", "--count", "60", "--metric", metric};
    const Json json = measure(words);
    EXPECT_EQ(json["metric"], metric);
    EXPECT_EQ(json["noise_mape"], 0);
    EXPECT_GT(json[metric == "macs" ? "median_mmac" : "median_mib"], 0);
    const Json fit = measure({"fit", "--campaign", metric + ".csv", "--threads", "1", "--no-mlp-alone"});
    EXPECT_EQ(fit["metric"], metric);
    EXPECT_EQ(fit["unit"], metric == "macs" ? "MMAC" : "MiB");
    EXPECT_TRUE(fit.contains("mae") && !fit.contains("mae_ms"));
    if (metric == "macs") {
      EXPECT_LT(fit["macs_mape"], 1e-4) << "the cost is the number of multiply-adds";
    }
    refuse_bench(tiny("sample") + Words{"--out", metric + ".csv", "--count", "60"},
                 {metric + ".csv", "refuses to append"});
    refuse_bench({"fit", "--campaign", metric + ".csv", "--metric", "latency"}, {metric + ".csv"});
  }
  measure({"fit", "--campaign", "macs.csv", "--threads", "1", "--no-mlp-alone", "--save", "p"});
  const Json predicted = measure({"predict", "--predictor", "p", "--genotype", "DARTS_V2"});
  EXPECT_TRUE(predicted.contains("MMAC") && !predicted.contains("ms"));
  refuse({"search", "--predictor", "p", "--lambda", "0.1"}, {"p: predicts MMAC, expected ms"});
  refuse_bench(tiny("sample") + Words{"--out", "x.csv", "--metric", "watt"}, {"watt"});
  refuse_bench({"fit", "--campaign", "macs.csv,peak-memory.csv"}, {"peak-memory.csv"});
  // Counted for the architectures of a campaign of latencies.
  write_latency_table(at("latency.csv"), 60);
  for (const std::string metric : {"macs", "peak-memory"})
    EXPECT_EQ(measure({"fit", "--campaign", "latency.csv", "--metric", metric, "--threads", "1",
                       "--no-mlp-alone"})["metric"],
              metric);
}

TEST_F(BenchTables, ComparesWithALookUpTable) {
  const Words words = tiny("sample") + Words{"--out", "s.csv",    "--count", "40",       "--max-redos",
                                             "0",     "--max-ms", "2",       "--lookup", "l.csv"};
  measure(words);
  const Json fit = measure({"fit", "--campaign", "s.csv", "--lookup", "l.csv", "--threads", "1",
                            "--no-mlp-alone", "--plot", "p.svg", "--plot-macs", "m.png"});
  EXPECT_TRUE(fit["lookup_mape"].is_number());
  EXPECT_LT(fit["lookup_mape"], 0.5);
  EXPECT_TRUE(fit["lookup_scaled_mape"].is_number());
  EXPECT_NE(read_text(at("p.svg")).find("<svg"), std::string::npos);
  EXPECT_TRUE(read_text(at("m.png")).starts_with("\x89PNG"));
  std::string table = read_text(at("l.csv"));
  write_text(at("cut.csv"), table.substr(0, table.rfind('\n', table.size() - 2) + 1));
  refuse_bench({"fit", "--campaign", "s.csv", "--lookup", "cut.csv"}, {"cut.csv", "27 rows"});
  table.replace(table.find("batch=2"), 7, "batch=3");
  write_text(at("other.csv"), table);
  refuse_bench({"fit", "--campaign", "s.csv", "--lookup", "other.csv"}, {"other.csv"});
}

TEST_F(BenchTables, SweepsAndDraws) {
  const Words kernels = tiny("kernels") + Words{"--genotype", "DARTS_V2", "--repeats", "3"};
  for (const std::string sweep : {"channels", "batch", "threads"}) {
    const Json json = measure(kernels + Words{"--sweep", sweep, "--values", "1,2", "--plot", sweep + ".svg"});
    ASSERT_EQ(json["rows"].size(), 2u) << sweep;
    EXPECT_EQ(json["rows"][1][sweep], 2);
    EXPECT_GT(json["rows"][1]["ms"], 0);
    EXPECT_GT(json["rows"][1]["ops_ms"].size(), 2u);
    EXPECT_NE(read_text(at(sweep + ".svg")).find("<svg"), std::string::npos);
  }
  refuse_bench(kernels + Words{"--sweep", "depth"}, {"depth"});
  const Json predictor = measure({"kernels", "--predictor", "--batch", "64", "--repeats", "3",
                                  "--cold-repeats", "1", "--threads", "1", "--plot", "k.svg"});
  EXPECT_EQ(predictor["macs"], 224 * 128 + 128 * 64 + 64);
  EXPECT_NE(read_text(at("k.svg")).find("<svg"), std::string::npos);
  refuse_bench({"kernels", "--predictor", "--supernet", "darts"}, {"--predictor"});
  const Json loading = measure({"kernels", "--loading", "--batch", "8", "--repeats", "3", "--threads", "1"});
  std::set<std::string> ops;
  for (const Json& row : loading["rows"])
    if (row["pass"] == "loading") {
      ops.insert(row["op"]);
      EXPECT_GT(row["gb_s"], 0) << row["op"];
    }
  EXPECT_EQ(ops, (std::set<std::string>{"augment", "gather_labels", "shuffle"}));
  refuse_bench({"kernels", "--loading", "--predictor"}, {"--loading"});
  const Json network =
      measure(tiny("network") + Words{"--genotype", "DARTS_V2", "--repeats", "20", "--plot", "h.svg"});
  int passes = 0;
  for (const Json& count : network["rows"][0]["histogram"]["counts"]) passes += count.get<int>();
  EXPECT_EQ(passes, 20);
  EXPECT_NE(read_text(at("h.svg")).find("<svg"), std::string::npos);
}

}  // namespace
}  // namespace lanas::test
