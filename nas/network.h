// network.h -- the derived network: the cells of a genotype, stacked, with affine batch norms. Two forms: the
// one that is trained and evaluated (Network), and the one whose latency is measured and that is deployed
// (InferenceNetwork): batch norms folded into weights and biases, node sums accumulated by the convolutions.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "autograd/module.h"
#include "nas/genotype.h"

namespace lanas {

struct NetworkConfig {
  int channels = 36, layers = 20, classes = 10, image = 32, batch = 96;
  bool auxiliary = false;  // the head on cell 2*layers/3, for training only
  float auxiliary_weight = 0.4f;
  float label_smoothing = 0;
  bool drop_path = false;  // paths can be dropped in training (Network::drop_masks)
  bool imagenet() const {
    return image == 224;
  }  // three stride-2 stem convolutions, first cell after a reduction
};

// The stem of every form of the network: 3x3 convolutions with batch norm (one, or three of stride 2), each
// recorded by convolution(name, x, channels, stride). Returns the two inputs of the first cell.
using StemConvolution = std::function<Var(const std::string& name, Var x, int channels, int stride)>;
std::pair<Var, Var> record_stem(Tape& tape, const NetworkConfig& config, Var images,
                                const StemConvolution& convolution);

class Network {
 public:
  Network(const NetworkConfig& config, const Genotype& genotype, ParameterStore& weights,
          ParameterStore& buffers);

  Tape tape;
  Var images;                    // input [batch, image, image, 3], normalised
  Var labels;                    // input [batch,1,1,1], int32
  Var logits, auxiliary_logits;  // [batch,1,1,classes]
  Var loss;                      // cross entropy, plus auxiliary_weight times that of the auxiliary head
  std::vector<Var> drop_masks;   // inputs [batch,1,1,1], 0 or 1 / keep: one for each path that can be dropped
};

class InferenceNetwork {
 public:
  // Adds its weights (folded weights and biases) to `folded`, which starts with random values of the right
  // shapes: enough to measure latency. Pointwise weights [cout,1,1,cin] lie transposed, [cin][cout].
  // All lie in the order in which the ops read them: on the cpu one asks for the next one's meanwhile.
  InferenceNetwork(const NetworkConfig& config, const Genotype& genotype, ParameterStore& folded);

  // Fills `folded` from a trained Network's stores.
  void fold(const ParameterStore& weights, const ParameterStore& buffers);

  Tape tape;
  Var images, logits;

 private:
  friend class InferenceBuilder;
  struct Folding {  // folded[weight] = weights[source] * gamma / std from rows c0.. of the batch norm; bias
                    // likewise
    int weight, bias;
    std::string source, batch_norm;
    int c0;
    bool transposed;  // the weights lie [cin][cout]: pointwise ones, as the product reads them
  };
  ParameterStore& folded_;
  std::vector<Folding> foldings_;
  std::vector<std::pair<int, std::string>> copies_;  // folded[first] = weights[second]
};

struct NetworkCounts {
  int64_t parameters, parameters_auxiliary, macs;  // macs: convolutions and final linear layer, one image
};
NetworkCounts count_network(NetworkConfig config, const Genotype& genotype);

}  // namespace lanas
