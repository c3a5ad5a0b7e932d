#include "predictor/transfer_report.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "autograd/plan.h"
#include "kernels/core/check.h"
#include "predictor/linear.h"
#include "predictor/mlp.h"

namespace lanas {
namespace {

std::vector<double> predict_mlp(const TrainedMlp& net, const Dataset& rows) {
  constexpr int kBatch = 256;
  Stream stream(Device::cpu, 1);
  Tape tape;
  const Var x = tape.input({kBatch, 1, 1, rows.columns});
  const Var u = apply_mlps(tape, net.mlp, {""}, x);
  PlanOptions options;
  options.outputs = {u};
  Plan plan(tape, options, std::make_shared<Workspace>());
  const Tensor in = tape.data(x);
  std::fill_n(in.data, in.size(), 0.f);
  std::vector<double> out;
  for (int begin = 0; begin < rows.rows; begin += kBatch) {
    const int used = std::min(kBatch, rows.rows - begin);
    std::copy_n(rows.row(begin), int64_t{used} * rows.columns, in.data);
    plan.forward(stream);
    for (int i = 0; i < used; ++i) out.push_back(net.centre + net.scale * double(*plan.value(u).pixel(i)));
  }
  return out;
}

// The cheapest and dearest things measured bound what a wild extrapolation may say: to a fifth and five
// times.
std::vector<double> bounded(std::vector<double> predicted, const std::vector<double>& seen) {
  const auto [low, high] = std::minmax_element(seen.begin(), seen.end());
  for (double& p : predicted) p = std::clamp(p, *low / 5, *high * 5);
  return predicted;
}

}  // namespace

std::vector<double> mlp_from_scratch(const Dataset& train, const Dataset& test, uint64_t seed) {
  constexpr int kMembers = 4;
  CHECK(train.rows >= kMembers, "mlp_from_scratch: ", train.rows, " rows, expected at least ", kMembers);
  const std::vector<int> order = shuffled(train.rows, seed);
  double mean = 0, variance = 0;
  for (const double y : train.y) mean += y / train.rows;
  for (const double y : train.y) variance += (y - mean) * (y - mean) / train.rows;
  std::vector<double> out(size_t(test.rows), 0.0);
  for (int k = 0; k < kMembers; ++k) {
    std::vector<int> rows, held_out;
    for (int i = 0; i < train.rows; ++i) (i % kMembers == k ? held_out : rows).push_back(order[size_t(i)]);
    MlpConfig config;
    config.seed = seed * 1000003u + uint64_t(k);
    const double scale = std::max(std::sqrt(variance), 1e-6 * std::abs(mean));
    const TrainedMlp net = train_mlp(train, rows, held_out, nullptr, scale, 0.05, config);
    const std::vector<double> predicted = predict_mlp(net, test);
    for (size_t i = 0; i < out.size(); ++i) out[i] += predicted[i] / kMembers;
  }
  return out;
}

std::vector<TransferResult> transfer_report(const TransferRows& candidates, const TransferRows& test,
                                            const std::vector<int>& group, const TransferOptions& options,
                                            std::vector<int>* chosen) {
  CHECK(!options.samples.empty() && options.samples.front() >= 4 &&
            std::is_sorted(options.samples.begin(), options.samples.end()),
        "transfer: expected ascending numbers of samples, of at least 4");
  CHECK(options.samples.back() <= candidates.code.rows, "transfer: ", options.samples.back(), " samples of ",
        candidates.code.rows, " candidates");
  const std::vector<double>& truth = test.code.y;
  Transfer model(candidates, group);
  const std::vector<int> order = model.choose(options.samples.back());
  if (chosen) *chosen = order;
  const std::vector<int> random = shuffled(candidates.code.rows, options.seed);
  const Dataset counts = count_features(candidates.code, group),
                test_counts = count_features(test.code, group);
  std::vector<TransferResult> results;
  for (const int k : options.samples) {
    const std::vector<int> mine(order.begin(), order.begin() + k), other(random.begin(), random.begin() + k);
    const auto add = [&](const char* name, const std::vector<double>& predicted,
                         const std::vector<double>& y) {
      results.push_back({k, name, evaluate(bounded(predicted, y), truth)});
    };
    const auto ridge = [&](const char* name, const Dataset& from, const Dataset& to,
                           const std::vector<int>& rows) {
      const Dataset train = take_rows(from, rows);
      add(name, fit_ridge(train).predict(to), train.y);
    };
    const Dataset measured = take_rows(candidates.code, mine);
    model.adapt(mine, measured.y);
    add("transfer", model.predict(test), measured.y);
    if (options.mlp) {
      const Dataset train = take_rows(candidates.code, other);
      add("mlp", mlp_from_scratch(train, test.code, options.seed), train.y);
    }
    ridge("ridge", candidates.code, test.code, other);
    ridge("counts", counts, test_counts, other);
    ridge("ridge, chosen", candidates.code, test.code, mine);
    ridge("counts, chosen", counts, test_counts, mine);
  }
  return results;
}

}  // namespace lanas
