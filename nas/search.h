// search.h -- differentiable search: bilevel optimisation of weights and architecture parameters, first
// or second order (Liu et al. 2019; PC-DARTS: Xu et al. 2020) with the latency term of LA-DARTS (Xu et al.,
// arXiv 2001.06392). A step is an alpha step on a fresh batch of the alpha half, then a weight step on the
// next batch of the weight half.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "nas/cost.h"
#include "nas/image_data.h"
#include "nas/latency_loss.h"
#include "nas/search_space.h"
#include "nas/supernet.h"

namespace lanas {

struct SearchConfig {
  SupernetConfig supernet;
  int epochs = 50, frozen_epochs = 15;  // alpha does not move in the first frozen_epochs
  float lr = 0.1f, lr_min = 0, momentum = 0.9f, weight_decay = 3e-4f, clip = 5;
  float alpha_lr = 6e-4f, alpha_beta1 = 0.5f, alpha_beta2 = 0.999f, alpha_weight_decay = 1e-3f;
  int crop_padding = 4;
  bool flip = true;
  int images = 0;             // of the training images, halved for weights and alpha; 0: all
  int validation_images = 0;  // of the alpha half, for the accuracy in the log; 0: all of it
  bool second_order = false;  // alpha's gradient looks one weight step ahead (second_order.h)
  int stable_epochs = 0;      // stop once the genotype has not changed for so many epochs; 0: never
  int measure_every = 0;      // epochs between two real measurements of the genotype, for the log; 0: never
  CostMetric metric = CostMetric::latency;  // of the term below: what its predictor predicts
  LatencyLossConfig latency;
  OperationCaps caps;  // of the derived genotype
  uint64_t seed = 0;
  double checkpoint_seconds = 30;
};

struct SearchEpoch {
  int epoch = 0;
  double train_loss = 0, train_accuracy = 0;  // over the epoch's weight batches
  double valid_loss = 0, valid_accuracy = 0;  // after the epoch, running statistics
  double soft_ms = 0, hard_ms = 0;            // predictions; 0 without a predictor
  double alpha_entropy = 0;                   // mean over edges, in nats; ln 8 = 2.08 is uniform
  int skips_normal = 0, skips_reduce = 0;
  double seconds = 0;
  Genotype genotype;
  double lambda = 0;       // of the latency term at the end of the epoch
  double measured_ms = 0;  // of the genotype; 0: not measured in this epoch
};

struct SearchResult {
  Genotype genotype;
  std::vector<SearchEpoch> history;
  ArchitectureValues architecture;  // what genotypes are decoded from
};

struct SearchHooks {
  std::function<void(int64_t step, int64_t steps, double loss)> on_step;
  std::function<void(const SearchEpoch&)> on_epoch;
  std::function<double(const Genotype&)> measure_ms;  // for measure_every; empty: no measuring
};

// Continues from `checkpoint` if that file exists (to the same bits as an unbroken run; Error if it belongs
// to other settings) and writes it every checkpoint_seconds, after each epoch and when a stop is requested
// (then throws Interrupted). Throws Error when the loss is not finite. `regressor` (ms) may be
// null when latency is not active. `penalty`, where given, takes its place in the loss (a counted cost, in
// its own unit); latencies in the log are still the regressor's. Measuring never changes the search.
SearchResult search(Stream& stream, const SearchConfig& config, const ImageData& data,
                    const Regressor* regressor, const std::string& checkpoint, const SearchHooks& hooks = {},
                    const Regressor* penalty = nullptr);

}  // namespace lanas
