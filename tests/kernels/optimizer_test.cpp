// optimizer_test.cpp -- several steps of SGD and Adam against scalar statements of the formulas in double;
// the ascent of a multiplier; norms.
#include "kernels/ops/optimizer.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

constexpr int kCount = 2500;  // more than two blocks, the last one short

TEST(Sgd, FollowsTheFormula) {
  Random random(12);
  std::vector<float> w = random_vector<float>(kCount, random), buffer(kCount, 0.0f);
  std::vector<double> expected = convert<double>(w), momentum(kCount, 0.0);
  Stream stream(Device::cpu);
  SgdState state;
  for (int step = 0; step < 5; ++step) {
    state.lr = 0.1f / float(step + 1);
    state.gradient_scale = step == 2 ? 0.25f : 1.0f;
    const std::vector<float> g = random_vector<float>(kCount, random);
    sgd_step(stream, w.data(), buffer.data(), g.data(), kCount, &state);
    for (size_t i = 0; i < kCount; ++i) {
      const double d = double(g[i]) * double(state.gradient_scale) + double(state.weight_decay) * expected[i];
      momentum[i] = step == 0 ? d : double(state.momentum) * momentum[i] + d;
      expected[i] -= double(state.lr) * momentum[i];
    }
  }
  EXPECT_TRUE(compare(w, expected, 1e-6));
  EXPECT_TRUE(compare(buffer, momentum, 1e-6));
}

// Where sgd goes without clipping, with the buffer left alone.
TEST(SgdLookahead, LandsWhereSgdWould) {
  Random random(15);
  const std::vector<float> start = random_vector<float>(kCount, random),
                           buffer = random_vector<float>(kCount, random),
                           g = random_vector<float>(kCount, random);
  std::vector<float> ahead = start, expected = start, moved = buffer;
  Stream stream(Device::cpu);
  SgdState state;
  state.gradient_scale = 0.125f;
  sgd_lookahead(stream, ahead.data(), buffer.data(), g.data(), kCount, &state);
  state.gradient_scale = 1;
  sgd_step(stream, expected.data(), moved.data(), g.data(), kCount, &state);
  EXPECT_TRUE(compare(ahead, expected, 1e-6));
  EXPECT_NE(ahead, start);
  EXPECT_THROW(sgd_lookahead(stream, ahead.data(), buffer.data(), g.data(), -1, &state), Error);
}

TEST(Adam, FollowsTheFormula) {
  Random random(13);
  std::vector<float> w = random_vector<float>(kCount, random), m(kCount, 0.0f), v(kCount, 0.0f);
  std::vector<double> expected = convert<double>(w), mean(kCount, 0.0), square(kCount, 0.0);
  Stream stream(Device::cpu);
  AdamState state;
  state.lr = 0.01f;
  const double b1 = double(state.beta1), b2 = double(state.beta2);
  for (state.step = 1; state.step <= 6; ++state.step) {
    const std::vector<float> g = random_vector<float>(kCount, random);
    adam_step(stream, w.data(), m.data(), v.data(), g.data(), kCount, &state);
    for (size_t i = 0; i < kCount; ++i) {
      const double d = double(g[i]) + double(state.weight_decay) * expected[i];
      mean[i] = b1 * mean[i] + (1 - b1) * d;
      square[i] = b2 * square[i] + (1 - b2) * d * d;
      const double mean_hat = mean[i] / (1 - std::pow(b1, double(state.step)));
      const double square_hat = square[i] / (1 - std::pow(b2, double(state.step)));
      expected[i] -= double(state.lr) * mean_hat / (std::sqrt(square_hat) + double(state.eps));
    }
  }
  EXPECT_TRUE(compare(w, expected, 1e-6));
  EXPECT_TRUE(compare(m, mean, 1e-6));
  EXPECT_TRUE(compare(v, square, 1e-5));  // 1 - 0.999 loses digits in float
}

TEST(Adam, FirstStepMovesByTheLearningRate) {
  float w[3] = {1, 1, 1}, m[3] = {}, v[3] = {};
  const float g[3] = {1e-3f, -5, 100};
  AdamState state;
  state.lr = 0.5f, state.weight_decay = 0;
  Stream stream(Device::cpu);
  adam_step(stream, w, m, v, g, 3, &state);
  EXPECT_NEAR(w[0], 0.5, 1e-4);
  EXPECT_NEAR(w[1], 1.5, 1e-4);
  EXPECT_NEAR(w[2], 0.5, 1e-4);
  state.step = 0;
  EXPECT_THROW(adam_step(stream, w, m, v, g, 3, &state), Error);
}

TEST(MultiplierAscent, GrowsAboveTheBoundFallsBelowItAndStopsAtZero) {
  Stream stream(Device::cpu);
  float multiplier = 0.5f, cost = 3;
  multiplier_ascent(stream, &multiplier, &cost, 0.1f, 2);  // half too much
  EXPECT_NEAR(multiplier, 0.55, 1e-7);
  EXPECT_EQ(cost, 3);
  cost = 2;
  multiplier_ascent(stream, &multiplier, &cost, 0.1f, 2);
  EXPECT_NEAR(multiplier, 0.55, 1e-7) << "met: stays";
  cost = 1;
  multiplier_ascent(stream, &multiplier, &cost, 0.1f, 2);
  EXPECT_NEAR(multiplier, 0.5, 1e-7);
  multiplier_ascent(stream, &multiplier, &cost, 2, 2);
  EXPECT_EQ(multiplier, 0);
  EXPECT_THROW(multiplier_ascent(stream, &multiplier, &cost, 0.1f, 0), Error);
  EXPECT_THROW(multiplier_ascent(stream, &multiplier, &cost, -0.1f, 2), Error);
}

TEST(Norms, RadiusOfADifference) {
  Stream stream(Device::cpu);
  float radius = NAN, factor = NAN, sum = 25;
  difference_radius(stream, &radius, &factor, &sum);
  EXPECT_NEAR(radius, 0.002, 1e-9);
  EXPECT_NEAR(factor, 250, 1e-4);
  sum = 0;
  difference_radius(stream, &radius, &factor, &sum);
  EXPECT_EQ(radius, 0);
  EXPECT_EQ(factor, 0);
  sum = 1e-45f;  // the least above 0: still finite
  difference_radius(stream, &radius, &factor, &sum);
  EXPECT_TRUE(std::isfinite(radius) && radius > 0);
  EXPECT_TRUE(std::isfinite(factor) && factor > 0);
  sum = NAN;
  difference_radius(stream, &radius, &factor, &sum);
  EXPECT_TRUE(std::isnan(factor)) << "what is broken is not called 0";
}

TEST(Norms, SumOfSquaresAndClip) {
  Stream stream(Device::cpu);
  float value = NAN;
  sum_of_squares(stream, &value, nullptr, 0);
  EXPECT_EQ(value, 0);
  const float g[2] = {3, 4};
  sum_of_squares(stream, &value, g, 2);
  EXPECT_EQ(value, 25);
  clip_scale(stream, &value, g, 2, 10);
  EXPECT_EQ(value, 1);
  clip_scale(stream, &value, g, 2, 1);
  EXPECT_NEAR(value, 0.2, 1e-6);
  EXPECT_THROW(clip_scale(stream, &value, g, 2, 0), Error);
}

TEST(Norms, SameBitsForAnyThreadCountAndNearTheExactSum) {
  Random random(14);
  const std::vector<float> g = random_vector<float>(100003, random);
  double exact = 0;
  for (const float x : g) exact += double(x) * double(x);
  EXPECT_NEAR(host::sum_of_squares(g.data(), int64_t(g.size())), exact, 1e-9 * exact);
  Stream(Device::cpu, 1).activate();
  const double one = host::sum_of_squares(g.data(), int64_t(g.size()));
  Stream(Device::cpu, 2).activate();
  EXPECT_EQ(host::sum_of_squares(g.data(), int64_t(g.size())), one);
  Stream(Device::cpu).activate();
}

}  // namespace
}  // namespace lanas::test
