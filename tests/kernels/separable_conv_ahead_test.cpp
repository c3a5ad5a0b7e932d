// separable_conv_ahead_test.cpp -- the lines that a unit asks for ahead are shared out over the work that it
// does: nearly none are left to be asked for at the end of an image, when it is too late for them.
#include "kernels/ops/separable_conv_ahead.h"

#include "tests/kernels/separable_unit.h"

namespace lanas::test {
namespace {

using cpu::Ahead;

class SeparableConvAhead : public EveryIsa {};

// Of what is asked for; a call asks for whole lines.
constexpr double kMostLate = 0.01;

TEST_P(SeparableConvAhead, NothingIsLeftAtAnImagesEnd) {
  if (GetParam() == CpuIsa::base) return;  // the plain loops ask for nothing
  Random random(3);
  std::unique_ptr<Memory> memory;
  for (const Case& c :
       {Case{3, 16, 4, 4, 3, 1, 1}, Case{3, 16, 8, 8, 5, 1, 2}, Case{3, 16, 16, 16, 3, 1, 1},
        Case{3, 16, 16, 16, 5, 2, 2}, Case{3, 8, 36, 36, 5, 1, 1}, Case{3, 16, 8, 8, 3, 2, 1},
        Case{3, 16, 16, 16, 3, 1, 1, Norm::plain}, Case{3, 16, 6, 10, 3, 1, 1}, Case{3, 32, 64, 16, 0, 1, 1},
        Case{3, 32, 64, 32, 0, 1, 1, Norm::none, 1}, Case{3, 16, 64, 64, 0, 2, 1},
        Case{3, 16, 128, 32, 0, 1, 1}, Case{3, 16, 16, 64, 0, 1, 1, Norm::none, 0, 16}}) {
    SCOPED_TRACE(join(c));
    Unit<float> unit(c, random);
    Stream stream(Device::cpu, 1);
    const std::vector<SeparableConv<float>> ops = {unit.op()};
    const std::vector<SeparableInput> inputs = {{unit.x, 1}};
    const auto paced = [&](const std::string& what, auto run) {
      Ahead::lines_asked = Ahead::lines_late = 0;
      run();
      EXPECT_GT(Ahead::lines_asked, 0) << what;
      EXPECT_LE(double(Ahead::lines_late), kMostLate * double(Ahead::lines_asked)) << what;
    };
    paced("forward", [&] {
      const std::vector<SeparableConvOutput<float>> outputs = {
          {unit.y, unit.y_mean.data(), unit.y_inv_std.data()}};
      separable_convs_forward(stream, ops, outputs, inputs, float(kEps),
                              scratch_of(memory, separable_convs_forward_scratch_bytes(stream, ops, inputs)));
    });
    const std::vector<float> factors(size_t(3 * c.cout), 1.0f);
    const auto backward = [&](const std::string& what, const SeparableConvGradient<float>& gradient) {
      for (const bool parts : {false, true})
        paced(what + (parts ? ", dy in parts" : ""), [&] {
          const std::vector<SeparableConvGradient<float>> gradients = {gradient};
          std::vector<GradientView<float>> dys = {unit.dy.view()};
          if (parts) dys[0] = {unit.dy, unit.y, factors.data()};
          separable_convs_backward(
              stream, ops, gradients, dys, inputs,
              scratch_of(memory, separable_convs_backward_scratch_bytes(stream, ops, inputs)));
        });
    };
    SeparableConvGradient<float> gradient = unit.gradient();
    backward("backward", gradient);
    gradient.d_depthwise = gradient.d_pointwise = {};
    backward("backward to x alone", gradient);
    gradient = unit.gradient(), gradient.dx = {};
    backward("backward to the weights alone", gradient);
  }
}

INSTANTIATE_TEST_SUITE_P(SeparableConv, SeparableConvAhead, testing::ValuesIn(isas_of_this_processor()),
                         [](const auto& isa) { return std::string(cpu_isa_name(isa.param)); });

}  // namespace
}  // namespace lanas::test
