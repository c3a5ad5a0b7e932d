// architecture_code_test.cpp -- fp64 finite differences of the relaxed rows; sums; the formula stated
// naively; hard codes by brute force; inclusion chances against simulated draws; Gumbel moments.
#include "kernels/ops/architecture_code.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

const CellLayout kLayout;

struct Parameters {
  TestTensor<double> alpha, beta, noise, code, dcode;
  bool with_beta, with_noise;

  Parameters(CellLayout layout, int samples, bool use_beta, bool use_noise, int gap = 0)
      : alpha({layout.edges(), 1, 1, layout.ops}),
        beta({1, 1, 1, layout.edges()}),
        noise({samples, 1, 1, layout.noise_size()}, layout.noise_size() + gap),
        code({samples, 1, 1, layout.code_size()}, layout.code_size() + gap),
        dcode(code.shape(), code.stride()),
        with_beta(use_beta),
        with_noise(use_noise) {
    Random random(16);
    alpha.randomize(random), beta.randomize(random), noise.randomize(random), dcode.randomize(random);
  }
  View<double> beta_view() const { return with_beta ? beta.view() : View<double>(); }
  View<double> noise_view() const { return with_noise ? noise.view() : View<double>(); }
};

void check_gradients(CellLayout layout, int samples, bool with_beta, bool with_noise, double temperature,
                     double add) {
  Parameters t(layout, samples, with_beta, with_noise, 2);
  TestTensor<double> dalpha(t.alpha.shape()), dbeta(t.beta.shape());
  Random random(17);
  if (add != 0) dalpha.randomize(random), dbeta.randomize(random);
  const TestTensor<double> dalpha0 = dalpha, dbeta0 = dbeta;
  host::architecture_code_backward<double>(dalpha, with_beta ? dbeta.view() : View<double>(), t.dcode,
                                           t.alpha, t.beta_view(), t.noise_view(), temperature, add, add,
                                           layout);
  const auto loss = [&] {
    host::architecture_code_forward<double>(t.code, t.alpha, t.beta_view(), t.noise_view(), temperature,
                                            false, layout);
    return dot(t.code, t.dcode);
  };
  const View<double> none;
  std::vector<GradInput> inputs{{"dalpha", t.alpha, dalpha, add != 0 ? dalpha0.view() : none}};
  if (with_beta) inputs.push_back({"dbeta", t.beta, dbeta, add != 0 ? dbeta0.view() : none});
  EXPECT_TRUE(gradcheck(loss, inputs)) << samples << with_beta << with_noise << ' ' << temperature;
  EXPECT_TRUE(t.code.gaps_untouched());
}

TEST(ArchitectureCode, Gradcheck) {
  for (const bool with_beta : {false, true})
    for (const bool with_noise : {false, true})
      for (const double temperature : {1.0, 0.5, 3.0})
        for (const int samples : {1, 3})
          check_gradients(kLayout, samples, with_beta, with_noise, temperature, samples == 3);
  check_gradients({2, 5}, 2, true, true, 1, 0);
  check_gradients({1, 4}, 1, false, true, 1, 0);
  check_gradients({6, 2}, 1, true, true, 1, 0);
}

TEST(ArchitectureCode, RelaxedRowsFollowTheFormula) {
  Parameters t(kLayout, 2, true, true);
  const double temperature = 0.7;
  host::architecture_code_forward<double>(t.code, t.alpha, t.beta, t.noise, temperature, false, kLayout);
  for (int sample = 0; sample < 2; ++sample)
    for (int node = 0; node < 4; ++node) {
      const int first = kLayout.first_edge(node), edges = 2 + node;
      std::vector<double> r, beta_exp;
      double r_sum = 0, beta_sum = 0, p_sum = 0;
      for (int e = 0; e < edges; ++e) beta_sum += std::exp(t.beta[first + e]);
      for (int e = 0; e < edges; ++e) {
        double sum = 0, best = 0;
        for (int o = 0; o < 8; ++o) sum += std::exp(t.alpha[(first + e) * 8 + o]);
        for (int o = 1; o < 8; ++o) best = std::max(best, std::exp(t.alpha[(first + e) * 8 + o]) / sum);
        const double z =
            std::log(best * std::exp(t.beta[first + e]) / beta_sum) + t.noise[sample * 126 + 112 + first + e];
        r.push_back(std::exp(z / temperature));
        r_sum += r.back();
      }
      for (double& x : r) x /= r_sum;
      for (int e = 0; e < edges; ++e) {
        double p = r[size_t(e)], q_sum = 0, row_sum = 0;
        for (int j = 0; j < edges; ++j)
          if (j != e) p += r[size_t(j)] * r[size_t(e)] / (1 - r[size_t(j)]);
        const auto weight = [&](int o) {  // exp(u / temperature) up to a factor of the row
          const int i = (first + e) * 8 + o;
          return std::exp((t.alpha[i] + t.noise[sample * 126 + i]) / temperature);
        };
        for (int o = 1; o < 8; ++o) q_sum += weight(o);
        const int64_t row = sample * 112 + (first + e) * 8;
        EXPECT_NEAR(t.code[row], 1 - p, 1e-12);
        for (int o = 1; o < 8; ++o) EXPECT_NEAR(t.code[row + o], p * weight(o) / q_sum, 1e-12);
        for (int o = 0; o < 8; ++o) row_sum += t.code[row + o];
        EXPECT_NEAR(row_sum, 1, 1e-12);
        p_sum += 1 - t.code[row];
      }
      EXPECT_NEAR(p_sum, 2, 1e-12);
    }
}

TEST(ArchitectureCode, ChancesSumToTwoWhereOneEdgeDominates) {
  for (const double temperature : {1.0, 0.05, 0.001}) {
    Parameters t(kLayout, 1, true, false);
    for (int e = 0; e < 14; ++e) t.beta[e] = 30.0 * (e % 3);
    host::architecture_code_forward<double>(t.code, t.alpha, t.beta, {}, temperature, false, kLayout);
    TestTensor<double> dalpha(t.alpha.shape()), dbeta(t.beta.shape());
    host::architecture_code_backward<double>(dalpha, dbeta, t.dcode, t.alpha, t.beta, {}, temperature, 0, 0,
                                             kLayout);
    for (int node = 0; node < 4; ++node) {
      double sum = 0;
      for (int e = 0; e < 2 + node; ++e) sum += 1 - t.code[(kLayout.first_edge(node) + e) * 8];
      EXPECT_NEAR(sum, 2, 1e-9) << temperature;
    }
    for (int i = 0; i < 112; ++i) EXPECT_TRUE(std::isfinite(dalpha[i]));
    for (int i = 0; i < 14; ++i) EXPECT_TRUE(std::isfinite(dbeta[i]));
  }
}

TEST(ArchitectureCode, HardCodesAreTheColdLimitOfRelaxedOnes) {
  Parameters t(kLayout, 5, true, true);
  TestTensor<double> hard(t.code.shape());
  host::architecture_code_forward<double>(hard, t.alpha, t.beta, t.noise, 1, true, kLayout);
  host::architecture_code_forward<double>(t.code, t.alpha, t.beta, t.noise, 1e-5, false, kLayout);
  for (int64_t i = 0; i < hard.shape().size(); ++i) {
    EXPECT_TRUE(hard[i] == 0 || hard[i] == 1);
    EXPECT_NEAR(hard[i], t.code[i], 1e-6);
  }
}

TEST(ArchitectureCode, TiesGoToTheLowerIndex) {
  TestTensor<float> alpha({14, 1, 1, 8}), code({1, 1, 1, 112});
  alpha.fill(0);
  const float temperature = 1;
  Stream stream(Device::cpu);
  architecture_code_forward(stream, code, alpha, {}, {}, &temperature, true);
  for (int node = 0; node < 4; ++node)
    for (int e = 0; e < 2 + node; ++e)
      for (int o = 0; o < 8; ++o)
        EXPECT_EQ(code[(kLayout.first_edge(node) + e) * 8 + o], o == (e < 2 ? 1 : 0) ? 1 : 0);
}

// With Gumbel edge noise the two largest z are a draw of two edges without replacement from softmax(z).
TEST(ArchitectureCode, ChancesAreThoseOfGumbelDraws) {
  constexpr int kSamples = 4000;
  Parameters t(kLayout, kSamples, true, true);
  const TestTensor<float> alpha = t.alpha.as<float>(), beta = t.beta.as<float>(), code = t.code.as<float>();
  TestTensor<float> relaxed({1, 1, 1, 112}), noise({kSamples, 1, 1, 126});
  const uint64_t step = 1;
  const float temperature = 1;
  Stream stream(Device::cpu);
  gumbel_noise(stream, noise.data(), noise.shape().size(), 21, &step);
  architecture_code_forward(stream, code, alpha, beta, noise, &temperature, true);
  architecture_code_forward(stream, relaxed, alpha, beta, {}, &temperature, false);
  for (int e = 0; e < 14; ++e) {
    double used = 0;
    for (int sample = 0; sample < kSamples; ++sample) used += 1 - double(code[sample * 112 + e * 8]);
    EXPECT_NEAR(used / kSamples, 1 - double(relaxed[e * 8]), 0.035) << e;  // 4 standard deviations
  }
  // Given that it is used, an op of edge 0 (always used) is drawn from softmax over the seven.
  for (int o = 1; o < 8; ++o) {
    double drawn = 0;
    for (int sample = 0; sample < kSamples; ++sample) drawn += double(code[sample * 112 + o]);
    EXPECT_NEAR(drawn / kSamples, double(relaxed[o]), 0.035) << o;
  }
}

TEST(ArchitectureCode, FloatMatchesDouble) {
  Parameters t(kLayout, 3, true, true, 4);
  const TestTensor<float> alpha = t.alpha.as<float>(), beta = t.beta.as<float>(), noise = t.noise.as<float>(),
                          code = t.code.as<float>(), dcode = t.dcode.as<float>();
  TestTensor<double> dalpha(t.alpha.shape()), dbeta(t.beta.shape());
  TestTensor<float> fdalpha(t.alpha.shape()), fdbeta(t.beta.shape());
  const float temperature = 0.5f;
  Stream stream(Device::cpu);
  for (const bool hard : {true, false}) {
    host::architecture_code_forward<double>(t.code, t.alpha, t.beta, t.noise, 0.5, hard, kLayout);
    architecture_code_forward(stream, code, alpha, beta, noise, &temperature, hard);
    EXPECT_TRUE(compare(code, t.code, 3e-6));
  }
  host::architecture_code_backward<double>(dalpha, dbeta, t.dcode, t.alpha, t.beta, t.noise, 0.5, 0, 0,
                                           kLayout);
  architecture_code_backward(stream, fdalpha, fdbeta, dcode, alpha, beta, noise, &temperature, 0, 0);
  EXPECT_TRUE(compare(fdalpha, dalpha, 5e-6));
  EXPECT_TRUE(compare(fdbeta, dbeta, 5e-6));
  EXPECT_TRUE(code.gaps_untouched());
}

TEST(ArchitectureCode, RefusesWrongShapes) {
  TestTensor<float> alpha({14, 1, 1, 8}), code({2, 1, 1, 112}), noise({1, 1, 1, 126}), beta({1, 1, 1, 13});
  const float temperature = 1, zero = 0;
  Stream stream(Device::cpu);
  EXPECT_THROW(architecture_code_forward(stream, code, alpha, {}, noise, &temperature, false), Error);
  EXPECT_THROW(architecture_code_forward(stream, code, alpha, beta, {}, &temperature, false), Error);
  EXPECT_THROW(architecture_code_forward(stream, alpha, alpha, {}, {}, &temperature, false), Error);
  EXPECT_THROW(architecture_code_forward(stream, code, alpha, {}, {}, &zero, false), Error);
  EXPECT_THROW(architecture_code_forward(stream, code, alpha, {}, {}, &temperature, false, {9, 8}), Error);
}

TEST(GumbelNoise, MomentsAndRepeats) {
  constexpr int kCount = 40001;
  std::vector<float> a(kCount), b(kCount);
  uint64_t step = 7;
  Stream stream(Device::cpu);
  gumbel_noise(stream, a.data(), kCount, 3, &step);
  gumbel_noise(stream, b.data(), kCount, 3, &step);
  EXPECT_EQ(a, b);
  step = 8;
  gumbel_noise(stream, b.data(), kCount, 3, &step);
  EXPECT_NE(a, b);
  double mean = 0, square = 0;
  for (const float x : a) mean += double(x) / kCount;
  for (const float x : a) square += (double(x) - mean) * (double(x) - mean) / kCount;
  EXPECT_NEAR(mean, 0.5772, 0.03);   // Euler's constant
  EXPECT_NEAR(square, 1.6449, 0.1);  // pi^2 / 6
}

}  // namespace
}  // namespace lanas::test
