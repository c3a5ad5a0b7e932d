// op_case_test.cpp -- every op's cases: cpu against cuda in three thread orders, |a - b| <= 1e-6 + 1e-5
// sqrt(reduction) max(|b|, rms of the tensor), with TF32 5e-3 max(...) in its place; the same bits
// in every order; a replay of the recorded run, under new inputs, equal to the eager run. And that every op
// has a case and a gradient check.
#include "tests/support/op_case.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "kernels/core/graph.h"
#include "kernels/core/precision.h"
#ifdef LANAS_EMULATE
#include "kernels/core/simt.h"
#endif

namespace lanas::test {
namespace {

namespace fs = std::filesystem;
using Results = std::vector<CaseResult>;

Results run_case(const OpCase& one, Device device, bool add, int content) {
  Stream stream(device, 1);
  CaseBuilder builder(device, add);
  one.build(builder);
  builder.finish();
  builder.reset(stream, content);
  builder.run(stream);
  return builder.results(stream);
}

double rms(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum / double(values.size()));
}

// Operands are rounded by up to 2^-11: a sum of products is off by some 4e-4 of its size, the worst of half a
// million sums of 8 by ten times as much.
constexpr double kTf32Tolerance = 5e-3;

// TF32 as a case wants it, while this lives.
void expect_close(const Results& found, const Results& expected, double relative) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const std::vector<double>&a = found[i].values, &b = expected[i].values;
    ASSERT_EQ(a.size(), b.size());
    const double level = rms(b);
    int bad = 0;
    for (size_t k = 0; k < a.size(); ++k) {
      const double limit = 1e-6 + relative * std::max(std::abs(b[k]), level);
      if (std::abs(a[k] - b[k]) <= limit) continue;  // NaN is not
      if (++bad <= 3)
        ADD_FAILURE() << found[i].name << "[" << k << "]: " << a[k] << ", expected " << b[k] << " +- "
                      << limit;
    }
    EXPECT_EQ(bad, 0) << "of " << a.size() << " elements of " << found[i].name;
  }
}

void expect_same_bits(const Results& found, const Results& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].values, expected[i].values) << found[i].name;
}

#ifdef LANAS_EMULATE
using simt::ScopedSettings, simt::Settings, simt::Order;
const Settings kOrders[] = {{Order::forward, 0}, {Order::reverse, 0}, {Order::shuffled, 1}};
#else  // a real device has its own order: three times the same bits
struct Settings {
  int order;
};
struct ScopedSettings {
  explicit ScopedSettings(Settings) {}
};
constexpr Settings kOrders[] = {{0}, {1}, {2}};
#endif

class OpCaseTest : public testing::TestWithParam<OpCase> {};

TEST_P(OpCaseTest, CudaEqualsCpuInThreeThreadOrders) {
  const OpCase& one = GetParam();
  const ScopedTf32 precision(one.tf32);
  for (const bool add : {false, true}) {
    SCOPED_TRACE(add ? "adding to gradients" : "overwriting gradients");
    const Results expected = run_case(one, Device::cpu, add, 0);
    Results first;
    for (const Settings order : kOrders) {
      SCOPED_TRACE(join("thread order ", int(order.order)));
      const ScopedSettings scope(order);
      const Results found = run_case(one, Device::cuda, add, 0);
      if (one.same_bits)
        expect_same_bits(found, expected);
      else
        expect_close(found, expected, one.tf32 ? kTf32Tolerance : 1e-5 * std::sqrt(one.reduction));
      if (first.empty()) first = found;
      expect_same_bits(found, first);
    }
  }
}

TEST_P(OpCaseTest, ReplayEqualsEager) {
  const OpCase& one = GetParam();
  const ScopedTf32 precision(one.tf32);
  const Results expected = run_case(one, Device::cuda, false, 1);
  Stream stream(Device::cuda, 1);
  CaseBuilder builder(Device::cuda, false);
  one.build(builder);
  builder.finish();
  builder.reset(stream, 0);
  builder.run(stream);  // libraries set themselves up before the recording
  Graph graph;
  graph.record(stream, [&] { builder.run(stream); });
  graph.replay(stream);
  builder.reset(stream, 1);
  graph.replay(stream);
  expect_same_bits(builder.results(stream), expected);
}

TEST(OpCaseList, Tf32IsTaken) {
  for (const OpCase& one : all_op_cases()) {
    if (!one.tf32) continue;
    const Results without = run_case(one, Device::cuda, false, 0);
    const ScopedTf32 precision(true);
    const Results with = run_case(one, Device::cuda, false, 0);
    for (size_t i = 0; i < with.size(); ++i) {
      if (!with[i].name.starts_with("output")) continue;
      EXPECT_NE(with[i].values, without[i].values) << one.op << " " << one.name << ": " << with[i].name;
    }
  }
}

std::string test_name(const testing::TestParamInfo<OpCase>& info) {
  std::string name = info.param.op + "_" + info.param.name;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Ops, OpCaseTest, testing::ValuesIn(all_op_cases()), test_name);

std::string read_file(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Every kernels/ops/NAME.cu with a NAME.h, which the parts of an op do not have, and vendor/NAME.h.
std::set<std::string> all_ops() {
  std::set<std::string> names = {"gemm", "conv2d"};
  for (const auto& entry : fs::directory_iterator(fs::path(LANAS_SOURCE_DIR) / "kernels/ops"))
    if (entry.path().extension() == ".cu" && fs::exists(fs::path(entry.path()).replace_extension(".h")))
      names.insert(entry.path().stem());
  return names;
}

TEST(OpCaseList, EveryOpHasACase) {
  std::set<std::string> covered;
  for (const OpCase& one : all_op_cases()) covered.insert(one.op);
  for (const std::string& op : all_ops())
    EXPECT_TRUE(covered.contains(op)) << "kernels/ops/" << op << ".cu has no OpCase in tests/emulated";
}

TEST(OpCaseList, EveryOpHasAGradientCheck) {
  const std::set<std::string> without_gradient = {"add_bias", "augment", "optimizer", "shuffle", "gemm"};
  for (const std::string& op : all_ops()) {
    if (without_gradient.contains(op)) continue;
    const fs::path path = fs::path(LANAS_SOURCE_DIR) / "tests/kernels" / (op + "_test.cpp");
    EXPECT_NE(read_file(path).find("gradcheck("), std::string::npos) << path;
  }
}

}  // namespace
}  // namespace lanas::test
