#include "nas/supernet.h"

#include <map>
#include <vector>

#include "nas/layout.h"

namespace lanas {
namespace {

// The mixing weights of one cell kind: softmaxed alpha (times beta) [1,1,1,112], and beta [1,1,1,14].
struct Mixing {
  Var ops, edges;
};

Mixing mixing_weights(Tape& tape, Var alpha, Var beta) {
  Mixing mixing;
  mixing.ops = softmax(tape, alpha, std::vector<int>(kEdges, kOps));
  if (!beta) return mixing;
  mixing.edges = softmax(tape, beta, {2, 3, 4, 5});
  mixing.ops = scale_segments(tape, mixing.ops, mixing.edges, std::vector<int>(kEdges, kOps));
  return mixing;
}

// The value of `key`, made the first time it is asked for.
template <class Map, class Make>
typename Map::mapped_type once(Map& map, typename Map::key_type key, Make make) {
  if (auto found = map.find(key); found != map.end()) return found->second;
  return map.emplace(key, make()).first->second;
}

class CellBuilder {
 public:
  CellBuilder(Builder& b, const std::string& name, const CellPlace& place, int partial, Mixing mixing)
      : b_(b), tape_(b.tape), name_(name), place_(place), partial_(partial), mixing_(mixing) {
    CHECK(place.channels % partial == 0, "supernet: ", place.channels,
          " channels are not divisible by partial ", partial);
  }

  Var build(Var input0, Var input1) {
    const int c = place_.channels;
    states_ = {preprocess(".preprocess0", input0, place_.after_reduction),
               preprocess(".preprocess1", input1, false)};
    const Shape s = tape_.shape(states_[0]);
    const int step = place_.reduction ? 2 : 1;
    const Var output = tape_.activation({s.n, s.h / step, s.w / step, kNodes * c});
    for (int node = 0; node < kNodes; ++node) {
      const Var out = tape_.slice(output, node * c, (node + 1) * c);
      add_node(node, out);
      states_.push_back(out);
    }
    return output;
  }

 private:
  // ReLUConvBN 1x1, or FactorizedReduce where the input has twice the side; materialised, since many ops read
  // it.
  Var preprocess(const std::string& part, Var x, bool reduce) {
    const std::string name = name_ + part;
    const Normalised y =
        reduce ? factorized_reduce(b_, name, x, place_.channels, false)
               : conv_unit(b_, {"", name + ".conv", name + ".bn"}, {x, {}}, {place_.channels}, false);
    return normalise(tape_, y.x, y.norm);
  }

  void add_node(int node, Var out) {
    const int first = first_edge(node), edges = inputs_of(node), c = place_.channels;
    const Var weights = tape_.slice(mixing_.ops, first * kOps, (first + edges) * kOps);
    std::vector<MixedTerm> terms;
    for (int input = 0; input < edges; ++input) add_edge(first + input, input, terms);
    if (partial_ == 1) {
      mixed_sum(tape_, terms, weights, out);
      return;
    }
    const Var joined = tape_.activation(tape_.shape(out));
    mixed_sum(tape_, terms, weights, tape_.slice(joined, 0, c / partial_));
    const Var rest = tape_.slice(joined, c / partial_, c);
    if (mixing_.edges) {
      std::vector<MixedTerm> bypasses;
      for (int input = 0; input < edges; ++input) bypasses.push_back({{bypass(input), {}}, input});
      mixed_sum(tape_, bypasses, tape_.slice(mixing_.edges, first, first + edges), rest);
    } else {
      std::vector<Var> bypasses;
      for (int input = 0; input < edges; ++input) bypasses.push_back(bypass(input));
      sum(tape_, bypasses, rest);
    }
    channel_shuffle(tape_, joined, partial_, out);
  }

  int stride(int input) const { return place_.reduction && input < 2 ? 2 : 1; }

  // The channels of a state that the ops see, packed.
  Var seen(int input) {
    return once(seen_, input, [&] {
      return partial_ == 1 ? states_[input]
                           : copy(tape_, tape_.slice(states_[input], 0, place_.channels / partial_));
    });
  }

  Var bypass(int input) {
    return once(bypass_, input, [&] {
      const Var rest = tape_.slice(states_[input], place_.channels / partial_, place_.channels);
      return stride(input) == 2 ? max_pool(tape_, rest, 2, 2, 0) : rest;
    });
  }

  Normalised pool(OpKind op, int input) {
    return once(pools_, std::pair{op, input}, [&]() -> Normalised {
      const auto make = op == OpKind::max_pool_3x3 ? max_pool : avg_pool;
      const Var y = make(tape_, seen(input), 3, stride(input), 1, {});
      const std::string name = join(name_, ".states.", input, ".", op_name(op), ".bn");
      return {y, batch_statistics(tape_, y, b_.running(name, tape_.shape(y).c))};
    });
  }

  void add_edge(int edge, int input, std::vector<MixedTerm>& terms) {
    for (int kind = 1; kind < kOps; ++kind)  // none adds zero: its weight only takes from the others
      terms.push_back({apply(OpKind(kind), edge, input), input * kOps + kind});
  }

  Normalised apply(OpKind op, int edge, int input) {
    const Var x = seen(input);
    const int c = tape_.shape(x).c, s = stride(input);
    const std::string name = join(name_, ".edges.", edge, ".", op_name(op));
    switch (op) {
      case OpKind::max_pool_3x3:
      case OpKind::avg_pool_3x3:
        return pool(op, input);
      case OpKind::skip_connect:
        return s == 1 ? Normalised{x, {}} : factorized_reduce(b_, name, x, c, false);
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
    throw Error("supernet: none is not applied");
  }

  Normalised sep_conv(const std::string& name, Var x, UnitGeometry g) {
    const Normalised half =
        conv_unit(b_, {name + ".depthwise1", name + ".pointwise1", name + ".bn1"}, {x, {}}, g, false);
    g.stride = 1;
    return conv_unit(b_, {name + ".depthwise2", name + ".pointwise2", name + ".bn2"}, half, g, false);
  }

  Normalised dil_conv(const std::string& name, Var x, UnitGeometry g) {
    return conv_unit(b_, {name + ".depthwise", name + ".pointwise", name + ".bn"}, {x, {}}, g, false);
  }

  Builder& b_;
  Tape& tape_;
  std::string name_;
  CellPlace place_;
  int partial_;
  Mixing mixing_;
  std::vector<Var> states_;
  std::map<int, Var> seen_, bypass_;
  std::map<std::pair<OpKind, int>, Normalised> pools_;
};

}  // namespace

void add_architecture(ParameterStore& architecture, bool edge_weights) {
  for (const char* kind : {"normal", "reduce"}) {
    architecture.add(join("alpha_", kind), {1, 1, 1, kEdges * kOps}, Init::normal(1e-3f));
    if (edge_weights) architecture.add(join("beta_", kind), {1, 1, 1, kEdges}, Init::normal(1e-3f));
  }
}

Genotype derive_genotype(const ParameterStore& architecture) {
  auto values = [&](const char* name) -> const float* {
    const int index = architecture.find(name);
    return index < 0 ? nullptr : architecture.value(index).data;
  };
  return derive_genotype(values("alpha_normal"), values("alpha_reduce"), values("beta_normal"),
                         values("beta_reduce"));
}

Supernet::Supernet(const SupernetConfig& config, ParameterStore& weights, ParameterStore& buffers,
                   ParameterStore& architecture)
    : tape(weights.device()) {
  CHECK(config.image >= 8 && config.image % 4 == 0, "supernet: image side ", config.image,
        " is not divisible by 4");
  Builder b{tape, weights, buffers};
  add_architecture(architecture, config.edge_weights);
  const char* kinds[2] = {"normal", "reduce"};
  Mixing mixing[2];
  for (int kind = 0; kind < 2; ++kind) {
    alpha[kind] = tape.parameter(architecture, architecture.find(join("alpha_", kinds[kind])));
    if (config.edge_weights)
      beta[kind] = tape.parameter(architecture, architecture.find(join("beta_", kinds[kind])));
    mixing[kind] = mixing_weights(tape, alpha[kind], beta[kind]);
  }
  images = tape.input({config.batch, config.image, config.image, 3});
  labels = tape.input({config.batch, 1, 1, 1});
  const int stem_channels = 3 * config.channels;
  Var previous = batch_norm(b, "stem.bn",
                            conv2d(tape, images, b.conv_weight("stem.conv", stem_channels, 3, 3), {1, 1, 1}));
  Var current = previous;
  const std::vector<CellPlace> places = cell_places(config.channels, config.layers);
  for (size_t i = 0; i < places.size(); ++i) {
    CellBuilder cell(b, join("cells.", i), places[i], config.partial, mixing[places[i].reduction]);
    const Var output = cell.build(previous, current);
    previous = current;
    current = output;
  }
  logits = classifier(b, "classifier", current, config.classes);
  loss = cross_entropy(tape, logits, labels, 0);
}

}  // namespace lanas
