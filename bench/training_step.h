// training_step.h -- one step of training on random images, as the search and the retraining do it, for
// measuring. Supernet: the first-order bilevel step = alpha forward, alpha backward, Adam, weight forward,
// weight backward, clip and SGD. Derived network: the weight part alone.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "autograd/optimizer.h"
#include "autograd/plan.h"
#include "nas/network.h"
#include "nas/supernet.h"
#include "nas/trainer_state.h"

namespace lanas::bench {

class TrainingStep {
 public:
  TrainingStep(Stream& stream, const SupernetConfig& config, uint64_t seed);
  TrainingStep(Stream& stream, const NetworkConfig& config, const Genotype& genotype, uint64_t seed);

  void launch();  // gives a whole step to the stream, launch by launch
  void run();     // a whole step; waits for the device. On cuda a graph, from the second one on
  double loss();  // of the last step's weight part

  struct Part {
    std::string name;  // "alpha" or "weight"
    Plan* plan;
    Var loss;
    const ParameterStore* wanted;
    void (TrainingStep::*update)();  // the optimiser
    const char* update_name;
    int update_reads, update_writes;  // passes over the slab
  };
  std::vector<Part> parts();  // in the order of a step
  const Tape& tape() const { return supernet_ ? supernet_->tape : network_->tape; }

  // Planned memory in bytes.
  struct Bytes {
    size_t workspace = 0, parameters = 0, gradients = 0, optimiser = 0, inputs = 0;
    size_t total() const { return workspace + parameters + gradients + optimiser + inputs; }
  };
  Bytes bytes() const;
  int64_t parameters() const { return weights_.count(); }

 private:
  void launch(const Part& part);
  void prepare(uint64_t seed, Var images, Var labels, int classes);
  void update_alpha() { adam_->step(stream_); }
  void update_weights() { sgd_->step(stream_); }

  Stream& stream_;
  ParameterStore weights_, buffers_, architecture_;
  std::optional<Supernet> supernet_;
  std::optional<Network> network_;
  std::shared_ptr<Workspace> workspace_;
  std::optional<Plan> alpha_plan_, weight_plan_;
  std::optional<Adam> adam_;
  std::optional<Sgd> sgd_;
  Var loss_;
  StepGraph graphs_[2];  // of the parts
};

// Images and labels for measuring: normal draws, and classes in turn.
void fill_inputs(Stream& stream, const Tape& tape, Var images, Var labels, int classes, uint64_t seed);

// "darts" or "pc-darts"; Error for another name.
SupernetConfig supernet_config(const std::string& name);

}  // namespace lanas::bench
