// latency_loss.h -- the term lambda * LAT(alpha) / reference of the search loss, on the supernet's tape:
// architecture parameters -> encoding -> trained predictor -> milliseconds, so one backward pass carries the
// latency gradient into alpha. With a target: lambda * (LAT / target - 1), lambda learned by gradient ascent.
// How a soft alpha meets a predictor trained on binary codes is our own choice (docs/method.md).
#pragma once

#include <cstdint>
#include <string>

#include "autograd/ops.h"
#include "autograd/plan.h"
#include "nas/genotype.h"
#include "predictor/regressor.h"

namespace lanas {

enum class LatencyMode {
  soft,    // relaxed rows
  hard,    // the derived genotype's code, straight-through gradient
  sample,  // the mean over straight-through Gumbel samples
};
LatencyMode parse_latency_mode(const std::string& name);
const char* latency_mode_name(LatencyMode mode);

struct LatencyLossConfig {
  LatencyMode mode = LatencyMode::sample;
  int samples = 4;          // of mode sample
  float temperature = 1;    // of the relaxation
  double lambda = 0;        // with a target: where the ascent starts
  double reference_ms = 1;  // the loss is lambda * latency / reference
  double target_ms = 0;     // above 0: the latency aimed at, in place of reference_ms
  double lambda_lr = 0.05;  // of the ascent, per alpha step
  bool active() const { return lambda != 0 || target_ms > 0; }
};

class LatencyLoss {
 public:
  // Records the term on `tape`. alpha, beta: [normal, reduce]; beta may be absent. The regressor must outlive
  // the tape.
  LatencyLoss(Tape& tape, const Var alpha[2], const Var beta[2], const Regressor& regressor,
              const LatencyLossConfig& config);

  Var term;        // [1,1,1,1], lambda * latency / reference
  Var latency_ms;  // [1,1,1,1]

  // The number of the step that the next draw is for.
  void set_step(Stream& stream, uint64_t step);
  // Draws the Gumbel noise of that step; does nothing in the other modes. Launches only, so it can be
  // recorded.
  void draw(Stream& stream, uint64_t seed);
  // With a target, one step of the ascent: lambda + lambda_lr (latency / target - 1), at least 0. The latency
  // is what `plan`, an output of which is latency_ms, has just computed; lambda weighs the term from the next
  // forward pass on. Launches only, so it can be recorded. Does nothing without a target.
  void ascend(Stream& stream, Plan& plan);
  // The weight of the term. A learned one is read from the device and survives set_lambda to the last bit.
  double lambda(Stream& stream) const;
  void set_lambda(Stream& stream, double lambda);

 private:
  double unit_ms() const { return config_.target_ms > 0 ? config_.target_ms : config_.reference_ms; }

  const Tape& tape_;
  LatencyLossConfig config_;
  Var noise_[2], scale_;  // scale_: lambda / unit_ms()
  Memory step_;
};

// The prediction for the relaxed code of the current architecture parameters, in ms.
double soft_latency_ms(Stream& stream, const ParameterStore& architecture, const Regressor& regressor,
                       float temperature);
// The prediction for a genotype, in ms.
double predict_ms(const Regressor& regressor, const Genotype& genotype);

}  // namespace lanas
