// Tests of mixed_sum: the plain sum of normalised terms, the gradient through the statistics and of the
// weights.
#include "kernels/ops/mixed_sum.h"

#include <deque>

#include "kernels/ops/batch_norm.h"
#include "kernels/ops/gradient_view.h"
#include "tests/support/gradcheck.h"

namespace lanas {
namespace {
using namespace lanas::test;

constexpr double kMixedEps = 1e-5;

// `count` terms in double; every third is not normalised; term k uses weight (k + 2) % count, and the last
// term shares the weight of the first.
struct MixedProblem {
  Shape shape;
  int count;
  std::deque<TestTensor<double>> x, dx;
  std::vector<std::vector<double>> mean, inv_std;
  std::vector<double> weights, dweights, scratch;
  TestTensor<double> y, dy;

  MixedProblem(Shape s, int terms, int gap, double beta)
      : shape(s), count(terms), y(s, s.c + gap), dy(s, s.c + 2 * gap) {
    Random random(11);
    for (int k = 0; k < count; ++k) {
      x.emplace_back(shape, shape.c + (k % 2) * gap).randomize(random, 1 + 0.2 * k, 0.3 * k);
      dx.emplace_back(shape, shape.c + (k % 3) * gap);
      if (beta != 0) dx.back().randomize(random);
      mean.emplace_back(size_t(shape.c));
      inv_std.emplace_back(size_t(shape.c));
    }
    weights = random_vector<double>(count, random);
    dweights = beta != 0 ? random_vector<double>(count, random) : std::vector<double>(size_t(count), NAN);
    dy.randomize(random);
    scratch.assign(size_t(host::mixed_sum_scratch_doubles(shape, count)), NAN);
  }
  static bool normalised(int k) { return k % 3 != 1; }
  int weight(int k) const { return k == count - 1 ? 2 % count : (k + 2) % count; }
  std::vector<MixedSumTerm<double>> terms() {
    std::vector<MixedSumTerm<double>> result;
    for (int k = 0; k < count; ++k) {
      const size_t i = size_t(k);
      result.push_back({x[i], normalised(k) ? mean[i].data() : nullptr,
                        normalised(k) ? inv_std[i].data() : nullptr, weight(k)});
    }
    return result;
  }
  std::vector<MixedSumGradient<double>> gradients(double beta) {
    std::vector<MixedSumGradient<double>> result;
    for (int k = 0; k < count; ++k)
      result.push_back({dx[size_t(k)], beta, k > 0 && k == count - 1 ? 1.0 : beta});
    return result;
  }
  void statistics() {
    for (size_t k = 0; k < x.size(); ++k)
      host::batch_norm_statistics<double>(mean[k].data(), inv_std[k].data(), x[k], kMixedEps);
  }
  double loss(bool batch_statistics) {
    if (batch_statistics) statistics();
    host::mixed_sum_forward<double>(y, terms(), weights.data());
    return dot(y, dy);
  }
  void backward(double beta, bool batch_statistics, bool with_dweights = true) {
    host::mixed_sum_backward<double>(terms(), gradients(beta), with_dweights ? dweights.data() : nullptr, dy,
                                     weights.data(), scratch.data(), batch_statistics);
  }
};

struct MixedCase {
  Shape shape;
  int count, gap;
};
const MixedCase kMixedCases[] = {{{2, 3, 3, 1}, 1, 0},  {{2, 3, 3, 4}, 5, 0},  {{1, 5, 5, 3}, 8, 3},
                                 {{2, 3, 3, 16}, 4, 8}, {{3, 2, 2, 12}, 3, 0}, {{1, 3, 3, 36}, 2, 4}};

// xhat_k of element i.
double normalised_value(MixedProblem& p, int term, int64_t i) {
  const size_t k = size_t(term), c = size_t(i % p.shape.c);
  return MixedProblem::normalised(term) ? (p.x[k][i] - p.mean[k][c]) * p.inv_std[k][c] : p.x[k][i];
}

void expect_forward_defined(MixedProblem& p) {
  p.loss(true);
  TestTensor<double> expected(p.shape);
  expected.fill(0);
  for (int t = 0; t < p.count; ++t)
    for (int64_t i = 0; i < p.shape.size(); ++i)
      expected[i] += p.weights[size_t(p.weight(t))] * normalised_value(p, t, i);
  EXPECT_TRUE(compare(p.y, expected, 1e-12));
  EXPECT_TRUE(p.y.gaps_untouched());
}

TEST(MixedSum, ForwardMatchesTheDefinition) {
  for (const MixedCase& k : kMixedCases) {
    MixedProblem p(k.shape, k.count, k.gap, 0);
    expect_forward_defined(p);
  }
}

// 19,035 elements of 6 terms: more than a chunk, the last block not whole, more terms than go side by side.
TEST(MixedSum, SeveralChunksMatchTheDefinition) {
  MixedProblem p({1, 45, 47, 9}, 6, 3, 0);
  expect_forward_defined(p);
  p.backward(0, true);
  const int c = p.shape.c;
  const double pixels = double(p.shape.size() / c);
  std::vector<double> dweights(p.dweights.size(), 0);
  for (int t = 0; t < p.count; ++t) {
    std::vector<double> mean(size_t(c), 0), product(size_t(c), 0);
    for (int64_t i = 0; i < p.shape.size(); ++i) {
      mean[size_t(i % c)] += p.dy[i] / pixels;
      product[size_t(i % c)] += p.dy[i] * normalised_value(p, t, i) / pixels;
      dweights[size_t(p.weight(t))] += p.dy[i] * normalised_value(p, t, i);
    }
    TestTensor<double> expected(p.shape);
    const double w = p.weights[size_t(p.weight(t))];
    for (int64_t i = 0; i < p.shape.size(); ++i) {
      const size_t j = size_t(i % c);
      expected[i] =
          !MixedProblem::normalised(t)
              ? w * p.dy[i]
              : w * p.inv_std[size_t(t)][j] * (p.dy[i] - mean[j] - normalised_value(p, t, i) * product[j]);
    }
    EXPECT_TRUE(compare(p.dx[size_t(t)], expected, 1e-12)) << "term " << t;
  }
  for (int t = 0; t < p.count; ++t) {
    const size_t w = size_t(p.weight(t));
    EXPECT_NEAR(p.dweights[w], dweights[w], 1e-9) << "term " << t;
  }
}

TEST(MixedSum, Gradients) {
  for (const MixedCase& k : kMixedCases)
    for (double beta : {0.0, 1.0})
      for (bool batch_statistics : {true, false}) {
        MixedProblem p(k.shape, k.count, k.gap, beta);
        p.statistics();
        const auto dx0 = p.dx;
        std::vector<double> dweights0 = p.dweights;
        // Weights that no term uses keep their old gradient; check the used ones only.
        p.backward(beta, batch_statistics);
        std::vector<GradInput> inputs;
        for (int t = 0; t < k.count; ++t) {
          const size_t i = size_t(t);
          inputs.push_back({"dx", p.x[i], p.dx[i], beta == 1 ? dx0[i].view() : View<double>()});
          const auto one = [&](std::vector<double>& v) {
            return View<double>(&v[size_t(p.weight(t))], {1, 1, 1, 1});
          };
          inputs.push_back(
              {"dweights", one(p.weights), one(p.dweights), beta == 1 ? one(dweights0) : View<double>()});
        }
        EXPECT_TRUE(gradcheck([&] { return p.loss(batch_statistics); }, inputs))
            << k.shape << " terms " << k.count << " beta " << beta << " batch " << batch_statistics;
        for (const auto& dx : p.dx) EXPECT_TRUE(dx.gaps_untouched());
      }
}

TEST(MixedSum, TermsMayShareOneDx) {
  const MixedCase k = kMixedCases[2];
  MixedProblem separate(k.shape, k.count, k.gap, 0), shared(k.shape, k.count, k.gap, 0);
  separate.statistics();
  shared.statistics();
  separate.backward(0, true);
  std::vector<MixedSumGradient<double>> gradients;
  for (int t = 0; t < k.count; ++t) gradients.push_back({shared.dx[0], t == 0 ? 0.0 : 1.0, 0.0});
  host::mixed_sum_backward<double>(shared.terms(), gradients, nullptr, shared.dy, shared.weights.data(),
                                   shared.scratch.data(), true);
  TestTensor<double> sum(k.shape);
  sum.fill(0);
  for (const auto& dx : separate.dx)
    for (int64_t i = 0; i < k.shape.size(); ++i) sum[i] += dx[i];
  EXPECT_TRUE(compare(shared.dx[0], sum, 1e-12));
}

TEST(MixedSum, NullGradientsAreSkipped) {
  const MixedCase k = kMixedCases[1];
  MixedProblem all(k.shape, k.count, k.gap, 0), some(k.shape, k.count, k.gap, 0);
  all.statistics();
  some.statistics();
  all.backward(0, true);
  some.backward(0, true, false);  // no dweights
  for (size_t t = 0; t < all.dx.size(); ++t) EXPECT_TRUE(compare(some.dx[t], all.dx[t], 0));
  const auto no_dx = std::vector<MixedSumGradient<double>>(size_t(k.count));
  auto gradients = no_dx;
  gradients.back().beta_dweight = 1;
  host::mixed_sum_backward<double>(some.terms(), gradients, some.dweights.data(), some.dy,
                                   some.weights.data(), some.scratch.data(), true);
  for (int t = 0; t < k.count; ++t)
    EXPECT_EQ(some.dweights[size_t(some.weight(t))], all.dweights[size_t(all.weight(t))]);
  host::mixed_sum_backward<double>(some.terms(), no_dx, nullptr, some.dy, some.weights.data(), nullptr, true);
}

TEST(MixedSum, FactorsGiveTheGradient) {
  for (const MixedCase& k : kMixedCases)
    for (bool batch_statistics : {true, false}) {
      MixedProblem all(k.shape, k.count, k.gap, 0), some(k.shape, k.count, k.gap, 0);
      all.statistics();
      some.statistics();
      all.backward(0, batch_statistics);
      auto gradients = some.gradients(0);
      std::vector<std::vector<double>> factors;
      for (int t = 0; t < k.count; ++t) {
        factors.emplace_back(size_t(3 * k.shape.c), NAN);
        if (t % 2 == 0) gradients[size_t(t)].dx = {}, gradients[size_t(t)].factors = factors.back().data();
      }
      host::mixed_sum_backward<double>(some.terms(), gradients, some.dweights.data(), some.dy,
                                       some.weights.data(), some.scratch.data(), batch_statistics);
      for (int t = 0; t < k.count; ++t) {
        const size_t i = size_t(t);
        const GradientView<double> dx(some.dy, some.x[i], factors[i].data());
        for (int64_t j = 0; t % 2 == 0 && j < k.shape.size(); ++j)
          some.dx[i][j] = dx.at(j / k.shape.c, int(j % k.shape.c));
        EXPECT_TRUE(compare(some.dx[i], all.dx[i], t % 2 == 0 ? 1e-12 : 0));
      }
      for (int t = 0; t < k.count; ++t)
        EXPECT_EQ(some.dweights[size_t(some.weight(t))], all.dweights[size_t(all.weight(t))]);
    }
}

TEST(MixedSum, FloatLaunchersAgreeWithDoubleForAnyThreadCount) {
  const Shape shape{8, 16, 16, 4};
  const int count = 19;
  MixedProblem p(shape, count, 0, 0);
  p.loss(true);
  p.backward(0, true);
  std::deque<TestTensor<float>> x;
  std::vector<std::vector<float>> mean, inv_std;
  std::vector<MixedSumTerm<float>> terms;
  for (size_t k = 0; k < size_t(count); ++k) {
    x.push_back(p.x[k].as<float>(k % 2 ? 4 : 16));
    mean.push_back(convert<float>(p.mean[k]));
    inv_std.push_back(convert<float>(p.inv_std[k]));
  }
  for (int k = 0; k < count; ++k) {
    const size_t i = size_t(k);
    const bool norm = MixedProblem::normalised(k);
    terms.push_back({x[i], norm ? mean[i].data() : nullptr, norm ? inv_std[i].data() : nullptr, p.weight(k)});
  }
  const auto weights = convert<float>(p.weights);
  const auto dy = p.dy.as<float>();
  std::vector<float> scratch(size_t(mixed_sum_scratch_floats(shape, count)));
  std::deque<TestTensor<float>> first;
  for (int threads : {1, 2, 3}) {
    Stream stream(Device::cpu, threads);
    TestTensor<float> y(shape);
    std::deque<TestTensor<float>> dx;
    std::vector<MixedSumGradient<float>> gradients;
    for (int k = 0; k < count; ++k) {
      dx.emplace_back(shape);
      gradients.push_back({dx.back(), 0, k == count - 1 ? 1.f : 0.f});
    }
    std::vector<float> dweights(size_t(count), 0.f);
    mixed_sum_forward(stream, y, terms, weights.data());
    EXPECT_TRUE(compare(y, p.y, 1e-6));
    mixed_sum_backward(stream, terms, gradients, dweights.data(), dy, weights.data(), scratch.data());
    for (size_t k = 0; k < size_t(count); ++k) EXPECT_TRUE(compare(dx[k], p.dx[k], 2e-6));
    for (int k = 0; k < count; ++k)
      EXPECT_NEAR(dweights[size_t(p.weight(k))], p.dweights[size_t(p.weight(k))], 1e-3);
    if (threads == 1) first = dx;
    for (size_t k = 0; k < size_t(count); ++k) EXPECT_TRUE(compare(dx[k], first[k], 0));
  }
}

TEST(MixedSum, Errors) {
  Stream stream;
  TestTensor<float> x({1, 2, 2, 4}), y({1, 2, 2, 3});
  const float weight = 1;
  const MixedSumTerm<float> terms[] = {{x}};
  const MixedSumGradient<float> gradients[] = {{y}};
  EXPECT_THROW(mixed_sum_forward(stream, y, terms, &weight), Error);
  EXPECT_THROW(mixed_sum_forward(stream, y, {}, &weight), Error);
  EXPECT_THROW(mixed_sum_backward(stream, terms, gradients, nullptr, x, &weight, nullptr), Error);
  EXPECT_THROW(mixed_sum_backward(stream, terms, {}, nullptr, x, &weight, nullptr), Error);
  float factors[12];
  const MixedSumGradient<float> both[] = {{x, 0, 0, factors}};
  EXPECT_THROW(mixed_sum_backward(stream, terms, both, nullptr, x, &weight, nullptr), Error);
}

}  // namespace
}  // namespace lanas
