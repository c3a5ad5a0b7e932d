// genotype.h -- a discovered cell pair: which two inputs and ops each node keeps (Liu et al., DARTS, 2019).
// Inputs: 0 = c_{k-2}, 1 = c_{k-1}, 2..5 = the cell's nodes 0..3; node i may read inputs 0 .. i+1. The 14
// possible edges of a cell are numbered node by node, input by input. Text form of the public DARTS code:
// Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=range(2, 6), reduce=[...],
// reduce_concat=range(2, 6)).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/check.h"

namespace lanas {

// The order is that of the public DARTS code: rows of alpha are indexed by it.
enum class OpKind : int {
  none,
  max_pool_3x3,
  avg_pool_3x3,
  skip_connect,
  sep_conv_3x3,
  sep_conv_5x5,
  dil_conv_3x3,
  dil_conv_5x5,
};

constexpr int kNodes = 4;           // intermediate nodes of a cell
constexpr int kEdges = 14;          // 2 + 3 + 4 + 5
constexpr int kOps = 8;             // with none
constexpr int kChoosableOps = 7;    // without none
constexpr int kPairs = 2 * kNodes;  // edges that a genotype keeps in a cell
// prod over nodes of C(node + 2, 2) * 7^2 = 1 * 3 * 6 * 10 * 49^4
constexpr uint64_t kGenotypesPerCell = 1'037'664'180;

constexpr int inputs_of(int node) { return node + 2; }
constexpr int first_edge(int node) { return node * (node + 3) / 2; }  // 0, 2, 5, 9
constexpr int edge_index(int node, int input) { return first_edge(node) + input; }
constexpr int edge_node(int edge) { return edge < 2 ? 0 : edge < 5 ? 1 : edge < 9 ? 2 : 3; }
constexpr int edge_input(int edge) { return edge - first_edge(edge_node(edge)); }

constexpr bool is_pool(OpKind op) { return op == OpKind::max_pool_3x3 || op == OpKind::avg_pool_3x3; }
const char* op_name(OpKind op);
// The op of that name, none included; throws Error with the list of valid names otherwise.
OpKind op_from_name(std::string_view name);

struct CellEdge {
  OpKind op = OpKind::skip_connect;
  int input = 0;
  bool operator==(const CellEdge&) const = default;
};

using CellGenotype = std::array<CellEdge, kPairs>;  // edges 2i and 2i+1 end in node i

struct Genotype {  // the output concatenates the four nodes (concat 2..5), always
  CellGenotype normal{}, reduce{};
  bool operator==(const Genotype&) const = default;
};

// Throws Error if an op is none, an input is out of range for its node, or a node reads an input twice.
void check_genotype(const Genotype& genotype, std::string_view who = "genotype");

// Reads the text form: range(2, 6) or [2, 3, 4, 5], either quotes, free whitespace, # comments, fields in any
// order, an optional "NAME =" before it. Errors are one line: source, line and column, what was expected.
Genotype read_genotype(std::string_view text, std::string_view source = "genotype");
// Exactly the public form, in one line without a newline.
std::string write_genotype(const Genotype& genotype);

struct PublishedGenotype {
  const char* name;
  Genotype genotype;
};
// DARTS_V1, DARTS_V2, PC_DARTS_cifar, PC_DARTS_image, PDARTS.
const std::vector<PublishedGenotype>& published_genotypes();
// A published name (case, '-' and '_' do not matter; DARTS = DARTS_V2, PC_DARTS = PC_DARTS_cifar), else a
// file holding the text form, else the text itself.
Genotype resolve_genotype(const std::string& name_or_path_or_text);

// log(softmax(alpha)[edge][op] * softmax(beta)[edge]) of one cell kind: alpha [14, 8] is normalised over ops,
// beta [14] (nullptr: no edge weights) over the incoming edges of each node. Throws Error if not finite.
using LogStrengths = std::array<std::array<double, kOps>, kEdges>;
LogStrengths log_strengths(const float* alpha, const float* beta);

// The DARTS decoding: an edge is as strong as its strongest op except none; a node keeps its two strongest
// edges, strongest first; ties go to the lower index. alpha [14, 8]; beta [14] or nullptr.
Genotype derive_genotype(const float* alpha_normal, const float* alpha_reduce,
                         const float* beta_normal = nullptr, const float* beta_reduce = nullptr);

int count_skips(const CellGenotype& cell);

// The two edges of a node are a set: canonical() puts the lower input first. Two genotypes are the same
// network exactly if their keys are equal: the key is a rank in [0, kGenotypesPerCell^2), not a hash.
Genotype canonical(const Genotype& genotype);
uint64_t genotype_key(const Genotype& genotype);
Genotype genotype_from_key(uint64_t key);  // canonical; throws Error if out of range

}  // namespace lanas
