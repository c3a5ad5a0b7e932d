// program.h -- starts ./lanas_train as a user does and looks at what it leaves: exit code, output, files.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temp_folder.h"

namespace lanas::test {

using Words = std::vector<std::string>;

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Outcome {
  int code = -1;   // of exit; -1 if a signal ended it
  int signal = 0;  // that ended it
  std::string out, err;
  int error_lines() const { return int(std::count(err.begin(), err.end(), '\n')); }
};

// One start of the program in `folder`.
class Program {
 public:
  Program(const std::filesystem::path& folder, const Words& words)
      : out_(folder / "stdout.txt"), err_(folder / "stderr.txt") {
    std::vector<std::string> all = {LANAS_BINARY_DIR "/lanas_train"};
    all.insert(all.end(), words.begin(), words.end());
    std::vector<char*> pointers;
    for (std::string& word : all) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    child_ = fork();
    if (child_ != 0) return;
    const int out = open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const int err = open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (chdir(folder.c_str()) != 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(126);
    execv(pointers[0], pointers.data());
    _exit(127);
  }
  ~Program() {
    if (child_ > 0 && !ended_) {
      kill(child_, SIGKILL);
      waitpid(child_, &status_, 0);
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // True once `reached` holds while the program runs; false where it ended before that.
  bool wait_until(const std::function<bool()>& reached) {
    while (!reached()) {
      if (waitpid(child_, &status_, WNOHANG) == child_) ended_ = true;
      if (ended_) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }
  void send(int signal) {
    if (!ended_) kill(child_, signal);
  }
  Outcome wait() {
    if (!ended_) waitpid(child_, &status_, 0);
    ended_ = true;
    Outcome outcome{WIFEXITED(status_) ? WEXITSTATUS(status_) : -1,
                    WIFSIGNALED(status_) ? WTERMSIG(status_) : 0, read_text(out_), read_text(err_)};
    return outcome;
  }

 private:
  std::filesystem::path out_, err_;
  pid_t child_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

// A fresh folder for each test, with the program's starts in it.
class ProgramTest : public testing::Test {
 protected:
  std::filesystem::path at(const std::string& name) const { return folder_ / name; }
  bool exists(const std::string& name) const { return std::filesystem::exists(at(name)); }
  Outcome start(const Words& words) const { return Program(folder_, words).wait(); }
  nlohmann::json json(const std::string& name) const {
    const nlohmann::json parsed = nlohmann::json::parse(read_text(at(name)), nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << name << " is not JSON";
    return parsed;
  }
  // It must end well.
  Outcome succeed(const Words& words) const {
    Outcome outcome = start(words);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  }
  // It must refuse with one line that holds every one of `parts`, and print nothing else.
  Outcome refuse(const Words& words, const Words& parts) const {
    Outcome outcome = start(words);
    EXPECT_EQ(outcome.code, 2) << "signal " << outcome.signal << " " << testing::PrintToString(words);
    EXPECT_EQ(outcome.error_lines(), 1) << outcome.err;
    EXPECT_LT(outcome.err.size(), 500u) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    for (const std::string& part : parts)
      EXPECT_NE(outcome.err.find(part), std::string::npos) << "no '" << part << "' in: " << outcome.err;
    return outcome;
  }

  const TempFolder temp_;
  const std::filesystem::path folder_ = temp_.path();
};

}  // namespace lanas::test
