// fused_mlp_test.cpp -- fp64 finite differences, float against double, what is not wanted, errors.
#include "kernels/ops/fused_mlp.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

struct MlpCase {
  int rows, inputs, members;
  std::vector<int> width;
  bool skip;
  int gap;
};
const MlpCase kMlpCases[] = {{1, 1, 1, {1}, false, 0},
                             {3, 5, 2, {7, 4}, true, 0},
                             {6, 12, 3, {8}, true, 3},
                             {2, 4, 1, {3, 9, 2, 5}, false, 1}};

// Weights, biases and gradients of a case in T.
template <class T>
struct Networks {
  FusedMlp<T> op;
  FusedMlpGradient<T> gradient;
  std::vector<std::vector<T>> values, gradients;
  std::vector<std::string> names;

  explicit Networks(const MlpCase& t) {
    op.inputs = t.inputs, op.members = t.members, op.hidden = int(t.width.size());
    std::copy(t.width.begin(), t.width.end(), op.width);
    for (int k = 0; k < t.members; ++k)
      for (int l = 0; l <= op.hidden; ++l) {
        const int out = l < op.hidden ? op.width[l] : 1;
        add(join("w", k, l), out * op.fan_in(l)), add(join("b", k, l), out);
      }
    if (t.skip) add("skip", t.inputs), add("skip bias", 1);
  }
  void add(const std::string& name, int size) {
    names.push_back(name);
    values.emplace_back(size_t(size)), gradients.emplace_back(size_t(size));
  }
  // Points op and gradient at the vectors, which must not grow any more.
  void bind(T beta) {
    size_t i = 0;
    for (int k = 0; k < op.members; ++k)
      for (int l = 0; l <= op.hidden; ++l, i += 2) {
        op.weight[k][l] = values[i].data(), op.bias[k][l] = values[i + 1].data();
        gradient.weight[k][l] = {gradients[i].data(), beta};
        gradient.bias[k][l] = {gradients[i + 1].data(), beta};
      }
    if (i == values.size()) return;
    op.skip_weight = values[i].data(), op.skip_bias = values[i + 1].data();
    gradient.skip_weight = {gradients[i].data(), beta};
    gradient.skip_bias = {gradients[i + 1].data(), beta};
  }
};

void check_mlp(const MlpCase& t, double beta) {
  Random random(6);
  Networks<double> net(t);
  Networks<float> single(t);
  for (size_t i = 0; i < net.values.size(); ++i) {
    net.values[i] = random_vector<double>(int(net.values[i].size()), random);
    net.gradients[i] = beta != 0 ? random_vector<double>(int(net.values[i].size()), random)
                                 : std::vector<double>(net.values[i].size(), NAN);
    single.values[i] = convert<float>(net.values[i]);
    single.gradients[i] = convert<float>(net.gradients[i]);
  }
  net.bind(beta), single.bind(float(beta));
  TestTensor<double> x({t.rows, 1, 1, t.inputs}, t.inputs + t.gap), y({t.rows, 1, 1, 1}),
      dx(x.shape(), x.stride()), dy(y.shape());
  x.randomize(random), dy.randomize(random);
  if (beta != 0) dx.randomize(random);
  const TestTensor<float> fx = x.as<float>(), fy = y.as<float>(), fdx = dx.as<float>(), fdy = dy.as<float>();
  const TestTensor<double> dx0 = dx;
  std::vector<std::vector<double>> before = net.gradients;
  net.gradient.dx = dx, net.gradient.beta_dx = beta;
  host::fused_mlp_backward<double>(net.op, net.gradient, dy, x);
  const auto loss = [&] {
    host::fused_mlp_forward<double>(net.op, y, x);
    return dot(y, dy);
  };
  const View<double> none;
  std::vector<GradInput> inputs{{"dx", x, dx, beta != 0 ? dx0.view() : none}};
  for (size_t i = 0; i < net.values.size(); ++i)
    inputs.push_back(
        {net.names[i], row(net.values[i]), row(net.gradients[i]), beta != 0 ? row(before[i]) : none});
  EXPECT_TRUE(gradcheck(loss, inputs));
  EXPECT_TRUE(dx.gaps_untouched());

  loss();
  Stream stream(Device::cpu);
  single.gradient.dx = fdx, single.gradient.beta_dx = float(beta);
  fused_mlp_forward(stream, single.op, fy, fx, nullptr);
  fused_mlp_backward(stream, single.op, single.gradient, fdy, fx, nullptr);
  EXPECT_TRUE(compare(fy, y, 2e-6));
  EXPECT_TRUE(compare(fdx, dx, 2e-6));
  for (size_t i = 0; i < net.values.size(); ++i)
    EXPECT_TRUE(compare(single.gradients[i], net.gradients[i], 2e-6)) << net.names[i];
}

TEST(FusedMlp, Gradcheck) {
  for (const MlpCase& t : kMlpCases)
    for (const double beta : {0.0, 1.0}) check_mlp(t, beta);
}

TEST(FusedMlp, ByHand) {  // relu(2 * 3 - 1) * 4 + 5 + (0.5 * 3 + 7)
  Networks<float> net({1, 1, 1, {1}, true, 0});
  net.values = {{2}, {-1}, {4}, {5}, {0.5f}, {7}};
  net.bind(0);
  float x = 3, y = 0;
  Stream stream(Device::cpu);
  fused_mlp_forward(stream, net.op, Tensor(&y, {1, 1, 1, 1}), Tensor(&x, {1, 1, 1, 1}), nullptr);
  EXPECT_EQ(y, 33.5f);
}

TEST(FusedMlp, WhatIsNotWantedIsNotTouchedAndShapesAreChecked) {
  Networks<float> net({2, 3, 1, {4}, false, 0});
  for (auto& values : net.values) std::fill(values.begin(), values.end(), 1.f);
  net.bind(0);
  TestTensor<float> x({2, 1, 1, 3}), dx(x.shape()), dy({2, 1, 1, 1}), wrong({2, 1, 1, 2});
  x.fill(1), dy.fill(1);
  FusedMlpGradient<float> only_x;
  only_x.dx = dx;
  Stream stream(Device::cpu);
  fused_mlp_backward(stream, net.op, only_x, dy, x, nullptr);
  EXPECT_EQ(dx[0], 4);
  for (const auto& gradient : net.gradients)
    for (float g : gradient) EXPECT_EQ(g, 0);
  EXPECT_THROW(fused_mlp_forward(stream, net.op, dy, wrong, nullptr), Error);
  EXPECT_THROW(fused_mlp_forward(stream, net.op, wrong, x, nullptr), Error);
  EXPECT_EQ(net.op.widths(), "3-4-1");
}

}  // namespace
}  // namespace lanas::test
