// separable_convs_test.cpp -- units that read one input together, against the loops in double of each alone.
#include "tests/kernels/separable_unit.h"

namespace lanas::test {
namespace {

class SeparableConvsIsa : public EveryIsa {};

// Units that read one x, each with outputs and weights of its own; dx is that of the first.
TEST_P(SeparableConvsIsa, UnitsOfOneInputMatchDouble) {
  Random random(6);
  std::unique_ptr<Memory> memory;
  struct Kernel {
    int k, dilation;
  };
  const std::vector<Kernel> darts = {{3, 1}, {5, 1}, {3, 2}, {5, 2}}, even = {{5, 2}, {3, 2}},
                            odd = {{3, 3}, {3, 2}};
  std::vector<Case> cases = {{3, 8, 16, 16, 0, 1, 1},
                             {2, 9, 4, 4, 0, 1, 1, Norm::none, 1, 8},
                             {3, 8, 8, 8, 0, 2, 1, Norm::none, 1, 3},
                             {2, 9, 36, 12, 0, 2, 1},
                             {2, 7, 4, 4, 0, 2, 1},
                             {5, 1, 4, 4, 0, 2, 1},
                             {2, 29, 4, 4, 0, 1, 1},
                             {2, 15, 4, 8, 0, 2, 1, Norm::none, 1},
                             {2, 12, 8, 8, 0, 2, 1},
                             {2, 9, 16, 16, 0, 2, 1, Norm::none, 1},
                             {2, 6, 20, 8, 0, 2, 1}};
  for (int stride : {1, 2})  // tiles of rows that lie within the image, at its edges, at both at once
    for (int size : {3, 4, 5, 6, 7, 10, 13, 16, 24, 32})
      cases.push_back({2, size, size < 13 ? 16 : 4, size < 13 ? 16 : 4, 0, stride, 1});
  for (const auto& kernels : {darts, even, odd})
    for (Case c : cases) {
      SCOPED_TRACE(join(c, " units ", kernels.size(), " first dilation ", kernels[0].dilation));
      std::vector<Unit<float>> f;
      std::vector<Unit<double>> d;
      for (const Kernel& kernel : kernels) {
        c.k = kernel.k, c.dilation = kernel.dilation;
        f.emplace_back(c, random);
        f.back().x = f[0].x;
        d.push_back(f.back().as<double>());
      }
      std::vector<SeparableConv<float>> ops;
      std::vector<SeparableConvOutput<float>> outputs;
      std::vector<SeparableConvGradient<float>> gradients;
      std::vector<GradientView<float>> dys;
      for (size_t u = 0; u < f.size(); ++u) {
        ops.push_back(f[u].op());
        outputs.push_back({f[u].y, f[u].y_mean.data(), f[u].y_inv_std.data()});
        gradients.push_back(f[u].gradient());
        gradients[u].dx = f[0].dx.view();
        dys.push_back(f[u].dy.view());
        d[u].forward();
        SeparableConvGradient<double> gradient = d[u].gradient();
        gradient.dx = d[0].dx.view(), gradient.beta_dx = u == 0 ? c.beta : 1;
        host::separable_conv_backward(d[u].op(), gradient, GradientView<double>(d[u].dy.view()),
                                      d[u].x.view());
      }
      Stream stream(Device::cpu, 2);
      const std::vector<SeparableInput> inputs = {{f[0].x, int(f.size())}};
      separable_convs_forward(stream, ops, outputs, inputs, float(kEps),
                              scratch_of(memory, separable_convs_forward_scratch_bytes(stream, ops, inputs)));
      separable_convs_backward(
          stream, ops, gradients, dys, inputs,
          scratch_of(memory, separable_convs_backward_scratch_bytes(stream, ops, inputs)));
      EXPECT_TRUE(compare(f[0].dx, d[0].dx, 2e-6));
      EXPECT_TRUE(f[0].dx.gaps_untouched());
      for (size_t u = 0; u < f.size(); ++u) {
        SCOPED_TRACE(join("unit ", u));
        EXPECT_TRUE(compare(f[u].y, d[u].y, 1e-6));
        EXPECT_TRUE(f[u].y.gaps_untouched());
        EXPECT_TRUE(compare(f[u].y_mean, d[u].y_mean, 1e-5));
        EXPECT_TRUE(compare(f[u].y_inv_std, d[u].y_inv_std, 1e-5));
        EXPECT_TRUE(compare(f[u].d_pointwise, d[u].d_pointwise, 1e-5));
        EXPECT_TRUE(compare(f[u].d_depthwise, d[u].d_depthwise, 2e-6));
      }
    }
}

INSTANTIATE_TEST_SUITE_P(SeparableConvs, SeparableConvsIsa, testing::ValuesIn(isas_of_this_processor()),
                         [](const auto& isa) { return std::string(cpu_isa_name(isa.param)); });

TEST(SeparableConvs, UnitsOfOneInputMustFitTogether) {
  Random random(1);
  Stream stream(Device::cpu, 1);
  Unit<float> u({1, 4, 4, 4, 3, 1, 1}, random);
  SeparableConv<float> other = u.op();
  other.stride = 2;
  const std::vector<SeparableConvOutput<float>> outputs(2, {u.y});
  const auto forward = [&](const std::vector<SeparableConv<float>>& ops, int units = 2) {
    const std::vector<SeparableInput> inputs = {{u.x, units}};
    separable_convs_forward(stream, ops, outputs, inputs, float(kEps), nullptr);
  };
  EXPECT_THROW(forward({u.op(), other}), Error);
  other = u.op(), other.relu = false;
  EXPECT_THROW(forward({u.op(), other}), Error);
  other = u.op(), other.depthwise = {};
  EXPECT_THROW(forward({u.op(), other}), Error);
  EXPECT_THROW(forward({u.op()}), Error);
  EXPECT_THROW(forward({u.op(), u.op()}, 1), Error);
  EXPECT_THROW(forward({u.op(), u.op()}, 3), Error);
}

}  // namespace
}  // namespace lanas::test
