#include "predictor/regressor.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <optional>

#include "autograd/checkpoint.h"
#include "autograd/plan.h"
#include "kernels/core/timing.h"
#include "predictor/linear.h"
#include "predictor/metrics.h"

namespace lanas {
namespace {

struct Fold {
  std::vector<int> train, held_out;
};

// Fold k of `folds`; an architecture is on one side as a whole.
std::vector<Fold> make_folds(const Dataset& data, int folds, uint64_t seed) {
  const std::vector<int> architecture = architecture_of_row(data);
  const int count = 1 + *std::max_element(architecture.begin(), architecture.end());
  CHECK(count >= folds, "Regressor::fit: ", count, " different architectures for ", folds, " folds");
  const std::vector<int> order = shuffled(count, seed);
  std::vector<int> fold_of(order.size());
  for (size_t i = 0; i < order.size(); ++i) fold_of[size_t(order[i])] = int(i) % folds;
  std::vector<Fold> out(static_cast<size_t>(folds));
  for (int r = 0; r < data.rows; ++r)
    for (int f = 0; f < folds; ++f) {
      Fold& fold = out[size_t(f)];
      (fold_of[size_t(architecture[size_t(r)])] == f ? fold.held_out : fold.train).push_back(r);
    }
  return out;
}

// A member with the linear model it started from (zero weights and the mean where there is no skip).
struct Member {
  TrainedMlp net;
  LinearModel start;
};

// `all` is the linear model of all rows: its penalty and its error serve every member.
Member train_member(const Dataset& data, const LinearModel& all, const Fold& fold,
                    const RegressorConfig& config, int k, Device device) {
  const Dataset part = take_rows(data, fold.train);
  Member member;
  member.start = fit_ridge_with_penalty(part, all.penalty);
  double mean = 0, variance = 0;
  for (double y : part.y) mean += y / part.rows;
  for (double y : part.y) variance += (y - mean) * (y - mean) / part.rows;
  // The loss turns from squares to absolute values at a third of the linear model's error; the mlp's output
  // is in units of what it has to explain.
  const double delta = std::max(1e-4, 0.36 * mean_relative_error(member.start.predict(part), part.y));
  const double explain = config.skip ? all.cross_validated_mse : variance;
  const double scale = std::max(std::sqrt(explain), 1e-6 * std::abs(mean));
  MlpConfig mlp = config.mlp;
  mlp.seed = config.seed * 1000003u + uint64_t(k);
  member.net = train_mlp(data, fold.train, fold.held_out, config.skip ? &member.start : nullptr, scale, delta,
                         mlp, device);
  if (!config.skip) {
    member.start.weights.assign(member.start.weights.size(), 0.0);
    member.start.intercept = member.net.centre;
  }
  return member;
}

std::vector<Member> train_members(const Dataset& data, const LinearModel& all, const std::vector<Fold>& folds,
                                  int members, const RegressorConfig& config, Stream& stream) {
  std::vector<std::optional<Member>> trained(static_cast<size_t>(members));
  std::vector<std::exception_ptr> failed(static_cast<size_t>(members));
  const int threads = stream.device() == Device::cpu ? stream.threads() : 1;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int k = 0; k < members; ++k) {
    try {
      trained[size_t(k)] = train_member(data, all, folds[size_t(k)], config, k, stream.device());
    } catch (...) {
      failed[size_t(k)] = std::current_exception();
    }
  }
  stream.activate();
  std::vector<Member> out;
  for (size_t k = 0; k < trained.size(); ++k) {
    if (failed[k]) std::rethrow_exception(failed[k]);
    out.push_back(std::move(*trained[k]));
  }
  return out;
}

// Predictions for rows that the member has not seen: linear part and correction apart.
struct HeldOut {
  std::vector<double> actual, linear, correction;

  std::vector<double> shrunk(double s) const {
    std::vector<double> out(linear);
    for (size_t i = 0; i < out.size(); ++i) out[i] += s * correction[i];
    return out;
  }
  // The multiple of 0.1 with the smallest mean relative error; a correction must earn its place: at full
  // strength it has to be 1% better than none, since its stopping epoch was chosen on the same rows.
  double best_shrink() const {
    double best = HUGE_VAL, chosen = 0;
    for (int step = 0; step <= 10; ++step) {
      const double error = mean_relative_error(shrunk(0.1 * step), actual) * (1 + 0.001 * step);
      if (error < best) best = error, chosen = 0.1 * step;
    }
    return chosen;
  }
};

HeldOut held_out_predictions(const Dataset& data, const std::vector<Fold>& folds,
                             const std::vector<Member>& members) {
  HeldOut out;
  for (size_t k = 0; k < members.size(); ++k)
    for (size_t i = 0; i < folds[k].held_out.size(); ++i) {
      const int r = folds[k].held_out[i];
      out.actual.push_back(data.y[size_t(r)]);
      out.linear.push_back(members[k].start.predict(data.row(r)));
      out.correction.push_back(members[k].net.held_out[i] - out.linear.back());
    }
  return out;
}

std::string member_prefix(int k) { return join("members.", k, "."); }

// Writes linear + shrink * mean_k (member_k - start_k) into a regressor's store: the linear parts summed, the
// last layer of each mlp scaled.
void fold_in(const ParameterStore& store, LinearModel linear, const std::vector<Member>& members,
             double shrink) {
  const auto write = [&](const std::string& name, const std::vector<float>& values) {
    upload(store.device(), store.value(store.find(name)).data, values.data(), values.size() * sizeof(float));
  };
  const double share = members.empty() ? 0 : shrink / double(members.size());
  for (size_t k = 0; share > 0 && k < members.size(); ++k) {
    const TrainedMlp& net = members[k].net;
    const std::vector<float> weight = net.skip.read("skip.weight");
    for (size_t i = 0; i < linear.weights.size(); ++i)
      linear.weights[i] += share * (net.scale * double(weight[i]) - members[k].start.weights[i]);
    linear.intercept +=
        share * (net.centre + net.scale * double(net.skip.read("skip.bias")[0]) - members[k].start.intercept);
    const size_t last = net.mlp.entries().size() - 2;  // weight and bias of the output
    for (size_t e = 0; e < net.mlp.entries().size(); ++e) {
      const std::string& name = net.mlp.entries()[e].name;
      std::vector<float> values = net.mlp.read(name);
      if (e >= last)
        for (float& v : values) v *= float(share * net.scale);
      write(member_prefix(int(k)) + name, values);
    }
  }
  write("skip.weight", {linear.weights.begin(), linear.weights.end()});
  write("skip.bias", {float(linear.intercept)});
}

}  // namespace

void Regressor::make_store(int members, const std::vector<int>& hidden, Device device) {
  members_ = members;
  hidden_ = hidden;
  store_ = std::make_unique<ParameterStore>(device);
  store_->add("skip.weight", {1, 1, 1, inputs_}, Init::constant(0));
  store_->add("skip.bias", {1, 1, 1, 1}, Init::constant(0));
  for (int k = 0; k < members; ++k) add_mlp(*store_, member_prefix(k), inputs_, hidden, 0);
  store_->allocate(0);
}

Regressor Regressor::fit(const Dataset& data, const RegressorConfig& config, Stream& stream) {
  for (int r = 0; r < data.rows; ++r)
    CHECK(data.y[size_t(r)] > 0, "Regressor::fit: the target of row ", r, " is ", data.y[size_t(r)],
          ", expected a positive number");
  stream.activate();
  RidgeConfig ridge_config;
  ridge_config.seed = config.seed;
  LinearModel linear = fit_ridge(data, ridge_config);
  Regressor out;
  out.inputs_ = data.columns;
  out.unit_ = config.unit;
  for (double y : data.y) out.mean_target_ += y / data.rows;

  const bool few = data.rows < kFewestRows;
  const int members = few ? 0 : config.members > 0 ? config.members : data.rows < 20000 ? 8 : 2;
  std::vector<Member> trained;
  if (!few) {
    const std::vector<Fold> folds = make_folds(data, std::max(members, 8), config.seed);
    trained = train_members(data, linear, folds, members, config, stream);
    const HeldOut seen = held_out_predictions(data, folds, trained);
    out.shrink_ = config.skip ? seen.best_shrink() : 1;
    const std::vector<double> predicted = seen.shrunk(out.shrink_);
    out.validation_mape_ = mean_relative_error(predicted, seen.actual);
    std::vector<double> ratio(predicted.size());
    for (size_t i = 0; i < ratio.size(); ++i) ratio[i] = seen.actual[i] / predicted[i];
    // Of n samples the fraction (n + 1) / n * 0.95 bounds a new one with a chance of 95% (split conformal
    // prediction); a third of its standard error more, since with few rows the bounds themselves are
    // uncertain.
    const double n = double(ratio.size());
    const double side = std::min(1.0, 0.95 * (n + 1) / n + std::sqrt(0.95 * 0.05 / n) / 3);
    out.lower_ = quantile(ratio, 1 - side);
    out.upper_ = quantile(ratio, side);
  }
  if (!config.skip && !few) {
    linear.weights.assign(size_t(data.columns), 0.0);
    linear.intercept = 0;
    for (const Member& member : trained) linear.intercept += member.start.intercept / members;
  }
  for (const Member& member : trained) out.best_epochs_.push_back(member.net.best_epoch);
  out.make_store(out.shrink_ > 0 ? members : 0, config.mlp.hidden, stream.device());
  fold_in(*out.store_, linear, trained, out.shrink_);
  return out;
}

std::vector<double> Regressor::predict(const Dataset& data) const {
  CHECK(data.columns == inputs_, "Regressor::predict: rows of ", data.columns, " numbers, expected ",
        inputs_);
  return predict(data.x.data(), data.rows);
}

std::vector<double> Regressor::predict(const float* rows, int count) const {
  constexpr int kBatch = 256;  // fixed, so that a row's prediction does not depend on how many it comes with
  const int threads = omp_get_max_threads();
  const Device device = store_->device();
  Stream stream(device, 1);  // the batches are small: more threads would wait more than work
  Tape tape(device);
  const Var x = tape.input({kBatch, 1, 1, inputs_});
  const Var y = apply(tape, x);
  PlanOptions options;
  options.outputs = {y};
  Plan plan(tape, options, std::make_shared<Workspace>(device));
  std::vector<float> in(size_t{kBatch} * size_t(inputs_), 0.f), values(kBatch);
  std::vector<double> out;
  for (int begin = 0; begin < count; begin += kBatch) {
    const int used = std::min(kBatch, count - begin);
    std::copy_n(rows + int64_t{begin} * inputs_, int64_t{used} * inputs_, in.begin());
    upload(stream, tape.data(x).data, in.data(), in.size() * sizeof(float));
    plan.forward(stream);
    download(stream, values.data(), plan.value(y).data, values.size() * sizeof(float));
    out.insert(out.end(), values.begin(), values.begin() + used);
  }
  omp_set_num_threads(threads);  // the stream had set this thread's to 1
  return out;
}

std::vector<float> Regressor::weights() const {
  std::vector<float> values(size_t(store_->slab_floats()));
  download(store_->device(), values.data(), store_->values(), values.size() * sizeof(float));
  return values;
}

Regressor Regressor::to(Device device) const {
  Regressor copy;
  copy.inputs_ = inputs_;
  copy.unit_ = unit_;
  copy.make_store(members_, hidden_, device);
  const std::vector<float> values = weights();
  upload(device, copy.store_->values(), values.data(), values.size() * sizeof(float));
  copy.shrink_ = shrink_, copy.mean_target_ = mean_target_, copy.validation_mape_ = validation_mape_;
  copy.lower_ = lower_, copy.upper_ = upper_;
  copy.best_epochs_ = best_epochs_;
  return copy;
}

Var Regressor::apply(Tape& tape, Var code) const {
  CHECK(tape.shape(code).c == inputs_, "Regressor::apply: code ", tape.shape(code), ", expected ", inputs_,
        " numbers a row");
  CHECK(tape.device() == store_->device(), "Regressor::apply: the predictor is on the ",
        device_name(store_->device()), ", the tape on the ", device_name(tape.device()));
  std::vector<std::string> members;
  for (int k = 0; k < members_; ++k) members.push_back(member_prefix(k));
  return apply_mlps(tape, *store_, members, code, tape.parameter(*store_, store_->find("skip.weight")),
                    tape.parameter(*store_, store_->find("skip.bias")));
}

void Regressor::save(const std::string& path) const {
  TensorFile file;
  file.put("", *store_);
  const std::vector<std::pair<const char*, double>> numbers = {{"shrink", shrink_},
                                                               {"mean_target", mean_target_},
                                                               {"validation_mape", validation_mape_},
                                                               {"lower", lower_},
                                                               {"upper", upper_}};
  file.metadata["kind"] = "lanas.regressor";
  file.metadata["unit"] = unit_;
  file.metadata["members"] = std::to_string(members_);
  for (const auto& [name, value] : numbers) file.metadata[name] = csv_number(value);
  write_tensors(path, file);
}

Regressor Regressor::load(const std::string& path, Device device) {
  const TensorFile file = read_tensors(path);
  const auto text = [&](const char* name) {
    const auto found = file.metadata.find(name);
    CHECK(found != file.metadata.end(), path, ": not a saved predictor: it does not state ", name);
    return found->second;
  };
  const auto number = [&](const char* name) {
    double value = 0;
    CHECK(parse_number(text(name), value) && std::isfinite(value), path, ": ", name, " is '", text(name),
          "', expected a number");
    return value;
  };
  CHECK(text("kind") == "lanas.regressor", path, ": not a saved predictor but '", text("kind"), "'");
  const double members = number("members");
  CHECK(members >= 0 && members <= 1000 && members == std::floor(members), path, ": ", members, " members");
  Regressor out;
  if (file.metadata.contains("unit")) out.unit_ = text("unit");  // else of a version that knew only ms
  out.shrink_ = number("shrink");
  out.mean_target_ = number("mean_target");
  out.validation_mape_ = number("validation_mape");
  out.lower_ = number("lower");
  out.upper_ = number("upper");
  const auto skip = file.tensors.find("skip.weight");
  CHECK(skip != file.tensors.end() && skip->second.shape.c > 0, path, ": it has no tensor 'skip.weight'");
  out.inputs_ = skip->second.shape.c;
  std::vector<int> hidden;  // from the first member's biases, the last of which is the output's
  for (int layer = 0;; ++layer) {
    const auto bias = file.tensors.find(join(member_prefix(0), "layers.", layer, ".bias"));
    if (bias == file.tensors.end()) break;
    CHECK(bias->second.shape.c > 0, path, ": layer ", layer, " is empty");
    hidden.push_back(bias->second.shape.c);
  }
  if (!hidden.empty()) hidden.pop_back();
  out.make_store(int(members), hidden, device);
  file.get("", *out.store_, path);
  for (const auto& [name, entry] : file.tensors)
    for (float value : entry.values) CHECK(std::isfinite(value), path, ": tensor '", name, "' is not finite");
  return out;
}

}  // namespace lanas
