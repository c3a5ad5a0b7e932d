// Single cells against an independent PyTorch program: output, every gradient, every running statistic.
#include <gtest/gtest.h>

#include <set>

#include "autograd/plan.h"
#include "nas/cell.h"
#include "tests/support/dot_loss.h"
#include "tests/support/fixture.h"
#include "tests/support/fixture_device.h"

namespace lanas::test {
namespace {

constexpr double kCellTolerance = kDevice == Device::cpu ? 1e-5 : 1e-4;
constexpr float kKeep = 0.7f;  // derived_reduce drops paths with probability 0.3

struct CellCase {
  const char* name;
  int channels, partial;  // partial 0: a derived cell
  bool reduction;
};

constexpr CellCase kCases[] = {{"darts_normal", 4, 1, false},     {"darts_reduce", 4, 1, true},
                               {"pc_darts_normal", 16, 4, false}, {"pc_darts_reduce", 16, 4, true},
                               {"derived_normal", 4, 0, false},   {"derived_reduce", 4, 0, true}};

const Fixture& fixture() {
  static const Fixture cells("cells");
  return cells;
}

class CellFixture : public testing::TestWithParam<CellCase> {
 protected:
  std::string full(const std::string& part) const { return join(GetParam().name, ".", part); }

  // An input filled from the fixture.
  Var input(const std::string& part) {
    const std::string name = full(part);
    const Var v = tape_.input(fixture().entry(name).shape);
    fixture().copy_to(name, tape_.data(v));
    compared_.insert(name);
    return v;
  }

  Var wanted(const std::string& part) {
    wanted_[part] = input(part);
    return wanted_[part];
  }

  // The fixture's masks are 0 and 1, by edge; those of the cell stand in the same order, already over `keep`.
  void load_drop_masks(const std::vector<Var>& masks) {
    size_t used = 0;
    for (int edge = 0; edge < kPairs; ++edge) {
      const std::string name = full(join("drop_path.", edge));
      if (!fixture().has(name)) continue;
      ASSERT_LT(used, masks.size());
      const Tensor mask = tape_.data(masks[used++]);
      fixture().copy_to(name, mask);
      for (int64_t i = 0; i < mask.size(); ++i) mask.data[i] /= kKeep;
      compared_.insert(name);
    }
    EXPECT_EQ(used, masks.size());
  }

  Var build(Var s0, Var s1) {
    const CellCase& c = GetParam();
    Builder b{tape_, weights_, buffers_};
    const CellPlace place{c.channels, c.reduction, !c.reduction};
    if (c.partial) {
      const Var alpha = wanted("alpha");
      const Mixing mixing = mixing_weights(tape_, alpha, c.partial > 1 ? wanted("beta") : Var{});
      return supernet_cell(b, "", place, c.partial, mixing, s0, s1);
    }
    const Genotype g = resolve_genotype("DARTS_V2");
    std::vector<Var> masks;
    const Var y =
        derived_cell(b, "", c.reduction ? g.reduce : g.normal, place, s0, s1, c.reduction ? &masks : nullptr);
    load_drop_masks(masks);
    return y;
  }

  void compare(const std::string& part, Tensor found) {
    expect_match(fixture(), full(part), found, kCellTolerance);
    compared_.insert(full(part));
  }

  DeviceMemory open_;
  Stream stream_{kDevice};
  Tape tape_{kDevice};
  ParameterStore weights_{kDevice}, buffers_{kDevice};
  std::map<std::string, Var> wanted_;
  std::set<std::string> compared_;  // the fixture's tensors that were given to the cell or compared with it
};

TEST_P(CellFixture, OutputGradientsAndRunningStatisticsMatch) {
  const Var s0 = wanted("s0"), s1 = wanted("s1");
  const Var y = build(s0, s1);
  const Var loss = dot_loss(tape_, y, input("dy"));
  weights_.allocate(1);
  buffers_.allocate(1);
  ASSERT_EQ(fixture().copy_to(full(""), weights_), int(weights_.entries().size()));
  std::vector<Var> inputs;
  for (const auto& [name, v] : wanted_) inputs.push_back(v);
  Plan plan(tape_, {{y, loss}, loss, {&weights_}, inputs, true}, std::make_shared<Workspace>(kDevice));
  plan.update_statistics = true;
  plan.forward(stream_);
  plan.backward(stream_);

  compare("y", plan.value(y));
  for (const auto& [name, v] : wanted_) compare("grad." + name, plan.grad(v));
  for (size_t i = 0; i < weights_.entries().size(); ++i) {
    compared_.insert(full(weights_.entries()[i].name));
    compare("grad." + weights_.entries()[i].name, weights_.grad(int(i)));
  }
  for (size_t i = 0; i < buffers_.entries().size(); ++i) {
    const std::string& name = buffers_.entries()[i].name;
    if (name.starts_with("states.")) {
      EXPECT_FALSE(fixture().has(full(name))) << name;  // the pools' batch norms
    } else {
      compare(name, buffers_.value(int(i)));
    }
  }
  for (const auto& [name, entry] : fixture().tensors()) {
    if (!name.starts_with(full(""))) continue;
    EXPECT_TRUE(compared_.count(name)) << name << " was not compared";
  }
}

INSTANTIATE_TEST_SUITE_P(Cells, CellFixture, testing::ValuesIn(kCases),
                         [](const auto& test) { return test.param.name; });

TEST(CellFixtureList, EveryCaseIsCovered) {
  std::set<std::string> expected, found;
  for (const auto& [name, entry] : fixture().tensors()) expected.insert(name.substr(0, name.find('.')));
  for (const CellCase& c : kCases) found.insert(c.name);
  EXPECT_EQ(found, expected);
}

// A name only stands before the parameters' names; bits and order stay.
TEST(Cell, NamesArePrefixed) {
  const Genotype g = resolve_genotype("DARTS_V2");
  std::vector<std::string> names[2];
  for (int named = 0; named < 2; ++named) {
    Tape tape;
    ParameterStore weights, buffers;
    Builder b{tape, weights, buffers};
    const Var x = tape.input({1, 4, 4, 8});
    derived_cell(b, named ? "cells.3" : "", g.normal, {4, false, false}, x, x, nullptr);
    for (const auto& entry : weights.entries()) names[named].push_back(entry.name);
  }
  ASSERT_EQ(names[0].size(), names[1].size());
  EXPECT_EQ(names[0][0], "preprocess0.conv");
  for (size_t i = 0; i < names[0].size(); ++i) EXPECT_EQ(names[1][i], "cells.3." + names[0][i]);
}

TEST(Cell, RejectsChannelsThatPartialDoesNotDivide) {
  Tape tape;
  ParameterStore weights, buffers;
  Builder b{tape, weights, buffers};
  const Var x = tape.input({1, 4, 4, 8});
  const Mixing mixing = mixing_weights(tape, tape.input({1, 1, 1, kEdges * kOps}), {});
  EXPECT_THROW(supernet_cell(b, "", {6, false, false}, 4, mixing, x, x), Error);
}

}  // namespace
}  // namespace lanas::test
