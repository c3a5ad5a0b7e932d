// draw.cpp -- genotype pictures. dot is started without a shell; its input and output are unnamed temporary
// files, so that no path or text needs quoting and no pipe can block.
#include "nas/draw.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

namespace lanas {
namespace {

std::string input_name(int input) {
  return input == 0 ? "c_{k-2}" : input == 1 ? "c_{k-1}" : join("node ", input);
}

const char* op_colour(OpKind op) {
  switch (op) {
    case OpKind::max_pool_3x3:
    case OpKind::avg_pool_3x3:
      return "#b45f06";
    case OpKind::skip_connect:
      return "#666666";
    case OpKind::sep_conv_3x3:
    case OpKind::sep_conv_5x5:
      return "#1155cc";
    case OpKind::dil_conv_3x3:
    case OpKind::dil_conv_5x5:
      return "#38761d";
    case OpKind::none:
      break;
  }
  return "#000000";
}

std::string escaped(const std::string& text) {
  std::string out;
  for (char ch : text) {
    if (ch == '"' || ch == '\\') out += '\\';
    out += ch == '\n' || ch == '\r' ? ' ' : ch;
  }
  return out;
}

std::string dot_cell(const CellGenotype& cell, const char* name) {
  std::string text =
      join("  subgraph cluster_", name, " {\n    label=\"", name, " cell\"; color=\"#cccccc\";\n");
  for (int input = 0; input < 2; ++input)
    text += join("    ", name, "_", input, " [label=\"", input_name(input), "\", fillcolor=\"#d9ead3\"];\n");
  for (int node = 0; node < kNodes; ++node)
    text += join("    ", name, "_", node + 2, " [label=\"", node + 2, "\", fillcolor=\"#cfe2f3\"];\n");
  text += join("    ", name, "_out [label=\"output\", fillcolor=\"#fff2cc\"];\n");
  for (int pair = 0; pair < kPairs; ++pair) {
    const auto [op, input] = cell[pair];
    text += join("    ", name, "_", input, " -> ", name, "_", pair / 2 + 2, " [label=\"", op_name(op),
                 "\", color=\"", op_colour(op), "\", fontcolor=\"", op_colour(op), "\"",
                 op == OpKind::skip_connect ? ", style=dashed" : "", "];\n");
  }
  for (int node = 0; node < kNodes; ++node)
    text += join("    ", name, "_", node + 2, " -> ", name, "_out [color=\"#999999\", arrowsize=0.6];\n");
  return text + "  }\n";
}

std::string text_cell(const CellGenotype& cell, const char* name) {
  const int skips = count_skips(cell);
  std::string text = join(name, " cell (", skips, skips == 1 ? " skip" : " skips", ")\n");
  for (int node = 0; node < kNodes; ++node) {
    text += join("  node ", node + 2, "\n");
    for (int e = 0; e < 2; ++e) {
      std::string from = input_name(cell[2 * node + e].input);
      from.resize(7, ' ');
      text += join("    ", from, " -- ", op_name(cell[2 * node + e].op), "\n");
    }
  }
  return text + "  output\n    concat of nodes 2, 3, 4, 5\n";
}

struct CloseFile {
  void operator()(FILE* file) const { std::fclose(file); }
};
using TemporaryFile = std::unique_ptr<FILE, CloseFile>;

TemporaryFile temporary_file() {
  TemporaryFile file(std::tmpfile());
  CHECK(file, "write_svg: no temporary file could be opened (", std::strerror(errno), ")");
  return file;
}

std::string read_all(FILE* file) {
  std::string text;
  char buffer[4096];
  std::rewind(file);
  for (size_t got; (got = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, got);
  return text;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string draw_dot(const Genotype& genotype, const std::string& title) {
  check_genotype(genotype, "draw_dot");
  std::string text = "digraph genotype {\n  rankdir=LR; fontname=\"Helvetica\"; labelloc=t;";
  if (!title.empty()) text += join(" label=\"", escaped(title), "\";");
  text += "\n  node [shape=box, style=\"rounded,filled\", fontname=\"Helvetica\", height=0.4];\n";
  text += "  edge [fontname=\"Helvetica\", fontsize=11];\n";
  return text + dot_cell(genotype.normal, "normal") + dot_cell(genotype.reduce, "reduce") + "}\n";
}

std::string draw_text(const Genotype& genotype) {
  check_genotype(genotype, "draw_text");
  return text_cell(genotype.normal, "normal") + text_cell(genotype.reduce, "reduce");
}

bool write_svg(const std::string& path, const std::string& dot) {
  const TemporaryFile in = temporary_file(), out = temporary_file(), err = temporary_file();
  CHECK(std::fwrite(dot.data(), 1, dot.size(), in.get()) == dot.size() && std::fflush(in.get()) == 0,
        "write_svg: the temporary file cannot be written (", std::strerror(errno), ")");
  std::rewind(in.get());

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fileno(in.get()), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fileno(out.get()), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fileno(err.get()), STDERR_FILENO);
  char program[] = "dot", format[] = "-Tsvg";
  char* arguments[] = {program, format, nullptr};
  pid_t child = 0;
  const int failed = posix_spawnp(&child, program, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed == ENOENT) return false;
  CHECK(failed == 0, "write_svg: dot cannot be started (", std::strerror(failed), ")");

  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    CHECK(errno == EINTR, "write_svg: dot was lost (", std::strerror(errno), ")");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return false;  // how a C library may report a missing program
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0,
        "write_svg: dot failed: ", first_line(read_all(err.get())));
  std::ofstream file(path, std::ios::binary);
  file << read_all(out.get());
  file.close();
  CHECK(file.good(), path, ": cannot be written, expected a place for an SVG picture");
  return true;
}

}  // namespace lanas
