#include "predictor/mlp.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "autograd/optimizer.h"
#include "autograd/plan.h"
#include "kernels/core/random.cuh"
#include "kernels/ops/elementwise.h"

namespace lanas {
namespace {

// loss [1,1,1,1] = sum over rows of weight (sqrt(1 + r^2) - 1), r = a u - b; u [n,1,1,1], rows [n,1,1,3]
// holds a, b, weight. Host memory: the regressor is trained on the cpu.
Var relative_loss(Tape& tape, Var u, Var rows) {
  CHECK(tape.shape(u).c == 1 && tape.shape(rows) == Shape({tape.shape(u).n, 1, 1, 3}),
        "relative_loss: predictions ", tape.shape(u), " do not match rows ", tape.shape(rows));
  CHECK(tape.device() == Device::cpu, "relative_loss: runs on the cpu");
  const Var loss = tape.activation({1, 1, 1, 1});
  Op op;
  op.name = "relative_loss";
  op.inputs = {u, rows};
  op.outputs = {loss};
  op.saved = {u, rows};
  op.forward = [](Run& run) {
    const Tensor x = run.in(0), row = run.in(1);
    double sum = 0;
    for (int i = 0; i < x.n; ++i) {
      const float* c = row.pixel(i);
      const float r = c[0] * *x.pixel(i) - c[1];
      sum += double(c[2] * (std::sqrt(1 + r * r) - 1));
    }
    *run.out(0).data = float(sum);
  };
  op.backward = [](Run& run) {
    const Tensor x = run.in(0), row = run.in(1), dx = run.grad_in(0);
    if (!dx) return;
    const float dloss = *run.grad_out(0).data, beta = run.beta(0);
    for (int i = 0; i < x.n; ++i) {
      const float* c = row.pixel(i);
      const float r = c[0] * *x.pixel(i) - c[1];
      const float gradient = dloss * c[2] * c[0] * r / std::sqrt(1 + r * r);
      float* const to = dx.pixel(i);
      *to = beta == 0 ? gradient : gradient + beta * *to;
    }
  };
  tape.record(std::move(op));
  return loss;
}

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

Var apply_mlp(Tape& tape, const ParameterStore& store, const std::string& prefix, Var x) {
  for (int layer = 0;; ++layer) {
    const int weight = store.find(layer_name(prefix, layer, "weight"));
    const int bias = store.find(layer_name(prefix, layer, "bias"));
    if (weight < 0) return x;
    if (layer > 0) x = relu(tape, x);
    x = linear(tape, x, tape.parameter(store, weight), tape.parameter(store, bias));
  }
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
        mlp_adam_(net.mlp, 0, 0.9f, 0.999f, 0),
        skip_adam_(net.skip, 0, 0.9f, 0.999f, 0),
        workspace_(std::make_shared<Workspace>()) {
    x_ = tape_.input({batch, 1, 1, data.columns});
    rows_ = tape_.input({batch, 1, 1, 3});
    u_ = apply_mlp(tape_, net.mlp, "", x_);
    if (with_skip)
      u_ = sum(tape_, {u_, linear(tape_, x_, tape_.parameter(net.skip, net.skip.find("skip.weight")),
                                  tape_.parameter(net.skip, net.skip.find("skip.bias")))});
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
      const Tensor u = predict_->value(u_);
      for (size_t i = begin; i < std::min(rows.size(), begin + size_t(batch_)); ++i)
        out.push_back(net_.centre + net_.scale * double(*u.pixel(int64_t(i - begin))));
    }
    return out;
  }

 private:
  void fill(const std::vector<int>& rows, size_t begin) {
    const Tensor x = tape_.data(x_), c = tape_.data(rows_);
    const int used = int(std::min(rows.size() - begin, size_t(batch_)));
    for (int i = 0; i < batch_; ++i) {
      const int r = rows[begin + size_t(i < used ? i : 0)];
      std::copy_n(data_.row(r), data_.columns, x.pixel(i));
      const double y = data_.y[size_t(r)], unit = std::abs(y) * delta_;
      float* const row = c.pixel(i);
      row[0] = float(net_.scale / unit);
      row[1] = float((y - net_.centre) / unit);
      row[2] = i < used ? 1.f / float(used) : 0.f;
    }
  }

  const Dataset& data_;
  TrainedMlp& net_;
  const MlpConfig& config_;
  const bool with_skip_;
  const int batch_;
  const double delta_;
  Stream stream_{Device::cpu, 1};
  Adam mlp_adam_, skip_adam_;
  Tape tape_;
  std::shared_ptr<Workspace> workspace_;
  Var x_, rows_, u_, loss_;
  std::unique_ptr<Plan> train_, predict_;
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
                         double scale, const MlpConfig& config) {
  TrainedMlp net;
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
  const Tensor weight = net.skip.value(net.skip.find("skip.weight"));
  for (size_t i = 0; i < start->weights.size(); ++i) weight.data[i] = float(start->weights[i] / net.scale);
  *net.skip.value(net.skip.find("skip.bias")).data = float((start->intercept - net.centre) / net.scale);
  return net;
}

std::vector<float> slab(const ParameterStore& store) {
  return {store.values(), store.values() + store.slab_floats()};
}

}  // namespace

TrainedMlp train_mlp(const Dataset& data, const std::vector<int>& train, const std::vector<int>& validation,
                     const LinearModel* start, double scale, double delta, const MlpConfig& config) {
  CHECK(!train.empty() && !validation.empty() && scale > 0 && delta > 0, "train_mlp: ", train.size(),
        " training and ", validation.size(), " validation rows, scale ", scale, ", delta ", delta);
  const int rows = int(train.size());
  const int batch = config.batch > 0 ? config.batch : std::clamp(rows / 16, 16, 512);
  const int64_t steps = int64_t(config.epochs) * ((rows + batch - 1) / batch);
  TrainedMlp net = start_network(data, train, start, scale, config);
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
  std::copy(best_mlp.begin(), best_mlp.end(), net.mlp.values());
  std::copy(best_skip.begin(), best_skip.end(), net.skip.values());
  return net;
}

}  // namespace lanas
