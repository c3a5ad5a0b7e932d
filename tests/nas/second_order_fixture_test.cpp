// The second-order architecture gradient against an independent PyTorch program: after one weight step from
// the initial state of the DARTS supernet, every part of it; weights and running statistics stay. And on a
// toy whose product is known, and where it is zero.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <span>

#include "kernels/ops/elementwise.h"
#include "nas/second_order.h"
#include "nas/supernet.h"
#include "tests/support/fixture.h"
#include "tests/support/fixture_device.h"

namespace lanas::test {
namespace {

constexpr double kSecondOrderTolerance = 1e-4;

std::vector<float> values(const ParameterStore& store) {
  return {store.values(), store.values() + store.slab_floats()};
}

TEST(SecondOrder, MatchesTheFixture) {
  [[maybe_unused]] const DeviceMemory open;
  Stream stream(kDevice);
  const Fixture start("supernet_darts"), expected("second_order");
  ParameterStore weights(kDevice), buffers(kDevice), architecture(kDevice);
  Supernet net({4, 3, 10, 8, 4, 1, false}, weights, buffers, architecture);
  for (ParameterStore* store : {&weights, &buffers, &architecture}) store->allocate(1);
  ASSERT_EQ(start.copy_to("", weights), int(weights.entries().size()));
  ASSERT_EQ(start.copy_to("", architecture), int(architecture.entries().size()));
  auto load = [&](const std::string& batch) {
    start.copy_to(batch + ".images", net.tape.data(net.images));
    start.copy_labels_to(batch + ".labels", net.tape.data(net.labels));
  };
  auto workspace = std::make_shared<Workspace>(kDevice);
  Plan weight(net.tape, {{net.loss}, net.loss, {&weights}, {}, true}, workspace);
  SecondOrder second(net.tape, net.loss, net.loss, {net.loss}, weights, architecture, workspace);
  weight.update_statistics = true;
  Sgd sgd(weights, 0.9f, 3e-4f, 5);
  sgd.set_lr(0.025f);
  load("train");
  weight.forward(stream);
  expect_match(expected, "train_loss", weight.value(net.loss), kSecondOrderTolerance);
  weight.backward(stream);
  sgd.step(stream);

  const std::vector<float> w = values(weights), running = values(buffers), alpha = values(architecture);
  load("train");
  second.unroll(stream, sgd);
  load("valid");
  second.validate(stream);
  expect_match(expected, "unrolled_valid_loss", second.at_unrolled().value(net.loss), kSecondOrderTolerance);
  load("train");
  second.differentiate(stream, sgd);
  EXPECT_EQ(values(weights), w) << "the trial steps left their mark";
  EXPECT_EQ(values(buffers), running) << "the trial evaluations moved running statistics";
  EXPECT_EQ(values(architecture), alpha);
  const Shape scalar{1, 1, 1, 1};
  float v_norm = second.v_norm(stream);
  expect_match(expected, "v_norm", Tensor(&v_norm, scalar), kSecondOrderTolerance);
  for (size_t i = 0; i < architecture.entries().size(); ++i) {
    const ParameterStore::Entry& entry = architecture.entries()[i];
    auto part = [&](Tensor slab) { return Tensor(slab.data + entry.offset, entry.shape); };
    expect_match(expected, "direct." + entry.name, part(second.direct()), kSecondOrderTolerance);
    expect_match(expected, "hessian_product." + entry.name, part(second.hessian_product()),
                 kSecondOrderTolerance);
    expect_match(expected, "grad." + entry.name, architecture.grad(int(i)), kSecondOrderTolerance);
  }
}

// L = mean over rows of a relu(W x + b) + c, the same for training and validation, x = 0.5: while the relu is
// open everything is known. v = (a x^T, a), so h_a = a (x^2 + 1) and h_c = 0.
struct Toy {
  static constexpr int kInputs = 3, kHidden = 4, kRows = 2;
  static constexpr float kEta = 0.1f, kDecay = 0.25f, kX = 0.5f, kA = 2;
  DeviceMemory open;
  ParameterStore weights{kDevice}, architecture{kDevice};
  Tape tape{kDevice};
  Var x, loss;
  std::optional<SecondOrder> second;
  Stream stream{kDevice};

  explicit Toy(float w) {
    x = tape.input({kRows, 1, 1, kInputs});
    const auto add = [&](ParameterStore& store, const char* name, Shape shape, float value) {
      return tape.parameter(store, store.add(name, shape, Init::constant(value)));
    };
    const Var matrix = add(weights, "W", {kHidden, 1, 1, kInputs}, w);
    const Var bias = add(weights, "b", {1, 1, 1, kHidden}, 0);
    const Var a = add(architecture, "a", {1, 1, 1, kHidden}, kA);
    const Var c = add(architecture, "c", {1, 1, 1, 1}, 3);
    loss = mean_rows(tape, linear(tape, relu(tape, linear(tape, x, matrix, bias)), a, c));
    weights.allocate(1);
    architecture.allocate(1);
    second.emplace(tape, loss, loss, std::vector<Var>{loss}, weights, architecture,
                   std::make_shared<Workspace>(kDevice));
    fill(stream, tape.data(x), kX);
  }

  void step() {
    Sgd sgd(weights, 0.9f, kDecay, 5);
    sgd.set_lr(kEta);
    second->unroll(stream, sgd);
    second->validate(stream);
    second->differentiate(stream, sgd);
  }
};

TEST(SecondOrder, EqualsTheExactProduct) {
  Toy toy(1);
  const std::vector<float> before = values(toy.weights);
  toy.step();
  EXPECT_EQ(values(toy.weights), before);
  const double x = Toy::kX, a = Toy::kA, eta = Toy::kEta, n = Toy::kInputs;
  const double squares = n * x * x + 1;  // the bias's input is 1
  EXPECT_NEAR(toy.second->v_norm(toy.stream), std::sqrt(Toy::kHidden * a * a * squares), 1e-5);
  const double w = 1 - eta * (a * x + Toy::kDecay), b = -eta * a, direct = n * x * w + b, h = a * squares;
  for (int i = 0; i < Toy::kHidden; ++i) {
    EXPECT_NEAR(toy.second->direct().data[i], direct, 1e-5);
    EXPECT_NEAR(toy.second->hessian_product().data[i], h, 1e-3 * h);
    EXPECT_NEAR(toy.architecture.grad(0).data[i], direct - eta * h, 1e-3);
  }
  EXPECT_NEAR(toy.architecture.grad(1).data[0], 1, 1e-3);
}

// The relu is shut, v is 0: no direction to differentiate along.
TEST(SecondOrder, IsTheFirstWhereNothingDependsOnTheWeights) {
  Toy toy(-1);
  toy.step();
  EXPECT_EQ(toy.second->v_norm(toy.stream), 0);
  for (const float h : std::span(toy.second->hessian_product().data, size_t(toy.architecture.slab_floats())))
    EXPECT_EQ(h, 0);
  for (int i = 0; i < Toy::kHidden; ++i) EXPECT_EQ(toy.architecture.grad(0).data[i], 0);
  EXPECT_EQ(toy.architecture.grad(1).data[0], 1);
}

// Without the second-order part the gradient differs by more than the tolerance: the test above can fail.
TEST(SecondOrder, DiffersFromTheFirstOrder) {
  const Fixture expected("second_order");
  const TensorFile::Entry& g = expected.entry("grad.alpha_normal");
  std::vector<float> direct = expected.entry("direct.alpha_normal").values;
  EXPECT_GT(expected.error("grad.alpha_normal", Tensor(direct.data(), g.shape)), 10 * kSecondOrderTolerance);
}

}  // namespace
}  // namespace lanas::test
