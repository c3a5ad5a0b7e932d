// child_process.cpp -- input and output are unnamed temporary files, so that no pipe can block.
#include "nas/child_process.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "kernels/core/check.h"

namespace lanas {
namespace {

struct CloseFile {
  void operator()(FILE* file) const { std::fclose(file); }
};
using TemporaryFile = std::unique_ptr<FILE, CloseFile>;

TemporaryFile temporary_file(const std::string& program) {
  TemporaryFile file(std::tmpfile());
  CHECK(file, program, ": no temporary file could be opened (", std::strerror(errno), ")");
  return file;
}

std::string read_all(FILE* file) {
  std::string text;
  char buffer[4096];
  std::rewind(file);
  for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, got);
  return text;
}

int start(pid_t& child, const std::vector<std::string>& arguments, FILE* in, FILE* out, FILE* err) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fileno(in), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fileno(out), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fileno(err), STDERR_FILENO);
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  const int failed = posix_spawnp(&child, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return failed;
}

}  // namespace

std::optional<std::string> run_filter(const std::vector<std::string>& arguments, const std::string& input) {
  const std::string& program = arguments.at(0);
  const TemporaryFile in = temporary_file(program), out = temporary_file(program),
                      err = temporary_file(program);
  CHECK(std::fwrite(input.data(), 1, input.size(), in.get()) == input.size() && std::fflush(in.get()) == 0,
        program, ": its input cannot be written (", std::strerror(errno), ")");
  std::rewind(in.get());

  pid_t child = 0;
  const int failed = start(child, arguments, in.get(), out.get(), err.get());
  if (failed == ENOENT) return std::nullopt;
  CHECK(failed == 0, program, ": cannot be started (", std::strerror(failed), ")");
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    CHECK(errno == EINTR, program, ": was lost (", std::strerror(errno), ")");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return std::nullopt;  // how a C library may report a missing program
  const std::string complaint = read_all(err.get());
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, program,
        " failed: ", complaint.substr(0, complaint.find('\n')));
  return read_all(out.get());
}

}  // namespace lanas
