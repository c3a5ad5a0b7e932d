// separable_convs_inference_test.cpp -- paths of one and two units that read one input, against the loops in
// double of each unit.
#include "tests/kernels/separable_unit.h"

namespace lanas::test {
namespace {

class SeparablePathsIsa : public EveryIsa {};

// A path of the test: its first unit, and the second's kernel, 0: none.
struct Path {
  int k, dilation, second;
  bool rectified = false;
};

// One path with all it touches, in float, and what it should give.
struct PathTest {
  Unit<float> first, second;
  std::vector<float> biases[2];
  Path path;
  PathTest(Case c, const Path& p, const Unit<float>* sharing, Random& random)
      : first(with(c, p.k, p.dilation, c.stride, c.gap), random),
        second(with({c.n, first.out.h, c.cout, c.cout + 4, 0, 1, 1}, std::max(p.second, 1), 1, 1, c.gap),
               random),
        path(p) {
    if (sharing) first.x = sharing->x;
    for (std::vector<float>& bias : biases) bias = random_vector<float>(c.cout + 4, random);
  }
  static Case with(Case c, int k, int dilation, int stride, int gap) {
    c.k = k, c.dilation = dilation, c.stride = stride, c.gap = gap;
    return c;
  }
  bool two() const { return path.second > 0; }
  TestTensor<float>& y() { return two() ? second.y : first.y; }

  // added: before the path, to y.
  TestTensor<double> expected(const TestTensor<float>* added) {
    const auto run = [&](Unit<double>& u, const std::vector<float>& bias, View<double> more) {
      const std::vector<double> b = convert<double>(bias);
      host::separable_conv_inference(u.op(), u.y.view(), u.x.view(), b.data(), more);
    };
    Unit<double> one = first.as<double>(), other = second.as<double>();
    TestTensor<double> more = (added ? *added : y()).as<double>();
    const View<double> last = added ? more.view() : View<double>();
    const auto stored = [&](const TestTensor<double>& y) {
      for (int64_t i = 0; path.rectified && i < y.shape().size(); ++i) y[i] = std::max(y[i], 0.0);
      return y;
    };
    run(one, biases[0], two() ? View<double>() : last);
    if (!two()) return stored(one.y);
    for (int64_t i = 0; i < one.out.size(); ++i) other.x[i] = one.y[i];
    run(other, biases[1], last);
    return stored(other.y);
  }

  SeparablePath bound(Tensor added) {
    SeparablePath p{.first = first.op(),
                    .first_bias = biases[0].data(),
                    .y = y(),
                    .added = added,
                    .rectified = path.rectified};
    if (two()) p.second = second.op(), p.second_bias = biases[1].data();
    return p;
  }
};

struct PathsCase {
  Case c;
  std::vector<Path> paths;
  int threads;
};

std::vector<PathsCase> paths_cases() {
  const std::vector<Path> darts = {{3, 1, 3}, {3, 1, 3}, {3, 2, 0}},
                          mixed = {{5, 1, 5, true}, {3, 2, 0, true}, {3, 1, 3, true}};
  std::vector<PathsCase> cases;
  for (const auto& paths : {darts, mixed, std::vector<Path>{{5, 1, 5}}})
    for (int threads : {1, 2, 5})
      for (int n : {1, 2, 3}) {
        const int channels[] = {4, 8, 12, 16, 20, 36, 64};
        const int c = channels[cases.size() % 7], gap = cases.size() % 3 == 0 ? 4 : 0;
        // Sides whose rows are whole blocks of pixels, and others.
        cases.push_back({{n, 7, c, c, 0, 1, 1, Norm::none, 0, gap}, paths, threads});
        cases.push_back(
            {{n, int(8 + cases.size() % 3 * 2), c, c, 0, 2, 1, Norm::none, 0, gap}, paths, threads});
      }
  cases.push_back({{3, 15, 36, 36, 0, 1, 1}, darts, 1});
  cases.push_back({{40, 7, 36, 36, 0, 1, 1}, darts, 2});  // more images than go together
  cases.push_back({{1, 15, 72, 72, 0, 1, 1}, {{3, 1, 3}}, 2});
  cases.push_back({{1, 5, 3, 6, 0, 1, 1}, {{3, 1, 7}, {7, 1, 3}}, 3});
  cases.push_back({{5, 2, 16, 16, 0, 2, 1}, mixed, 2});
  return cases;
}

TEST_P(SeparablePathsIsa, PathsOfOneInputMatchDouble) {
  Random random(4);
  std::unique_ptr<Memory> memory;
  for (const PathsCase& test : paths_cases()) {
    SCOPED_TRACE(
        join(test.c, " paths ", test.paths.size(), " first ", test.paths[0].k, " threads ", test.threads));
    std::vector<PathTest> tests;
    tests.reserve(test.paths.size());
    for (const Path& p : test.paths)
      tests.emplace_back(test.c, p, tests.empty() ? nullptr : &tests[0].first, random);
    std::vector<SeparablePath> paths;
    std::vector<TestTensor<double>> expected;
    TestTensor<float> other(tests[0].y().shape(), tests[0].y().stride());
    other.randomize(random);
    for (size_t p = 0; p < tests.size(); ++p) {
      PathTest& t = tests[p];
      t.y().randomize(random);
      const bool fits = other.shape() == t.y().shape();
      const TestTensor<float>* added = p % 3 == 0 ? nullptr : p % 3 == 1 && fits ? &other : &t.y();
      expected.push_back(t.expected(added));
      paths.push_back(t.bound(added ? added->view() : Tensor()));
    }
    Stream stream(Device::cpu, test.threads);
    separable_convs_inference(
        stream, paths, tests[0].first.x,
        scratch_of(memory, separable_convs_inference_scratch_bytes(stream, paths, tests[0].first.x.shape())));
    for (size_t p = 0; p < tests.size(); ++p) {
      SCOPED_TRACE(join("path ", p));
      EXPECT_TRUE(compare(tests[p].y(), expected[p], 2e-6));
      EXPECT_TRUE(tests[p].y().gaps_untouched());
    }
  }
}

// Two paths into one tensor: the second adds to what the first one wrote.
TEST_P(SeparablePathsIsa, APathAddsToTheOneBefore) {
  Random random(5);
  std::unique_ptr<Memory> memory;
  for (const int threads : {1, 2}) {
    const Case c{3 - 2 * (threads - 1), 9, 16, 16, 0, 1, 1};
    PathTest one(c, {3, 1, 5}, nullptr, random), two(c, {5, 2, 3}, &one.first, random);
    const TestTensor<double> first = one.expected(nullptr), second = two.expected(nullptr);
    std::vector<SeparablePath> paths = {one.bound({}), two.bound(one.y().view())};
    paths[1].y = one.y();
    Stream stream(Device::cpu, threads);
    separable_convs_inference(
        stream, paths, one.first.x,
        scratch_of(memory, separable_convs_inference_scratch_bytes(stream, paths, one.first.x.shape())));
    TestTensor<double> sum(first.shape());
    for (int64_t i = 0; i < sum.shape().size(); ++i) sum[i] = first[i] + second[i];
    EXPECT_TRUE(compare(one.y(), sum, 2e-6));
  }
}

INSTANTIATE_TEST_SUITE_P(SeparableConvs, SeparablePathsIsa, testing::ValuesIn(isas_of_this_processor()),
                         [](const auto& isa) { return std::string(cpu_isa_name(isa.param)); });

TEST(SeparableConvsInference, PathsMustFitTogether) {
  Random random(1);
  Stream stream(Device::cpu, 1);
  Unit<float> u({1, 4, 4, 4, 3, 1, 1}, random);
  TestTensor<float> narrower({1, 4, 4, 4});
  const SeparablePath path{.first = u.op(), .y = u.y};
  const auto run = [&](const std::vector<SeparablePath>& paths) {
    separable_convs_inference(stream, paths, u.x, nullptr);
  };
  const auto with = [&](auto&& change) {
    SeparablePath other = path;
    change(other);
    return other;
  };
  EXPECT_THROW(run({}), Error);
  EXPECT_THROW(run({path, with([](auto& p) { p.first.stride = 2; })}), Error);
  EXPECT_THROW(run({path, with([](auto& p) { p.first.relu = false; })}), Error);
  EXPECT_THROW(run({path, with([](auto& p) { p.first.depthwise = {}; })}), Error);
  EXPECT_THROW(run({with([&](auto& p) { p.second = u.op(), p.second.relu = false; })}), Error);
  EXPECT_THROW(run({with([&](auto& p) { p.second = u.op(), p.second.depthwise = {}; })}), Error);
  EXPECT_THROW(run({with([&](auto& p) { p.second = u.op(), p.second.stride = 2; })}), Error);
  EXPECT_THROW(run({with([&](auto& p) { p.added = narrower.view(); })}), Error);
}

}  // namespace
}  // namespace lanas::test
