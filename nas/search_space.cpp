// search_space.cpp -- sampling, the 224-number code, and the best decodings of an alpha.
// k best: every node has a list of options (pair of edges x pair of ops) sorted by log strength; the best
// combinations of the eight lists come lazily from a heap. Each combination has one parent: the one with its
// last advanced list stepped back, so none is visited twice.
#include "nas/search_space.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>

namespace lanas {
namespace {

constexpr uint64_t kArchitectureStream = uint64_t{0x41524348} << 32;  // away from other draws of the seed
constexpr uint32_t kTiltedEvery = 5;

OpKind sample_op(Random& random, const OpDistribution& ops) {
  double rest = random.uniform();
  for (int k = 0; k < kChoosableOps; ++k) {
    rest -= ops[k];
    if (rest < 0) return OpKind(k + 1);
  }
  // rounding left a remainder: the most likely op
  return OpKind(std::max_element(ops.begin(), ops.end()) - ops.begin() + 1);
}

CellGenotype sample_cell(Random& random, const OpDistribution& ops) {
  CellGenotype cell;
  for (int node = 0; node < kNodes; ++node) {
    int a = int(random.below(uint32_t(inputs_of(node)))),
        b = int(random.below(uint32_t(inputs_of(node) - 1)));
    b += b >= a;
    cell[2 * node].input = std::min(a, b);
    cell[2 * node + 1].input = std::max(a, b);
    cell[2 * node].op = sample_op(random, ops);
    cell[2 * node + 1].op = sample_op(random, ops);
  }
  return cell;
}

CellGenotype decode_cell(std::span<const float> code, const char* name) {
  CellGenotype cell;
  for (int node = 0; node < kNodes; ++node) {
    int used = 0;
    for (int input = 0; input < inputs_of(node); ++input) {
      const auto row = code.subspan(size_t(edge_index(node, input) * kOps), kOps);
      const auto ones = std::count(row.begin(), row.end(), 1.f),
                 zeros = std::count(row.begin(), row.end(), 0.f);
      CHECK(ones == 1 && zeros == kOps - 1, "decode: row ", edge_index(node, input), " of ", name,
            " is not one-hot, expected one 1 and seven 0");
      const int op = int(std::find(row.begin(), row.end(), 1.f) - row.begin());
      if (op == 0) continue;
      if (used < 2) cell[2 * node + used] = {OpKind(op), input};
      ++used;
    }
    CHECK(used == 2, "decode: node ", node, " of ", name, " has ", used, " used edges, expected 2");
  }
  return cell;
}

struct NodeOption {
  double score;
  CellEdge edges[2];
  int skips() const { return (edges[0].op == OpKind::skip_connect) + (edges[1].op == OpKind::skip_connect); }
  int pools() const { return is_pool(edges[0].op) + is_pool(edges[1].op); }
};
using NodeOptions = std::vector<NodeOption>;  // best first

// All (pair of inputs) x (pair of ops) of one node: C(node + 2, 2) * 49 options.
NodeOptions node_options(const LogStrengths& strength, int node) {
  NodeOptions options;
  for (int a = 0; a < inputs_of(node); ++a)
    for (int b = a + 1; b < inputs_of(node); ++b)
      for (int op_a = 1; op_a < kOps; ++op_a)
        for (int op_b = 1; op_b < kOps; ++op_b) {
          const double log_a = strength[edge_index(node, a)][op_a],
                       log_b = strength[edge_index(node, b)][op_b];
          NodeOption option{log_a + log_b, {{OpKind(op_a), a}, {OpKind(op_b), b}}};
          if (log_b > log_a) std::swap(option.edges[0], option.edges[1]);
          options.push_back(option);
        }
  std::stable_sort(options.begin(), options.end(),
                   [](const NodeOption& x, const NodeOption& y) { return x.score > y.score; });
  return options;
}

constexpr int kLists = 2 * kNodes;  // normal nodes, then reduce nodes
using OptionLists = std::array<NodeOptions, kLists>;

OptionLists option_lists(const LogStrengths& normal, const LogStrengths& reduce) {
  OptionLists lists;
  for (int node = 0; node < kNodes; ++node) {
    lists[node] = node_options(normal, node);
    lists[kNodes + node] = node_options(reduce, node);
  }
  return lists;
}

struct Choice {
  double score = 0;
  std::array<uint16_t, kLists> option{};
  int last = 0;  // the last list that was advanced: only it and later ones may advance further
  bool operator<(const Choice& other) const {  // for the heap: the largest score, then the smallest indices
    return score != other.score ? score < other.score : option > other.option;
  }
};

double score_of(const OptionLists& lists, const Choice& choice) {
  double score = 0;
  for (int l = 0; l < kLists; ++l) score += lists[l][choice.option[l]].score;
  return score;
}

Genotype genotype_of(const OptionLists& lists, const std::array<uint16_t, kLists>& option) {
  Genotype genotype;
  for (int l = 0; l < kLists; ++l) {
    CellGenotype& cell = l < kNodes ? genotype.normal : genotype.reduce;
    for (int e = 0; e < 2; ++e) cell[2 * (l % kNodes) + e] = lists[l][option[l]].edges[e];
  }
  return genotype;
}

// Indices into the four lists of one cell kind: the largest score within the caps, then the smallest indices.
// A node spends 0, 1 or 2 skips and as many pools; its best option for each amount is enough, so 9^4
// combinations decide.
std::array<uint16_t, kNodes> best_capped_cell(const OptionLists& lists, int kind, int max_skips,
                                              int max_pools) {
  constexpr int kAmounts = 9;  // skips * 3 + pools
  uint16_t best_with[kNodes][kAmounts] = {};
  for (int node = 0; node < kNodes; ++node)
    for (int amount = 0; amount < kAmounts; ++amount) {
      const NodeOptions& options = lists[size_t(kind * kNodes + node)];
      const auto at = std::find_if(options.begin(), options.end(), [&](const NodeOption& option) {
        return option.skips() * 3 + option.pools() == amount;
      });
      best_with[node][amount] = uint16_t(at - options.begin());  // options.size(): none
    }
  double best_score = -std::numeric_limits<double>::infinity();
  std::array<uint16_t, kNodes> best{};
  for (int combination = 0; combination < kAmounts * kAmounts * kAmounts * kAmounts; ++combination) {
    std::array<uint16_t, kNodes> option{};
    int skips = 0, pools = 0;
    double score = 0;
    bool exists = true;
    for (int node = 0, rest = combination; node < kNodes && exists; ++node, rest /= kAmounts) {
      const NodeOptions& options = lists[size_t(kind * kNodes + node)];
      option[size_t(node)] = best_with[node][rest % kAmounts];
      exists = option[size_t(node)] < options.size();
      if (!exists) break;
      skips += rest % kAmounts / 3;
      pools += rest % kAmounts % 3;
      score += options[option[size_t(node)]].score;
    }
    if (!exists || skips > max_skips || pools > max_pools) continue;
    if (score < best_score || (score == best_score && option > best)) continue;
    best_score = score;
    best = option;
  }
  return best;
}

}  // namespace

OpDistribution uniform_ops() {
  OpDistribution ops;
  ops.fill(1.0 / kChoosableOps);
  return ops;
}

// weight = u^s, u uniform: the larger s, the more the largest of seven dominates; s = 2^(1..6) is drawn too,
// so that the largest has on average 0.36 of the mass at one end and 0.94 at the other.
OpDistribution tilted_ops(Random& random) {
  const double sharpness = std::exp2(1 + 5 * double(random.uniform()));
  OpDistribution ops;
  double sum = 0;
  for (double& chance : ops) sum += chance = std::pow(double(random.uniform()), sharpness);
  for (double& chance : ops) chance /= sum;
  return ops;
}

Genotype sample_genotype(Random& random, const OpDistribution& ops) {
  Genotype genotype;
  genotype.normal = sample_cell(random, ops);
  genotype.reduce = sample_cell(random, ops);
  return genotype;
}

SampledArchitecture sample_architecture(uint64_t seed, uint64_t index) {
  Random random(seed, kArchitectureStream ^ index);
  SampledArchitecture sampled;
  sampled.tilted = random.below(kTiltedEvery) == 0;
  sampled.genotype = sample_genotype(random, sampled.tilted ? tilted_ops(random) : uniform_ops());
  return sampled;
}

std::array<float, kCodeSize> encode(const Genotype& genotype) {
  check_genotype(genotype, "encode");
  std::array<float, kCodeSize> code{};
  for (int cell = 0; cell < 2; ++cell) {
    float* rows = code.data() + cell * kCellCode;
    for (int edge = 0; edge < kEdges; ++edge) rows[edge * kOps] = 1;
    const CellGenotype& edges = cell == 0 ? genotype.normal : genotype.reduce;
    for (int pair = 0; pair < kPairs; ++pair) {
      float* row = rows + edge_index(pair / 2, edges[pair].input) * kOps;
      row[0] = 0;
      row[int(edges[pair].op)] = 1;
    }
  }
  return code;
}

Genotype decode(std::span<const float> code) {
  CHECK(code.size() == kCodeSize, "decode: the code has ", code.size(), " numbers, expected ", kCodeSize);
  return {decode_cell(code.first(kCellCode), "normal"), decode_cell(code.last(kCellCode), "reduce")};
}

std::vector<ScoredGenotype> top_genotypes(const float* alpha_normal, const float* alpha_reduce,
                                          const float* beta_normal, const float* beta_reduce, int count) {
  return top_genotypes(log_strengths(alpha_normal, beta_normal), log_strengths(alpha_reduce, beta_reduce),
                       count);
}

std::vector<ScoredGenotype> top_genotypes(const LogStrengths& normal, const LogStrengths& reduce, int count) {
  CHECK(count >= 0, "top_genotypes: count ", count, " is negative");
  const OptionLists lists = option_lists(normal, reduce);
  std::priority_queue<Choice> heap;
  Choice best;
  best.score = score_of(lists, best);
  heap.push(best);
  std::vector<ScoredGenotype> found;
  while (int(found.size()) < count && !heap.empty()) {
    const Choice choice = heap.top();
    heap.pop();
    found.push_back({genotype_of(lists, choice.option), choice.score});
    for (int l = choice.last; l < kLists; ++l) {
      if (choice.option[l] + 1u >= lists[l].size()) continue;
      Choice next = choice;
      ++next.option[l];
      next.last = l;
      next.score = score_of(lists, next);
      heap.push(next);
    }
  }
  return found;
}

bool OperationCaps::hold(const Genotype& genotype) const {
  auto pools = [](const CellGenotype& cell) {
    return std::count_if(cell.begin(), cell.end(), [](const CellEdge& edge) { return is_pool(edge.op); });
  };
  return count_skips(genotype.normal) <= max_skips && pools(genotype.normal) <= max_pools &&
         pools(genotype.reduce) <= max_pools;
}

std::vector<OpKind> OperationCaps::capped(int kind) const {
  std::vector<OpKind> ops;
  if (max_pools < kPairs) ops = {OpKind::max_pool_3x3, OpKind::avg_pool_3x3};
  if (max_skips < kPairs && kind == 0) ops.push_back(OpKind::skip_connect);
  return ops;
}

Genotype derive_with_caps(const LogStrengths& normal, const LogStrengths& reduce, const OperationCaps& caps) {
  for (const int cap : {caps.max_skips, caps.max_pools})
    CHECK(cap >= 0 && cap <= kPairs, "derive_with_caps: cap ", cap, ", expected 0 to ", kPairs);
  const OptionLists lists = option_lists(normal, reduce);
  std::array<uint16_t, kLists> best{};
  for (int kind = 0; kind < 2; ++kind) {
    const std::array<uint16_t, kNodes> cell =
        best_capped_cell(lists, kind, kind == 0 ? caps.max_skips : kPairs, caps.max_pools);
    std::copy(cell.begin(), cell.end(), best.begin() + kind * kNodes);
  }
  return genotype_of(lists, best);
}

}  // namespace lanas
