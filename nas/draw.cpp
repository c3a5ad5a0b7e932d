// draw.cpp -- genotype pictures; Graphviz's dot is used as a filter where it is installed.
#include "nas/draw.h"

#include <fstream>

#include "nas/child_process.h"

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
  const std::optional<std::string> svg = run_filter({"dot", "-Tsvg"}, dot);
  if (!svg) return false;
  std::ofstream file(path, std::ios::binary);
  file << *svg;
  file.close();
  CHECK(file.good(), path, ": cannot be written, expected a place for an SVG picture");
  return true;
}

}  // namespace lanas
