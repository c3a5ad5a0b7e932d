// fused_test.cpp -- on the emulated device, the fused ops against the compositions of small ops that they
// stand for: outputs and every gradient.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

std::vector<CaseResult> run(const std::function<void(CaseBuilder&)>& build) {
  Stream stream(Device::cuda, 1);
  CaseBuilder builder(Device::cuda, false);
  build(builder);
  builder.finish();
  builder.reset(stream, 0);
  builder.run(stream);
  return builder.results(stream);
}

// ||a - b|| <= tolerance ||b|| for the output and each gradient.
void expect_same(const std::function<void(CaseBuilder&)>& fused,
                 const std::function<void(CaseBuilder&)>& composed, double tolerance) {
  const std::vector<CaseResult> found = run(fused), expected = run(composed);
  ASSERT_EQ(found.size(), expected.size());
  ASSERT_GE(found.size(), 3u);
  for (size_t i = 0; i < found.size(); ++i) {
    const std::vector<double>&a = found[i].values, &b = expected[i].values;
    ASSERT_EQ(a.size(), b.size()) << found[i].name;
    double difference = 0, norm = 0;
    for (size_t k = 0; k < a.size(); ++k) {
      difference += (a[k] - b[k]) * (a[k] - b[k]);
      norm += b[k] * b[k];
    }
    EXPECT_GT(norm, 0) << found[i].name;
    EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(norm)) << found[i].name;
  }
}

TEST(FusedOps, SeparableConvEqualsItsParts) {
  for (const int stride : {1, 2})
    for (const int dilation : {1, 2}) {
      SCOPED_TRACE(join("stride ", stride, " dilation ", dilation));
      const auto build = [=](CaseBuilder& b, bool fused) {
        const Var x = b.input({2, 7, 6, 12}, 1, 0.4f), depthwise = b.input({1, 3, 3, 12}),
                  pointwise = b.input({20, 1, 1, 12}), gamma = b.input({1, 1, 1, 12}),
                  beta = b.input({1, 1, 1, 12});
        Norm norm = batch_statistics(b.tape, x, running_moments(b, 12));
        norm.gamma = gamma, norm.beta = beta;
        if (fused) {
          const Normalised y = separable_conv(b.tape, {x, norm}, {depthwise, pointwise, stride, dilation, 0},
                                              running_moments(b, 20));
          return b.output(normalise(b.tape, y.x, y.norm));
        }
        Var y = relu(b.tape, normalise(b.tape, x, norm));
        y = depthwise_conv(b.tape, y, depthwise, {stride, dilation, dilation});
        y = conv2d(b.tape, y, pointwise, {});
        b.output(normalise(b.tape, y, batch_statistics(b.tape, y, running_moments(b, 20))));
      };
      expect_same([=](CaseBuilder& b) { build(b, true); }, [=](CaseBuilder& b) { build(b, false); }, 1e-4);
    }
}

TEST(FusedOps, MixedSumEqualsItsParts) {
  const auto build = [](CaseBuilder& b, bool fused) {
    const Shape s{2, 5, 6, 12};
    std::vector<Var> xs;
    std::vector<Norm> norms;
    for (int k = 0; k < 11; ++k) {
      xs.push_back(b.input(s, 1, 0.3f));
      norms.push_back(k == 4 ? Norm{} : batch_statistics(b.tape, xs.back(), running_moments(b, s.c)));
    }
    const Var weights = b.input({1, 1, 1, 11});
    std::vector<MixedTerm> terms;
    std::vector<Var> scaled;
    for (int k = 0; k < 11; ++k) {
      const size_t i = size_t(k);
      if (fused) {
        terms.push_back({{xs[i], norms[i]}, k});
        continue;
      }
      const Var y = norms[i] ? normalise(b.tape, xs[i], norms[i]) : xs[i];
      scaled.push_back(scale_segments(b.tape, y, b.tape.slice(weights, k, k + 1), {s.c}));
    }
    b.output(fused ? mixed_sum(b.tape, terms, weights) : sum(b.tape, scaled));
  };
  expect_same([=](CaseBuilder& b) { build(b, true); }, [=](CaseBuilder& b) { build(b, false); }, 1e-4);
}

}  // namespace
}  // namespace lanas::test
