// What a plan promises: which passes run, first writers overwrite, ranges never written are zero, memory is
// shared.
#include "autograd/plan.h"

#include <gtest/gtest.h>

#include <cstring>

#include "autograd/ops.h"
#include "kernels/core/random.cuh"
#include "kernels/ops/elementwise.h"

namespace lanas::test {
namespace {

std::shared_ptr<Workspace> workspace() { return std::make_shared<Workspace>(); }

// An op of the test: y = scale * x, which counts its calls.
Var scaled(Tape& tape, Var x, float scale, int* forward_calls, int* backward_calls, Var out = {}) {
  const Var y = out ? out : tape.activation(tape.shape(x));
  tape.record({.name = "scaled",
               .inputs = {x},
               .outputs = {y},
               .saved = {},
               .forward =
                   [=](Run& run) {
                     if (forward_calls) ++*forward_calls;
                     copy_scaled(run.stream, run.out(0), run.in(0), scale, 0);
                   },
               .backward =
                   [=](Run& run) {
                     if (backward_calls) ++*backward_calls;
                     copy_scaled(run.stream, run.grad_in(0), run.grad_out(0), scale, run.beta(0));
                   }});
  return y;
}

// The sum of all elements of [1,1,1,c], as a matrix product with ones.
Var total(Tape& tape, Var x) {
  const int c = tape.shape(x).c;
  const Var ones = tape.input({1, 1, 1, c});
  std::fill_n(tape.data(ones).data, c, 1.f);
  return linear(tape, x, ones, {});
}

Var filled(Tape& tape, std::vector<float> values) {
  const Var x = tape.input({1, 1, 1, int(values.size())});
  std::copy(values.begin(), values.end(), tape.data(x).data);
  return x;
}

TEST(Plan, GradientsOfAllReadersAreAdded) {
  Stream stream;
  Tape tape;
  const Var x = filled(tape, {1, 2, 3});
  const Var y = sum(tape, {x, scaled(tape, x, 2, nullptr, nullptr), x});
  const Var loss = total(tape, y);
  Plan plan(tape, {{}, loss, {}, {x}, true}, workspace());
  for (int repeat = 0; repeat < 2; ++repeat) {
    plan.forward(stream);
    plan.backward(stream);
    for (int c = 0; c < 3; ++c) EXPECT_EQ(plan.grad(x).data[c], 4);
  }
}

enum class Again { nothing, scaled, normalised, without_gradient };  // what else reads y

// y = 2 x by an op that takes the factors of so many, then normalised; and read again.
struct Normalising {
  Tape tape;
  Var x, y, loss, other;
  int factored = 0;  // gradients of y that came as factors

  Normalising(int takes, Again again) {
    x = tape.input({2, 1, 1, 3});
    const float values[6] = {1, -2, 3, 4, 0.5f, -1};
    std::copy_n(values, 6, tape.data(x).data);
    y = tape.activation({2, 1, 1, 3});
    tape.record({.name = "doubled",
                 .inputs = {x},
                 .outputs = {y},
                 .saved = {},
                 .forward = [](Run& run) { copy_scaled(run.stream, run.out(0), run.in(0), 2, 0); },
                 .backward =
                     [this](Run& run) {
                       factored = 0;
                       std::fill_n(run.grad_in(0).data, 6, 0.0f);
                       for (const GradientView<float>& dy : run.gradients(0)) {
                         factored += dy.factors != nullptr;
                         for (int64_t i = 0; i < 6; ++i)
                           run.grad_in(0).data[i] += 2 * dy.at(i / 3, int(i % 3));
                       }
                     },
                 .takes_factors = takes});
    const Norm norm{tape.input({1, 1, 1, 3}), tape.input({1, 1, 1, 3}), {}, {}};
    std::fill_n(tape.data(norm.mean).data, 3, 0.25f);
    std::fill_n(tape.data(norm.inv_std).data, 3, 0.5f);
    const Var z = normalise(tape, y, norm), weights = tape.input({1, 1, 1, 3});
    std::copy_n(values, 3, tape.data(weights).data);
    const Norm wider{norm.inv_std, norm.mean, {}, {}};
    other = again == Again::normalised || again == Again::without_gradient
                ? normalise(tape, y, wider)
                : scaled(tape, again == Again::scaled ? y : z, 0, nullptr, nullptr);
    const Var both = again == Again::without_gradient ? z : sum(tape, {z, other});
    loss = mean_rows(tape, linear(tape, both, weights, {}));
  }
  std::vector<float> gradient(std::vector<Var> also = {}) {
    Stream stream;
    also.push_back(x);
    Plan plan(tape, {{other}, loss, {}, also, true}, workspace());
    plan.forward(stream);
    plan.backward(stream);
    return {plan.grad(x).data, plan.grad(x).data + 6};
  }
};

TEST(Plan, GradientsBehindStatisticsAreLeftAsFactorsWhereAllReadersCan) {
  const std::vector<float> expected = Normalising(0, Again::nothing).gradient();
  const auto expect = [&](int takes, Again again, int factored) {
    Normalising network(takes, again);
    EXPECT_EQ(network.gradient(), expected);
    EXPECT_EQ(network.factored, factored);
  };
  expect(0, Again::nothing, 0);
  expect(1, Again::nothing, 1);
  expect(2, Again::scaled, 0);
  expect(2, Again::without_gradient, 1);
  Normalising wanted(1, Again::nothing);
  EXPECT_EQ(wanted.gradient({wanted.y}), expected);
  EXPECT_EQ(wanted.factored, 0);
}

TEST(Plan, FactorsOfSeveralReadersAreTakenTogether) {
  Normalising one(1, Again::normalised), two(2, Again::normalised);
  const std::vector<float> expected = one.gradient(), gradient = two.gradient();
  EXPECT_EQ(one.factored, 0);
  EXPECT_EQ(two.factored, 2);
  ASSERT_EQ(gradient.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(gradient[i], expected[i], 1e-6f) << i;
}

TEST(Plan, RunsOnlyWhatIsWanted) {
  Stream stream;
  Tape tape;
  int forward_used = 0, backward_used = 0, forward_unused = 0, backward_constant = 0;
  const Var x = filled(tape, {1, 2}), constant = filled(tape, {5, 5});
  const Var y = scaled(tape, x, 3, &forward_used, &backward_used);
  scaled(tape, x, 3, &forward_unused, nullptr);
  const Var z = scaled(tape, constant, 1, nullptr, &backward_constant);
  const Var loss = total(tape, sum(tape, {y, z}));
  Plan plan(tape, {{loss}, loss, {}, {x}, true}, workspace());
  plan.forward(stream);
  plan.backward(stream);
  EXPECT_EQ(*plan.value(loss).data, 19);
  EXPECT_EQ(forward_used, 1);
  EXPECT_EQ(backward_used, 1);
  EXPECT_EQ(forward_unused, 0);
  EXPECT_EQ(backward_constant, 0);
}

TEST(Plan, SlicesAreWrittenInPlaceAndUnreadChannelsHaveZeroGradient) {
  Stream stream;
  Tape tape;
  const Var x = filled(tape, {1, 2, 3, 4, 5});
  const Var joined = tape.activation({1, 1, 1, 5});
  scaled(tape, tape.slice(x, 0, 2), 10, nullptr, nullptr, tape.slice(joined, 3, 5));
  scaled(tape, tape.slice(x, 2, 5), 1, nullptr, nullptr, tape.slice(joined, 0, 3));
  const Var loss = total(tape, tape.slice(joined, 2, 4));  // x[4] + 10 x[0]
  Plan plan(tape, {{joined, loss}, loss, {}, {x}, true}, workspace());
  plan.forward(stream);
  plan.backward(stream);
  const float values[5] = {3, 4, 5, 10, 20}, gradient[5] = {10, 0, 0, 0, 1};
  for (int c = 0; c < 5; ++c) {
    EXPECT_EQ(plan.value(joined).data[c], values[c]);
    EXPECT_EQ(plan.grad(x).data[c], gradient[c]);
  }
}

TEST(Plan, ReadersOfOverlappingSlicesAdd) {
  Stream stream;
  Tape tape;
  const Var x = filled(tape, {1, 2, 3, 4});
  const Var y = scaled(tape, x, 1, nullptr, nullptr);
  const Var a = total(tape, tape.slice(y, 0, 3)), b = total(tape, tape.slice(y, 1, 4));
  const Var loss = weighted_sum(tape, {a, b}, {1, 10});
  Plan plan(tape, {{loss}, loss, {}, {x}, true}, workspace());
  plan.forward(stream);
  plan.backward(stream);
  const float gradient[4] = {1, 11, 11, 10};
  for (int c = 0; c < 4; ++c) EXPECT_EQ(plan.grad(x).data[c], gradient[c]);
}

TEST(Plan, WantedParametersThatNothingReadsGetZeroGradient) {
  Stream stream;
  Tape tape;
  ParameterStore store;
  const int used = store.add("used", {1, 1, 1, 2}, Init::constant(3)),
            unused = store.add("unused", {1, 1, 1, 2}, Init::constant(1));
  const Var loss = total(tape, scaled(tape, tape.parameter(store, used), 2, nullptr, nullptr));
  store.allocate(0);
  std::fill_n(store.grad(unused).data, 2, 99.f);
  Plan plan(tape, {{loss}, loss, {&store}, {}, true}, workspace());
  plan.forward(stream);
  plan.backward(stream);
  EXPECT_EQ(*plan.value(loss).data, 12);
  EXPECT_EQ(store.grad(used).data[1], 2);
  EXPECT_EQ(store.grad(unused).data[0], 0);
  EXPECT_EQ(store.grad(unused).data[1], 0);
}

TEST(Plan, InferenceSharesMemoryOfTensorsThatNeverLiveTogether) {
  Tape tape;
  ParameterStore store;
  const int index = store.add("x", {1, 1, 1, 1024}, Init::constant(1));
  store.allocate(0);
  Var y = tape.parameter(store, index);
  for (int i = 0; i < 20; ++i) y = relu(tape, y);
  const Var loss = total(tape, y);
  const Plan inference(tape, {.outputs = {loss}}, workspace());
  const Plan training(tape, {{loss}, loss, {&store}, {}, true}, workspace());
  EXPECT_LE(inference.bytes(), size_t{3} * 4096);
  EXPECT_GE(training.bytes(), size_t{20} * 4096);
}

// y = x^2, whose gradient may stand where x does; tells whether it did.
Var squared(Tape& tape, Var x, bool in_place, bool* shared) {
  const Var y = tape.activation(tape.shape(x));
  tape.record({.name = "squared",
               .inputs = {x},
               .outputs = {y},
               .saved = {x},
               .forward =
                   [](lanas::Run& run) {
                     for (int c = 0; c < run.in(0).c; ++c)
                       run.out(0).data[c] = run.in(0).data[c] * run.in(0).data[c];
                   },
               .backward =
                   [shared](lanas::Run& run) {
                     *shared |= run.in(0).data == run.grad_in(0).data;
                     for (int c = 0; c < run.in(0).c; ++c) {
                       const float dx = 2 * run.in(0).data[c] * run.grad_out(0).data[c];
                       run.grad_in(0).data[c] = dx + (run.beta(0) != 0 ? run.grad_in(0).data[c] : 0);
                     }
                   },
               .in_place = in_place});
  return y;
}

TEST(Plan, GradientsTakeOverTheMemoryOfValuesThatAreReadNoMore) {
  constexpr int kChannels = 1024;
  Stream stream;
  for (const bool read_again : {false, true})
    for (const bool in_place : {false, true})
      for (const bool kept : {false, true}) {  // a is read after backward
        Tape tape;
        bool shared = false;
        const Var x = filled(tape, std::vector<float>(kChannels, 3.f));
        const Var a = scaled(tape, x, 2, nullptr, nullptr);
        std::vector<Var> terms = {squared(tape, a, in_place, &shared)};
        if (read_again) terms.push_back(squared(tape, a, in_place, &shared));
        const Var loss = total(tape, sum(tape, terms));
        std::vector<Var> outputs;
        if (kept) outputs.push_back(a);
        Plan plan(tape, {outputs, loss, {}, {x}, true}, workspace());
        plan.forward(stream);
        plan.backward(stream);
        for (int c = 0; c < kChannels; ++c) ASSERT_EQ(plan.grad(x).data[c], read_again ? 48 : 24) << c;
        for (int c = 0; kept && c < kChannels; ++c) ASSERT_EQ(plan.value(a).data[c], 6) << c;
        EXPECT_EQ(shared, in_place && !read_again && !kept);
      }
}

TEST(Plan, PlansShareOneWorkspaceAndReplayToTheSameBits) {
  Stream stream;
  Tape tape;
  ParameterStore store;
  const Var w = tape.parameter(store, store.add("w", {7, 1, 1, 5}, Init::normal(1)));
  const Var x = tape.input({3, 1, 1, 5});
  store.allocate(2);
  Random random(3);
  for (int i = 0; i < 15; ++i) tape.data(x).data[i] = random.normal();
  const Var y = softmax(tape, relu(tape, linear(tape, x, w, {})), {7});
  const Var loss = linear(tape, mean_rows(tape, y), filled(tape, {1, 2, 3, 4, 5, 6, 7}), {});
  auto shared = workspace();
  Plan small(tape, {.outputs = {y}}, shared);
  small.forward(stream);
  Plan large(tape, {{loss}, loss, {&store}, {}, true}, shared);  // the workspace grows and moves
  std::vector<float> first(35);
  for (int repeat = 0; repeat < 3; ++repeat) {
    large.forward(stream);
    large.backward(stream);
    if (repeat == 0) std::copy_n(store.grad(0).data, 35, first.data());
    EXPECT_EQ(std::memcmp(first.data(), store.grad(0).data, 35 * sizeof(float)), 0);
    small.forward(stream);
    float sum = 0;
    for (int c = 0; c < 7; ++c) sum += small.value(y).data[c];
    EXPECT_NEAR(sum, 1, 1e-6);
  }
}

TEST(Plan, RefusesWhatCannotWork) {
  Tape tape;
  const Var x = filled(tape, {1, 2});
  const Var loss = total(tape, x);
  EXPECT_THROW(Plan(tape, {{loss}, loss, {}, {}, true}, workspace()), Error);  // nothing wanted
  EXPECT_THROW(tape.slice(x, 1, 3), Error);
  const Var y = tape.activation({1, 1, 1, 2});
  tape.record(
      {.name = "forgetful",
       .inputs = {x},
       .outputs = {y},
       .saved = {},
       .forward = [](lanas::Run& run) { copy_scaled(run.stream, run.out(0), run.in(0), 1, 0); },
       .backward =
           [](lanas::Run& run) { copy_scaled(run.stream, run.grad_in(0), run.out(0), 1, run.beta(0)); }});
  const Var other = total(tape, y);
  Plan plan(tape, {{other}, other, {}, {x}, true}, workspace());
  Stream stream;
  plan.forward(stream);
  EXPECT_THROW(plan.backward(stream), Error);  // reads an output it has not saved
}

}  // namespace
}  // namespace lanas::test
