#include "nas/network.h"

#include "autograd/plan.h"
#include "nas/cell.h"

namespace lanas {
namespace {

// Side of the auxiliary head's map after its 5x5 pooling, from the side of the map it reads; 0: does not fit.
int auxiliary_side(int side, bool imagenet) { return side < 5 ? 0 : (side - 5) / (imagenet ? 2 : 3) + 1; }

// ReLU, average pooling 5x5, 1x1 convolution to 128, BN, ReLU, 2x2 convolution to 768, BN, ReLU, linear.
Var auxiliary_head(Builder& b, Var x, const NetworkConfig& config) {
  Tape& tape = b.tape;
  const Shape s = tape.shape(x);
  CHECK(auxiliary_side(s.h, config.imagenet()) >= 2, "network: the auxiliary head does not fit on a map ", s,
        "; use a larger image or no auxiliary head");
  Var y = avg_pool(tape, relu(tape, x), 5, config.imagenet() ? 2 : 3, 0);
  y = batch_norm(b, "auxiliary.bn1", conv2d(tape, y, b.conv_weight("auxiliary.conv1", 128, 1, s.c), {}));
  y = conv2d(tape, relu(tape, y), b.conv_weight("auxiliary.conv2", 768, 2, 128), {});
  if (!config.imagenet())
    y = batch_norm(b, "auxiliary.bn2", y);  // as the public code: none in the ImageNet form
  return classifier(b, "auxiliary.classifier", relu(tape, y), config.classes);
}

}  // namespace

std::pair<Var, Var> record_stem(Tape& tape, const NetworkConfig& config, Var images,
                                const StemConvolution& convolution) {
  if (!config.imagenet()) {
    const Var y = convolution("stem", images, 3 * config.channels, 1);
    return {y, y};
  }
  const Var half = relu(tape, convolution("stem0.0", images, config.channels / 2, 2));
  const Var stem0 = convolution("stem0.1", half, config.channels, 2);
  return {stem0, convolution("stem1", relu(tape, stem0), config.channels, 2)};
}

Network::Network(const NetworkConfig& config, const Genotype& genotype, ParameterStore& weights,
                 ParameterStore& buffers)
    : tape(weights.device()) {
  CHECK(config.image >= 8 && config.image % 4 == 0, "network: image side ", config.image,
        " is not divisible by 4");
  check_genotype(genotype, "network");
  Builder b{tape, weights, buffers};
  images = tape.input({config.batch, config.image, config.image, 3});
  labels = tape.input({config.batch, 1, 1, 1});
  auto [previous, current] =
      record_stem(tape, config, images, [&](const std::string& name, Var x, int cout, int stride) {
        const Var w = b.conv_weight(name + ".conv", cout, 3, tape.shape(x).c);
        return batch_norm(b, name + ".bn", conv2d(tape, x, w, {stride, 1, 1}));
      });
  const std::vector<CellPlace> places = cell_places(config.channels, config.layers, config.imagenet());
  for (int i = 0; i < config.layers; ++i) {
    const CellGenotype& cell = places[i].reduction ? genotype.reduce : genotype.normal;
    const Var output = derived_cell(b, join("cells.", i), cell, places[i], previous, current,
                                    config.drop_path ? &drop_masks : nullptr);
    previous = current;
    current = output;
    if (config.auxiliary && i == 2 * config.layers / 3) auxiliary_logits = auxiliary_head(b, output, config);
  }
  logits = classifier(b, "classifier", current, config.classes);
  loss = cross_entropy(tape, logits, labels, config.label_smoothing);
  if (config.auxiliary)
    loss = weighted_sum(tape, {loss, cross_entropy(tape, auxiliary_logits, labels, config.label_smoothing)},
                        {1, config.auxiliary_weight});
}

NetworkCounts count_network(NetworkConfig config, const Genotype& genotype) {
  config.batch = 1;
  const int reductions = config.layers == 1 ? 1 : 2;  // up to cell 2*layers/3, itself one
  config.auxiliary = auxiliary_side((config.imagenet() ? config.image / 8 : config.image) >> reductions,
                                    config.imagenet()) >= 2;
  ParameterStore weights, buffers;
  const Network network(config, genotype, weights, buffers);
  const Plan plan(network.tape, {.outputs = {network.logits}}, std::make_shared<Workspace>());
  const int64_t auxiliary = weights.count("auxiliary.");
  return {weights.count() - auxiliary, auxiliary, plan.macs()};
}

}  // namespace lanas
