// Tests of channel_shuffle: the permutation of group and weighted sum, its gradients, errors.
#include "kernels/ops/channel_shuffle.h"

#include "tests/support/gradcheck.h"

namespace lanas {
namespace {
using namespace lanas::test;

struct ShuffleCase {
  Shape shape;
  int groups, gap;
  int terms;  // 0: one tensor bypasses, without a weight
};
const ShuffleCase kShuffleCases[] = {
    {{1, 1, 1, 1}, 1, 0, 0},  {{2, 3, 3, 16}, 4, 0, 0}, {{1, 5, 3, 12}, 4, 3, 0},
    {{2, 2, 2, 36}, 2, 4, 0}, {{1, 3, 3, 9}, 3, 0, 0},  {{1, 10, 10, 64}, 4, 0, 0},
    {{2, 3, 4, 8}, 2, 0, 0},  {{1, 4, 4, 24}, 2, 8, 0}, {{2, 3, 3, 16}, 4, 0, 1},
    {{1, 5, 3, 12}, 4, 3, 2}, {{1, 3, 3, 9}, 3, 2, 5},  {{2, 13, 11, 16}, 4, 5, 5},
    {{1, 2, 2, 8}, 2, 0, 3},  {{2, 2, 3, 32}, 4, 0, 9}};

// The parts of a shuffle and their gradients.
template <class T>
struct ShuffleProblem {
  ShuffleCase k;
  TestTensor<T> first, dfirst, y, dy;
  std::vector<TestTensor<T>> x, dx;
  std::vector<T> weights, dweights, betas;
  std::vector<View<T>> x_views, dx_views;
  std::vector<double> scratch;
  std::vector<float> float_scratch;

  Shape part(int channels) const { return {k.shape.n, k.shape.h, k.shape.w, channels}; }
  int members() const { return k.shape.c / k.groups; }
  ShuffleProblem(const ShuffleCase& from, T beta)
      : k(from),
        first(part(members()), members() + k.gap),
        dfirst(first.view().shape(), members() + k.gap),
        y(k.shape, k.shape.c + k.gap),
        dy(k.shape, k.shape.c + 2 * k.gap) {
    Random random(21);
    const int count = k.groups == 1 ? 0 : std::max(k.terms, 1), rest = k.shape.c - members();
    first.randomize(random), dy.randomize(random);
    if (beta != 0) dfirst.randomize(random);
    for (int i = 0; i < count; ++i) {
      x.emplace_back(part(rest), rest + k.gap).randomize(random);
      dx.emplace_back(part(rest), rest + (i % 2) * k.gap);
      if (beta != 0) dx.back().randomize(random);
    }
    weights = random_vector<T>(k.terms, random);
    dweights = beta != 0 ? random_vector<T>(k.terms, random) : std::vector<T>(size_t(k.terms), NAN);
    betas.assign(size_t(count), beta);
    bind();
    scratch.assign(size_t(host::channel_shuffle_scratch_doubles(k.shape, k.terms)), NAN);
    float_scratch.assign(size_t(channel_shuffle_scratch_floats(k.shape, members(), k.terms)), NAN);
  }
  void bind() {
    x_views.clear(), dx_views.clear();
    for (auto& t : x) x_views.push_back(t);
    for (auto& t : dx) dx_views.push_back(t);
  }
  ShuffleRest<T> rest() const { return {x_views, k.terms > 0 ? weights.data() : nullptr}; }
  ShuffleGradient<T> gradient(T beta) {
    return {dfirst, beta, dx_views, betas, k.terms > 0 ? dweights.data() : nullptr, beta};
  }
  // The same numbers in floats.
  ShuffleProblem<float> floats(float beta) const {
    ShuffleProblem<float> p(k, beta);
    p.first = first.template as<float>(), p.dy = dy.template as<float>();
    p.dfirst = dfirst.template as<float>();
    for (size_t i = 0; i < x.size(); ++i)
      p.x[i] = x[i].template as<float>(), p.dx[i] = dx[i].template as<float>();
    p.weights.assign(weights.begin(), weights.end());
    p.dweights.assign(dweights.begin(), dweights.end());
    p.bind();
    return p;
  }
};

TEST(ChannelShuffle, ForwardMatchesTheDefinition) {
  for (const ShuffleCase& k : kShuffleCases) {
    ShuffleProblem<double> p(k, 0);
    host::channel_shuffle_forward<double>(p.y, p.first, p.rest());
    const int members = p.members();
    for (int64_t pixel = 0; pixel < k.shape.pixels(); ++pixel)
      for (int g = 0; g < k.groups; ++g)
        for (int m = 0; m < members; ++m) {
          double expected = g == 0 ? p.first[pixel * members + m] : 0;
          for (size_t i = 0; g > 0 && i < p.x.size(); ++i)
            expected += (k.terms > 0 ? p.weights[i] : 1) *
                        p.x[i][pixel * (k.shape.c - members) + (g - 1) * members + m];
          ASSERT_NEAR(p.y[pixel * k.shape.c + m * k.groups + g], expected, 1e-14);
        }
    EXPECT_TRUE(p.y.gaps_untouched());
  }
}

// Also the floats of the cpu path, against the doubles.
TEST(ChannelShuffle, Gradients) {
  for (const ShuffleCase& k : kShuffleCases)
    for (double beta : {0.0, 1.0}) {
      ShuffleProblem<double> p(k, beta);
      ShuffleProblem<float> single = p.floats(float(beta));
      const auto dfirst0 = p.dfirst;
      const auto dx0 = p.dx;
      std::vector<double> dweights0 = p.dweights;
      host::channel_shuffle_forward<double>(p.y, p.first, p.rest());
      host::channel_shuffle_backward<double>(p.gradient(beta), p.dy, p.rest(), p.scratch.data());
      Stream stream(Device::cpu, 2);
      channel_shuffle_forward(stream, single.y, single.first, single.rest(), single.float_scratch.data());
      channel_shuffle_backward(stream, single.gradient(float(beta)), single.dy, single.rest(),
                               single.float_scratch.data());
      EXPECT_TRUE(compare(single.y, p.y, 1e-6) && compare(single.dfirst, p.dfirst, 1e-6));
      for (size_t i = 0; i < p.x.size(); ++i) {
        EXPECT_TRUE(compare(single.dx[i], p.dx[i], 1e-6));
        if (k.terms > 0) {
          EXPECT_NEAR(single.dweights[i], p.dweights[i], 1e-6 * double(k.shape.size()));
        }
        EXPECT_TRUE(p.dx[i].gaps_untouched() && single.dx[i].gaps_untouched());
      }
      EXPECT_TRUE(p.dfirst.gaps_untouched() && single.dfirst.gaps_untouched() && single.y.gaps_untouched());
      if (k.shape.size() > 300) continue;
      std::vector<GradInput> inputs = {
          {"dfirst", p.first, p.dfirst, beta == 1 ? dfirst0.view() : View<double>()}};
      for (size_t i = 0; i < p.x.size(); ++i)
        inputs.push_back({"dx", p.x[i], p.dx[i], beta == 1 ? dx0[i].view() : View<double>()});
      const Shape row{1, 1, 1, k.terms};
      if (k.terms > 0)
        inputs.push_back({"dweights", View<double>(p.weights.data(), row),
                          View<double>(p.dweights.data(), row),
                          beta == 1 ? View<double>(dweights0.data(), row) : View<double>()});
      EXPECT_TRUE(gradcheck(
          [&] {
            host::channel_shuffle_forward<double>(p.y, p.first, p.rest());
            return dot(p.y, p.dy);
          },
          inputs))
          << k.shape << " groups " << k.groups << " terms " << k.terms << " beta " << beta;
    }
}

// A part that is not wanted is left alone, and the others do not change with it.
TEST(ChannelShuffle, EachPartMayBeNull) {
  Stream stream(Device::cpu, 2);
  for (const ShuffleCase& k : {ShuffleCase{{2, 3, 3, 16}, 4, 0, 3}, ShuffleCase{{1, 2, 5, 12}, 4, 0, 2},
                               ShuffleCase{{1, 3, 3, 8}, 2, 0, 2}}) {
    ShuffleProblem<float> whole(k, 0);
    channel_shuffle_backward(stream, whole.gradient(0), whole.dy, whole.rest(), whole.float_scratch.data());
    for (int without = 0; without < 3; ++without) {
      ShuffleProblem<float> some(k, 0);
      ShuffleGradient<float> gradient = some.gradient(0);
      if (without == 0) gradient.first.data = nullptr;
      if (without == 1) some.dx_views[0].data = nullptr;
      if (without == 2) gradient.dweights = nullptr;
      channel_shuffle_backward(stream, gradient, some.dy, some.rest(), some.float_scratch.data());
      if (without != 0) {
        EXPECT_TRUE(compare(some.dfirst, whole.dfirst, 0));
      }
      for (size_t i = without == 1; i < some.dx.size(); ++i) EXPECT_TRUE(compare(some.dx[i], whole.dx[i], 0));
      if (without != 2) {
        EXPECT_EQ(some.dweights, whole.dweights);
      }
    }
  }
}

TEST(ChannelShuffle, Errors) {
  Stream stream;
  TestTensor<float> x({1, 2, 2, 4}), y({1, 2, 2, 6}), z({1, 2, 2, 2}), small({1, 1, 2, 4});
  const auto rest = [](TestTensor<float>& t) { return std::vector<Tensor>{t}; };
  const float weights[2] = {1, 1}, betas[2] = {0, 0};
  const auto forward = [&](TestTensor<float>& first, const std::vector<Tensor>& others,
                           const float* w = nullptr) {
    channel_shuffle_forward(stream, y, first, {others, w});
  };
  EXPECT_THROW(forward(x, rest(z)), Error);      // 4 does not divide 6
  EXPECT_THROW(forward(z, rest(z)), Error);      // 2 + 2 are not 6
  EXPECT_THROW(forward(z, rest(small)), Error);  // other pixels
  EXPECT_THROW(forward(z, {}), Error);           // no rest
  EXPECT_THROW(forward(z, {x, x}), Error);       // two without weights
  EXPECT_THROW(forward(z, {x, z}, weights), Error);
  const std::vector<Tensor> one = rest(x), two = {x, x};
  const auto backward = [&](const ShuffleGradient<float>& gradient, const ShuffleRest<float>& others) {
    channel_shuffle_backward(stream, gradient, y, others);
  };
  EXPECT_THROW(backward({x, 0, one, {betas, 1}}, {}), Error);
  EXPECT_THROW(backward({z, 0, two, {betas, 2}}, {}), Error);              // two without weights
  EXPECT_THROW(backward({z, 0, two, {betas, 1}}, {two, weights}), Error);  // one beta for two
  float dweights[2];
  EXPECT_THROW(backward({z, 0, one, {betas, 1}, dweights}, {}), Error);  // dweights without weights
}

}  // namespace
}  // namespace lanas
