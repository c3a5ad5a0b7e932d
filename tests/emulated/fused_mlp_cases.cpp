// fused_mlp_cases.cpp -- cases of the predictor's networks and loss; widths that do not fit; TF32.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/precision.h"
#include "kernels/ops/fused_mlp.h"
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

void build(CaseBuilder& b, int rows, int inputs, const std::vector<int>& hidden, int members, bool skip,
           int gap, bool weights, float bias = 0) {
  const Shape xs{rows, 1, 1, inputs};
  const Var x = gap > 0 ? b.sliced_input(xs, inputs + gap) : b.input(xs);
  const auto parameter = [&](Shape shape, float scale, float shift = 0) {
    return weights ? b.input(shape, scale, shift) : b.constant(shape, scale, shift);
  };
  std::vector<MlpLayers> networks;
  for (int k = 0; k < members; ++k) {
    MlpLayers network;
    int in = inputs;
    for (const int out : hidden) {
      network.weights.push_back(parameter({out, 1, 1, in}, std::sqrt(2.f / float(in))));
      network.biases.push_back(parameter({1, 1, 1, out}, 0.1f, bias));
      in = out;
    }
    network.weights.push_back(parameter({1, 1, 1, in}, std::sqrt(1.f / float(in))));
    network.biases.push_back(parameter({1, 1, 1, 1}, 1));
    networks.push_back(std::move(network));
  }
  Var skip_weight, skip_bias;
  if (skip) skip_weight = parameter({1, 1, 1, inputs}, 0.1f), skip_bias = parameter({1, 1, 1, 1}, 1);
  b.output(fused_mlp(b.tape, x, networks, skip_weight, skip_bias));
}

OpCase mlp_case(int rows, int inputs, std::vector<int> hidden, int members, bool skip, int gap,
                bool weights) {
  std::string name = join(rows, " rows of ", inputs, ", ", members, " of");
  for (const int width : hidden) name += join(" ", width);
  if (skip) name += " with skip";
  if (gap) name += join(" gap ", gap);
  if (!weights) name += " to x alone";
  return {name, double(inputs + rows),
          [=](CaseBuilder& b) { build(b, rows, inputs, hidden, members, skip, gap, weights); }};
}

const OpCases mlp_cases("fused_mlp",
                        {mlp_case(1, 1, {1}, 1, false, 0, true), mlp_case(17, 12, {8}, 2, true, 0, true),
                         mlp_case(5, 36, {16, 12}, 3, true, 5, true),
                         mlp_case(33, 3, {9, 4, 7, 5}, 1, false, 0, true),
                         mlp_case(4, 224, {128, 64}, 2, true, 0, false),
                         mlp_case(40, 224, {128, 64}, 1, true, 0, true)});

OpCase loss_case(int rows) {
  return {join(rows, " rows"), double(rows), [=](CaseBuilder& b) {
            b.output(relative_loss(b.tape, b.input({rows, 1, 1, 1}), b.constant({rows, 1, 1, 3})));
          }};
}
const OpCases loss_cases("relative_loss", {loss_case(1), loss_case(37), loss_case(300)});

FusedMlp<float> shape_of(std::vector<int> hidden) {
  FusedMlp<float> op;
  op.inputs = 224, op.hidden = int(hidden.size());
  std::copy(hidden.begin(), hidden.end(), op.width);
  return op;
}

TEST(FusedMlpOnCuda, WidthsThatDoNotFitSayWhatTheyNeed) {
  EXPECT_TRUE(fused_mlp_fits(shape_of({128, 64}), Device::cuda));
  EXPECT_FALSE(fused_mlp_fits(shape_of({512, 64}), Device::cuda));
  EXPECT_TRUE(fused_mlp_fits(shape_of({512, 64}), Device::cpu));
  CaseBuilder b(Device::cuda, false);
  build(b, 2, 224, {512, 64}, 1, false, 0, true);
  b.finish();
  Stream stream(Device::cuda, 1);
  b.reset(stream, 0);
  try {
    b.run(stream);
    FAIL() << "it ran";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("fused_mlp_forward: widths 224-512-64-1 need 624 KiB"), 0u)
        << error.what();
  }
}

// Rounding operands to TF32 changes the result, by less than 2e-3 of its norm. The biases keep all units
// active: at a kink the smallest rounding switches a unit.
TEST(FusedMlpOnCuda, Tf32IsClose) {
  std::vector<CaseResult> results[2];
  for (const bool on : {false, true}) {
    set_tf32(on);
    CaseBuilder b(Device::cuda, false);
    build(b, 20, 224, {128, 64}, 1, true, 0, true, 9);
    b.finish();
    Stream stream(Device::cuda, 1);
    b.reset(stream, 0);
    b.run(stream);
    set_tf32(false);
    results[on] = b.results(stream);
  }
  ASSERT_EQ(results[0].size(), results[1].size());
  for (size_t i = 0; i < results[0].size(); ++i) {
    double difference = 0, norm = 0;
    for (size_t j = 0; j < results[0][i].values.size(); ++j) {
      const double a = results[0][i].values[j];
      difference += std::pow(results[1][i].values[j] - a, 2);
      norm += a * a;
    }
    EXPECT_LE(std::sqrt(difference / norm), 2e-3) << results[0][i].name;
  }
  EXPECT_NE(results[0][0].values, results[1][0].values);
}

}  // namespace
}  // namespace lanas::test
