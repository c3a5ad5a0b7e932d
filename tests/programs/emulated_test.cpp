// emulated_test.cpp -- the whole job on the emulated cuda device, as lanas_train_emulated runs it.
#include <cstdlib>

#include "tests/programs/tiny.h"

namespace lanas::test {
namespace {

TEST_F(ProgramTest, SlowEmulatedDeviceRunsTheWholeJobAndSaysThatItsTimesMeanNothing) {
  write_images(at("data"), 60, 20);
  const Words words = {"run", "--device",        "cuda", "--latency-device",  "cuda", "--out",
                       "out", "--data",          "data", "--threads",         "1",    "--lambdas",
                       "0.5", "--random",        "0",    "--latency-samples", "6",    "--latency-redos",
                       "0",   "--final-rounds",  "1",    "--final-tries",     "1",    "--channels",
                       "4",   "--layers",        "3",    "--partial",         "2",    "--batch",
                       "2",   "--images",        "10",   "--epochs",          "1",    "--frozen-epochs",
                       "0",   "--eval-channels", "4",    "--eval-layers",     "3",    "--eval-epochs",
                       "1",   "--eval-images",   "10",   "--eval-batch",      "3",    "--quiet"};
  std::string line = "cd '" + folder_.string() + "' && '" LANAS_BINARY_DIR "/lanas_train_emulated'";
  for (const std::string& word : words) line += " '" + word + "'";
  const int status = std::system((line + " >stdout.txt 2>stderr.txt").c_str());
  const std::string err = read_text(at("stderr.txt"));
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << err;
  EXPECT_EQ(err, "the cuda device is emulated on the cpu here: its times mean nothing\n");
  const nlohmann::json settings = json("out/settings.json");
  EXPECT_EQ(settings.value("device", ""), "cuda");
  EXPECT_EQ(settings.value("latency_device", ""), "cuda");
  EXPECT_TRUE(exists("out/results.json"));
  EXPECT_TRUE(exists("out/report.html"));
}

// Ops by events, passes launch by launch and as one graph.
TEST_F(ProgramTest, SlowEmulatedDeviceIsProfiledOpByOp) {
  for (const char* what :
       {"--predictor --batch 2", "--genotype DARTS_V2 --channels 4 --layers 3 --image 8 --batch 1"}) {
    const std::string line =
        "cd '" + folder_.string() + "' && '" LANAS_BINARY_DIR "/bench_latency_emulated' kernels ";
    const int status = std::system((line + what +
                                    " --device cuda --repeats 1 --cold-repeats 0 --quiet --json out.json "
                                    ">stdout.txt 2>stderr.txt")
                                       .c_str());
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << read_text(at("stderr.txt"));
    const nlohmann::json found = json("out.json");
    EXPECT_GT(found.at("sum_ms"), 0);
    EXPECT_GT(found.at("plain_launches_ms"), 0);
    EXPECT_GT(found.at("end_to_end_ms"), 0);
    EXPECT_NE(read_text(at("stdout.txt")).find("end to end, one graph"), std::string::npos);
    EXPECT_NE(read_text(at("stdout.txt")).find("end to end, launch by launch"), std::string::npos);
  }
}

}  // namespace
}  // namespace lanas::test
