// bench_program.h -- starts ./bench_latency as a user does.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/programs/tiny.h"

namespace lanas::test {

using Json = nlohmann::json;

class BenchLatency : public ProgramTest {
 protected:
  Outcome bench(const Words& words) const {
    std::string line = "cd '" + folder_.string() + "' && '" LANAS_BINARY_DIR "/bench_latency'";
    for (const std::string& word : words) line += " '" + word + "'";
    const int status = std::system((line + " --quiet >stdout.txt 2>stderr.txt").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
            read_text(at("stdout.txt")), read_text(at("stderr.txt"))};
  }
  Json measure(const Words& words) const {
    const Outcome outcome = bench(words + Words{"--json", "-"});
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    const Json json = Json::parse(outcome.out, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << outcome.out;
    return json;
  }
  void refuse_bench(const Words& words, const Words& parts) const {
    const Outcome outcome = bench(words);
    EXPECT_EQ(outcome.code, 2) << testing::PrintToString(words) << outcome.err;
    EXPECT_EQ(outcome.error_lines(), 1) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    for (const std::string& part : parts)
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "no '" << part << "' in: " << outcome.err;
  }

  // Columns a and b, a note, and a latency that is a sum over them, times a little interaction.
  static std::string table(int rows) {
    std::string text = "a,b,c,cost_ms\n";
    for (int i = 0; i < rows; ++i) {
      const int a = i % 5, b = i / 5 % 5, c = i / 25 % 5;
      text += join(a, ',', b, ',', c, ',', (1 + a + 0.5 * b + 0.2 * c) * (1 + 0.02 * (a == c)), '\n');
    }
    return text;
  }
  static Words fit(const std::string& file) {
    return {"fit",     "--data", file,     "--features", "a,b,c",     "--target", "cost_ms",
            "--train", "70",     "--seed", "0",          "--threads", "1"};
  }
  static Words tiny(const std::string& command) {
    return {command, "--channels", "4", "--layers", "3", "--image", "8", "--batch", "2", "--threads", "1"};
  }
};

}  // namespace lanas::test
