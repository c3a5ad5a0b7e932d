// Tests of nas/report: the JSON's fields and units, the table, the page with and without graphviz and
// gnuplot, and the filter that runs them.
#include "nas/report.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "nas/child_process.h"
#include "nas/report_plots.h"
#include "tests/support/temp_folder.h"
#include "tests/support/text.h"

namespace lanas {
namespace {

namespace fs = std::filesystem;

NetworkResult network(const std::string& name, double lambda, const char* genotype, double accuracy,
                      double ms) {
  NetworkResult n;
  n.name = name;
  n.lambda = lambda;
  n.genotype = resolve_genotype(genotype);
  n.test_accuracy = accuracy;
  n.valid_accuracy = accuracy + 0.01;
  n.parameters = 123'456;
  n.macs = 18'000'000;
  n.predicted_ms = ms * 1.02;
  n.latency_ms = {ms, ms * 0.98, ms * 1.07, 40, n.macs};
  n.skips_normal = count_skips(n.genotype.normal);
  n.skips_reduce = count_skips(n.genotype.reduce);
  const bool random = name.starts_with("random");
  for (int e = 0; e < 6 && !random; ++e) {
    SearchEpoch epoch;
    epoch.epoch = e;
    epoch.train_loss = 1.0 / (e + 1);
    epoch.valid_accuracy = 0.8 - 0.3 / (e + 1);
    epoch.soft_ms = lambda > 0 ? 5 - 0.3 * e : 0;
    epoch.hard_ms = lambda > 0 ? 4.5 - 0.3 * e : 0;
    epoch.alpha_entropy = 2.08 - 0.1 * e;
    epoch.genotype = n.genotype;
    n.search.push_back(epoch);
  }
  for (int e = 0; e < 4; ++e)
    n.training.push_back({e, 1.0 / (e + 1), 0.8, 0.5, accuracy - 0.1 / (e + 1), 12});
  return n;
}

RunReport sample_report() {
  RunReport report;
  report.preset = "quick";
  report.data = "fashion-mnist";
  report.seed = 3;
  report.machine = "A processor with <2> cores & avx2";
  report.date = "2024-02-29T12:00:00Z";
  report.networks = {
      network("lambda0", 0, "DARTS_V2", 0.91, 5.0), network("latency", 0.4, "PDARTS", 0.905, 4.0),
      network("random0", 0, "DARTS_V1", 0.89, 4.1), network("random1", 0, "PC_DARTS_cifar", 0.88, 3.9)};
  PredictorResult& p = report.predictor;
  p.n_train = 800, p.n_test = 200;
  p.test_mape = 0.021, p.within_5 = 0.93, p.within_10 = 0.99, p.spearman = 0.987, p.cheapest_tenth = 0.03;
  p.linear_mape = 0.034, p.linear_spearman = 0.96, p.noise_mape = 0.012, p.mean_drift = 0.004,
  p.max_drift = 0.018, p.stretches = 100;
  for (int i = 0; i < 200; ++i) {
    const double measured = 3 + 0.02 * i;
    p.held_out.push_back({measured * (1 + 0.02 * ((i * 7) % 11 - 5) / 5), measured});
  }
  report.stages = {{"measuring", 61.5}, {"predictor", 4}, {"search", 120}};
  report.seconds = 372;
  report.peak_bytes = 1'234'000'000;
  report.config = {{"preset", "quick"}, {"note", "</pre><script>"}};
  report.latency_setting = {{"device", "cpu"},  {"threads", "1"}, {"batch", "1"},
                            {"channels", "12"}, {"layers", "5"},  {"image", "32"}};
  return report;
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(ReportTarget, SaysPlainlyWhetherTheFinalMeasurementMeetsIt) {
  RunReport report = sample_report();
  EXPECT_EQ(report_table(report).find("MISSES"), std::string::npos);
  EXPECT_TRUE(report_json(report)["networks"][0]["target_met"].is_null());
  NetworkResult& n = report.networks[1];  // measured at 4.0 ms
  n.target_ms = 4.2, n.decoded_ms = 4.1;
  EXPECT_NE(
      report_table(report).find("latency: measured 4.000 ms at the end, within [3.780, 4.200] ms; 4.100"),
      std::string::npos)
      << report_table(report);
  EXPECT_EQ(report_json(report)["networks"][1]["target_met"], true);
  for (const double target : {3.9, 4.5}) {
    n.target_ms = target;
    n.control_off = 0.081;
    EXPECT_NE(report_table(report).find("at the end, MISSES ["), std::string::npos);
    EXPECT_NE(report_table(report).find("its control was off by 8.1%"), std::string::npos);
    const auto json = report_json(report);
    EXPECT_EQ(json["networks"][1]["target_met"], false);
    const NetworkResult back = report_from_json(json).networks[1];
    EXPECT_EQ(back.decoded_ms, 4.1);
    EXPECT_EQ(back.control_off, 0.081);
  }
}

TEST(ReportJson, HasTheDocumentedFieldsAsFractions) {
  const auto json = nlohmann::json::parse(report_json(sample_report()).dump());
  ASSERT_EQ(json["networks"].size(), 4u);
  const auto& latency = json["networks"][1];
  EXPECT_EQ(latency["name"], "latency");
  EXPECT_EQ(latency["lambda"], 0.4);
  EXPECT_EQ(read_genotype(latency["genotype"].get<std::string>()), resolve_genotype("PDARTS"));
  EXPECT_EQ(latency["test_accuracy"], 0.905);
  EXPECT_EQ(latency["parameters"], 123456);
  EXPECT_EQ(latency["macs"], 18000000);
  EXPECT_DOUBLE_EQ(latency["predicted_ms"], 4.08);
  EXPECT_EQ(latency["latency_ms"]["median"], 4.0);
  EXPECT_DOUBLE_EQ(latency["latency_ms"]["p10"], 3.92);
  EXPECT_DOUBLE_EQ(latency["latency_ms"]["p90"], 4.28);
  EXPECT_EQ(latency["search"].size(), 6u);
  EXPECT_EQ(latency["training"].size(), 4u);
  const auto& predictor = json["predictor"];
  EXPECT_EQ(predictor["n_train"], 800);
  EXPECT_EQ(predictor["n_test"], 200);
  EXPECT_EQ(predictor["test_mape"], 0.021);
  EXPECT_EQ(predictor["within_10"], 0.99);
  EXPECT_EQ(predictor["spearman"], 0.987);
  EXPECT_EQ(predictor["linear_mape"], 0.034);
  EXPECT_EQ(predictor["noise_mape"], 0.012);
  EXPECT_EQ(json["seconds"], 372.0);
  EXPECT_EQ(json["peak_bytes"], 1234000000);
  EXPECT_EQ(json["machine"], sample_report().machine);
}

TEST(ReportJson, UnknownNumbersAreNull) {
  RunReport report = sample_report();
  report.predictor = {};
  report.networks[0].predicted_ms = kUnknown;
  const auto json = report_json(report);
  EXPECT_TRUE(json["predictor"]["noise_mape"].is_null());
  EXPECT_TRUE(json["networks"][0]["predicted_ms"].is_null());
  EXPECT_EQ(report_table(report).find("nan"), std::string::npos);
}

TEST(ReportJson, ReadsBackWhatItWrote) {
  RunReport report = sample_report();
  report.predictor.noise_mape = kUnknown;
  const auto json = nlohmann::json::parse(report_json(report).dump());
  const RunReport again = report_from_json(json);
  EXPECT_EQ(report_json(again), json);
  EXPECT_EQ(report_table(again), report_table(report));
  for (const char* field : {"networks", "predictor", "config"}) {
    auto wrong = json;
    wrong.erase(field);
    EXPECT_THROW(report_from_json(wrong, "a/results.json"), Error) << field;
  }
  auto wrong = json;
  wrong["networks"][0]["macs"] = "many";
  try {
    report_from_json(wrong, "a/results.json");
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("a/results.json: ")) << error.what();
  }
}

TEST(ReportTable, IsAlignedAndComparesWithTheBaseline) {
  const std::string text = report_table(sample_report());
  std::istringstream lines(text);
  std::string line;
  size_t width = 0;
  for (int row = 0; row < 5; ++row) {
    std::getline(lines, line);
    if (row == 0) width = line.size();
    EXPECT_EQ(line.size(), width) << line;
  }
  EXPECT_NE(line.find("88.00%"), std::string::npos);
  EXPECT_NE(text.find("4.000 ms measured against 5.000 ms without it, 20.0% lower; test accuracy 90.50% "
                      "against 91.00%, 0.50 points lower."),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("-20.0%"), std::string::npos);
  EXPECT_NE(text.find("2.10% on 200 architectures"), std::string::npos);
  EXPECT_NE(text.find("Noise of measuring itself: 1.20%"), std::string::npos);
  EXPECT_EQ(count_of(text, "3.920 - 4.280"), 1);
}

TEST(ReportTable, SaysWhenTheMachineWasDisturbed) {
  RunReport report = sample_report();
  EXPECT_EQ(count_of(report_table(report), "isturbed"), 0);
  EXPECT_EQ(count_of(report_table(report), "DISTURBED"), 0);
  report.networks[1].control_off = 0.081;
  EXPECT_EQ(count_of(report_table(report), "measured at the end: latency. Their"), 1);
  EXPECT_EQ(count_of(report_table(report), "(off by up to 8.1%)"), 1);
  report.networks[1].control_off = 0.019;
  report.predictor.unsettled = 3;
  EXPECT_EQ(count_of(report_table(report), "Disturbed machine: in 3 of 100 stretches"), 1);
  report.predictor.unsettled = 51;
  EXPECT_EQ(count_of(report_table(report), "DISTURBED MACHINE: in 51 of 100 stretches"), 1);
  EXPECT_EQ(report_from_json(report_json(report)).predictor.unsettled, 51);
}

TEST(ReportTable, StandsWithoutABaselineOrNetworks) {
  RunReport report = sample_report();
  report.networks.erase(report.networks.begin());
  EXPECT_EQ(report_table(report).find("With the latency term"), std::string::npos);
  report.networks.clear();
  report.predictor = {};
  EXPECT_NE(report_table(report).find("network"), std::string::npos);
}

class ReportPage : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("PATH");
    path_ = path ? path : "";
  }
  void TearDown() override { setenv("PATH", path_.c_str(), 1); }
  std::string page(const RunReport& report) {
    write_report_html((folder_ / "report.html").string(), report);
    return read(folder_ / "report.html");
  }
  const TempFolder temp_;
  const fs::path folder_ = temp_.path();
  std::string path_;
};

void check_page(const std::string& html) {
  for (const char* tag : {"table", "div", "details", "figure", "svg", "pre", "p", "h2", "html", "body"})
    EXPECT_EQ(count_of(html, std::string("<") + tag + ">") + count_of(html, std::string("<") + tag + " ") +
                  count_of(html, std::string("<") + tag + "\n"),
              count_of(html, std::string("</") + tag + ">"))
        << tag;
  EXPECT_EQ(html.find("<script"), std::string::npos);
  for (const char* outside : {"src=", "href=\"http", "href='http", "@import", "url(http", "<link"})
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  EXPECT_NE(html.find("A processor with &lt;2&gt; cores &amp; avx2"), std::string::npos);
  EXPECT_NE(html.find("20.0% lower"), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
}

TEST_F(ReportPage, StandsOnItsOwn) {
  const std::string html = page(sample_report());
  check_page(html);
  EXPECT_EQ(html.find("<?xml"), std::string::npos);
  const bool plots = run_filter({"gnuplot", "--version"}, "").has_value();
  const bool cells = run_filter({"dot", "-V"}, "").has_value();
  EXPECT_EQ(count_of(html, "<svg"), (plots ? 6 : 0) + (cells ? 4 : 0));
  EXPECT_EQ(html.find("gnuplot is not installed") == std::string::npos, plots);
  EXPECT_EQ(html.find("graphviz is not installed") == std::string::npos, cells);
}

TEST_F(ReportPage, GivesTextWhereTheProgramsAreMissing) {
  setenv("PATH", folder_.c_str(), 1);
  const std::string html = page(sample_report());
  check_page(html);
  EXPECT_EQ(count_of(html, "<svg"), 0);
  EXPECT_NE(html.find("gnuplot is not installed"), std::string::npos);
  EXPECT_NE(html.find("graphviz is not installed"), std::string::npos);
  EXPECT_NE(html.find("c_{k-2} -- sep_conv_3x3"), std::string::npos);
  EXPECT_FALSE(plot_accuracy(sample_report()).has_value());
}

TEST_F(ReportPage, StandsWithNothingFound) {
  RunReport report;
  const std::string html = page(report);
  EXPECT_EQ(count_of(html, "<svg"), 0);
  EXPECT_EQ(html.find("nan"), std::string::npos);
}

TEST_F(ReportPage, NamesTheFileThatCannotBeWritten) {
  try {
    write_report_html((folder_ / "absent" / "report.html").string(), sample_report());
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("absent"), std::string::npos);
  }
}

TEST(Plots, QuoteWhatTheyAreGiven) {
  RunReport report = sample_report();
  report.networks[0].name = "it's `$(false)` \"a\"\nb";
  const auto svg = plot_accuracy(report);
  if (svg) {
    EXPECT_NE(svg->find("it's `$(false)`"), std::string::npos);
  }
}

TEST(RunFilter, PassesTextThroughAndTellsFailureFromAbsence) {
  EXPECT_EQ(run_filter({"cat"}, "some\ntext"), "some\ntext");
  EXPECT_FALSE(run_filter({"no-such-program-anywhere"}, "").has_value());
  try {
    run_filter({"sh", "-c", "echo first >&2; echo second >&2; exit 3"}, "");
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "sh failed: first");
  }
}

}  // namespace
}  // namespace lanas
