#include "nas/network.h"

#include "autograd/plan.h"
#include "nas/layout.h"

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

class NetworkBuilder {
 public:
  NetworkBuilder(Builder& b, std::vector<Var>* drop_masks) : b_(b), tape_(b.tape), drop_masks_(drop_masks) {}

  // Returns the two inputs of the first cell.
  std::pair<Var, Var> stem(Var images, const NetworkConfig& config) {
    auto conv = [&](const std::string& name, Var x, int cout, int stride) {
      const Var w = b_.conv_weight(name + ".conv", cout, 3, tape_.shape(x).c);
      return batch_norm(b_, name + ".bn", conv2d(tape_, x, w, {stride, 1, 1}));
    };
    if (!config.imagenet()) {
      const Var y = conv("stem", images, 3 * config.channels, 1);
      return {y, y};
    }
    const Var half = relu(tape_, conv("stem0.0", images, config.channels / 2, 2));
    const Var stem0 = conv("stem0.1", half, config.channels, 2);
    return {stem0, conv("stem1", relu(tape_, stem0), config.channels, 2)};
  }

  Var cell(const std::string& name, const CellGenotype& genotype, const CellPlace& place, Var input0,
           Var input1) {
    const int c = place.channels, step = place.reduction ? 2 : 1;
    std::vector<Var> states = {preprocess(name + ".preprocess0", input0, c, place.after_reduction),
                               preprocess(name + ".preprocess1", input1, c, false)};
    const Shape s = tape_.shape(states[0]);
    const Var output = tape_.activation({s.n, s.h / step, s.w / step, kNodes * c});
    for (int node = 0; node < kNodes; ++node) {
      std::vector<Var> paths;
      for (int j = 2 * node; j < 2 * node + 2; ++j) {
        const CellEdge& edge = genotype[j];
        const int stride = place.reduction && edge.input < 2 ? 2 : 1;
        paths.push_back(path(join(name, ".edges.", j), edge.op, states[edge.input], stride));
      }
      states.push_back(sum(tape_, paths, tape_.slice(output, node * c, (node + 1) * c)));
    }
    return output;
  }

 private:
  Var materialise(Normalised y) { return normalise(tape_, y.x, y.norm); }

  Var preprocess(const std::string& name, Var x, int c, bool reduce) {
    return materialise(reduce ? factorized_reduce(b_, name, x, c, true)
                              : conv_unit(b_, {"", name + ".conv", name + ".bn"}, {x, {}}, {c}, true));
  }

  // One edge: its op and drop-path, which spares the identity.
  Var path(const std::string& name, OpKind op, Var x, int stride) {
    if (op == OpKind::skip_connect && stride == 1) return x;
    const Var y = apply(name, op, x, stride);
    if (!drop_masks_) return y;
    drop_masks_->push_back(tape_.input({tape_.shape(x).n, 1, 1, 1}));
    return drop_path(tape_, y, drop_masks_->back());
  }

  Var apply(const std::string& name, OpKind op, Var x, int s) {
    const int c = tape_.shape(x).c;
    switch (op) {
      case OpKind::max_pool_3x3:
        return max_pool(tape_, x, 3, s, 1);
      case OpKind::avg_pool_3x3:
        return avg_pool(tape_, x, 3, s, 1);
      case OpKind::skip_connect:
        return materialise(factorized_reduce(b_, name, x, c, true));
      case OpKind::sep_conv_3x3:
        return sep_conv(name, x, {c, 3, s});
      case OpKind::sep_conv_5x5:
        return sep_conv(name, x, {c, 5, s});
      case OpKind::dil_conv_3x3:
        return dil_conv(name, x, {c, 3, s, 2});
      case OpKind::dil_conv_5x5:
        return dil_conv(name, x, {c, 5, s, 2});
      case OpKind::none:
        break;
    }
    throw Error("network: none is not an op of a genotype");
  }

  Var sep_conv(const std::string& name, Var x, UnitGeometry g) {
    const Normalised half =
        conv_unit(b_, {name + ".depthwise1", name + ".pointwise1", name + ".bn1"}, {x, {}}, g, true);
    g.stride = 1;
    return materialise(
        conv_unit(b_, {name + ".depthwise2", name + ".pointwise2", name + ".bn2"}, half, g, true));
  }

  Var dil_conv(const std::string& name, Var x, UnitGeometry g) {
    return materialise(
        conv_unit(b_, {name + ".depthwise", name + ".pointwise", name + ".bn"}, {x, {}}, g, true));
  }

  Builder& b_;
  Tape& tape_;
  std::vector<Var>* drop_masks_;  // null: no path is ever dropped
};

}  // namespace

Network::Network(const NetworkConfig& config, const Genotype& genotype, ParameterStore& weights,
                 ParameterStore& buffers)
    : tape(weights.device()) {
  CHECK(config.image >= 8 && config.image % 4 == 0, "network: image side ", config.image,
        " is not divisible by 4");
  check_genotype(genotype, "network");
  Builder b{tape, weights, buffers};
  NetworkBuilder builder(b, config.drop_path ? &drop_masks : nullptr);
  images = tape.input({config.batch, config.image, config.image, 3});
  labels = tape.input({config.batch, 1, 1, 1});
  auto [previous, current] = builder.stem(images, config);
  const std::vector<CellPlace> places = cell_places(config.channels, config.layers, config.imagenet());
  for (int i = 0; i < config.layers; ++i) {
    const CellGenotype& cell = places[i].reduction ? genotype.reduce : genotype.normal;
    const Var output = builder.cell(join("cells.", i), cell, places[i], previous, current);
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
