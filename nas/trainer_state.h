// trainer_state.h -- what search and retraining share: where a training stands, when it saves, and running
// averages.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "autograd/checkpoint.h"
#include "autograd/plan.h"
#include "kernels/core/graph.h"
#include "kernels/core/timing.h"
#include "kernels/ops/cross_entropy.h"
#include "nas/interrupt.h"

namespace lanas {

// Position and averages, saved in the metadata of a checkpoint. Numbers survive to the last bit.
struct TrainerState {
  int epoch = 0, step = 0;  // the next step to do; step counts within the epoch
  double loss_sum = 0;      // over the steps of this epoch that were read back
  int64_t correct = 0, seen = 0, reads = 0;
  double epoch_seconds = 0;  // spent on this epoch before the last save

  void begin_epoch() { *this = {epoch + 1, 0, 0, 0, 0, 0, 0}; }
  double loss() const { return reads ? loss_sum / double(reads) : 0; }
  double accuracy() const { return seen ? double(correct) / double(seen) : 0; }

  nlohmann::json to_json() const {
    return {{"epoch", epoch}, {"step", step},   {"loss_sum", loss_sum},          {"correct", correct},
            {"seen", seen},   {"reads", reads}, {"epoch_seconds", epoch_seconds}};
  }
  static TrainerState from_json(const nlohmann::json& j) {
    return {j.at("epoch"), j.at("step"),  j.at("loss_sum"),     j.at("correct"),
            j.at("seen"),  j.at("reads"), j.at("epoch_seconds")};
  }
};

// Reads loss and correct answers of a training step back to the host and adds them up.
class StepReader {
 public:
  StepReader(const Stream& stream, std::string who)
      : correct_(stream.device(), sizeof(int)), who_(std::move(who)) {}

  // Returns the loss; throws Error if it is not finite.
  double read(Stream& stream, TrainerState& state, Tensor loss, Tensor logits, Tensor labels) {
    auto* correct = static_cast<int*>(correct_.data());
    count_correct(stream, correct, logits, reinterpret_cast<const int*>(labels.data), logits.n);
    int right = 0;
    float value = 0;
    download(stream, &right, correct, sizeof right);
    download(stream, &value, loss.data, sizeof value);
    CHECK(std::isfinite(value), who_, ": the loss is not finite at epoch ", state.epoch, " step ", state.step,
          "; the last checkpoint is kept; a lower learning rate may help");
    state.loss_sum += value;
    state.correct += right;
    state.seen += logits.n;
    ++state.reads;
    return value;
  }

 private:
  Memory correct_;
  std::string who_;
};

// Reading the loss makes the host wait for the device: on cuda it is read every 10 steps only.
inline bool reads_loss(const Stream& stream, const TrainerState& state) {
  constexpr int kReadEvery = 10;
  return stream.device() == Device::cpu || state.step % kReadEvery == 0;
}

// One level of a training step. On cuda it runs as it is the first time, so that the libraries set themselves
// up, and is then recorded and replayed: `work` must read whatever changes from step to step from memory.
class StepGraph {
 public:
  void run(Stream& stream, const std::function<void()>& work) {
    if (stream.device() == Device::cpu || !warm_) {
      warm_ = true;
      return work();
    }
    if (!graph_) graph_.record(stream, work);
    graph_.replay(stream);
  }

 private:
  bool warm_ = false;
  Graph graph_;
};

inline double seconds_since(double start_ms) { return (now_ms() - start_ms) / 1000; }

// Saves when the time has come, and stops when asked to.
class Checkpointer {
 public:
  Checkpointer(std::string path, double seconds)
      : path_(std::move(path)), seconds_(seconds), saved_ms_(now_ms()) {}

  const std::string& path() const { return path_; }
  bool exists() const { return !path_.empty() && std::filesystem::exists(path_); }

  // `epoch_done`: save in any case. save(file) puts the whole state into a file.
  void after_step(bool epoch_done, const std::function<TensorFile()>& save) {
    const bool stop = stop_requested();
    if (!path_.empty() && (stop || epoch_done || now_ms() - saved_ms_ > 1000 * seconds_)) {
      const TensorFile file = save();
      for (const auto& [name, entry] :
           file.tensors)  // a state that cannot go on must not replace one that can
        CHECK(std::all_of(entry.values.begin(), entry.values.end(), [](float x) { return std::isfinite(x); }),
              path_, ": tensor '", name,
              "' is not finite; the last checkpoint is kept; a lower learning rate may help");
      write_tensors(path_, file);
      saved_ms_ = now_ms();
    }
    if (stop) throw Interrupted(path_.empty() ? "stopped" : "stopped; the state is kept in " + path_);
  }

 private:
  std::string path_;
  double seconds_, saved_ms_;
};

// What differs between trainings: run_training calls these.
struct Training {
  int epochs, steps_per_epoch;
  std::function<void()> begin_epoch;  // also after a resume in the middle of one
  std::function<double()> step;       // returns the loss
  std::function<void(double start_ms)>
      end_epoch;                     // start_ms: when the epoch began, pauses between runs left out
  std::function<TensorFile()> save;  // the whole state, for the checkpoint
  std::function<void(int64_t step, int64_t steps, double loss)> on_step;  // may be empty
  std::function<bool()> finished = {};  // may be empty; asked between epochs: whether to end before the last
};

// Runs from `state` to the last epoch, saving on the way and stopping when asked to (then throws
// Interrupted).
void run_training(TrainerState& state, Checkpointer& saver, const Training& training);

// Reads a checkpoint of this kind and these settings, or throws Error naming it.
TensorFile read_checkpoint(const std::string& path, const std::string& kind, const nlohmann::json& settings);
// Metadata of a checkpoint: kind, settings, state and history.
void describe_checkpoint(TensorFile& file, const std::string& kind, const nlohmann::json& settings,
                         const TrainerState& state, const nlohmann::json& history);

}  // namespace lanas
