// The second-order architecture gradient against an independent PyTorch program: after one weight step from
// the initial state of the DARTS supernet, every part of it; weights and running statistics stay.
#include "nas/second_order.h"

#include <gtest/gtest.h>

#include <cstring>

#include "nas/supernet.h"
#include "tests/support/fixture.h"

namespace lanas::test {
namespace {

constexpr double kTolerance = 1e-4;

std::vector<float> values(const ParameterStore& store) {
  return {store.values(), store.values() + store.slab_floats()};
}

TEST(SecondOrder, MatchesTheFixture) {
  Stream stream;
  const Fixture start("supernet_darts"), expected("second_order");
  ParameterStore weights, buffers, architecture;
  Supernet net({4, 3, 10, 8, 4, 1, false}, weights, buffers, architecture);
  for (ParameterStore* store : {&weights, &buffers, &architecture}) store->allocate(1);
  ASSERT_EQ(start.copy_to("", weights), int(weights.entries().size()));
  ASSERT_EQ(start.copy_to("", architecture), int(architecture.entries().size()));
  auto load = [&](const std::string& batch) {
    start.copy_to(batch + ".images", net.tape.data(net.images));
    start.copy_labels_to(batch + ".labels", net.tape.data(net.labels));
  };
  auto workspace = std::make_shared<Workspace>();
  Plan weight(net.tape, {{net.loss}, net.loss, {&weights}, {}, true}, workspace);
  SecondOrder second(net.tape, net.loss, net.loss, {net.loss}, weights, architecture, workspace);
  weight.update_statistics = true;
  Sgd sgd(weights, 0.9f, 3e-4f, 5);
  sgd.set_lr(0.025f);
  load("train");
  weight.forward(stream);
  expect_match(expected, "train_loss", weight.value(net.loss), kTolerance);
  weight.backward(stream);
  sgd.step(stream);

  const std::vector<float> w = values(weights), running = values(buffers), alpha = values(architecture);
  second.gradient(
      stream, sgd, 0.9f, 3e-4f, [&] { load("train"); }, [&] { load("valid"); },
      [&](Plan& plan) { expect_match(expected, "unrolled_valid_loss", plan.value(net.loss), kTolerance); });
  EXPECT_EQ(values(weights), w) << "the trial steps left their mark";
  EXPECT_EQ(values(buffers), running) << "the trial evaluations moved running statistics";
  EXPECT_EQ(values(architecture), alpha);
  const Shape scalar{1, 1, 1, 1};
  float v_norm = second.v_norm();
  expect_match(expected, "v_norm", Tensor(&v_norm, scalar), kTolerance);
  for (size_t i = 0; i < architecture.entries().size(); ++i) {
    const ParameterStore::Entry& entry = architecture.entries()[i];
    auto part = [&](Tensor slab) { return Tensor(slab.data + entry.offset, entry.shape); };
    expect_match(expected, "direct." + entry.name, part(second.direct()), kTolerance);
    expect_match(expected, "hessian_product." + entry.name, part(second.hessian_product()), kTolerance);
    expect_match(expected, "grad." + entry.name, architecture.grad(int(i)), kTolerance);
  }
}

// Without the second-order part the gradient differs by more than the tolerance: the test above can fail.
TEST(SecondOrder, DiffersFromTheFirstOrder) {
  const Fixture expected("second_order");
  const TensorFile::Entry& g = expected.entry("grad.alpha_normal");
  std::vector<float> direct = expected.entry("direct.alpha_normal").values;
  EXPECT_GT(expected.error("grad.alpha_normal", Tensor(direct.data(), g.shape)), 10 * kTolerance);
}

}  // namespace
}  // namespace lanas::test
