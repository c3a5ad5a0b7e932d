// genotype.cpp -- what a genotype means: validity, decoding from alpha, skip count, canonical form and rank.
// Decoding (DARTS; with beta: PC-DARTS): strength(e, o) = softmax_o(alpha[e])_o * softmax(beta over the
// node's edges)_e; per node the two edges with the largest max_{o != none} strength.
#include "nas/genotype.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lanas {
namespace {

double log_sum_exp(const float* x, int count) {
  const double largest = *std::max_element(x, x + count);
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

void check_cell(const CellGenotype& cell, std::string_view who, const char* name) {
  for (int pair = 0; pair < kPairs; ++pair) {
    const CellEdge& edge = cell[pair];
    const int node = pair / 2;
    CHECK(int(edge.op) > 0 && int(edge.op) < kOps, who, ": op ", int(edge.op), " of ", name, " pair ", pair,
          " is not one of the seven ops 1 to 7");
    CHECK(edge.input >= 0 && edge.input < inputs_of(node), who, ": input ", edge.input, " of ", name,
          " pair ", pair, " is out of range, node ", node, " takes inputs 0 to ", node + 1);
    CHECK(pair % 2 == 0 || cell[pair - 1].input != edge.input, who, ": node ", node, " of ", name,
          " reads input ", edge.input, " twice, expected two different inputs");
  }
}

CellGenotype derive_cell(const float* alpha, const float* beta) {
  const LogStrengths strength = log_strengths(alpha, beta);
  CellGenotype cell;
  for (int node = 0; node < kNodes; ++node) {
    struct Candidate {
      double strength;
      CellEdge edge;
    };
    std::vector<Candidate> candidates;
    for (int input = 0; input < inputs_of(node); ++input) {
      const auto& row = strength[edge_index(node, input)];
      const auto best = std::max_element(row.begin() + 1, row.end());  // the first of equals
      candidates.push_back({*best, {OpKind(best - row.begin()), input}});
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.strength > b.strength; });
    cell[2 * node] = candidates[0].edge;
    cell[2 * node + 1] = candidates[1].edge;
  }
  return cell;
}

CellGenotype canonical_cell(CellGenotype cell) {
  for (int node = 0; node < kNodes; ++node)
    if (cell[2 * node].input > cell[2 * node + 1].input) std::swap(cell[2 * node], cell[2 * node + 1]);
  return cell;
}

constexpr uint64_t kOpPairs = kChoosableOps * kChoosableOps;
constexpr uint64_t input_pairs(int node) { return uint64_t(inputs_of(node) * (node + 1) / 2); }

// Mixed radix over the nodes; digit = (rank of the input pair, op of the lower input, op of the higher).
uint64_t cell_key(const CellGenotype& canonical_form) {
  uint64_t key = 0;
  for (int node = 0; node < kNodes; ++node) {
    const CellEdge low = canonical_form[2 * node], high = canonical_form[2 * node + 1];
    const uint64_t pair = uint64_t(high.input * (high.input - 1) / 2 + low.input);
    const uint64_t ops = uint64_t((int(low.op) - 1) * kChoosableOps + int(high.op) - 1);
    key = key * input_pairs(node) * kOpPairs + pair * kOpPairs + ops;
  }
  return key;
}

CellGenotype cell_from_key(uint64_t key) {
  CellGenotype cell;
  for (int node = kNodes - 1; node >= 0; --node) {
    const uint64_t radix = input_pairs(node) * kOpPairs, digit = key % radix;
    key /= radix;
    const int pair = int(digit / kOpPairs), ops = int(digit % kOpPairs);
    int high = 1;
    while (high * (high + 1) / 2 <= pair) ++high;
    cell[2 * node] = {OpKind(ops / kChoosableOps + 1), pair - high * (high - 1) / 2};
    cell[2 * node + 1] = {OpKind(ops % kChoosableOps + 1), high};
  }
  return cell;
}

}  // namespace

void check_genotype(const Genotype& genotype, std::string_view who) {
  check_cell(genotype.normal, who, "normal");
  check_cell(genotype.reduce, who, "reduce");
}

LogStrengths log_strengths(const float* alpha, const float* beta) {
  for (int i = 0; i < kEdges * kOps; ++i)
    CHECK(std::isfinite(alpha[i]), "log_strengths: alpha of edge ", i / kOps, ", op ", i % kOps, " is ",
          alpha[i], ", expected finite numbers");
  for (int e = 0; beta && e < kEdges; ++e)
    CHECK(std::isfinite(beta[e]), "log_strengths: beta of edge ", e, " is ", beta[e],
          ", expected finite numbers");
  LogStrengths strength;
  for (int edge = 0; edge < kEdges; ++edge) {
    const float* row = alpha + edge * kOps;
    const int node = edge_node(edge);
    const double over_ops = log_sum_exp(row, kOps);
    const double edge_weight = beta ? beta[edge] - log_sum_exp(beta + first_edge(node), inputs_of(node)) : 0;
    for (int op = 0; op < kOps; ++op) strength[edge][op] = row[op] - over_ops + edge_weight;
  }
  return strength;
}

Genotype derive_genotype(const float* alpha_normal, const float* alpha_reduce, const float* beta_normal,
                         const float* beta_reduce) {
  return {derive_cell(alpha_normal, beta_normal), derive_cell(alpha_reduce, beta_reduce)};
}

int count_skips(const CellGenotype& cell) {
  return int(std::count_if(cell.begin(), cell.end(),
                           [](const CellEdge& edge) { return edge.op == OpKind::skip_connect; }));
}

Genotype canonical(const Genotype& genotype) {
  return {canonical_cell(genotype.normal), canonical_cell(genotype.reduce)};
}

uint64_t genotype_key(const Genotype& genotype) {
  check_genotype(genotype, "genotype_key");
  return cell_key(canonical_cell(genotype.normal)) * kGenotypesPerCell +
         cell_key(canonical_cell(genotype.reduce));
}

Genotype genotype_from_key(uint64_t key) {
  CHECK(key < kGenotypesPerCell * kGenotypesPerCell, "genotype_from_key: key ", key,
        " is out of range, expected below ", kGenotypesPerCell * kGenotypesPerCell);
  return {cell_from_key(key / kGenotypesPerCell), cell_from_key(key % kGenotypesPerCell)};
}

}  // namespace lanas
