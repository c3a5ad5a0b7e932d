// gemm_test.cpp -- gemm and gemm_reference against the definition, all transposes, strides and betas.
#include "kernels/vendor/gemm.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

struct GemmCase {
  bool transpose_a, transpose_b;
  int m, n, k;
  double alpha, beta;
};

// c by the definition, in double; element (i, j) of the views is at(i)[j].
double product(const GemmCase& t, View<double> a, View<double> b, int i, int j) {
  double sum = 0;
  for (int p = 0; p < t.k; ++p)
    sum += (t.transpose_a ? a.pixel(p)[i] : a.pixel(i)[p]) * (t.transpose_b ? b.pixel(j)[p] : b.pixel(p)[j]);
  return t.alpha * sum;
}

void check_gemm(const GemmCase& t, int gap) {
  Random random(1);
  const auto matrix = [&](int rows, int columns) {
    return TestTensor<double>({rows, 1, 1, columns}, columns + gap);
  };
  TestTensor<double> a = t.transpose_a ? matrix(t.k, t.m) : matrix(t.m, t.k);
  TestTensor<double> b = t.transpose_b ? matrix(t.n, t.k) : matrix(t.k, t.n);
  TestTensor<double> c = matrix(t.m, t.n), expected = matrix(t.m, t.n);
  a.randomize(random), b.randomize(random);
  if (t.beta != 0) c.randomize(random);  // else NaN: it must not be read
  for (int i = 0; i < t.m; ++i)
    for (int j = 0; j < t.n; ++j)
      expected[i * t.n + j] = product(t, a, b, i, j) + (t.beta != 0 ? t.beta * c[i * t.n + j] : 0);
  const TestTensor<float> fa = a.as<float>(), fb = b.as<float>();
  const TestTensor<float> fc = c.as<float>(), reference = c.as<float>();

  Stream stream(Device::cpu);
  gemm(stream, t.transpose_a, t.transpose_b, t.m, t.n, t.k, float(t.alpha), fa.data(), fa.stride(), fb.data(),
       fb.stride(), float(t.beta), fc.data(), fc.stride());
  host::gemm_reference<float>(t.transpose_a, t.transpose_b, t.m, t.n, t.k, float(t.alpha), fa.data(),
                              fa.stride(), fb.data(), fb.stride(), float(t.beta), reference.data(),
                              reference.stride());
  host::gemm_reference<double>(t.transpose_a, t.transpose_b, t.m, t.n, t.k, t.alpha, a.data(), a.stride(),
                               b.data(), b.stride(), t.beta, c.data(), c.stride());
  const std::string what = join("m ", t.m, " n ", t.n, " k ", t.k, " transposes ", t.transpose_a,
                                t.transpose_b, " alpha ", t.alpha, " beta ", t.beta, " gap ", gap);
  EXPECT_TRUE(compare(c, expected, 1e-13)) << what;
  EXPECT_TRUE(compare(fc, expected, 2e-6)) << what;
  EXPECT_TRUE(compare(reference, expected, 2e-6)) << what;
  EXPECT_TRUE(fc.gaps_untouched() && reference.gaps_untouched() && c.gaps_untouched()) << what;
}

TEST(Gemm, MatchesDefinition) {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const auto [m, n, k] : {std::array{1, 1, 1}, {5, 3, 7}, {16, 16, 200}, {65, 48, 27}, {1, 10, 33}})
        for (const double beta : {0.0, 1.0, -0.5})
          for (const int gap : {0, 3}) check_gemm({transpose_a, transpose_b, m, n, k, 1.5, beta}, gap);
}

TEST(Gemm, EmptySizes) {
  Stream stream(Device::cpu);
  float c[2] = {3, NAN};
  gemm(stream, false, false, 0, 2, 2, 1, nullptr, 2, nullptr, 2, 0, c, 2);
  gemm(stream, false, false, 2, 0, 2, 1, nullptr, 2, nullptr, 2, 0, c, 2);
  EXPECT_EQ(c[0], 3);
  gemm(stream, false, false, 1, 1, 0, 1, nullptr, 0, nullptr, 1, 2, c, 1);
  EXPECT_EQ(c[0], 6);
  gemm(stream, false, false, 1, 2, 0, 1, nullptr, 0, nullptr, 2, 0, c, 2);
  EXPECT_EQ(c[0], 0);
  EXPECT_EQ(c[1], 0);
}

TEST(Gemm, RefusesShortRows) {
  Stream stream(Device::cpu);
  float a[4] = {}, b[4] = {}, c[4] = {};
  EXPECT_THROW(gemm(stream, false, false, 2, 2, 2, 1, a, 1, b, 2, 0, c, 2), Error);
  EXPECT_THROW(gemm(stream, false, false, 2, 2, 2, 1, a, 2, b, 1, 0, c, 2), Error);
  EXPECT_THROW(gemm(stream, false, false, 2, 2, 2, 1, a, 2, b, 2, 0, c, 1), Error);
  EXPECT_THROW(gemm(stream, false, false, -1, 2, 2, 1, a, 2, b, 2, 0, c, 2), Error);
}

TEST(Gemm, SameBitsTwice) {
  Random random(2);
  TestTensor<float> a({4096, 1, 1, 16}), b({4096, 1, 1, 16}), first({16, 1, 1, 16}), second({16, 1, 1, 16});
  a.randomize(random), b.randomize(random);
  Stream stream(Device::cpu);
  for (const TestTensor<float>* c : {&first, &second})
    gemm(stream, true, false, 16, 16, 4096, 1, a.data(), 16, b.data(), 16, 0, c->data(), 16);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(first[i], second[i]);
}

}  // namespace
}  // namespace lanas::test
