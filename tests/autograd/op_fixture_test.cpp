// Every op on the tape, and both optimisers, against an independent PyTorch program: values and gradients.
// A case names its tensors; each that the fixture holds for it is either given to the op or compared.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "autograd/ops.h"
#include "autograd/optimizer.h"
#include "autograd/plan.h"
#include "tests/support/dot_loss.h"
#include "tests/support/fixture.h"
#include "tests/support/fixture_device.h"

namespace lanas::test {
namespace {

constexpr double kTolerance = kDevice == Device::cpu ? 1e-5 : 1e-4;
constexpr float kEps = 1e-5f;  // of batch norm

const Fixture& op_fixture() {
  static const Fixture ops("ops");
  return ops;
}

// One case while it is recorded and compared.
class OpCase {
 public:
  explicit OpCase(const std::string& name) : name_(name) {}

  // An input of the case; its gradient is compared where the fixture has one. Another shape of as many
  // numbers may be asked for.
  Var in(const std::string& part, Shape shape = {0, 0, 0, 0}) {
    if (Var& known = inputs_[part]) return known;
    const TensorFile::Entry& entry = use(part);
    if (shape.n == 0) shape = entry.shape;
    const Var v = tape.input(shape);
    std::copy(entry.values.begin(), entry.values.end(), tape.data(v).data);
    return inputs_[part] = v;
  }
  Var labels() {
    const TensorFile::Entry& entry = use("labels");
    const Var v = tape.input({int(entry.values.size()), 1, 1, 1});
    op_fixture().copy_labels_to(full("labels"), tape.data(v));
    return v;
  }
  float number(const std::string& part) { return use(part).values.at(0); }
  Var filled(Shape shape, float value) {
    const Var v = tape.input(shape);
    std::fill_n(tape.data(v).data, tape.data(v).size(), value);
    return v;
  }
  RunningMoments fresh_running(int c) { return {filled({1, 1, 1, c}, 0), filled({1, 1, 1, c}, 1)}; }

  void also(const std::string& part, Var v) { outputs_[part] = v; }  // an output besides y
  void also_moved(const RunningMoments& running) {                   // what a training pass moves
    also("running_mean", running.mean);
    also("running_var", running.var);
  }
  void also_variance(Var inv_std) { inv_std_ = inv_std; }

  void check(Var y) {
    const bool is_loss = !op_fixture().has(full("dy"));
    const Var loss = is_loss ? y : dot_loss(tape, y, dy(tape.shape(y)));
    std::vector<Var> wanted, outputs = {y, loss};
    for (const auto& [part, v] : inputs_)
      if (op_fixture().has(full("grad." + part)) && !without_gradient.count(part)) wanted.push_back(v);
    for (const auto& [part, v] : outputs_) outputs.push_back(v);
    if (inv_std_) outputs.push_back(inv_std_);
    Plan plan(tape, {outputs, loss, {}, wanted, training}, std::make_shared<Workspace>(kDevice));
    plan.update_statistics = training;
    Stream stream(kDevice);
    plan.forward(stream);
    plan.backward(stream);
    compare("y", plan.value(y));
    for (const auto& [part, v] : outputs_) compare(part, plan.value(v));
    if (inv_std_) compare_variance(plan.value(inv_std_));
    for (const auto& [part, v] : inputs_)
      if (op_fixture().has(full("grad." + part)) && !without_gradient.count(part))
        compare("grad." + part, plan.grad(v));
    for (const std::string& part : without_gradient) used_.insert(full("grad." + part));
    for (const auto& [name, entry] : op_fixture().tensors()) {
      if (!name.starts_with(full(""))) continue;
      EXPECT_TRUE(used_.count(name)) << name << " was not compared";
    }
  }

  DeviceMemory open;
  Tape tape{kDevice};
  bool training = true;
  std::set<std::string> without_gradient;  // inputs whose gradient the engine does not offer in this case

 private:
  std::string full(const std::string& part) const { return name_ + "." + part; }
  const TensorFile::Entry& use(const std::string& part) {
    used_.insert(full(part));
    return op_fixture().entry(full(part));
  }
  Var dy(Shape shape) {
    const TensorFile::Entry& entry = use("dy");
    const Var v = tape.input(shape);
    CHECK(int64_t(entry.values.size()) == shape.size(), name_, ": dy ", entry.shape, ", y ", shape);
    std::copy(entry.values.begin(), entry.values.end(), tape.data(v).data);
    return v;
  }
  // Packed tensors, in the shape that the fixture gives them.
  void compare(const std::string& part, Tensor found) {
    const Shape shape = use(part).shape;
    ASSERT_EQ(found.size(), shape.size()) << full(part);
    expect_match(op_fixture(), full(part), Tensor(found.data, shape), kTolerance);
  }
  void compare_variance(Tensor inv_std) {
    std::vector<float> variance;
    for (int c = 0; c < inv_std.c; ++c) variance.push_back(1 / (inv_std.data[c] * inv_std.data[c]) - kEps);
    compare("variance", Tensor(variance.data(), inv_std.shape()));
  }

  std::string name_;
  std::map<std::string, Var> inputs_, outputs_;
  Var inv_std_;
  std::set<std::string> used_;
};

using Record = std::function<Var(OpCase&)>;

void add_convolutions(std::map<std::string, Record>& cases) {
  struct Depthwise {
    const char* name;
    int kernel, stride, dilation;
  };
  const Depthwise depthwise[] = {{"3x3_s1", 3, 1, 1},         {"5x5_s1", 5, 1, 1},
                                 {"5x5_s2", 5, 2, 1},         {"3x3_dilated_s1", 3, 1, 2},
                                 {"3x3_dilated_s2", 3, 2, 2}, {"5x5_dilated_s2", 5, 2, 2}};
  for (const Depthwise& d : depthwise)
    cases[join("depthwise_", d.name)] = [d](OpCase& c) {
      const int padding = d.dilation * (d.kernel - 1) / 2;
      return depthwise_conv(c.tape, c.in("x"), c.in("weight"), {d.stride, padding, d.dilation});
    };
  struct Dense {
    const char* name;
    int stride, padding;
  };
  const Dense dense[] = {{"pointwise", 1, 0},
                         {"pointwise_s2", 2, 0},
                         {"conv_3x3_s1", 1, 1},
                         {"conv_3x3_s2", 2, 1},
                         {"conv_2x2", 1, 0}};
  for (const Dense& d : dense)
    cases[d.name] = [d](OpCase& c) {
      return conv2d(c.tape, c.in("x"), c.in("weight"), {d.stride, d.padding, 1});
    };
  cases["factorized_reduce"] = [](OpCase& c) {
    const Var y = c.tape.activation({2, 3, 4, 6});
    for (int half = 0; half < 2; ++half) {
      Separable unit;
      unit.pointwise = c.in(half ? "conv2" : "conv1");
      unit.stride = 2;
      unit.offset = half;
      const Norm norm{c.tape.statistic({1, 1, 1, 3}), c.tape.statistic({1, 1, 1, 3}), {}, {}};
      separable_conv(c.tape, {c.in("x"), {}}, unit, c.fresh_running(3),
                     {c.tape.slice(y, 3 * half, 3 * half + 3), norm});
    }
    return y;
  };
}

// [ReLU, depthwise, pointwise, BN] once or twice; the second unit normalises its input on the way in.
void add_units(std::map<std::string, Record>& cases) {
  for (int kernel : {3, 5})
    for (int dilation : {1, 2})
      for (int stride : {1, 2})
        cases[join("unit_", dilation == 1 ? "sep_" : "dil_", kernel, "x", kernel, "_s", stride)] =
            [=](OpCase& c) {
              const Normalised unit = separable_conv(
                  c.tape, {c.in("x"), {}}, {c.in("depthwise"), c.in("pointwise"), stride, dilation, 0},
                  c.fresh_running(4));
              c.also("raw", unit.x);
              c.also("mean", unit.norm.mean);
              c.also_variance(unit.norm.inv_std);
              return normalise(c.tape, unit.x, unit.norm);
            };
  for (int kernel : {3, 5})
    for (int stride : {1, 2})
      cases[join("sep_conv_", kernel, "x", kernel, "_s", stride)] = [=](OpCase& c) {
        const Normalised half =
            separable_conv(c.tape, {c.in("x"), {}}, {c.in("depthwise1"), c.in("pointwise1"), stride, 1, 0},
                           c.fresh_running(4));
        const Normalised unit = separable_conv(
            c.tape, half, {c.in("depthwise2"), c.in("pointwise2"), 1, 1, 0}, c.fresh_running(4));
        return normalise(c.tape, unit.x, unit.norm);
      };
}

void add_norms_and_pools(std::map<std::string, Record>& cases) {
  for (bool affine : {false, true})
    cases[affine ? "batch_norm_affine" : "batch_norm"] = [affine](OpCase& c) {
      const RunningMoments running = c.fresh_running(5);
      c.also_moved(running);
      Norm norm = batch_statistics(c.tape, c.in("x"), running);
      if (affine) {
        norm.gamma = c.in("gamma");
        norm.beta = c.in("beta");
      }
      return normalise(c.tape, c.in("x"), norm);
    };
  cases["batch_norm_eval"] = [](OpCase& c) {
    c.training = false;
    c.without_gradient = {"x"};  // the engine differentiates batch norm by batch statistics only
    Norm norm = batch_statistics(c.tape, c.in("x"), {c.in("running_mean"), c.in("running_var")});
    norm.gamma = c.in("gamma");
    norm.beta = c.in("beta");
    return normalise(c.tape, c.in("x"), norm);
  };
  struct Pool {
    const char* name;
    int kernel, stride, padding;
  };
  const Pool pools[] = {{"3x3_s1", 3, 1, 1}, {"3x3_s2", 3, 2, 1}, {"2x2_s2", 2, 2, 0}, {"5x5_s3", 5, 3, 0}};
  for (bool max : {true, false})
    for (const Pool& p : pools)
      cases[join(max ? "max" : "avg", "_pool_", p.name)] = [max, p](OpCase& c) {
        return (max ? max_pool : avg_pool)(c.tape, c.in("x"), p.kernel, p.stride, p.padding, {});
      };
  cases["global_pool"] = [](OpCase& c) { return global_average_pool(c.tape, c.in("x")); };
}

void add_elementwise_and_rows(std::map<std::string, Record>& cases) {
  cases["relu"] = [](OpCase& c) { return relu(c.tape, c.in("x")); };
  cases["channel_shuffle"] = [](OpCase& c) {
    return channel_shuffle(c.tape, c.tape.slice(c.in("x"), 0, 3), {c.tape.slice(c.in("x"), 3, 12)});
  };
  cases["linear"] = [](OpCase& c) { return linear(c.tape, c.in("x"), c.in("weight"), c.in("bias")); };
  // As alpha stands on the tape: one row of 14 segments.
  const Shape row{1, 1, 1, 14 * 8};
  const std::vector<int> segments(14, 8);
  cases["softmax"] = [=](OpCase& c) { return softmax(c.tape, c.in("x", row), segments); };
  cases["softmax_temperature"] = [=](OpCase& c) {
    const Var scaled = weighted_sum(c.tape, {c.in("x", row)}, {1 / c.number("temperature")});
    return softmax(c.tape, scaled, segments);
  };
  for (bool smoothed : {false, true})
    cases[smoothed ? "cross_entropy_smoothed" : "cross_entropy"] = [smoothed](OpCase& c) {
      return cross_entropy(c.tape, c.in("x"), c.labels(), smoothed ? 0.1f : 0);
    };
  cases["drop_path"] = [](OpCase& c) {
    const Var mask = c.in("mask");
    const Tensor t = c.tape.data(mask);
    const float keep = 1 - c.number("probability");
    for (int64_t i = 0; i < t.size(); ++i) t.data[i] /= keep;
    return drop_path(c.tape, c.in("x"), mask);
  };
  for (bool skip : {false, true})
    cases[skip ? "mixed_sum_skip" : "mixed_sum"] = [skip](OpCase& c) {
      std::vector<MixedTerm> terms;
      for (int k = 0; k < 3; ++k) {
        const Var x = c.in(join("term", k));
        terms.push_back({{x, batch_statistics(c.tape, x, c.fresh_running(6))}, k});
      }
      if (skip) terms.push_back({{c.in("term3"), {}}, 3});
      return mixed_sum(c.tape, terms, c.in("weights"));
    };
}

const std::map<std::string, Record>& op_cases() {
  static const std::map<std::string, Record> all = [] {
    std::map<std::string, Record> cases;
    add_convolutions(cases);
    add_units(cases);
    add_norms_and_pools(cases);
    add_elementwise_and_rows(cases);
    return cases;
  }();
  return all;
}

std::vector<std::string> names_of_op_cases() {
  std::vector<std::string> names;
  for (const auto& [name, record] : op_cases()) names.push_back(name);
  return names;
}

class OpFixture : public testing::TestWithParam<std::string> {};

TEST_P(OpFixture, ValueAndGradientsMatch) {
  OpCase c(GetParam());
  c.check(op_cases().at(GetParam())(c));
}

INSTANTIATE_TEST_SUITE_P(Ops, OpFixture, testing::ValuesIn(names_of_op_cases()),
                         [](const auto& test) { return test.param; });

TEST(OpFixtureList, EveryCaseIsCovered) {
  std::set<std::string> expected, found = {"sgd", "adam"};
  for (const auto& [name, entry] : op_fixture().tensors()) expected.insert(name.substr(0, name.find('.')));
  for (const auto& [name, record] : op_cases()) found.insert(name);
  EXPECT_EQ(found, expected);
}

// Three steps from given gradients; `before_step` sees the gradient of each.
template <class Optimizer>
void expect_three_steps(const std::string& name, Stream& stream, const ParameterStore& store,
                        Optimizer& optimizer, const std::function<void(const std::string&)>& before_step) {
  for (int step = 1; step <= 3; ++step) {
    op_fixture().copy_to(join(name, ".grad", step), store.grad(0));
    before_step(std::to_string(step));
    optimizer.step(stream);
    expect_match(op_fixture(), join(name, ".w", step), store.value(0), kTolerance);
  }
}

class OptimizerFixture : public testing::Test {
 protected:
  void start(const std::string& name) {
    store_.add("w", op_fixture().entry(name + ".w").shape, Init::constant(0));
    store_.allocate(1);
    op_fixture().copy_to(name + ".w", store_.value(0));
  }
  DeviceMemory open_;
  Stream stream_{kDevice};
  ParameterStore store_{kDevice};
};

TEST_F(OptimizerFixture, SgdWithClippingMatches) {
  start("sgd");
  Sgd sgd(store_, 0.9f, 3e-4f, 5);
  sgd.set_lr(0.025f);
  expect_three_steps("sgd", stream_, store_, sgd, [&](const std::string& step) {
    const float norm = op_fixture().scalar("sgd.norm" + step);
    EXPECT_EQ(norm > 5, step == "1");
    float scale = 0;  // that brings the norm to 1e-3
    clip_scale(stream_, &scale, store_.grads(), store_.slab_floats(), 1e-3f);
    EXPECT_NEAR(1e-3f / scale, norm, kTolerance * norm);
  });
}

TEST_F(OptimizerFixture, AdamMatches) {
  start("adam");
  Adam adam(store_, 3e-4f, 0.5f, 0.999f, 1e-3f);
  expect_three_steps("adam", stream_, store_, adam, [](const std::string&) {});
}

}  // namespace
}  // namespace lanas::test
