// search_space.h -- the DARTS search space as a set to sample from, encode and rank.
// Two cells, 14 edges each, 8 ops per edge; a node keeps two edges with distinct inputs, each with one of
// seven ops: 1,037,664,180 genotypes per cell. The code of a genotype is 2 x 14 x 8 = 224 numbers.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/random.cuh"
#include "nas/genotype.h"

namespace lanas {

constexpr int kCellCode = kEdges * kOps;  // 112
constexpr int kCodeSize = 2 * kCellCode;  // 224

// Chances of the ops 1..7 (none excluded), summing to 1.
using OpDistribution = std::array<double, kChoosableOps>;
OpDistribution uniform_ops();
// Concentrated on a few ops, which ones and how strongly drawn at random: from mild to nearly one op only.
OpDistribution tilted_ops(Random& random);

// Two distinct inputs per node, uniform; each edge's op independent. In canonical form.
Genotype sample_genotype(Random& random, const OpDistribution& ops = uniform_ops());

struct SampledArchitecture {
  Genotype genotype;
  bool tilted = false;  // drawn from tilted_ops: about one in five, so that the latency tails are covered
};
// The architecture number `index` of the sequence `seed`: a pure function of both.
SampledArchitecture sample_architecture(uint64_t seed, uint64_t index);

// Normal 112 numbers, then reduce 112; [edge][op]: a used edge is one-hot in its op, an unused one in none.
// The order of a node's two edges is not part of the code.
std::array<float, kCodeSize> encode(const Genotype& genotype);
// The canonical genotype of an exact code; throws Error naming the row that is not one-hot or the node that
// has not exactly two used edges. code: kCodeSize numbers.
Genotype decode(std::span<const float> code);

struct ScoredGenotype {
  Genotype genotype;
  double log_strength = 0;  // sum over the 16 kept edges of log(softmax(alpha) * softmax(beta))
};
// The numbers that genotypes are decoded from, on the host: alpha [14, 8] of each cell kind; beta [14] of
// each, or empty.
struct ArchitectureValues {
  std::vector<float> alpha[2], beta[2];  // normal, reduce
  LogStrengths strengths(int kind) const {
    return log_strengths(alpha[kind].data(), beta[kind].empty() ? nullptr : beta[kind].data());
  }
};

// The `count` genotypes with the largest sum of log strengths, best first (fewer if the space is smaller);
// the first is derive_genotype's, unless strengths tie. alpha [14, 8]; beta [14] or nullptr.
std::vector<ScoredGenotype> top_genotypes(const float* alpha_normal, const float* alpha_reduce,
                                          const float* beta_normal, const float* beta_reduce, int count);
std::vector<ScoredGenotype> top_genotypes(const LogStrengths& normal, const LogStrengths& reduce, int count);

// Operations that a search is known to favour because they need no training (0 to 8 each; 8: no cap).
struct OperationCaps {
  int max_skips = kPairs;  // skip connections in the normal cell
  int max_pools = kPairs;  // max and average pools in each cell
  bool any() const { return max_skips < kPairs || max_pools < kPairs; }
  bool hold(const Genotype& genotype) const;
  std::vector<OpKind> capped(int kind) const;  // operations that a cap counts; kind 0: normal, 1: reduce
};

// The best genotype by the same score for which the caps hold.
Genotype derive_with_caps(const LogStrengths& normal, const LogStrengths& reduce, const OperationCaps& caps);

}  // namespace lanas
