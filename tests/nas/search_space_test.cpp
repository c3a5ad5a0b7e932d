// Tests of nas/search_space: uniform and tilted sampling, the 224-number code, the k best decodings.
#include "nas/search_space.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace lanas {
namespace {

using Alpha = std::array<float, kEdges * kOps>;
using Beta = std::array<float, kEdges>;

Alpha random_alpha(Random& random, float scale) {
  Alpha alpha;
  for (float& a : alpha) a = scale * random.normal();
  return alpha;
}

Beta random_beta(Random& random) {
  Beta beta;
  for (float& b : beta) b = random.normal();
  return beta;
}

TEST(SearchSpace, UniformSamplesAreUniform) {
  Random random(1);
  constexpr int kSamples = 20000;
  std::map<std::array<int, 3>, int> pairs;  // node, two inputs
  std::map<int, int> ops;
  int same_op = 0;
  for (int s = 0; s < kSamples; ++s) {
    const Genotype genotype = sample_genotype(random);
    check_genotype(genotype);
    EXPECT_EQ(canonical(genotype), genotype);
    for (const CellGenotype* cell : {&genotype.normal, &genotype.reduce})
      for (int node = 0; node < kNodes; ++node) {
        const CellEdge a = (*cell)[2 * node], b = (*cell)[2 * node + 1];
        ++pairs[{node, a.input, b.input}];
        ++ops[int(a.op)];
        ++ops[int(b.op)];
        same_op += a.op == b.op;
      }
  }
  EXPECT_EQ(pairs.size(), size_t(1 + 3 + 6 + 10));
  for (const auto& [key, times] : pairs) {
    const double expected = 2.0 * kSamples / ((key[0] + 2) * (key[0] + 1) / 2);
    EXPECT_NEAR(times, expected, 5 * std::sqrt(expected)) << key[0] << ": " << key[1] << ", " << key[2];
  }
  EXPECT_EQ(ops.size(), 7u);
  for (const auto& [op, times] : ops)
    EXPECT_NEAR(times, 16.0 * kSamples / 7, 5 * std::sqrt(16.0 * kSamples / 7));
  EXPECT_NEAR(same_op, 8.0 * kSamples / 7, 5 * std::sqrt(8.0 * kSamples / 7));
}

TEST(SearchSpace, ArchitecturesArePureFunctionsOfSeedAndIndex) {
  std::vector<Genotype> forward;
  for (uint64_t i = 0; i < 100; ++i) forward.push_back(sample_architecture(7, i).genotype);
  for (uint64_t i = 100; i-- > 0;) EXPECT_EQ(sample_architecture(7, i).genotype, forward[i]);
  std::set<uint64_t> keys;
  for (uint64_t i = 0; i < 100; ++i) {
    keys.insert(genotype_key(sample_architecture(7, i).genotype));
    keys.insert(genotype_key(sample_architecture(8, i).genotype));
  }
  EXPECT_GT(keys.size(), 195u);
}

TEST(SearchSpace, OneInFiveIsTiltedAndCoversTheTails) {
  constexpr int kSamples = 20000;
  int tilted = 0;
  std::map<OpKind, int> nearly_all;
  double repeats[2] = {}, edges[2] = {};
  for (uint64_t i = 0; i < kSamples; ++i) {
    const SampledArchitecture sample = sample_architecture(42, i);
    check_genotype(sample.genotype);
    tilted += sample.tilted;
    int counts[kOps] = {};
    for (const CellGenotype* cell : {&sample.genotype.normal, &sample.genotype.reduce})
      for (const CellEdge& edge : *cell) ++counts[int(edge.op)];
    const int most = *std::max_element(counts, counts + kOps);
    repeats[sample.tilted] += most;
    edges[sample.tilted] += 1;
    if (most >= 14) ++nearly_all[OpKind(std::max_element(counts, counts + kOps) - counts)];
  }
  EXPECT_NEAR(tilted, kSamples / 5.0, 5 * std::sqrt(kSamples / 5.0));
  EXPECT_LT(repeats[0] / edges[0], 6);  // the most frequent of 16 uniform ops
  EXPECT_GT(repeats[1] / edges[1], 8);
  for (int op = 1; op < kOps; ++op) EXPECT_GT(nearly_all[OpKind(op)], 50) << op_name(OpKind(op));
}

TEST(SearchSpace, TiltedOpsAreADistribution) {
  Random random(2);
  for (int trial = 0; trial < 1000; ++trial) {
    double sum = 0;
    for (double chance : tilted_ops(random)) {
      EXPECT_GE(chance, 0);
      sum += chance;
    }
    EXPECT_NEAR(sum, 1, 1e-12);
  }
}

TEST(SearchSpace, CodeLayout) {
  const auto code = encode(read_genotype(
      "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
      "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
      "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
      "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
      "('max_pool_3x3', 1)], reduce_concat=range(2, 6))"));
  ASSERT_EQ(code.size(), 224u);
  // op of each edge, 0 where the node does not read that input
  const int expected[28] = {4, 4, 4, 4, 0, 3, 4, 0, 0, 3, 0, 6, 0, 0,
                            1, 1, 0, 1, 3, 1, 0, 3, 0, 0, 1, 3, 0, 0};
  for (int row = 0; row < 28; ++row)
    for (int op = 0; op < 8; ++op)
      EXPECT_EQ(code[size_t(row * 8 + op)], op == expected[row] ? 1.f : 0.f) << row;
}

TEST(SearchSpace, DecodeInvertsEncode) {
  for (uint64_t i = 0; i < 500; ++i) {
    const Genotype genotype = sample_architecture(9, i).genotype;
    EXPECT_EQ(decode(encode(genotype)), genotype);
  }
  for (const auto& published : published_genotypes())
    EXPECT_EQ(decode(encode(published.genotype)), canonical(published.genotype));
}

TEST(SearchSpace, DecodeRefusesWhatIsNotACode) {
  const auto code = encode(published_genotypes()[0].genotype);
  auto soft = code;
  soft[3] = 0.5f;
  EXPECT_THROW(decode(soft), Error);
  auto third_edge = code;  // node 3 of reduce gets a third input
  for (int edge = 9; edge < 14; ++edge)
    if (float* row = third_edge.data() + 112 + edge * 8; row[0] == 1) {
      row[0] = 0, row[4] = 1;
      break;
    }
  try {
    decode(third_edge);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "decode: node 3 of reduce has 3 used edges, expected 2");
  }
  EXPECT_THROW(decode(std::span(code).first(112)), Error);
}

TEST(SearchSpace, FirstOfTheTopIsTheDerivedGenotype) {
  Random random(11);
  for (int trial = 0; trial < 20; ++trial) {
    const Alpha normal = random_alpha(random, 1), reduce = random_alpha(random, 1);
    const Beta beta_n = random_beta(random), beta_r = random_beta(random);
    EXPECT_EQ(top_genotypes(normal.data(), reduce.data(), beta_n.data(), beta_r.data(), 1)[0].genotype,
              derive_genotype(normal.data(), reduce.data(), beta_n.data(), beta_r.data()));
    EXPECT_EQ(top_genotypes(normal.data(), reduce.data(), nullptr, nullptr, 1)[0].genotype,
              derive_genotype(normal.data(), reduce.data()));
  }
}

// Sum of log strengths, from plain softmax arithmetic.
double score_of(const Genotype& genotype, const Alpha& normal, const Alpha& reduce) {
  double score = 0;
  for (int cell = 0; cell < 2; ++cell)
    for (int pair = 0; pair < kPairs; ++pair) {
      const CellEdge edge = (cell == 0 ? genotype.normal : genotype.reduce)[size_t(pair)];
      const float* row = (cell == 0 ? normal : reduce).data() + edge_index(pair / 2, edge.input) * kOps;
      double sum = 0;
      for (int op = 0; op < kOps; ++op) sum += std::exp(double(row[op]));
      score += std::log(std::exp(double(row[int(edge.op)])) / sum);
    }
  return score;
}

TEST(SearchSpace, TopGenotypesAreSortedDistinctAndComplete) {
  Random random(12);
  const Alpha normal = random_alpha(random, 1), reduce = random_alpha(random, 1);
  const auto top = top_genotypes(normal.data(), reduce.data(), nullptr, nullptr, 3000);
  ASSERT_EQ(top.size(), 3000u);
  std::set<uint64_t> keys;
  for (size_t i = 0; i < top.size(); ++i) {
    check_genotype(top[i].genotype);
    keys.insert(genotype_key(top[i].genotype));
    EXPECT_NEAR(top[i].log_strength, score_of(top[i].genotype, normal, reduce), 1e-9);
    if (i > 0) {
      EXPECT_GE(top[i - 1].log_strength, top[i].log_strength - 1e-12);
    }
  }
  EXPECT_EQ(keys.size(), top.size());
  // complete: every change of one edge's op or input that scores above the last found is among the found
  const double last = top.back().log_strength;
  int above = 0;
  for (int trial = 0; trial < 200; ++trial) {
    Genotype changed = top[random.below(500)].genotype;
    CellGenotype& cell = random.below(2) ? changed.normal : changed.reduce;
    CellEdge& edge = cell[random.below(kPairs)];
    edge.op = OpKind(1 + random.below(7));
    if (score_of(changed, normal, reduce) <= last + 1e-9) continue;
    ++above;
    EXPECT_TRUE(keys.count(genotype_key(changed)));
  }
  EXPECT_GT(above, 5);
}

// Exhaustive check over the 20 + ... options: fix the reduce cell and all but two nodes with a huge alpha
// gap.
TEST(SearchSpace, TopGenotypesMatchEnumerationOfTwoNodes) {
  Random random(13);
  Alpha normal{}, reduce{};
  const auto fix = [](Alpha& alpha, int node) {  // ops 1 on inputs 0 and 1, anything else is far worse
    for (int input = 0; input < inputs_of(node); ++input)
      alpha[size_t(edge_index(node, input) * kOps + (input < 2 ? 1 : 0))] = 200;
  };
  for (int node = 0; node < kNodes; ++node) fix(reduce, node);
  fix(normal, 2), fix(normal, 3);
  for (int i = 0; i < 5 * kOps; ++i) normal[size_t(i)] = random.normal();
  std::vector<double> scores;
  Genotype genotype = derive_genotype(normal.data(), reduce.data());
  for (int pair = 0; pair < 3; ++pair)
    for (int ops = 0; ops < 7 * 7 * 7 * 7; ++ops) {
      const int a = pair == 2, b = pair == 0 ? 1 : 2;
      genotype.normal[0] = {OpKind(1 + ops % 7), 0};
      genotype.normal[1] = {OpKind(1 + ops / 7 % 7), 1};
      genotype.normal[2] = {OpKind(1 + ops / 49 % 7), a};
      genotype.normal[3] = {OpKind(1 + ops / 343), b};
      scores.push_back(score_of(genotype, normal, reduce));
    }
  std::sort(scores.rbegin(), scores.rend());
  const auto top = top_genotypes(normal.data(), reduce.data(), nullptr, nullptr, int(scores.size()));
  for (size_t i = 0; i < scores.size(); ++i) ASSERT_NEAR(top[i].log_strength, scores[i], 1e-9) << i;
}

// Of a flattened search space with a skip and a pool that win everywhere: the capped genotype is the best
// of those for which the caps hold.
TEST(SearchSpace, Caps) {
  Random random(14);
  for (int trial = 0; trial < 10; ++trial) {
    Alpha normal = random_alpha(random, 0.3f), reduce = random_alpha(random, 0.3f);
    for (int edge = 0; edge < kEdges; ++edge) {
      normal[size_t(edge * kOps + 3)] += 0.5f;
      reduce[size_t(edge * kOps + 1)] += 0.3f;
    }
    const LogStrengths strengths[2] = {log_strengths(normal.data(), nullptr),
                                       log_strengths(reduce.data(), nullptr)};
    const auto top = top_genotypes(strengths[0], strengths[1], 20000);
    int compared = 0;
    for (int skips = 0; skips <= kPairs; skips += 2)
      for (int pools = 0; pools <= kPairs; pools += 2) {
        const OperationCaps caps{skips, pools};
        const Genotype capped = derive_with_caps(strengths[0], strengths[1], caps);
        check_genotype(capped);
        EXPECT_TRUE(caps.hold(capped)) << skips << " " << pools;
        const auto first = std::find_if(
            top.begin(), top.end(), [&](const ScoredGenotype& scored) { return caps.hold(scored.genotype); });
        if (first == top.end()) continue;
        EXPECT_EQ(capped, first->genotype) << skips << " " << pools;
        ++compared;
      }
    EXPECT_GE(compared, 5);
    EXPECT_EQ(derive_with_caps(strengths[0], strengths[1], {}),
              derive_genotype(normal.data(), reduce.data()));
  }
  const LogStrengths flat = log_strengths(Alpha{}.data(), nullptr);
  EXPECT_THROW(derive_with_caps(flat, flat, {-1, 8}), Error);
  EXPECT_THROW(derive_with_caps(flat, flat, {8, 9}), Error);
}

TEST(SearchSpace, CapsCountSkipsOfTheNormalCellAndPoolsOfBoth) {
  Genotype genotype;
  for (CellGenotype* cell : {&genotype.normal, &genotype.reduce})
    for (int pair = 0; pair < kPairs; ++pair) (*cell)[size_t(pair)] = {OpKind::dil_conv_3x3, pair % 2};
  genotype.reduce[0].op = OpKind::skip_connect;
  EXPECT_TRUE((OperationCaps{0, 0}.hold(genotype)));
  genotype.reduce[2].op = OpKind::avg_pool_3x3;
  EXPECT_FALSE((OperationCaps{8, 0}.hold(genotype)));
  EXPECT_TRUE((OperationCaps{0, 1}.hold(genotype)));
  genotype.reduce[3].op = OpKind::max_pool_3x3;
  EXPECT_FALSE((OperationCaps{8, 1}.hold(genotype)));
  genotype.normal[0].op = OpKind::max_pool_3x3;
  EXPECT_TRUE((OperationCaps{0, 2}.hold(genotype)));
  genotype.normal[1].op = OpKind::skip_connect;
  EXPECT_FALSE((OperationCaps{0, 2}.hold(genotype)));
  EXPECT_TRUE((OperationCaps{1, 2}.hold(genotype)));
}

}  // namespace
}  // namespace lanas
