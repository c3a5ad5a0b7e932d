// retrain.h -- training a derived network from scratch: SGD with cosine schedule, drop-path, cutout,
// auxiliary head. The network kept is the best one on held-out training images; test images are not seen
// here.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "nas/image_data.h"
#include "nas/network.h"

namespace lanas {

struct RetrainConfig {
  NetworkConfig network;
  int epochs = 600;
  float lr = 0.025f, lr_min = 0, momentum = 0.9f, weight_decay = 3e-4f, clip = 5;
  float drop_path = 0.2f;  // probability at the last epoch; grows linearly from 0
  int crop_padding = 4, cutout = 16;
  bool flip = true;
  int images = 0;                    // of the training images; 0: all
  double validation_fraction = 0.1;  // of them, held out for choosing the epoch
  uint64_t seed = 0;
  double checkpoint_seconds = 30;
};

struct RetrainEpoch {
  int epoch = 0;
  double train_loss = 0, train_accuracy = 0, valid_loss = 0, valid_accuracy = 0, seconds = 0;
};

struct RetrainResult {
  int best_epoch = 0;
  double best_valid_accuracy = 0;
  std::vector<RetrainEpoch> history;
};

struct RetrainHooks {
  std::function<void(int64_t step, int64_t steps, double loss)> on_step;
  std::function<void(const RetrainEpoch&)> on_epoch;
};

// Continues from `checkpoint` and writes it as search() does; the best weights and buffers so far go to
// `best` (a checkpoint that load_trained reads), both atomically.
RetrainResult retrain(Stream& stream, const RetrainConfig& config, const Genotype& genotype,
                      const ImageData& data, const std::string& checkpoint, const std::string& best,
                      const RetrainHooks& hooks = {});

// A trained network read back: what it is, its weights and running moments.
struct TrainedNetwork {
  explicit TrainedNetwork(Device device = Device::cpu) : weights(device), buffers(device) {}

  NetworkConfig config;
  Genotype genotype;
  std::string data_name;
  float mean[3] = {}, stddev[3] = {};  // of the training images' pixels in [0, 1], by channel
  ParameterStore weights, buffers;
};
// Throws Error naming the file if it is no such checkpoint or does not fit its own genotype.
TrainedNetwork load_trained(const std::string& path, Device device = Device::cpu);

}  // namespace lanas
