#include "predictor/mlp.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "autograd/optimizer.h"
#include "autograd/plan.h"
#include "kernels/core/random.cuh"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/fused_mlp.h"

namespace lanas {
namespace {

std::string layer_name(const std::string& prefix, int layer, const char* part) {
  return join(prefix, "layers.", layer, ".", part);
}

// w *= keep over a store's slab: weight decay that is not mixed into Adam's moments.
void decay(Stream& stream, const ParameterStore& store, float keep) {
  const Tensor slab(store.values(),
                    {1, 1, int(store.slab_floats() / 64), 64});  // entries are 64-float aligned
  copy_scaled(stream, slab, slab, keep, 0);
}

}  // namespace

void add_mlp(ParameterStore& store, const std::string& prefix, int inputs, const std::vector<int>& hidden,
             float first_bound) {
  int in = inputs, layer = 0;
  for (int out : hidden) {
    const float bound = layer == 0 ? first_bound : std::sqrt(6.f / float(in));
    store.add(layer_name(prefix, layer, "weight"), {out, 1, 1, in}, Init::uniform(bound));
    store.add(layer_name(prefix, layer, "bias"), {1, 1, 1, out}, Init::constant(0));
    in = out;
    ++layer;
  }
  store.add(layer_name(prefix, layer, "weight"), {1, 1, 1, in}, Init::constant(0));
  store.add(layer_name(prefix, layer, "bias"), {1, 1, 1, 1}, Init::constant(0));
}

namespace {

// The layers of one network on a tape, and whether the device can run them in one kernel.
MlpLayers find_layers(Tape& tape, const ParameterStore& store, const std::string& prefix) {
  MlpLayers layers;
  for (int layer = 0;; ++layer) {
    const int weight = store.find(layer_name(prefix, layer, "weight"));
    if (weight < 0) return layers;
    layers.weights.push_back(tape.parameter(store, weight));
    layers.biases.push_back(tape.parameter(store, store.find(layer_name(prefix, layer, "bias"))));
  }
}

bool fits_one_kernel(const Tape& tape, const MlpLayers& layers) {
  FusedMlp<float> op;
  op.hidden = int(layers.weights.size()) - 1;
  if (op.hidden < 1 || op.hidden > kMlpHidden) return false;
  op.inputs = tape.shape(layers.weights[0]).c;
  for (int l = 0; l < op.hidden; ++l) op.width[l] = tape.shape(layers.weights[size_t(l)]).n;
  return fused_mlp_fits(op, tape.device());
}

}  // namespace

Var apply_mlps(Tape& tape, const ParameterStore& store, const std::vector<std::string>& prefixes, Var x,
               Var skip_weight, Var skip_bias) {
  std::vector<MlpLayers> networks;
  for (const std::string& prefix : prefixes) networks.push_back(find_layers(tape, store, prefix));
  Var y;
  // On the cpu each layer is a product of the library.
  if (tape.device() == Device::cuda && !networks.empty() && fits_one_kernel(tape, networks[0])) {
    for (size_t begin = 0; begin < networks.size(); begin += kMlpMembers) {
      const auto first = networks.begin() + ptrdiff_t(begin);
      const std::vector<MlpLayers> some(
          first, first + ptrdiff_t(std::min<size_t>(kMlpMembers, networks.size() - begin)));
      y = y ? sum(tape, {y, fused_mlp(tape, x, some)}) : fused_mlp(tape, x, some, skip_weight, skip_bias);
    }
    return y;
  }
  if (skip_weight) y = linear(tape, x, skip_weight, skip_bias);
  for (const MlpLayers& network : networks) {
    Var u = x;
    for (size_t layer = 0; layer < network.weights.size(); ++layer)
      u = linear(tape, layer > 0 ? relu(tape, u) : u, network.weights[layer], network.biases[layer]);
    y = y ? sum(tape, {y, u}) : u;
  }
  return y;
}

namespace {

// The network on tapes of a fixed batch: one for training, one for prediction; the last rows of a pass that
// do not fill a batch get weight 0.
class Trainer {
 public:
  Trainer(const Dataset& data, TrainedMlp& net, bool with_skip, double delta, int batch,
          const MlpConfig& config)
      : data_(data),
        net_(net),
        config_(config),
        with_skip_(with_skip),
        batch_(batch),
        delta_(delta),
        stream_(net.mlp.device(), 1),
        mlp_adam_(net.mlp, 0, 0.9f, 0.999f, 0),
        skip_adam_(net.skip, 0, 0.9f, 0.999f, 0),
        tape_(net.mlp.device()),
        workspace_(std::make_shared<Workspace>(net.mlp.device())),
        host_x_(size_t(batch) * size_t(data.columns)),
        host_rows_(size_t(batch) * 3),
        host_u_(size_t(batch)) {
    x_ = tape_.input({batch, 1, 1, data.columns});
    rows_ = tape_.input({batch, 1, 1, 3});
    const auto skip = [&](const char* name) {
      return with_skip ? tape_.parameter(net.skip, net.skip.find(name)) : Var{};
    };
    u_ = apply_mlps(tape_, net.mlp, {""}, x_, skip("skip.weight"), skip("skip.bias"));
    loss_ = relative_loss(tape_, u_, rows_);
    PlanOptions train;
    train.loss = loss_;
    train.wanted = {&net.mlp};
    if (with_skip) train.wanted.push_back(&net.skip);
    train.training = true;
    train_ = std::make_unique<Plan>(tape_, train, workspace_);
    PlanOptions predict;
    predict.outputs = {u_};
    predict_ = std::make_unique<Plan>(tape_, predict, workspace_);
  }

  // One update from the batch of rows order[begin...]; `schedule` scales both learning rates.
  void step(const std::vector<int>& order, size_t begin, float schedule) {
    fill(order, begin);
    train_->forward(stream_);
    train_->backward(stream_);
    const float lr = config_.learning_rate * schedule;
    decay(stream_, net_.mlp, 1 - lr * config_.weight_decay);
    mlp_adam_.set_lr(lr);
    mlp_adam_.step(stream_);
    if (!with_skip_) return;
    skip_adam_.set_lr(config_.skip_learning_rate * schedule);
    skip_adam_.step(stream_);
  }

  std::vector<double> predict(const std::vector<int>& rows) {
    std::vector<double> out;
    for (size_t begin = 0; begin < rows.size(); begin += size_t(batch_)) {
      fill(rows, begin);
      predict_->forward(stream_);
      download(stream_, host_u_.data(), predict_->value(u_).data, host_u_.size() * sizeof(float));
      for (size_t i = begin; i < std::min(rows.size(), begin + size_t(batch_)); ++i)
        out.push_back(net_.centre + net_.scale * double(host_u_[i - begin]));
    }
    return out;
  }

 private:
  void fill(const std::vector<int>& rows, size_t begin) {
    const int used = int(std::min(rows.size() - begin, size_t(batch_)));
    for (int i = 0; i < batch_; ++i) {
      const int r = rows[begin + size_t(i < used ? i : 0)];
      std::copy_n(data_.row(r), data_.columns, host_x_.begin() + ptrdiff_t{i} * data_.columns);
      const double y = data_.y[size_t(r)], unit = std::abs(y) * delta_;
      float* const row = host_rows_.data() + ptrdiff_t{i} * 3;
      row[0] = float(net_.scale / unit);
      row[1] = float((y - net_.centre) / unit);
      row[2] = i < used ? 1.f / float(used) : 0.f;
    }
    upload(stream_, tape_.data(x_).data, host_x_.data(), host_x_.size() * sizeof(float));
    upload(stream_, tape_.data(rows_).data, host_rows_.data(), host_rows_.size() * sizeof(float));
  }

  const Dataset& data_;
  TrainedMlp& net_;
  const MlpConfig& config_;
  const bool with_skip_;
  const int batch_;
  const double delta_;
  Stream stream_;
  Adam mlp_adam_, skip_adam_;
  Tape tape_;
  std::shared_ptr<Workspace> workspace_;
  Var x_, rows_, u_, loss_;
  std::unique_ptr<Plan> train_, predict_;
  std::vector<float> host_x_, host_rows_, host_u_;
};

double mean_loss(const std::vector<double>& predicted, const Dataset& data, const std::vector<int>& rows,
                 double delta) {
  double sum = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const double y = data.y[size_t(rows[i])], r = (predicted[i] - y) / (y * delta);
    sum += std::sqrt(1 + r * r) - 1;
  }
  return sum / double(rows.size());
}

// The stores with their starting values, and centre and scale of the target.
TrainedMlp start_network(const Dataset& data, const std::vector<int>& train, const LinearModel* start,
                         double scale, const MlpConfig& config, Device device) {
  TrainedMlp net(device);
  net.scale = scale;
  double squares = 0;
  for (int r : train) {
    net.centre += data.y[size_t(r)] / double(train.size());
    for (int c = 0; c < data.columns; ++c) squares += double(data.row(r)[c]) * double(data.row(r)[c]);
  }
  const double active = std::max(1.0, squares / double(train.size()));  // one-hot rows: the number of ones
  add_mlp(net.mlp, "", data.columns, config.hidden, float(std::sqrt(6 / active)));
  net.mlp.allocate(config.seed);
  net.skip.add("skip.weight", {1, 1, 1, data.columns}, Init::constant(0));
  net.skip.add("skip.bias", {1, 1, 1, 1}, Init::constant(0));
  net.skip.allocate(config.seed);
  if (!start) return net;
  std::vector<float> weights;
  for (double w : start->weights) weights.push_back(float(w / net.scale));
  const float bias = float((start->intercept - net.centre) / net.scale);
  upload(device, net.skip.value(net.skip.find("skip.weight")).data, weights.data(),
         weights.size() * sizeof(float));
  upload(device, net.skip.value(net.skip.find("skip.bias")).data, &bias, sizeof bias);
  return net;
}

std::vector<float> slab(const ParameterStore& store) {
  std::vector<float> copy(size_t(store.slab_floats()));
  download(store.device(), copy.data(), store.values(), copy.size() * sizeof(float));
  return copy;
}

void restore(const ParameterStore& store, const std::vector<float>& copy) {
  upload(store.device(), store.values(), copy.data(), copy.size() * sizeof(float));
}

}  // namespace

TrainedMlp train_mlp(const Dataset& data, const std::vector<int>& train, const std::vector<int>& validation,
                     const LinearModel* start, double scale, double delta, const MlpConfig& config,
                     Device device) {
  CHECK(!train.empty() && !validation.empty() && scale > 0 && delta > 0, "train_mlp: ", train.size(),
        " training and ", validation.size(), " validation rows, scale ", scale, ", delta ", delta);
  const int rows = int(train.size());
  const int batch = config.batch > 0 ? config.batch : std::clamp(rows / 16, 16, 512);
  const int64_t steps = int64_t(config.epochs) * ((rows + batch - 1) / batch);
  TrainedMlp net = start_network(data, train, start, scale, config, device);
  Trainer trainer(data, net, start != nullptr, delta, batch, config);
  std::vector<float> best_mlp = slab(net.mlp), best_skip = slab(net.skip);
  net.held_out = trainer.predict(validation);
  double best = mean_loss(net.held_out, data, validation, delta);

  std::vector<int> order = train;
  Random random(config.seed, 1);
  int64_t step = 0;
  for (int epoch = 0; epoch < config.epochs; ++epoch) {
    random.shuffle(order);
    for (size_t at = 0; at < order.size(); at += size_t(batch), ++step)
      trainer.step(order, at, float(0.5 * (1 + std::cos(M_PI * double(step) / double(steps)))));
    std::vector<double> predicted = trainer.predict(validation);
    const double loss = mean_loss(predicted, data, validation, delta);
    CHECK(std::isfinite(loss), "train_mlp: the loss is not finite after epoch ", epoch + 1);
    if (loss >= best) continue;
    best = loss;
    net.best_epoch = epoch;
    net.held_out = std::move(predicted);
    best_mlp = slab(net.mlp);
    best_skip = slab(net.skip);
  }
  restore(net.mlp, best_mlp);
  restore(net.skip, best_skip);
  return net;
}

}  // namespace lanas
