// mlp.h -- one network of the regressor, trained on our engine. In units of `scale` around `centre`
//   u(x) = skip . x + skip_bias + mlp(x),   prediction = centre + scale u(x)
// The skip starts as a given linear model and the last layer of the mlp at zero, so training starts from the
// linear model. Loss per row: sqrt(1 + r^2) - 1 with r = (prediction - y) / (y delta), about the absolute
// relative error where it exceeds delta, its square below: outliers of a measurement do not steer it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "autograd/parameters.h"
#include "predictor/dataset.h"
#include "predictor/linear.h"

namespace lanas {

struct MlpConfig {
  std::vector<int> hidden = {128, 64};  // widths between the inputs and the one output
  int epochs = 100;
  int batch = 0;                     // 0: chosen from the number of rows
  float learning_rate = 3e-3f;       // of Adam, cosine to 0
  float skip_learning_rate = 1e-3f;  // 0: the linear part stays as it is given
  float weight_decay = 3;            // of the mlp, decoupled: w *= 1 - learning rate * decay
  uint64_t seed = 0;
};

// Adds the layers' parameters "<prefix>layers.<i>.weight" [out, in] and ".bias" [out] to a store.
void add_mlp(ParameterStore& store, const std::string& prefix, int inputs, const std::vector<int>& hidden,
             float first_bound);
// skip(x) + the sum of the networks with these prefixes, for rows x [n,1,1,inputs]; [n,1,1,1]. The linear map
// may be absent, and so may the networks. On cuda one kernel (fused_mlp), where the widths fit a block.
Var apply_mlps(Tape& tape, const ParameterStore& store, const std::vector<std::string>& prefixes, Var x,
               Var skip_weight = {}, Var skip_bias = {});

struct TrainedMlp {
  explicit TrainedMlp(Device device = Device::cpu) : mlp(device), skip(device) {}

  ParameterStore mlp, skip;  // "layers.<i>...", and "skip.weight" [1, inputs], "skip.bias" [1]
  double centre = 0, scale = 1;
  std::vector<double> held_out;  // predictions for the validation rows, at the best epoch
  int best_epoch = -1;           // -1: the start was best
};

// Trains on the rows `train` of data and keeps the epoch that is best on the rows `validation`. `start` is
// the linear model that the skip begins as; null trains the mlp alone (no skip). delta is a relative error.
// On the cpu it runs on one thread and depends on nothing but its arguments. Error if the loss stops being
// finite.
TrainedMlp train_mlp(const Dataset& data, const std::vector<int>& train, const std::vector<int>& validation,
                     const LinearModel* start, double scale, double delta, const MlpConfig& config,
                     Device device = Device::cpu);

}  // namespace lanas
