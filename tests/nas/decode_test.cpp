// Verified decoding: candidates are the best-scoring in the band, measuring decides, a biased predictor is
// corrected, ends of the space and infeasible targets.
#include "nas/decode.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/random.cuh"
#include "tests/support/code_regressor.h"

namespace lanas::test {
namespace {

double latency_of(const Genotype& genotype) {
  double ms = 0.1;
  for (const CellGenotype* cell : {&genotype.normal, &genotype.reduce})
    for (const CellEdge& edge : *cell) ms += 0.01 * int(edge.op) * (1 + edge.input % 2);
  return ms;
}

// Trained once: a latency that is linear in the code.
const Regressor& regressor() {
  static const Regressor fitted = fit_code_regressor(600, 3, latency_of);
  return fitted;
}

ArchitectureValues random_architecture(uint64_t seed, bool with_beta = true) {
  Random random(seed);
  ArchitectureValues values;
  for (int kind = 0; kind < 2; ++kind) {
    for (int i = 0; i < kEdges * kOps; ++i) values.alpha[kind].push_back(0.3f * random.normal());
    for (int i = 0; with_beta && i < kEdges; ++i) values.beta[kind].push_back(0.3f * random.normal());
  }
  return values;
}

TEST(Decode, RangeFindsTheEndsOfTheSpace) {
  const LatencyRange range = Decoder(regressor()).range();
  // All max pools (1) from inputs of the cheap kind where there are two, and all dil_conv_5x5 (7).
  EXPECT_NEAR(latency_of(range.fastest), 0.1 + 2 * 0.01 * (3 + 2 + 2 + 2), 1e-9);
  EXPECT_NEAR(latency_of(range.slowest), 0.1 + 2 * 0.01 * 7 * (3 + 3 + 4 + 4), 1e-9);
  EXPECT_NEAR(range.low_ms, latency_of(range.fastest), 0.02);
  EXPECT_NEAR(range.high_ms, latency_of(range.slowest), 0.1);
  EXPECT_NO_THROW(check_target(0.5, 0.9, range.low_ms, range.high_ms));
  for (const double target : {0.9 * range.low_ms, 1.2 * range.high_ms}) {
    try {
      check_target(target, 0.9, range.low_ms, range.high_ms);
      ADD_FAILURE() << target << " was accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(join(range.low_ms, " to ", range.high_ms)), std::string::npos);
    }
  }
}

TEST(Decode, CandidatesAreTheBestScoringInTheBand) {
  const ArchitectureValues alpha = random_architecture(5);
  DecodeConfig config;
  config.count = 16;
  const Decoder decoder(regressor());
  const std::vector<ScoredGenotype> top = top_genotypes(alpha.alpha[0].data(), alpha.alpha[1].data(),
                                                        alpha.beta[0].data(), alpha.beta[1].data(), 3000);
  const double middle = latency_of(top[0].genotype), low = 0.95 * middle, high = 1.02 * middle;
  const auto found = decoder.candidates(alpha, low, high, config, {});
  ASSERT_EQ(found.size(), 16u);
  size_t next = 0;
  Decoder exact(regressor());
  for (const ScoredGenotype& g : top) {
    if (next == found.size()) break;
    if (genotype_key(g.genotype) != genotype_key(found[next].genotype)) {
      const double ms = latency_of(g.genotype);  // passed over: outside, up to the predictor's error
      EXPECT_TRUE(ms < low * 1.02 || ms > high * 0.98) << ms;
      continue;
    }
    EXPECT_NEAR(found[next].log_strength, g.log_strength, 1e-6);
    ++next;
  }
  EXPECT_EQ(next, found.size());
}

TEST(Decode, MeetsTargetsFarFromWhatAlphaPrefers) {
  for (const bool with_beta : {true, false}) {
    const ArchitectureValues alpha = random_architecture(7, with_beta);
    for (const double target : {0.29, 0.35, 0.7, 1.0, 1.7}) {  // the fastest network takes 0.28
      DecodeConfig config;
      config.target_ms = target;
      int measured = 0;
      const Decoding decoding = Decoder(regressor()).decode(alpha, config, [&](const Genotype& g) {
        ++measured;
        return latency_of(g);
      });
      ASSERT_GE(decoding.chosen, 0) << target << ": " << describe(decoding, config);
      const VerifiedGenotype& chosen = decoding.tried[size_t(decoding.chosen)];
      EXPECT_LE(latency_of(chosen.genotype), target);
      EXPECT_GE(latency_of(chosen.genotype), 0.9 * target);
      EXPECT_EQ(measured, int(decoding.tried.size()) + 2) << "the chosen one three times";
      EXPECT_EQ(chosen.measurements, 3);
      EXPECT_LE(decoding.tried.size(), 16u);
      for (const VerifiedGenotype& g : decoding.tried)
        if (g.measured_ms >= 0.92 * target && g.measured_ms <= 0.98 * target) {
          EXPECT_LE(g.log_strength, chosen.log_strength);
        }
      const Decoding again = decoding_from_json(nlohmann::json::parse(to_json(decoding).dump()));
      EXPECT_EQ(again.chosen, decoding.chosen);
      EXPECT_EQ(again.tried.back().genotype, decoding.tried.back().genotype);
    }
  }
}

// The machine takes 1.3 times what was predicted: the first 16 all miss the band, the second do not.
TEST(Decode, CorrectsABiasedPredictor) {
  DecodeConfig config;
  config.target_ms = 1;
  const Decoding decoding =
      Decoder(regressor()).decode(random_architecture(9), config, [](const Genotype& g) {
        return 1.3 * latency_of(g);
      });
  ASSERT_GE(decoding.chosen, 0);
  EXPECT_GE(decoding.chosen, 16);
  const double ms = 1.3 * latency_of(decoding.tried[size_t(decoding.chosen)].genotype);
  EXPECT_LE(ms, 1);
  EXPECT_GE(ms, 0.9);
}

// The first measurement of the best-scoring decoding was lucky: by the median of three it misses the band.
TEST(Decode, ChoosesByThreeMeasurements) {
  DecodeConfig config;
  config.target_ms = 1;
  const ArchitectureValues alpha = random_architecture(9);
  const Decoder decoder(regressor());
  const uint64_t best = genotype_key(
      decoder.decode(alpha, config, [](const Genotype&) { return 0.95; }).tried.front().genotype);
  int times = 0;
  const Decoding decoding = decoder.decode(
      alpha, config, [&](const Genotype& g) { return genotype_key(g) == best && ++times > 1 ? 1.01 : 0.95; });
  EXPECT_EQ(times, 3);
  EXPECT_EQ(decoding.chosen, 1);
  EXPECT_EQ(decoding.tried[0].measured_ms, 1.01);
  EXPECT_EQ(decoding.tried[0].measurements, 3);
}

// What is measured first misses by so much that the corrected band lies beyond every prediction.
TEST(Decode, WidensABandThatHoldsNothing) {
  DecodeConfig config;
  config.target_ms = 2.1;
  const Decoder decoder(regressor());
  ASSERT_GT(2.1 * kTargetLow * 1.25, decoder.range().high_ms);
  int times = 0;
  const Decoding decoding = decoder.decode(random_architecture(9), config, [&](const Genotype& g) {
    return ++times <= 16 ? 0.8 * latency_of(g) : latency_of(g);
  });
  ASSERT_GE(decoding.chosen, 16) << describe(decoding, config);
  const double ms = decoding.tried[size_t(decoding.chosen)].measured_ms;
  EXPECT_TRUE(ms >= 1.89 && ms <= 2.1) << ms;
}

TEST(Decode, SaysWhenNothingFits) {
  DecodeConfig config;
  config.target_ms = 1;
  config.rounds = 1;
  const Decoding decoding =
      Decoder(regressor()).decode(random_architecture(9), config, [](const Genotype&) { return 2.0; });
  EXPECT_EQ(decoding.chosen, -1);
  EXPECT_EQ(decoding.tried.size(), 16u);
  EXPECT_NE(describe(decoding, config).find("the nearest 2 ms"), std::string::npos);
}

// Skips and pools everywhere: the capped ends and decodings of the space hold few of them.
TEST(Decode, KeepsTheCaps) {
  ArchitectureValues alpha = random_architecture(11);
  for (int edge = 0; edge < kEdges; ++edge)
    for (const int op : {1, 3}) alpha.alpha[0][size_t(edge * kOps + op)] += 2;
  DecodeConfig config;
  config.target_ms = 0.8;
  for (const OperationCaps caps : {OperationCaps{2, kPairs}, OperationCaps{kPairs, 2}}) {
    const Decoder decoder(regressor(), caps);
    const Decoding decoding = decoder.decode(alpha, config, latency_of);
    ASSERT_GE(decoding.chosen, 0);
    for (const VerifiedGenotype& g : decoding.tried) EXPECT_TRUE(caps.hold(g.genotype));
    const LatencyRange range = decoder.range(), all = Decoder(regressor()).range();
    EXPECT_TRUE(caps.hold(range.fastest) && caps.hold(range.slowest));
    EXPECT_GE(range.low_ms, all.low_ms);
    EXPECT_LE(range.high_ms, all.high_ms * (1 + 1e-9));
  }
}

}  // namespace
}  // namespace lanas::test
