// What the tables of kernels count as an op's work: FLOPs of the passes that a plan runs, bytes of the
// tensors that a pass reads and writes.
#include "bench/op_cost.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"

namespace lanas::test {
namespace {

using bench::op_cost;
using bench::OpCost;

constexpr double kImage = 2 * 4 * 4 * 3 * sizeof(float), kWeights = 3 * 3 * sizeof(float);
constexpr double kFlops = 2.0 * 3 * 3 * 4 * 4 * 2;

// Two 1x1 convolutions of one image, added up.
struct TwoConvolutions {
  Tape tape;
  ParameterStore weights;
  Var x = tape.input({2, 4, 4, 3}), w[2], loss;

  TwoConvolutions() {
    Var y[2];
    for (int i = 0; i < 2; ++i) {
      w[i] = tape.parameter(weights, weights.add(i ? "b" : "a", {3, 1, 1, 3}, Init::constant(1)));
      y[i] = conv2d(tape, x, w[i], {});
    }
    const Var ones = tape.input({1, 1, 1, 3});
    loss = mean_rows(tape, linear(tape, global_average_pool(tape, sum(tape, {y[0], y[1]})), ones, {}));
  }
  Plan plan(std::vector<const ParameterStore*> wanted, std::vector<Var> wanted_inputs) {
    return Plan(
        tape,
        {.outputs = {}, .loss = loss, .wanted = wanted, .wanted_inputs = wanted_inputs, .training = true},
        std::make_shared<Workspace>());
  }
  // Of the convolutions' steps, forward or backward, as they run.
  std::vector<OpCost> costs(const Plan& plan, bool backward) {
    std::vector<OpCost> found;
    const int first = backward ? plan.forward_steps() : 0,
              end = backward ? plan.steps() : plan.forward_steps();
    for (int s = first; s < end; ++s)
      if (plan.op(s).name == "conv2d") found.push_back(op_cost(tape, plan, s));
    return found;
  }
};

TEST(OpCost, ForwardReadsInputsAndWritesOutputs) {
  TwoConvolutions net;
  for (const OpCost& cost : net.costs(net.plan({&net.weights}, {}), false)) {
    EXPECT_EQ(cost.flops, kFlops);
    EXPECT_EQ(cost.read, kImage + kWeights);
    EXPECT_EQ(cost.written, kImage);
  }
}

TEST(OpCost, BackwardCountsTheGradientsThatAreWanted) {
  TwoConvolutions net;
  const std::vector<OpCost> weights = net.costs(net.plan({&net.weights}, {}), true);
  const std::vector<OpCost> data = net.costs(net.plan({}, {net.x}), true);
  const std::vector<OpCost> both = net.costs(net.plan({&net.weights}, {net.x}), true);
  ASSERT_EQ(weights.size(), 2u);
  ASSERT_EQ(data.size(), 2u);
  ASSERT_EQ(both.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(weights[i].flops, kFlops);
    EXPECT_EQ(data[i].flops, kFlops);
    EXPECT_EQ(both[i].flops, 2 * kFlops);
    EXPECT_EQ(weights[i].written, kWeights);
    EXPECT_EQ(data[i].written, kImage);
    EXPECT_EQ(both[i].written, kImage + kWeights);
    EXPECT_EQ(weights[i].read, 2 * kImage + kWeights);  // x, dy and the weights
  }
}

// The first writes x's gradient, the second reads and writes it.
TEST(OpCost, GradientsAddedToAreReadAsWell) {
  TwoConvolutions net;
  const std::vector<OpCost> costs = net.costs(net.plan({}, {net.x}), true);
  ASSERT_EQ(costs.size(), 2u);
  EXPECT_EQ(costs[1].read, costs[0].read + kImage);
  EXPECT_EQ(costs[1].written, costs[0].written);
}

}  // namespace
}  // namespace lanas::test
