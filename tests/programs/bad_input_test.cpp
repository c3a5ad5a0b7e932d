// Wrong input: one line that names the file or the flag and what was expected, exit code 2, nothing written
// and nothing lost.
#include <cmath>
#include <cstdlib>
#include <optional>

#include "autograd/checkpoint.h"
#include "kernels/core/device.h"
#include "nas/folder_lock.h"
#include "tests/programs/tiny.h"

namespace lanas::test {
namespace {

class BadInputTest : public ProgramTest {
 protected:
  void SetUp() override {
    ProgramTest::SetUp();
    write_images(at("data"), 100, 20);
  }
  // A run with these words added is refused before its folder is made.
  void refuse_run(const Words& words, const Words& parts) const {
    refuse(tiny_run("out") + words, parts);
    EXPECT_FALSE(exists("out")) << testing::PrintToString(words);
  }
  void cut(const std::string& name, size_t bytes) const {
    const std::string text = read_text(at(name));
    write_text(at(name), text.substr(0, text.size() - bytes));
  }
};

TEST_F(BadInputTest, Images) {
  refuse_run({"--data", "nowhere"}, {"nowhere", "no such folder"});
  refuse({"search", "--out", "out", "--data", "nowhere", "--quiet"}, {"nowhere", "no such folder"});
  refuse({"retrain", "--out", "out", "--genotype", "DARTS_V2", "--data", "nowhere"},
         {"nowhere", "no such folder"});
  std::filesystem::create_directories(at("empty"));
  refuse_run({"--data", "empty"}, {"empty", "train-images-idx3-ubyte", "data_batch_1.bin"});
  cut("data/train-images-idx3-ubyte.gz", 1000);
  refuse_run({}, {"data/train-images-idx3-ubyte.gz", "expected"});
  std::filesystem::remove(at("data/t10k-labels-idx1-ubyte.gz"));
  refuse_run({}, {"data/t10k-labels-idx1-ubyte", "no such file"});
}

TEST_F(BadInputTest, CifarFiles) {
  const std::string record(3073, '\1');
  std::filesystem::create_directories(at("cifar"));
  for (const char* name :
       {"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"})
    write_text(at("cifar/" + std::string(name) + ".bin"), record + record);
  cut("cifar/data_batch_3.bin", 100);
  refuse_run({"--data", "cifar"}, {"cifar/data_batch_3.bin", "3073"});
  std::filesystem::remove(at("cifar/data_batch_3.bin"));
  refuse_run({"--data", "cifar"}, {"cifar/data_batch_3.bin", "no such file"});
}

TEST_F(BadInputTest, LatencyTables) {
  refuse_run({"--latency", "nowhere.csv"}, {"nowhere.csv", "cannot be read"});
  write_latency_table(at("table.csv"));
  const std::string whole = read_text(at("table.csv"));
  cut("table.csv", 20);
  refuse_run({"--latency", "table.csv"}, {"table.csv:", "cut"});
  size_t line = 0;
  for (int i = 0; i < 30; ++i) line = whole.find('\n', line) + 1;
  write_text(at("table.csv"), whole.substr(0, line + 10) + whole.substr(whole.find('\n', line)));
  refuse_run({"--latency", "table.csv"}, {"table.csv:31", "12"});
  write_text(at("table.csv"), whole);
  refuse_run({"--latency", "table.csv", "--eval-channels", "8"}, {"table.csv", "C4", "C8"});
  refuse_run({"--latency", "table.csv", "--latency-batch", "2"}, {"table.csv", "b1", "b2"});
  const size_t cpu = whole.find("# cpu="), cpu_end = whole.find('\n', cpu);
  write_text(at("table.csv"), whole.substr(0, cpu) + "# cpu=another" + whole.substr(cpu_end));
  refuse_run({"--latency", "table.csv"}, {"table.csv", "measured on cpu/another", "expected cpu/"});
  write_text(at("table.csv"), "a,b\n1,2\n");
  refuse_run({"--latency", "table.csv"}, {"table.csv", "campaign"});
}

TEST_F(BadInputTest, Folders) {
  write_text(at("file"), "");
  refuse(tiny_run("file/out"), {"file/out", "cannot be made"});
  refuse(tiny_run("/proc/lanas"), {"/proc/lanas", "cannot be made"});
  refuse(Words{"search", "--out", "file/out"} + tiny_search(), {"file/out", "cannot be made"});
  refuse(
      Words{"retrain", "--genotype", "DARTS_V2", "--out", "/proc/lanas", "--data", "data"} + tiny_network(),
      {"/proc/lanas", "cannot be made"});
  refuse({"run", "--resume", "nowhere"}, {"nowhere", "no run to resume"});
  refuse({"run", "--resume", "data"}, {"data", "no run to resume"});
  refuse_run({"--json", "nowhere/result.json"}, {"--json", "nowhere"});
  refuse({"evaluate", "data"}, {"data", "expected a file"});
  std::filesystem::create_directories(at("old"));
  write_text(at("old/settings.json"), "{}");
  refuse(tiny_run("old"), {"old", "holds a run already", "--out"});
  EXPECT_EQ(read_text(at("old/settings.json")), "{}");
}

TEST_F(BadInputTest, TwoProcessesInOneFolder) {
  std::filesystem::create_directories(at("out"));
  const FolderLock lock(at("out").string());
  refuse(tiny_run("out"), {"out", "another process"});
  refuse(Words{"search", "--out", "out"} + tiny_search(), {"out", "another process"});
  refuse(Words{"retrain", "--genotype", "DARTS_V2", "--out", "out", "--data", "data"} + tiny_network(),
         {"out", "another process"});
  EXPECT_FALSE(exists("out/settings.json"));
  EXPECT_FALSE(exists("out/search.safetensors"));
}

// A checkpoint goes on with the images that it began with, also where the settings and their names agree.
TEST_F(BadInputTest, CheckpointsOfOtherImages) {
  const Words search = Words{"search", "--out", "out"} + tiny_search();
  const Words retrain =
      Words{"retrain", "--genotype", "DARTS_V2", "--out", "net", "--threads", "1", "--quiet"} +
      tiny_network();
  const Words other = {"--data", "other"};
  succeed(search);
  succeed(retrain + Words{"--data", "data"});
  const std::string before = read_text(at("out/search.safetensors"));
  write_images(at("other"), 100, 20);
  std::string labels(100, '\0');
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = char((i + 1) % 10);
  write_gz(at("other/train-labels-idx1-ubyte.gz"), idx_bytes({100}, labels));
  refuse(search + other, {"out/search.safetensors", "/data is"});
  refuse(retrain + other, {"net/retrain.safetensors", "/data is"});
  EXPECT_EQ(read_text(at("out/search.safetensors")), before);
}

// Standard output that cannot be written is a failure; of closed streams nothing ends up in the files.
TEST_F(BadInputTest, StandardStreams) {
  const auto code = [&](const std::string& words) {
    const int status = std::system(("cd '" + at("").string() + "' && " LANAS_BINARY_DIR "/" + words).c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  EXPECT_EQ(code("lanas_train show --genotype DARTS_V2 --json - >/dev/full 2>err"), 2);
  EXPECT_EQ(read_text(at("err")), "lanas_train: standard output cannot be written\n");
  EXPECT_EQ(code("bench_latency sample --metric macs --channels 4 --layers 3 --count 6 --out c.csv 2>&-"), 0);
  EXPECT_EQ(read_text(at("c.csv")).find("sample  "), std::string::npos);
  // A pipe is written to, a link's target replaced.
  EXPECT_EQ(code("lanas_train show --genotype DARTS_V2 --json /dev/stdout >piped"), 0);
  EXPECT_TRUE(json("piped").contains("macs"));
  write_text(at("target"), "old");
  std::filesystem::create_symlink("target", at("link"));
  EXPECT_EQ(code("lanas_train show --genotype DARTS_V2 --json link >/dev/null"), 0);
  EXPECT_TRUE(std::filesystem::is_symlink(at("link")));
  EXPECT_TRUE(json("target").contains("macs"));
}

TEST_F(BadInputTest, FlagsOfARun) {
  refuse_run({"--lambdas", "-1"}, {"--lambdas", "-1"});
  refuse_run({"--lambdas", "0,few"}, {"--lambdas", "few", "number"});
  refuse_run({"--lambdas", "0.5,0.5"}, {"--lambdas", "0.5 twice"});
  refuse_run({"--lambdas", "nan"}, {"--lambdas", "nan"});
  refuse_run({"--target-ms", "-1"}, {"--target-ms", "-1"});
  refuse_run({"--target-ms", "0.2,0.2"}, {"--target-ms", "0.2 twice"});
  refuse_run({"--metric", "speed"}, {"--metric", "latency", "macs", "speed"});
  refuse_run({"--seeds", "1,1"}, {"--seeds", "1"});
  refuse_run({"--seeds", "0.5"}, {"--seeds", "0.5"});
  refuse_run({"--seed", "-1"}, {"--seed", "2^60", "-1"});
  refuse_run({"--seed", "1152921504606846976"}, {"--seed", "2^60"});
  refuse_run({"--metric", "macs,macs"}, {"--metric", "macs twice"});
  refuse_run({"--lambdas", "0.1234567,0.1234568"}, {"--lambdas", "0.123457 twice"});
  refuse_run({"--eval-images", "4", "--eval-batch", "2"}, {"--eval-images", "4 images", "validate"});
  refuse_run({"--json", "data"}, {"--json", "data", "folder"});
  refuse({"run", "--resume", ""}, {"--resume", "empty"});
  refuse({"run", "--out", "bad\xff"}, {"argument 3", "UTF-8"});
  refuse({"run", "--resume", "x", "--out", "y"}, {"--resume", "--out"});
  write_text(at("c.toml"), "[retrian]\neval-channels = 8\n");
  refuse_run({"--config", "c.toml"}, {"c.toml:1", "section", "[retrian]"});
  refuse_run({"--stable-epochs", "-1"}, {"--stable-epochs", "-1"});
  refuse_run({"--threads", "-3"}, {"--threads", "-3"});
  refuse_run({"--preset", "nope"}, {"--preset", "quick, darts, darts-second-order or pc-darts", "nope"});
  refuse_run({"--device", "tpu"}, {"--device", "auto, cpu or cuda", "tpu"});
  refuse_run({"--random", "-1"}, {"--random", "-1"});
  refuse_run({"--latency-samples", "0"}, {"--latency-samples", "0"});
  refuse_run({"--latency-batch", "0"}, {"--latency-batch", "0"});
  refuse_run({"--latency-threads", "0"}, {"--latency-threads", "0"});
  refuse_run({"--latency-mode", "guess"}, {"soft", "hard", "sample", "guess"});
  refuse_run({"--checkpoint-seconds", "-1"}, {"--checkpoint-seconds", "-1"});
  refuse_run({"--nope"}, {"run: unknown option --nope; "});
  refuse_run({"--epoch=3"}, {"unknown option --epoch (did you mean --epochs"});
  refuse_run({"more"}, {"run: unexpected 'more'"});
  refuse({"retrain", "--genotype", "DARTS_V2", "--channels", "6"},
         {"retrain: unknown option --channels (did you mean --eval-channels?)"});
  refuse_run({"--epochs", "many"}, {"--epochs", "many", "number"});
  refuse({"nope"}, {"run, search, retrain, evaluate, predict, export or show"});
  refuse({}, {"run, search, retrain, evaluate, predict, export or show"});
  refuse({"run", "--resume"}, {"--resume"});
  refuse({"retrain"}, {"--genotype", "required"});
}

// Its ends are measured: the fastest network of the space, and the slowest.
TEST_F(BadInputTest, SlowTargetsOutOfReach) {
  write_latency_table(at("table.csv"));
  for (const std::string target : {"0.000001", "100000"})
    refuse(tiny_run("out" + target) + Words{"--latency", "table.csv", "--target-ms", target},
           {"--target-ms", target.substr(0, 1), "out of reach", " to ", " ms"});
  refuse(Words{"search", "--target-ms", "1"} + tiny_search(), {"--target-ms", "--predictor"});
}

TEST_F(BadInputTest, FlagsOfNetworks) {
  refuse_run({"--partial", "3"}, {"--partial", "3", "4 channels"});
  refuse_run({"--partial", "0"}, {"--partial", "0"});
  refuse_run({"--batch", "51"}, {"--batch", "51", "50"});
  refuse_run({"--eval-batch", "91"}, {"--eval-batch", "91", "90"});
  refuse_run({"--images", "101"}, {"--images", "100", "101"});
  refuse_run({"--eval-images", "101"}, {"--eval-images", "100", "101"});
  refuse_run({"--image", "33"}, {"--image", "33", "multiple of 4"});
  refuse_run({"--image", "28"}, {"--image", "28", "32"});
  for (const std::string flag : {"--channels", "--layers", "--epochs", "--batch", "--eval-channels",
                                 "--eval-layers", "--eval-epochs", "--eval-batch"})
    for (const char* value : {"0", "-4", "100000000"}) refuse_run({flag, value}, {flag, value});
  refuse_run({"--lr", "-1"}, {"--lr", "-1"});
  refuse_run({"--eval-lr", "nan"}, {"--eval-lr", "nan"});
  refuse_run({"--drop-path", "1"}, {"--drop-path", "1"});
  refuse_run({"--cutout", "-2"}, {"--cutout", "-2"});
  refuse_run({"--max-skips", "9"}, {"--max-skips", "9"});
  refuse_run({"--max-pools", "-1"}, {"--max-pools", "-1"});
  refuse(Words{"search", "--out", "out", "--lambda", "1"} + tiny_search(), {"--lambda", "--predictor"});
  refuse(Words{"retrain", "--out", "out", "--data", "data", "--genotype", "DARTS_V9"}, {"DARTS_V9"});
  EXPECT_FALSE(exists("out"));
}

// An environment variable for this process, and so for the programs that it starts.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* now = std::getenv(name)) before_ = now;
    setenv(name, value, 1);
  }
  ~ScopedVariable() { before_ ? setenv(name_, before_->c_str(), 1) : unsetenv(name_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

// A GPU that is there is hidden: CUDA shows those alone that the variable names.
TEST_F(BadInputTest, AbsentCudaDevice) {
  const ScopedVariable hidden("CUDA_VISIBLE_DEVICES", "");
  ASSERT_NE(backend::missing(), "");
  const Words parts = {"--device cuda: " + backend::missing()}, cuda = {"--device", "cuda"};
  refuse(tiny_run("out") + cuda, parts);
  refuse(tiny_run("out") + Words{"--latency-device", "cuda"}, parts);
  refuse(tiny_run("out") + Words{"--latency-device", "gpu"}, {"--latency-device", "cpu or cuda", "gpu"});
  refuse(Words{"search", "--out", "out"} + tiny_search() + cuda, parts);
  refuse(Words{"retrain", "--out", "out", "--data", "data", "--genotype", "DARTS_V2"} + cuda, parts);
  refuse(Words{"evaluate", "nowhere.safetensors"} + cuda, parts);
  EXPECT_FALSE(exists("out"));
}

TEST_F(BadInputTest, Checkpoints) {
  const Words retrain =
      Words{"retrain", "--genotype", "DARTS_V2", "--data", "data", "--out", "net", "--quiet"} +
      tiny_network() + Words{"--eval-epochs", "1", "--threads", "1"};
  succeed(retrain);
  const std::string network = read_text(at("net/network.safetensors"));
  const auto evaluate = [&](const std::string& file, const Words& parts) {
    refuse({"evaluate", file, "--data", "data", "--json", "-"}, parts);
  };
  evaluate("nowhere.safetensors", {"nowhere.safetensors", "cannot be opened"});
  evaluate("net/retrain.safetensors", {"net/retrain.safetensors", "expected a trained network", "retrain"});
  write_text(at("text"), "This is not a checkpoint, but it is long enough.");
  evaluate("text", {"text", "safetensors"});
  write_text(at("cut"), network.substr(0, network.size() - 100));
  evaluate("cut", {"cut", "within"});
  write_text(at("cut"), network.substr(0, 40));
  evaluate("cut", {"cut", "header"});
  write_text(at("cut"), "");
  evaluate("cut", {"cut", "0 bytes"});

  // Another network in the same place: the training of other settings or of another genotype is not touched.
  const std::string before = read_text(at("net/retrain.safetensors"));
  refuse(retrain + Words{"--eval-channels", "8"}, {"net/retrain.safetensors", "channels", "4", "8"});
  refuse(retrain + Words{"--genotype", "DARTS_V1"}, {"net/retrain.safetensors", "genotype"});
  EXPECT_EQ(read_text(at("net/retrain.safetensors")), before);
  EXPECT_EQ(read_text(at("net/network.safetensors")), network);

  // Its metadata says one network, its tensors are another's.
  TensorFile file = read_tensors(at("net/network.safetensors"));
  std::string& settings = file.metadata.at("settings");
  settings.replace(settings.find("\"channels\":4"), 12, "\"channels\":8");
  write_tensors(at("other.safetensors"), file);
  evaluate("other.safetensors", {"other.safetensors", "shape"});
  settings = "{";
  write_tensors(at("other.safetensors"), file);
  evaluate("other.safetensors", {"other.safetensors", "settings"});
  file = read_tensors(at("net/network.safetensors"));
  std::string& batch = file.metadata.at("settings");
  batch.replace(batch.find("\"batch\":24"), 10, "\"batch\":-3");
  write_tensors(at("other.safetensors"), file);
  evaluate("other.safetensors", {"other.safetensors", "batch is -3"});
  refuse(Words{"search", "--out", "out", "--lambda", "1", "--predictor", "net/network.safetensors"} +
             tiny_search(),
         {"net/network.safetensors", "not a saved predictor"});
}

TEST_F(BadInputTest, TrainingThatIsNoLongerFinite) {
  const std::vector<std::pair<std::string, Words>> trainings = {
      {"out/search.safetensors",
       Words{"search", "--out", "out", "--lr", "1e30", "--checkpoint-seconds", "0"} + tiny_search()},
      {"net/retrain.safetensors",
       Words{"retrain", "--genotype", "DARTS_V2", "--data", "data", "--out", "net", "--eval-lr", "1e30",
             "--quiet", "--checkpoint-seconds", "0", "--threads", "1"} +
           tiny_network() + Words{"--eval-batch", "10"}}};
  for (const auto& [checkpoint, words] : trainings) {
    refuse(words, {"not finite", "learning rate"});
    if (!exists(checkpoint)) continue;  // it broke in its first step
    const std::string kept = read_text(at(checkpoint));
    for (const auto& [name, entry] : read_tensors(at(checkpoint)).tensors)
      for (float value : entry.values) ASSERT_TRUE(std::isfinite(value)) << checkpoint << " " << name;
    refuse(words, {"not finite"});
    EXPECT_EQ(read_text(at(checkpoint)), kept);
  }
}

}  // namespace
}  // namespace lanas::test
