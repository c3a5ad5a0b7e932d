// `run` from images to report on a tiny setting: what it prints, what it leaves, and that it did learn.
#include "autograd/checkpoint.h"
#include "nas/report.h"
#include "tests/programs/tiny.h"

namespace lanas::test {
namespace {

using Json = nlohmann::json;

bool fraction(const Json& value) { return value.is_number() && value >= 0 && value <= 1; }

void check_network(const Json& network) {
  for (const char* key :
       {"name", "lambda", "genotype", "test_accuracy", "parameters", "macs", "predicted_ms", "latency_ms"})
    ASSERT_TRUE(network.contains(key)) << key << " in " << network.dump();
  EXPECT_EQ(write_genotype(read_genotype(network["genotype"].get<std::string>())), network["genotype"]);
  EXPECT_TRUE(fraction(network["test_accuracy"])) << network["test_accuracy"];
  EXPECT_GT(network["parameters"], 1000);
  EXPECT_GT(network["macs"], 100'000);
  EXPECT_GT(network["predicted_ms"], 0);
  const Json& latency = network["latency_ms"];
  EXPECT_GT(latency.at("p10"), 0);
  EXPECT_LE(latency.at("p10"), latency.at("median"));
  EXPECT_LE(latency.at("median"), latency.at("p90"));
}

void check_predictor(const Json& predictor) {
  EXPECT_EQ(predictor.at("n_train").get<int>() + predictor.at("n_test").get<int>(), 30);
  for (const char* key : {"test_mape", "linear_mape", "noise_mape"}) {
    EXPECT_GE(predictor.at(key), 0) << key;
    EXPECT_LT(predictor.at(key), 2) << key;
  }
  EXPECT_TRUE(fraction(predictor.at("within_10")));
  EXPECT_GE(predictor.at("spearman"), -1);
  EXPECT_LE(predictor.at("spearman"), 1);
}

class RunTest : public ProgramTest {
 protected:
  // Every line of the log is a JSON object with a time and an event.
  void check_log(const std::string& name) const {
    std::ifstream log(at(name));
    int lines = 0;
    for (std::string line; std::getline(log, line); ++lines) {
      const Json entry = Json::parse(line, nullptr, false);
      ASSERT_TRUE(entry.is_object()) << line;
      EXPECT_TRUE(entry.contains("time") && entry.contains("event")) << line;
    }
    EXPECT_GT(lines, 10);
  }
};

TEST_F(RunTest, SlowFromImagesToReport) {
  write_images(at("data"), 400, 100);
  const Outcome outcome =
      succeed(tiny_run("out") + Words{"--latency-samples", "30", "--eval-epochs", "5", "--eval-lr", "0.1",
                                      "--eval-batch", "16", "--json", "result.json"});
  EXPECT_NE(outcome.out.find("lambda0"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.err, "") << "--quiet";
  const Json result = json("result.json");
  ASSERT_EQ(result.at("networks").size(), 3u);
  const char* const names[] = {"lambda0", "latency", "random0"};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(result["networks"][i].at("name"), names[i]);
    check_network(result["networks"][i]);
    EXPECT_GT(result["networks"][i]["test_accuracy"], 0.2) << "chance is 0.1";
  }
  EXPECT_EQ(result["networks"][0]["lambda"], 0);
  EXPECT_EQ(result["networks"][1]["lambda"], 0.5);
  check_predictor(result.at("predictor"));
  EXPECT_GT(result.at("seconds"), 0);
  EXPECT_GT(result.at("peak_bytes"), 10'000'000);
  EXPECT_LT(result.at("peak_bytes"), 2'000'000'000);
  EXPECT_TRUE(result.at("machine").is_string());

  for (const char* name : {"arguments.json", "settings.json", "latency.csv", "predictor.safetensors",
                           "report.html", "results.json", "stages.json"})
    EXPECT_TRUE(exists(std::string("out/") + name)) << name;
  for (const std::string network : names) {
    EXPECT_NO_THROW(read_genotype(read_text(at("out/" + network + ".genotype")))) << network;
    EXPECT_NO_THROW(load_trained(at("out/" + network + ".safetensors"))) << network;
    EXPECT_NO_THROW(read_tensors(at("out/retrain-" + network + ".safetensors"))) << network;
  }
  EXPECT_NO_THROW(read_tensors(at("out/search-lambda0.safetensors")));
  EXPECT_NO_THROW(read_tensors(at("out/search-latency.safetensors")));
  EXPECT_EQ(read_campaign(at("out/latency.csv")).rows.size(), 30u);
  EXPECT_EQ(json("out/results.json"), result);
  EXPECT_NO_THROW(report_from_json(result));
  check_log("out/log.jsonl");
  EXPECT_NE(read_text(at("out/report.html")).find("</html>"), std::string::npos);

  // The commands of one step read what the run left.
  const Outcome evaluated = succeed({"evaluate", "out/latency.safetensors", "--data", "data", "--json", "-"});
  EXPECT_EQ(Json::parse(evaluated.out).at("test_accuracy"), result["networks"][1]["test_accuracy"]);
  succeed({"show", "--genotype", "out/latency.genotype"});
  succeed(Words{"search", "--out", "one", "--lambda", "0.5", "--reference-ms", "0.2", "--predictor",
                "out/predictor.safetensors"} +
          tiny_search() + Words{"--epochs", "1", "--latency-mode", "soft"});
  EXPECT_NO_THROW(read_genotype(read_text(at("one/genotype.txt"))));
  succeed({"run", "--resume", "out", "--json", "again.json"});
  EXPECT_EQ(json("again.json"), result) << "a finished run is not run again";
}

TEST_F(RunTest, SlowOptionsFromAConfigFile) {
  write_images(at("data"));
  write_latency_table(at("table.csv"));
  write_text(at("job.toml"),
             "# a run of one network\nseed = 7\nquiet = true  # no progress\n[run]\nlatency = \"table.csv\"\n"
             "lambdas = [0]\nrandom = 0\nepochs = 1\n[search]\nepochs = 99\n");
  const Words words = {"--data",    "data", "--out",     "out", "--channels",     "4", "--layers",      "3",
                       "--partial", "1",    "--images",  "0",   "--final-rounds", "1", "--final-tries", "1",
                       "--batch",   "24",   "--threads", "1"};
  succeed(Words{"run", "--config", "job.toml"} + words + tiny_network() +
          Words{"--eval-epochs", "1", "--seed", "8"});
  const Json settings = json("out/settings.json");
  EXPECT_EQ(settings["search"]["epochs"], 1);
  EXPECT_EQ(settings["search"]["supernet"]["partial"], 1) << "plain DARTS";
  EXPECT_EQ(settings["seed"], 8) << "what is given on the command line counts";
  EXPECT_EQ(settings["latency_table"], "table.csv");
  EXPECT_EQ(json("out/results.json").at("networks").size(), 1u);

  write_text(at("job.toml"), "seed = 7\nepochs\n");
  refuse({"run", "--config", "job.toml", "--out", "x"}, {"job.toml:2", "key = value"});
  write_text(at("job.toml"), "epoch = 7\n");
  refuse({"run", "--config", "job.toml", "--out", "x"}, {"--epoch"});
  refuse({"run", "--config", "nowhere.toml", "--out", "x"}, {"nowhere.toml", "cannot be read"});
  EXPECT_FALSE(exists("x"));
}

}  // namespace
}  // namespace lanas::test
