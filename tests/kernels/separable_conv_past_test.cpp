// separable_conv_past_test.cpp -- where results lie decides whether they are written past the caches
// (kWritePastCaches): whole lines do, and the bits are the same.
#include "tests/kernels/separable_unit.h"

namespace lanas::test {
namespace {

class SeparableConvPast : public EveryIsa {};

TEST_P(SeparableConvPast, SameBitsWhereverResultsLie) {
  Random random(7);
  std::unique_ptr<Memory> memory;
  Stream stream(Device::cpu, 2);
  for (const Case& c : {Case{3, 15, 4, 4, 3, 1, 1}, Case{3, 15, 8, 8, 5, 1, 2, Norm::plain},
                        Case{3, 7, 16, 16, 3, 1, 1, Norm::affine}, Case{3, 7, 32, 16, 5, 1, 1},
                        Case{3, 15, 64, 32, 0, 1, 1}, Case{3, 15, 16, 48, 0, 2, 1},
                        Case{3, 15, 36, 36, 3, 1, 1}, Case{3, 7, 64, 16, 0, 1, 1, Norm::none, 1}}) {
    SCOPED_TRACE(join(c));
    Unit<float> unit(c, random);
    // y and dx, `offset` floats behind the beginning of a line.
    const auto run = [&](size_t offset) {
      const size_t y_size = size_t(unit.y.shape().size()), dx_size = size_t(unit.dx.shape().size());
      const auto place = [&](size_t size, Shape shape) {
        Memory lines(Device::cpu, (size + offset) * sizeof(float));
        const Tensor t(lines.floats() + offset, shape);
        return std::pair(std::move(lines), t);
      };
      const auto [y_lines, y] = place(y_size, unit.y.shape());
      const auto [dx_lines, dx] = place(dx_size, unit.dx.shape());
      std::copy_n(unit.dx.data(), dx_size, dx.data);
      std::vector<float> mean(size_t(c.cout)), inv_std(mean);
      separable_conv_forward(
          stream, unit.op(), y, unit.x, mean.data(), inv_std.data(), float(kEps),
          scratch_of(memory, separable_conv_forward_scratch_bytes(stream, unit.op(), unit.x.shape())));
      SeparableConvGradient<float> gradient = unit.gradient();
      gradient.dx = dx;
      std::vector<float> factors(size_t(3 * c.cin));
      if (c.norm != Norm::none) gradient.dx_factors = factors.data();
      separable_conv_backward(
          stream, unit.op(), gradient, unit.dy.view(), unit.x,
          scratch_of(memory, separable_conv_backward_scratch_bytes(stream, unit.op(), unit.x.shape())));
      std::vector<float> results(y.data, y.data + y_size);
      results.insert(results.end(), dx.data, dx.data + dx_size);
      for (const std::vector<float>* more : {&mean, &inv_std, &factors})
        results.insert(results.end(), more->begin(), more->end());
      return results;
    };
    EXPECT_EQ(run(0), run(4));
  }
}

INSTANTIATE_TEST_SUITE_P(SeparableConv, SeparableConvPast, testing::ValuesIn(isas_of_this_processor()),
                         [](const auto& isa) { return std::string(cpu_isa_name(isa.param)); });

}  // namespace
}  // namespace lanas::test
