// The same seed gives the same bits; a run that is killed or stopped at any moment goes on to the bits of an
// unbroken one.
#include <cstring>

#include "autograd/checkpoint.h"
#include "tests/programs/tiny.h"

namespace lanas::test {
namespace {

using Json = nlohmann::json;

bool same_tensors(const std::string& a, const std::string& b) {
  const TensorFile left = read_tensors(a), right = read_tensors(b);
  if (left.tensors.size() != right.tensors.size() || left.tensors.empty()) return false;
  for (const auto& [name, entry] : left.tensors) {
    const auto other = right.tensors.find(name);
    if (other == right.tensors.end() || entry.values.size() != other->second.values.size() ||
        std::memcmp(entry.values.data(), other->second.values.data(), entry.values.size() * sizeof(float)) !=
            0)
      return false;
  }
  return true;
}

const char* const kNetworks[] = {"lambda0", "latency", "random0"};

class ResumeTest : public ProgramTest {
 protected:
  void make_inputs() {
    write_images(at("data"));
    write_latency_table(at("table.csv"));
  }
  Words words(const std::string& out) const {
    return tiny_run(out) + Words{"--latency", "table.csv", "--checkpoint-seconds", "0"};
  }
  std::string file(const std::string& out, const std::string& name) const {
    return at(out + "/" + name + ".safetensors");
  }

  // Where the training with this checkpoint stands; -1 before the first save. 100 steps count as an epoch.
  int progress(const std::string& checkpoint) const {
    if (!std::filesystem::exists(checkpoint)) return -1;
    const Json state = Json::parse(read_tensors(checkpoint).metadata.at("state"));
    return 100 * state.at("epoch").get<int>() + state.at("step").get<int>();
  }

  // Ends a program by a signal when its checkpoint `name` has come to `moment`.
  Outcome stop(const Words& words, const std::string& name, int moment, int signal) const {
    Program program(folder_, words);
    EXPECT_TRUE(program.wait_until([&] { return progress(file("out", name)) >= moment; })) << name;
    program.send(signal);
    const Outcome outcome = program.wait();
    EXPECT_LT(progress(file("out", name)), 200) << name << " was complete before the signal came";
    return outcome;
  }

  void expect_same_run(const std::string& a, const std::string& b) const {
    for (const std::string network : kNetworks) {
      EXPECT_EQ(read_text(at(a + "/" + network + ".genotype")),
                read_text(at(b + "/" + network + ".genotype")));
      EXPECT_EQ(read_text(file(a, network)), read_text(file(b, network))) << network << ": other bytes";
      EXPECT_TRUE(same_tensors(file(a, "retrain-" + network), file(b, "retrain-" + network))) << network;
    }
    for (const std::string search : {"search-lambda0", "search-latency"})
      EXPECT_TRUE(same_tensors(file(a, search), file(b, search))) << search;
    EXPECT_TRUE(same_tensors(file(a, "predictor"), file(b, "predictor")));
    const Json left = json(a + "/results.json"), right = json(b + "/results.json");
    for (size_t i = 0; i < 3; ++i)
      for (const char* key :
           {"test_accuracy", "valid_accuracy", "predicted_ms", "parameters", "macs", "genotype"})
        EXPECT_EQ(left["networks"][i][key], right["networks"][i][key]) << kNetworks[i] << " " << key;
  }
};

TEST_F(ResumeTest, SlowKilledRunsGoOnToTheSameBits) {
  make_inputs();
  succeed(words("whole"));
  const Words resume = {"run", "--resume", "out"};
  EXPECT_EQ(stop(words("out"), "search-lambda0", 2, SIGKILL).signal, SIGKILL);
  refuse(words("out"), {"out", "holds a run already", "--resume"});
  refuse(resume + Words{"--epochs", "3"}, {"settings.json", "epochs", "2", "3"});
  EXPECT_EQ(stop(resume, "search-lambda0", 101, SIGKILL).signal, SIGKILL);
  const Outcome stopped = stop(resume, "search-latency", 1, SIGINT);
  EXPECT_EQ(stopped.code, 130);
  EXPECT_EQ(stopped.error_lines(), 1) << stopped.err;
  EXPECT_NE(stopped.err.find("run --resume out"), std::string::npos) << stopped.err;
  write_text(at("out/log.jsonl"),
             read_text(at("out/log.jsonl")) + "{\"time\": \"20");  // as a kill can leave it
  EXPECT_EQ(stop(resume, "search-latency", 102, SIGKILL).signal, SIGKILL);
  EXPECT_EQ(stop(resume, "retrain-lambda0", 3, SIGKILL).signal, SIGKILL);
  EXPECT_EQ(stop(resume, "retrain-latency", 104, SIGTERM).code, 130);
  succeed(resume);
  expect_same_run("whole", "out");
  std::ifstream log(at("out/log.jsonl"));
  for (std::string line; std::getline(log, line);) EXPECT_TRUE(Json::accept(line)) << line;
}

TEST_F(ResumeTest, SlowAStopOfSeveralSeedsNamesTheFolderOfAll) {
  make_inputs();
  Program program(folder_, words("out") + Words{"--seeds", "0,1"});
  EXPECT_TRUE(program.wait_until([&] { return progress(file("out/seed-0", "search-lambda0")) >= 2; }));
  program.send(SIGINT);
  const Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 130);
  EXPECT_NE(stopped.err.find("run --resume out\n"), std::string::npos) << stopped.err;
  const std::string stages = read_text(at("out/seed-0/stages.json"));
  EXPECT_NE(stages.find("search lambda0"), std::string::npos) << "the time of the stopped stage: " << stages;
}

TEST_F(ResumeTest, SlowSameSeedSameBits) {
  make_inputs();
  succeed(words("one"));
  succeed(words("two"));
  expect_same_run("one", "two");
  succeed(words("other") + Words{"--seed", "1"});
  EXPECT_FALSE(same_tensors(file("one", "search-lambda0"), file("other", "search-lambda0")));
  EXPECT_FALSE(same_tensors(file("one", "retrain-random0"), file("other", "retrain-random0")));
}

// Rows of the first pass, in the order of the file: index and architecture.
std::vector<std::pair<int64_t, std::string>> sequence(const Table& table) {
  std::vector<std::pair<int64_t, std::string>> rows;
  for (int r = 0; r < table.rows(); ++r)
    if (table.integer(r, table.column("pass")) == 1)
      rows.emplace_back(table.integer(r, table.column("index")), table.cell(r, table.column("key")));
  return rows;
}

TEST_F(ResumeTest, SlowKilledCampaignGoesOnWithItsSequence) {
  write_images(at("data"));
  const Words begin = tiny_run("out") + Words{"--latency-samples", "24", "--random",      "0",
                                              "--epochs",          "1",  "--eval-epochs", "1"};
  const std::string csv = at("out/latency.csv");
  const auto lines = [&] {
    const std::string text = read_text(csv);
    return std::count(text.begin(), text.end(), '\n');
  };
  const auto stop_at = [&](const Words& words, int line, int signal) {
    Program program(folder_, words);
    EXPECT_TRUE(program.wait_until([&] { return lines() >= line; }));
    program.send(signal);
    return program.wait();
  };
  EXPECT_EQ(stop_at(begin, 20, SIGKILL).signal, SIGKILL);  // among the controls
  EXPECT_EQ(stop_at({"run", "--resume", "out"}, 40, SIGKILL).signal, SIGKILL);
  std::string text = read_text(csv);
  write_text(csv, text + text.substr(text.rfind('\n', text.size() - 2) + 1, 9));  // a kill within a row
  EXPECT_EQ(stop_at({"run", "--resume", "out"}, 50, SIGINT).code, 130);
  const std::string before = read_text(csv);
  succeed({"run", "--resume", "out"});
  EXPECT_TRUE(read_text(csv).starts_with(before)) << "rows were lost or written again";
  const auto rows = sequence(read_table(csv));
  ASSERT_EQ(rows.size(), 24u);
  for (int64_t i = 0; i < 24; ++i) {
    EXPECT_EQ(rows[size_t(i)].first, i);
    EXPECT_EQ(rows[size_t(i)].second,
              std::to_string(genotype_key(sample_architecture(0, uint64_t(i)).genotype)));
  }

  // A table that searches went by is not measured a second time.
  std::filesystem::remove(at("out/results.json"));
  write_text(csv, before);
  refuse({"run", "--resume", "out"}, {"out/latency.csv"});
  EXPECT_EQ(read_text(csv), before);
}

}  // namespace
}  // namespace lanas::test
