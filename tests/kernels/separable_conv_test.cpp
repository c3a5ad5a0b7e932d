// separable_conv_test.cpp -- the loops in double against an independent statement of the formula and central
// differences, then the vectorised cpu path, on every instruction set here, against the loops in double.
#include "kernels/ops/separable_conv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "tests/kernels/separable_unit.h"

namespace lanas::test {
namespace {

// y of one output element, straight from the formula.
double naive(Unit<double>& u, int n, int oy, int ox, int j) {
  const Case& c = u.c;
  const int k = std::max(c.k, 1), pad = c.dilation * (k - 1) / 2;
  double y = 0;
  for (int ch = 0; ch < c.cin; ++ch)
    for (int ky = 0; ky < k; ++ky)
      for (int kx = 0; kx < k; ++kx) {
        const int iy = oy * c.stride + c.offset + ky * c.dilation - pad;
        const int ix = ox * c.stride + c.offset + kx * c.dilation - pad;
        if (iy < 0 || ix < 0 || iy >= c.size || ix >= c.size + 1) continue;
        double z = u.x.view().at(n, iy, ix)[ch];
        const size_t i = size_t(ch);
        if (c.norm != Norm::none) z = (z - u.mean[i]) * u.inv_std[i];
        if (c.norm == Norm::affine) z = z * u.gamma[i] + u.shift[i];
        if (c.relu) z = std::max(z, 0.0);
        y += u.pointwise[j * c.cin + ch] * (c.k > 0 ? u.depthwise[(ky * k + kx) * c.cin + ch] : 1.0) * z;
      }
  return y;
}

const std::vector<Case>& small_cases() {
  static const std::vector<Case> cases = {
      {2, 4, 1, 1, 3, 1, 1},
      {1, 5, 3, 4, 3, 1, 2, Norm::plain},
      {2, 5, 4, 3, 5, 1, 2, Norm::affine, 1, 3},
      {2, 5, 4, 4, 5, 2, 1, Norm::affine},
      {1, 6, 12, 4, 3, 2, 2, Norm::plain, 1},
      {2, 4, 5, 6, 0, 1, 1, Norm::affine, 1, 1},
      {2, 4, 4, 2, 0, 2, 1, Norm::none, 0, 2, 1},
      {1, 5, 3, 2, 0, 2, 1},
      {1, 4, 2, 3, 3, 1, 1, Norm::affine, 0, 0, 0, false},
  };
  return cases;
}

TEST(SeparableConv, ForwardIsTheFormula) {
  Random random(11);
  for (const Case& c : small_cases()) {
    Unit<double> u(c, random);
    u.forward();
    TestTensor<double> expected(u.out);
    for (int64_t i = 0; i < u.out.size(); ++i) {
      const int64_t p = i / c.cout;
      expected[i] =
          naive(u, int(p / u.out.w / u.out.h), int(p / u.out.w % u.out.h), int(p % u.out.w), int(i % c.cout));
    }
    EXPECT_TRUE(compare(u.y, expected, 1e-13)) << c;
    EXPECT_TRUE(u.y.gaps_untouched()) << c;
    for (int j = 0; j < c.cout; ++j) {
      double sum = 0, square = 0;
      for (int64_t p = 0; p < u.out.pixels(); ++p) sum += expected[p * c.cout + j];
      for (int64_t p = 0; p < u.out.pixels(); ++p)
        square += expected[p * c.cout + j] * expected[p * c.cout + j];
      const double mean = sum / double(u.out.pixels());
      EXPECT_NEAR(u.y_mean[size_t(j)], mean, 1e-12) << c;
      EXPECT_NEAR(u.y_inv_std[size_t(j)], 1 / std::sqrt(square / double(u.out.pixels()) - mean * mean + kEps),
                  1e-9);
    }
  }
}

// The loss takes the batch statistics of the perturbed x, so dx must go through them.
TEST(SeparableConv, BackwardAgainstCentralDifferences) {
  Random random(5);
  for (const Case& c : small_cases()) {
    Unit<double> u(c, random);
    const auto dx0 = u.dx, dw0 = u.d_depthwise, dp0 = u.d_pointwise;
    const std::vector<double> dgamma0 = u.dgamma, dshift0 = u.dshift;
    u.backward();
    EXPECT_TRUE(u.dx.gaps_untouched()) << c;
    const auto loss = [&] {
      u.statistics();
      u.forward();
      return dot(u.y, u.dy);
    };
    const bool add = c.beta != 0;
    std::vector<GradInput> inputs = {
        {"dx", u.x, u.dx, add ? dx0.view() : View<double>()},
        {"d_pointwise", u.pointwise, u.d_pointwise, add ? dp0.view() : View<double>()}};
    if (c.k > 0)
      inputs.emplace_back("d_depthwise", u.depthwise, u.d_depthwise, add ? dw0.view() : View<double>());
    if (c.norm == Norm::affine) {
      for (size_t i = 0; add && i < u.dgamma.size(); ++i)
        u.dgamma[i] -= dgamma0[i], u.dshift[i] -= dshift0[i];
      inputs.emplace_back("dgamma", u.gamma, u.dgamma);
      inputs.emplace_back("dbeta", u.shift, u.dshift);
    }
    EXPECT_TRUE(gradcheck(loss, inputs)) << c;
  }
}

std::vector<Case> float_cases() {
  std::vector<Case> cases = small_cases();
  for (int channels : {1, 3, 4, 8, 12, 16, 24, 28, 32, 36, 40, 44, 52, 64})
    for (int k : {0, 3, 5}) {
      const int i = int(cases.size());
      const Norm norm = Norm(i % 3);
      cases.push_back(
          {3, 8, channels, channels, k, 1, 1 + i % 2, norm, double(i / 2 % 2), i % 5 == 0 ? 8 : 0});
      cases.push_back(
          {2, 9, channels, channels, k, 2, 1 + i / 2 % 2, norm, double(i % 2), i % 5 == 1 ? 3 : 0});
    }
  for (int channels : {4, 8, 16, 64}) cases.push_back({5, 16, channels, channels, 3, 1, 1});
  cases.push_back({2, 32, 16, 16, 5, 1, 2, Norm::plain});
  cases.push_back({2, 8, 16, 8, 0, 2, 1, Norm::none, 0, 8, 1});
  cases.push_back({2, 8, 64, 16, 0, 1, 1, Norm::affine});
  cases.push_back({2, 8, 16, 80, 3, 1, 1, Norm::affine, 1});
  for (int channels : {4, 8}) {  // tiles of eight, four and single rows
    cases.push_back({2, 27, channels, channels, 3, 1, 2, Norm::plain});
    cases.push_back({2, 27, channels, channels, 3, 2, 1, Norm::affine, 1});
    cases.push_back({2, 27, channels, channels, 5, 2, 1});
  }
  cases.push_back({2, 13, 36, 36, 3, 1, 1, Norm::plain});  // rows of more than one block of vectors
  cases.push_back({1, 17, 36, 40, 5, 1, 2, Norm::affine, 1});
  cases.push_back({1, 13, 72, 36, 5, 2, 1});
  cases.push_back({1, 12, 144, 16, 3, 1, 1});  // too long for tiles of eight
  cases.push_back({1, 16, 64, 16, 0, 1, 1});   // 1x1: tiles of three rows, of two and of one
  cases.push_back({1, 11, 160, 8, 0, 1, 1, Norm::none, 1});
  cases.push_back({1, 5, 704, 4, 0, 1, 1});
  cases.push_back({1, 3, 1028, 36, 0, 1, 1});  // the last columns: more steps than their table holds
  cases.push_back({2, 30, 64, 16, 0, 1, 1});   // 1x1: images that backward asks for rows by rows
  cases.push_back({1, 30, 64, 16, 0, 1, 1, Norm::affine, 1});
  cases.push_back({2, 9, 8, 8, 7, 1, 1, Norm::plain});
  cases.push_back({2, 13, 8, 8, 7, 2, 1});
  cases.push_back({2, 13, 4, 4, 9, 1, 1});
  cases.push_back({2, 9, 4, 4, 3, 2, 3});
  cases.push_back({2, 8, 8, 8, 5, 2, 1, Norm::affine, 1});
  cases.push_back({2, 16, 4, 4, 5, 2, 2, Norm::plain});
  cases.push_back({2, 8, 4, 4, 7, 2, 1});
  cases.push_back({9, 1, 4, 4, 3, 2, 1});
  cases.push_back({3, 6, 4, 4, 1, 2, 3});
  cases.push_back({1, 11, 4, 4, 3, 1, 3, Norm::affine, 0, 0, 0, false});
  for (int gap : {0, 8})  // 1x1 without ReLU: inference reads x where it stands
    for (int channels : {4, 6, 16, 36, 144})
      cases.push_back({2, 8, channels, channels, 0, 1, 1, Norm::none, 0, gap, 0, false});
  return cases;
}

class SeparableConvIsa : public EveryIsa {};

TEST_P(SeparableConvIsa, FloatMatchesDouble) {
  Random random(3);
  std::unique_ptr<Memory> memory;
  for (const Case& c : float_cases()) {
    SCOPED_TRACE(join(c));
    Unit<float> f(c, random);
    Unit<double> d = f.as<double>();
    Stream stream(Device::cpu, random.below(8) == 0 ? 2 : 1);
    d.forward();
    separable_conv_forward(
        stream, f.op(), f.y, f.x, f.y_mean.data(), f.y_inv_std.data(), float(kEps),
        scratch_of(memory, separable_conv_forward_scratch_bytes(stream, f.op(), f.x.shape())));
    EXPECT_TRUE(compare(f.y, d.y, 1e-6));
    EXPECT_TRUE(f.y.gaps_untouched());
    EXPECT_TRUE(compare(f.y_mean, d.y_mean, 1e-5));
    EXPECT_TRUE(compare(f.y_inv_std, d.y_inv_std, 1e-5));
    d.backward();
    separable_conv_backward(
        stream, f.op(), f.gradient(), f.dy.view(), f.x,
        scratch_of(memory, separable_conv_backward_scratch_bytes(stream, f.op(), f.x.shape())));
    EXPECT_TRUE(compare(f.dx, d.dx, 2e-6));
    EXPECT_TRUE(f.dx.gaps_untouched());
    EXPECT_TRUE(compare(f.d_pointwise, d.d_pointwise, 1e-5));
    EXPECT_TRUE(c.k == 0 || compare(f.d_depthwise, d.d_depthwise, 2e-6));
    if (c.norm == Norm::affine) {
      EXPECT_TRUE(compare(f.dgamma, d.dgamma, 5e-6));
      EXPECT_TRUE(compare(f.dshift, d.dshift, 5e-6));
    }
  }
}

// dy as a g + b v + d, and dx left as the factors of dz, x and 1.
TEST_P(SeparableConvIsa, GradientsInPartsMatchDouble) {
  Random random(9);
  std::unique_ptr<Memory> memory;
  for (Case c : float_cases()) {
    if (c.norm != Norm::none) c.beta = 0;  // factors of a sum are not to be had
    SCOPED_TRACE(join(c));
    Unit<float> f(c, random);
    Unit<double> d = f.as<double>();
    TestTensor<float> v(f.dy.shape(), c.cout + random.below(2) * 5);
    v.randomize(random);
    const std::vector<float> factors = random_vector<float>(3 * c.cout, random);
    const GradientView<float> dy(f.dy, v, factors.data());
    for (int64_t i = 0; i < d.dy.view().size(); ++i) {
      const size_t j = size_t(i % c.cout), cout = size_t(c.cout);
      d.dy[i] = double(factors[j]) * d.dy[i] + double(factors[cout + j]) * double(v[i]) +
                double(factors[2 * cout + j]);
    }
    d.backward();
    SeparableConvGradient<float> gradient = f.gradient();
    std::vector<float> left(size_t(3 * c.cin), NAN);
    if (c.norm != Norm::none) gradient.dx_factors = left.data();
    Stream stream(Device::cpu, random.below(8) == 0 ? 2 : 1);
    separable_conv_backward(
        stream, f.op(), gradient, dy, f.x,
        scratch_of(memory, separable_conv_backward_scratch_bytes(stream, f.op(), f.x.shape())));
    const GradientView<float> dx(f.dx, f.x, gradient.dx_factors);
    TestTensor<float> whole(f.dx.shape());
    for (int64_t i = 0; i < dx.g.size(); ++i) whole[i] = dx.at(i / c.cin, int(i % c.cin));
    EXPECT_TRUE(compare(whole, d.dx, 4e-6));
    EXPECT_TRUE(f.dx.gaps_untouched());
    EXPECT_TRUE(compare(f.d_pointwise, d.d_pointwise, 1e-5));
    EXPECT_TRUE(c.k == 0 || compare(f.d_depthwise, d.d_depthwise, 2e-6));
  }
}

// The same of the plain loops.
TEST(SeparableConv, PlainLoopsTakeAndLeaveFactors) {
  Random random(10);
  for (const Norm norm : {Norm::plain, Norm::affine}) {
    Unit<double> whole({2, 5, 6, 4, 3, 1, 1, norm}, random), parts = whole.as<double>();
    TestTensor<double> v(whole.dy.shape());
    v.randomize(random);
    const std::vector<double> factors = random_vector<double>(3 * 4, random);
    const GradientView<double> dy(parts.dy, v, factors.data());
    for (int64_t i = 0; i < dy.g.size(); ++i) whole.dy[i] = dy.at(i / 4, int(i % 4));
    whole.backward();
    std::vector<double> left(3 * 6, NAN);
    SeparableConvGradient<double> gradient = parts.gradient();
    gradient.dx_factors = left.data();
    host::separable_conv_backward(parts.op(), gradient, dy, parts.x.view());
    const GradientView<double> dx(parts.dx, parts.x, left.data());
    for (int64_t i = 0; i < dx.g.size(); ++i) parts.dx[i] = dx.at(i / 6, int(i % 6));
    EXPECT_TRUE(compare(parts.dx, whole.dx, 1e-12));
    EXPECT_TRUE(compare(parts.d_pointwise, whole.d_pointwise, 1e-12));
  }
}

TEST_P(SeparableConvIsa, InferenceMatchesDouble) {
  Random random(8);
  std::unique_ptr<Memory> memory;
  for (Case c : float_cases()) {
    c.n = 1;
    SCOPED_TRACE(join(c));
    Unit<float> f(c, random);
    f.y.randomize(random);
    Unit<double> d = f.as<double>();
    TestTensor<float> other(f.out, c.cout + c.gap / 2);
    other.randomize(random);
    TestTensor<double> other_double = other.as<double>();
    const int adds = random.below(3);  // nothing, y, another tensor
    std::vector<float> bias = random_vector<float>(c.cout, random);
    std::vector<double> bias_double = convert<double>(bias);
    const bool biased = c.cin % 3 != 0;
    Stream stream(Device::cpu, random.below(8) == 0 ? 2 : 1);
    SeparableConv<double> expected = d.op();
    SeparableConv<float> op = f.op();
    op.transposed = expected.transposed = random.below(2) == 0;  // one and the same numbers, read otherwise
    host::separable_conv_inference(expected, d.y.view(), d.x.view(), biased ? bias_double.data() : nullptr,
                                   adds == 0   ? View<double>()
                                   : adds == 1 ? d.y.view()
                                               : other_double.view());
    const SeparablePath path{.first = op,
                             .first_bias = biased ? bias.data() : nullptr,
                             .y = f.y,
                             .added = adds == 0   ? Tensor()
                                      : adds == 1 ? f.y.view()
                                                  : other.view()};
    separable_convs_inference(
        stream, {&path, 1}, f.x,
        scratch_of(memory, separable_convs_inference_scratch_bytes(stream, {&path, 1}, f.x.shape())));
    EXPECT_TRUE(compare(f.y, d.y, 1e-6));
    EXPECT_TRUE(f.y.gaps_untouched());
  }
}

// What is not wanted stays untouched, and what is wanted does not change with it.
TEST_P(SeparableConvIsa, SkipsWhatIsNull) {
  Random random(2);
  std::unique_ptr<Memory> memory;
  Stream stream(Device::cpu, 2);
  for (Case c : {Case{3, 8, 16, 16, 3, 1, 1, Norm::plain}, Case{3, 8, 4, 4, 5, 2, 1, Norm::affine},
                 Case{2, 19, 4, 4, 3, 1, 1, Norm::plain}, Case{2, 15, 8, 8, 3, 1, 1, Norm::plain},
                 Case{3, 8, 24, 12, 0, 1, 1}}) {
    SCOPED_TRACE(join(c));
    Unit<float> start(c, random);
    auto run = [&](auto&& edit) {
      Unit<float> part = start.as<float>();
      SeparableConvGradient<float> gradient = part.gradient();
      edit(gradient);
      separable_conv_backward(
          stream, part.op(), gradient, part.dy.view(), part.x,
          scratch_of(memory, separable_conv_backward_scratch_bytes(stream, part.op(), part.x.shape())));
      return part;
    };
    Unit<float> all = run([](auto&) {});
    Unit<float> no_weights = run([](auto& g) { g.d_depthwise = g.d_pointwise = {}, g.norm = {}; });
    EXPECT_TRUE(compare(no_weights.dx, all.dx, 0));
    EXPECT_TRUE(std::isnan(no_weights.d_pointwise[0]) && std::isnan(no_weights.d_depthwise[0]));
    Unit<float> no_input = run([](auto& g) { g.dx = {}; });
    EXPECT_TRUE(std::isnan(no_input.dx[0]));
    EXPECT_TRUE(compare(no_input.d_pointwise, all.d_pointwise, 0));
    EXPECT_TRUE(c.k == 0 || compare(no_input.d_depthwise, all.d_depthwise, 0));
    EXPECT_TRUE(c.norm != Norm::affine || compare(no_input.dgamma, all.dgamma, 0));
  }
}

TEST_P(SeparableConvIsa, ForwardDoesNotDependOnTheThreadCount) {
  Random random(4);
  std::unique_ptr<Memory> memory;
  Unit<float> one({5, 8, 8, 8, 3, 1, 1, Norm::plain}, random), three = one.as<float>();
  for (Unit<float>* u : {&one, &three}) {
    Stream stream(Device::cpu, u == &one ? 1 : 3);
    separable_conv_forward(
        stream, u->op(), u->y, u->x, u->y_mean.data(), u->y_inv_std.data(), float(kEps),
        scratch_of(memory, separable_conv_forward_scratch_bytes(stream, u->op(), u->x.shape())));
  }
  EXPECT_EQ(one.y_mean, three.y_mean);
  EXPECT_EQ(one.y_inv_std, three.y_inv_std);
  EXPECT_TRUE(compare(one.y, three.y, 0));
}

INSTANTIATE_TEST_SUITE_P(SeparableConv, SeparableConvIsa, testing::ValuesIn(isas_of_this_processor()),
                         [](const auto& isa) { return std::string(cpu_isa_name(isa.param)); });

TEST(SeparableConv, RefusesWrongShapes) {
  Random random(1);
  Unit<float> u({1, 4, 4, 4, 3, 1, 1}, random);
  Stream stream(Device::cpu, 1);
  const auto forward = [&](const SeparableConv<float>& op, Tensor y) {
    separable_conv_forward(stream, op, y, u.x, nullptr, nullptr, float(kEps), nullptr);
  };
  SeparableConv<float> op = u.op();
  op.stride = 2;
  EXPECT_THROW(forward(op, u.y), Error);
  op = u.op();
  op.stride = 3;
  EXPECT_THROW(forward(op, u.y), Error);
  op = u.op();
  op.offset = 1;
  EXPECT_THROW(forward(op, u.y), Error);
  op = u.op();
  op.pointwise = op.pointwise.slice(0, 2);
  EXPECT_THROW(forward(op, u.y), Error);
  op = u.op();
  op.transposed = true;  // for inference alone
  EXPECT_THROW(forward(op, u.y), Error);
  try {
    forward(u.op(), u.y.view().slice(0, 2));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("separable_conv_forward: output [1,4,5,2]"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace lanas::test
