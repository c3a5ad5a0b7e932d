// Tests of nas/genotype: the text form and its errors, published genotypes, decoding, canonical form, rank.
#include "nas/genotype.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "kernels/core/random.cuh"
#include "tests/support/temp_folder.h"

namespace lanas {
namespace {

const char* kDartsV2 =
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
    "normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', "
    "1)], "
    "reduce_concat=range(2, 6))";

std::string error_of(const std::string& text) {
  try {
    read_genotype(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Genotype, EdgeNumbering) {
  int edge = 0;
  for (int node = 0; node < kNodes; ++node)
    for (int input = 0; input < inputs_of(node); ++input, ++edge) {
      EXPECT_EQ(edge_index(node, input), edge);
      EXPECT_EQ(edge_node(edge), node);
      EXPECT_EQ(edge_input(edge), input);
    }
  EXPECT_EQ(edge, kEdges);
}

TEST(Genotype, OpNamesInDartsOrder) {
  const char* names[] = {"none",         "max_pool_3x3", "avg_pool_3x3", "skip_connect",
                         "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"};
  for (int op = 0; op < kOps; ++op) {
    EXPECT_STREQ(op_name(OpKind(op)), names[op]);
    EXPECT_EQ(op_from_name(names[op]), OpKind(op));
  }
  EXPECT_THROW(op_from_name("conv"), Error);
  EXPECT_THROW(op_name(OpKind(8)), Error);
}

TEST(Genotype, PublicFormRoundTrip) {
  EXPECT_EQ(write_genotype(read_genotype(kDartsV2)), kDartsV2);
  EXPECT_EQ(read_genotype(kDartsV2), resolve_genotype("DARTS_V2"));
  ASSERT_EQ(published_genotypes().size(), 5u);
  for (const auto& published : published_genotypes()) {
    check_genotype(published.genotype, published.name);
    EXPECT_EQ(read_genotype(write_genotype(published.genotype)), published.genotype) << published.name;
  }
}

TEST(Genotype, AcceptsTheVariantsInUse) {
  const Genotype expected = read_genotype(kDartsV2);
  std::string text = replaced(kDartsV2, "range(2, 6)", "[2,3,4,5]");
  text = replaced(text, "range(2, 6)", " range ( 2,6 ) ");
  std::replace(text.begin(), text.end(), '\'', '"');
  EXPECT_EQ(read_genotype(text), expected);
  text = replaced(text, "), (", "),\n\t(");
  text = replaced(text, "1)]", "1),\r\n]");
  EXPECT_EQ(read_genotype("# from a paper\nBEST = " + text + "\n\n# end"), expected);
  const std::string cells = kDartsV2;
  const size_t reduce = cells.find("reduce=");
  EXPECT_EQ(read_genotype("Genotype(" + cells.substr(reduce, cells.size() - reduce - 1) + ", " +
                          cells.substr(9, reduce - 11) + ",)"),
            expected);
}

TEST(Genotype, ErrorsSayWhereAndWhatWasExpected) {
  const std::string good = kDartsV2;
  const std::pair<std::string, std::string> cases[] = {
      {replaced(good, "sep_conv_3x3", "sep_conv_7x7"),
       "genotype: line 1, column 19: unknown op 'sep_conv_7x7', expected one of max_pool_3x3, avg_pool_3x3, "
       "skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, dil_conv_5x5"},
      {replaced(good, "sep_conv_3x3", "none"), "cannot use the op 'none', expected one of max_pool_3x3"},
      {replaced(good, "'sep_conv_3x3', 0", "'sep_conv_3x3', 2"),
       "line 1, column 35: input 2 of pair 0 of normal is out of range, node 0 takes inputs 0 to 1"},
      {replaced(good, "'dil_conv_3x3', 2", "'dil_conv_3x3', 5"), "node 3 takes inputs 0 to 4"},
      {replaced(good, "'dil_conv_3x3', 2", "'dil_conv_3x3', -1"), "expected an input number, got '-'"},
      {replaced(good, "'sep_conv_3x3', 1", "'sep_conv_3x3', 0"), "node 0 of normal reads input 0 twice"},
      {replaced(good, ", ('dil_conv_3x3', 2)", ""), "normal has 7 pairs, expected 8"},
      {replaced(good, "2)]", "2), ('skip_connect', 0)]"), "normal has 9 pairs, expected 8"},
      {replaced(good, "range(2, 6)", "range(2, 5)"),
       "expected range(2, 6) or [2, 3, 4, 5] for normal_concat"},
      {replaced(good, "range(2, 6)", "[2, 3, 4]"), "expected range(2, 6) or [2, 3, 4, 5] for normal_concat"},
      {replaced(good, "reduce_concat=range(2, 6)", ""), "the field reduce_concat is missing"},
      {replaced(good, "reduce=", "normal="), "the field normal is given twice"},
      {replaced(good, "reduce=", "reduction="), "unknown field 'reduction'"},
      {good + " extra", "expected nothing after the genotype, got 'extra'"},
      {good.substr(0, 60), "genotype: line 1, column 61: "},
      {replaced(good, "'sep_conv_3x3'", "sep_conv_3x3"), "expected an op name in quotes, got 's'"},
      {"Gene(normal=[])", "line 1, column 1: expected Genotype(...), got 'Gene'"},
      {"", "expected Genotype(...), got the end of the text"},
      {"\n\n  Genotype[", "line 3, column 11: expected ( after Genotype, got '['"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string message = error_of(text);
    EXPECT_NE(message.find(expected), std::string::npos) << message << "\n  expected: " << expected;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Genotype, EveryCutTextIsAnError) {
  const std::string good = kDartsV2;
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_NE(error_of(good.substr(0, length)), "no error") << length;
}

TEST(Genotype, ResolvesNamesFilesAndText) {
  const Genotype v2 = read_genotype(kDartsV2);
  for (const char* name : {"darts_v2", "DARTS-V2", "Darts", "dartsv2"}) EXPECT_EQ(resolve_genotype(name), v2);
  EXPECT_EQ(resolve_genotype("pc-darts"), resolve_genotype("PC_DARTS_cifar"));
  EXPECT_EQ(resolve_genotype("pc_darts_imagenet"), resolve_genotype("PC_DARTS_image"));
  EXPECT_EQ(resolve_genotype("P-DARTS"), resolve_genotype("PDARTS"));
  EXPECT_EQ(resolve_genotype(kDartsV2), v2);
  const TempFolder temp;
  const auto folder = temp.path() / "genotype (1)";
  std::filesystem::create_directories(folder);
  const std::string path = folder / "found.txt";
  std::ofstream(path) << "found = " << kDartsV2 << "\n";
  EXPECT_EQ(resolve_genotype(path), v2);
  std::ofstream(path) << "\nnonsense";
  try {
    resolve_genotype(path);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), path + ": line 2, column 1: expected Genotype(...), got 'nonsense'");
  }
  EXPECT_THROW(resolve_genotype(folder), Error);
  try {
    resolve_genotype("darts_v3");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("DARTS_V1, DARTS_V2, PC_DARTS_cifar"), std::string::npos);
  }
}

// alpha that prefers the edges of a known genotype, the first of each node most.
std::array<float, kEdges * kOps> alpha_of(const CellGenotype& cell) {
  std::array<float, kEdges * kOps> alpha{};
  for (int pair = 0; pair < kPairs; ++pair)
    alpha[size_t(edge_index(pair / 2, cell[pair].input) * kOps + int(cell[pair].op))] = 2.f - pair % 2;
  return alpha;
}

TEST(Genotype, DeriveRecoversPublishedCellsWithTheirOrder) {
  for (const auto& published : published_genotypes()) {
    const auto normal = alpha_of(published.genotype.normal), reduce = alpha_of(published.genotype.reduce);
    EXPECT_EQ(derive_genotype(normal.data(), reduce.data()), published.genotype) << published.name;
  }
}

TEST(Genotype, DeriveTiesGoToTheLowerIndexAndNoneNeverWins) {
  std::array<float, kEdges * kOps> alpha{};
  for (int edge = 0; edge < kEdges; ++edge) alpha[size_t(edge * kOps)] = 5;  // none dominates everywhere
  const Genotype derived = derive_genotype(alpha.data(), alpha.data());
  for (int pair = 0; pair < kPairs; ++pair)
    EXPECT_EQ(derived.normal[pair], (CellEdge{OpKind::max_pool_3x3, pair % 2}));
  // a large none takes weight from its own edge's ops: that edge loses
  alpha[0] = 6;
  EXPECT_EQ(derive_genotype(alpha.data(), alpha.data()).normal[0].input, 1);
}

// An independent statement of the rule, in plain softmax arithmetic.
CellGenotype naive_derive(const float* alpha, const float* beta) {
  CellGenotype cell;
  for (int node = 0, first = 0; node < 4; first += node + 2, ++node) {
    double beta_sum = 0;
    for (int j = 0; j < node + 2; ++j) beta_sum += std::exp(double(beta[first + j]));
    bool taken[5] = {};
    for (int rank = 0; rank < 2; ++rank) {
      double best = -1;
      for (int j = 0; j < node + 2; ++j) {
        double sum = 0;
        for (int o = 0; o < 8; ++o) sum += std::exp(double(alpha[(first + j) * 8 + o]));
        for (int o = 1; o < 8 && !taken[j]; ++o) {
          const double w = std::exp(double(alpha[(first + j) * 8 + o])) / sum *
                           std::exp(double(beta[first + j])) / beta_sum;
          if (w > best) best = w, cell[2 * node + rank] = {OpKind(o), j};
        }
      }
      taken[cell[2 * node + rank].input] = true;
    }
  }
  return cell;
}

TEST(Genotype, DeriveWithBetaMatchesPlainArithmetic) {
  Random random(3);
  int beta_matters = 0;
  for (int trial = 0; trial < 200; ++trial) {
    std::array<float, kEdges * kOps> alpha;
    std::array<float, kEdges> beta;
    for (float& a : alpha) a = random.normal();
    for (float& b : beta) b = random.normal();
    const std::array<float, kEdges> flat{};
    const Genotype derived = derive_genotype(alpha.data(), alpha.data(), beta.data(), nullptr);
    EXPECT_EQ(derived.normal, naive_derive(alpha.data(), beta.data()));
    EXPECT_EQ(derived.reduce, naive_derive(alpha.data(), flat.data()));
    check_genotype(derived);
    beta_matters += derived.normal != derived.reduce;
  }
  EXPECT_GT(beta_matters, 100);
}

TEST(Genotype, DeriveRefusesNanAndSurvivesExtremes) {
  std::array<float, kEdges * kOps> alpha{};
  alpha[7] = 5000;
  EXPECT_EQ(derive_genotype(alpha.data(), alpha.data()).normal[0], (CellEdge{OpKind::dil_conv_5x5, 0}));
  alpha[9] = NAN;
  EXPECT_THROW(derive_genotype(alpha.data(), alpha.data()), Error);
}

TEST(Genotype, SkipsAndCanonicalForm) {
  const Genotype v2 = resolve_genotype("DARTS_V2"), v1 = resolve_genotype("DARTS_V1");
  EXPECT_EQ(count_skips(v2.normal), 2);
  EXPECT_EQ(count_skips(v1.normal), 3);
  EXPECT_EQ(count_skips(v1.reduce), 3);
  Genotype swapped = v2;
  for (int node = 0; node < kNodes; ++node) std::swap(swapped.normal[2 * node], swapped.normal[2 * node + 1]);
  EXPECT_NE(swapped, v2);
  EXPECT_EQ(canonical(swapped), canonical(v2));
  EXPECT_EQ(genotype_key(swapped), genotype_key(v2));
  EXPECT_NE(genotype_key(v1), genotype_key(v2));
}

TEST(Genotype, KeyIsARank) {
  uint64_t count = 1;  // two of node + 2 inputs, seven ops on each
  for (uint64_t node = 0; node < 4; ++node) count *= (node + 2) * (node + 1) / 2 * 49;
  EXPECT_EQ(count, kGenotypesPerCell);
  Random random(5);
  const uint64_t last = kGenotypesPerCell * kGenotypesPerCell - 1;
  for (int trial = 0; trial < 2000; ++trial) {
    uint64_t key = (uint64_t{random.next()} << 32 | random.next()) % (last + 1);
    if (trial < 300) key = uint64_t(trial);
    if (trial == 300) key = last;
    const Genotype genotype = genotype_from_key(key);
    check_genotype(genotype);
    EXPECT_EQ(canonical(genotype), genotype);
    ASSERT_EQ(genotype_key(genotype), key);
  }
  EXPECT_THROW(genotype_from_key(last + 1), Error);
}

TEST(Genotype, CheckRefusesInvalid) {
  Genotype genotype = resolve_genotype("DARTS_V1");
  genotype.reduce[3].op = OpKind::none;
  EXPECT_THROW(write_genotype(genotype), Error);
  genotype = resolve_genotype("DARTS_V1");
  genotype.normal[0].input = -1;
  EXPECT_THROW(check_genotype(genotype), Error);
  genotype.normal[0].input = genotype.normal[1].input;
  EXPECT_THROW(check_genotype(genotype), Error);
}

}  // namespace
}  // namespace lanas
