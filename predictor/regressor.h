// regressor.h -- from a row of numbers (an architecture's code) to its cost, in the target's unit:
//   y(x) = ridge(x) + shrink * mean_k (member_k(x) - ridge_k(x))
// ridge is the linear model of all rows; member_k (mlp.h: linear skip + mlp) is trained on all folds but the
// k-th, ridge_k is what it started from. shrink in [0, 1] is chosen by the members' errors on the folds they
// have not seen: 0 is exactly ridge. The sum is stored folded: one linear map and one small mlp per member.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "autograd/parameters.h"
#include "predictor/dataset.h"
#include "predictor/mlp.h"

namespace lanas {

struct RegressorConfig {
  MlpConfig mlp;            // its seed is replaced by one per member
  int members = 0;          // 0: 8 below 20,000 rows, else 2; each holds out another fold
  bool skip = true;         // false: the mlps alone, for comparison
  uint64_t seed = 0;        // decides folds and starting weights
  std::string unit = "ms";  // of the target; empty: not known
};

class Regressor {
 public:
  // Too few rows for a mlp (under kFewestRows) give plain ridge. On the cpu one member is trained per thread
  // of the stream, and the result does not depend on their number; on cuda one after another. The result
  // stays on the stream's device. Error where data is empty or a target is not > 0.
  static Regressor fit(const Dataset& data, const RegressorConfig& config, Stream& stream);
  static constexpr int kFewestRows = 24;

  std::vector<double> predict(const Dataset& data) const;
  std::vector<double> predict(const float* rows, int count) const;  // rows [count, inputs()]

  // The predictor on another tape, its weights frozen: code [n,1,1,inputs()] -> [n,1,1,1] in the target's
  // unit. Gradients flow to the code. The regressor must outlive the tape and be on its device.
  Var apply(Tape& tape, Var code) const;

  // A new sample lies in [predicted * lower(), predicted * upper()] with a chance of 90%, by the errors of
  // the members on rows that they have not seen. 1 and 1 where there were too few rows to tell.
  double lower() const { return lower_; }
  double upper() const { return upper_; }

  Regressor to(Device device) const;   // a copy there
  std::vector<float> weights() const;  // all its numbers, in the order of the file
  Device device() const { return store_->device(); }
  int inputs() const { return inputs_; }
  const std::string& unit() const { return unit_; }  // of the target; empty: not known
  double shrink() const { return shrink_; }
  double mean_target() const { return mean_target_; }          // of the training rows: a reference cost
  double validation_mape() const { return validation_mape_; }  // on rows that no member saw; 0: plain ridge
  const std::vector<int>& best_epochs() const { return best_epochs_; }

  // safetensors; Error naming the file where it is cut or holds something else.
  void save(const std::string& path) const;
  static Regressor load(const std::string& path, Device device = Device::cpu);

 private:
  Regressor() = default;
  void make_store(int members, const std::vector<int>& hidden, Device device);

  int inputs_ = 0, members_ = 0;
  std::string unit_ = "ms";
  std::vector<int> hidden_;
  std::unique_ptr<ParameterStore> store_;  // "skip.weight", "skip.bias", "members.<k>.layers.<i>...."
  double shrink_ = 0, mean_target_ = 0, validation_mape_ = 0, lower_ = 1, upper_ = 1;
  std::vector<int> best_epochs_;
};

}  // namespace lanas
