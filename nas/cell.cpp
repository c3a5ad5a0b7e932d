#include "nas/cell.h"

#include <map>
#include <optional>
#include <utility>

namespace lanas {
namespace {

// ReLUConvBN 1x1, or FactorizedReduce where the input has twice the side; materialised, since many ops read
// it.
Var preprocess(Builder& b, const std::string& name, Var x, int channels, bool reduce, bool affine) {
  const Normalised y = reduce ? factorized_reduce(b, name, x, channels, affine)
                              : conv_unit(b, {"", name + ".conv", name + ".bn"}, {x, {}}, {channels}, affine);
  return normalise(b.tape, y.x, y.norm);
}

std::vector<Var> preprocess_both(Builder& b, const std::string& prefix, const CellPlace& place, Var input0,
                                 Var input1, bool affine) {
  const Var state0 =
      preprocess(b, prefix + "preprocess0", input0, place.channels, place.after_reduction, affine);
  return {state0, preprocess(b, prefix + "preprocess1", input1, place.channels, false, affine)};
}

struct UnitPlan {
  UnitNames names;
  UnitGeometry geometry;
};

// The units of a separable (two) or dilated (one) convolution from c to c channels, in their order.
std::vector<UnitPlan> convolution_units(const std::string& name, OpKind op, int c, int stride) {
  const int kernel = op == OpKind::sep_conv_5x5 || op == OpKind::dil_conv_5x5 ? 5 : 3;
  switch (op) {
    case OpKind::sep_conv_3x3:
    case OpKind::sep_conv_5x5:
      return {{{name + ".depthwise1", name + ".pointwise1", name + ".bn1"}, {c, kernel, stride}},
              {{name + ".depthwise2", name + ".pointwise2", name + ".bn2"}, {c, kernel}}};
    case OpKind::dil_conv_3x3:
    case OpKind::dil_conv_5x5:
      return {{{name + ".depthwise", name + ".pointwise", name + ".bn"}, {c, kernel, stride, 2}}};
    default:
      throw Error(join("cell ", name, ": ", op_name(op), " is no convolution"));
  }
}

// The ops with weights: separable and dilated convolutions, and the skip connection of stride 2.
Normalised weighted_op(Builder& b, const std::string& name, OpKind op, Var x, int stride, bool affine) {
  const int c = b.tape.shape(x).c;
  if (op == OpKind::skip_connect) return factorized_reduce(b, name, x, c, affine);
  Normalised y{x, {}};
  for (const UnitPlan& unit : convolution_units(name, op, c, stride))
    y = conv_unit(b, unit.names, y, unit.geometry, affine);
  return y;
}

// The value of `key`, made the first time it is asked for.
template <class Map, class Make>
typename Map::mapped_type once(Map& map, typename Map::key_type key, Make make) {
  if (auto found = map.find(key); found != map.end()) return found->second;
  return map.emplace(key, make()).first->second;
}

class SupernetCell {
 public:
  SupernetCell(Builder& b, const std::string& prefix, const CellPlace& place, int partial,
               const Mixing& mixing)
      : b_(b), tape_(b.tape), prefix_(prefix), place_(place), partial_(partial), mixing_(mixing) {}

  void add_node(int node, const std::vector<Var>& states, Var out) {
    const int first = first_edge(node), edges = inputs_of(node);
    const Var weights = tape_.slice(mixing_.ops, first * kOps, (first + edges) * kOps);
    std::vector<MixedTerm> terms;
    Convolutions waiting;
    for (int input = 0; input < edges; ++input) {
      add_edge(first + input, input, states[input], terms, waiting);
      if (tape_.device() == Device::cpu || input + 1 == edges) record(std::exchange(waiting, {}), terms);
    }
    if (partial_ == 1) {
      mixed_sum(tape_, terms, weights, out);
      return;
    }
    const Var mixed = mixed_sum(tape_, terms, weights);
    std::vector<Var> bypasses;
    for (int input = 0; input < edges; ++input) bypasses.push_back(bypass(input, states[input]));
    if (mixing_.edges)
      channel_shuffle(tape_, mixed, bypasses, tape_.slice(mixing_.edges, first, first + edges), out);
    else
      channel_shuffle(tape_, mixed, {sum(tape_, bypasses)}, {}, out);
  }

 private:
  // The channels of a state that the ops see, packed.
  Var seen(int input, Var state) {
    return once(seen_, input, [&] {
      return partial_ == 1 ? state : copy(tape_, tape_.slice(state, 0, place_.channels / partial_));
    });
  }

  Var bypass(int input, Var state) {
    return once(bypass_, input, [&] {
      const Var rest = tape_.slice(state, place_.channels / partial_, place_.channels);
      return edge_stride(place_, input) == 2 ? max_pool(tape_, rest, 2, 2, 0) : rest;
    });
  }

  // Both pools of a state and their moments: one op on a cuda device, which neither pool fills.
  PoolPair pools(int input, Var x) {
    const int stride = edge_stride(place_, input);
    const auto running = [&](OpKind kind) {
      return b_.running(join(prefix_, "states.", input, ".", op_name(kind), ".bn"), tape_.shape(x).c);
    };
    const auto with_moments = [&](Var y, OpKind kind) -> Normalised {
      return {y, batch_statistics(tape_, y, running(kind))};
    };
    return once(pools_, input, [&]() -> PoolPair {
      if (tape_.device() == Device::cuda) {
        const RunningMoments max = running(OpKind::max_pool_3x3);
        return pool_pair(tape_, x, stride, max, running(OpKind::avg_pool_3x3));
      }
      const Normalised max = with_moments(max_pool(tape_, x, 3, stride, 1), OpKind::max_pool_3x3);
      return {max, with_moments(avg_pool(tape_, x, 3, stride, 1), OpKind::avg_pool_3x3)};
    });
  }

  // Convolutions whose parameters are made and whose units are still to be recorded: their first and, where
  // they have one, second unit, and their place among a node's terms; the units of skip connections.
  struct Convolutions {
    std::vector<SeparableUnit> skips, first;
    std::vector<std::optional<SeparableUnit>> second;
    std::vector<size_t> term;
  };

  void add_edge(int edge, int input, Var state, std::vector<MixedTerm>& terms, Convolutions& waiting) {
    const Var x = seen(input, state);
    const int stride = edge_stride(place_, input), c = tape_.shape(x).c;
    for (int kind = 1; kind < kOps; ++kind) {  // none adds zero: its weight only takes from the others
      const OpKind op = OpKind(kind);
      const std::string name = join(prefix_, "edges.", edge, ".", op_name(op));
      MixedTerm& term = terms.emplace_back(MixedTerm{{}, input * kOps + kind});
      if (is_pool(op)) {
        term.x = op == OpKind::max_pool_3x3 ? pools(input, x).max : pools(input, x).avg;
      } else if (op == OpKind::skip_connect) {
        term.x = {x, {}};
        if (stride == 1) continue;
        const FactorizedReduce both = factorized_units(b_, name, x, c);
        term.x = both.y;
        waiting.skips.insert(waiting.skips.end(), both.units.begin(), both.units.end());
      } else {
        const std::vector<UnitPlan> units = convolution_units(name, op, c, stride);
        waiting.first.push_back(unit_parameters(b_, units[0].names, c, units[0].geometry));
        waiting.first.back().x.x = x;
        waiting.second.emplace_back();
        if (units.size() > 1)
          waiting.second.back() = unit_parameters(b_, units[1].names, c, units[1].geometry);
        waiting.term.push_back(terms.size() - 1);
      }
    }
  }

  // The first units of an edge read its state together. On a cuda device, which one small unit does not fill,
  // those of all edges of a node are one op, as are the second units.
  void record(Convolutions waiting, std::vector<MixedTerm>& terms) {
    if (!waiting.skips.empty()) separable_convs(tape_, waiting.skips);
    const std::vector<Normalised> halves = separable_convs(tape_, waiting.first);
    std::vector<SeparableUnit> units;
    std::vector<size_t> place;
    for (size_t i = 0; i < halves.size(); ++i) {
      terms[waiting.term[i]].x = halves[i];
      if (!waiting.second[i]) continue;
      units.push_back(*waiting.second[i]);
      units.back().x = halves[i];
      place.push_back(waiting.term[i]);
    }
    const size_t together = tape_.device() == Device::cpu ? 1 : units.size();
    for (size_t i = 0; i < units.size(); i += together) {
      const std::vector<Normalised> y = separable_convs(
          tape_, std::vector(units.begin() + ptrdiff_t(i), units.begin() + ptrdiff_t(i + together)));
      for (size_t k = 0; k < y.size(); ++k) terms[place[i + k]].x = y[k];
    }
  }

  Builder& b_;
  Tape& tape_;
  std::string prefix_;
  CellPlace place_;
  int partial_;
  Mixing mixing_;
  std::map<int, Var> seen_, bypass_;
  std::map<int, PoolPair> pools_;
};

// One edge of a derived cell: its op and drop-path, which spares the identity. What is still to be normalised
// has a norm.
Normalised derived_path(Builder& b, const std::string& name, OpKind op, Var x, int stride,
                        std::vector<Var>* drop_masks) {
  if (op == OpKind::skip_connect && stride == 1) return {x, {}};
  Normalised y;
  if (op == OpKind::max_pool_3x3)
    y.x = max_pool(b.tape, x, 3, stride, 1);
  else if (op == OpKind::avg_pool_3x3)
    y.x = avg_pool(b.tape, x, 3, stride, 1);
  else
    y = weighted_op(b, name, op, x, stride, true);
  if (!drop_masks) return y;
  if (y.norm) y = {normalise(b.tape, y.x, y.norm), {}};
  drop_masks->push_back(b.tape.input({b.tape.shape(x).n, 1, 1, 1}));
  return {drop_path(b.tape, y.x, drop_masks->back()), {}};
}

// out = the sum of the paths; those with a norm add themselves.
void add_paths(Tape& tape, const std::vector<Normalised>& paths, Var out) {
  std::vector<Var> whole;
  for (const Normalised& path : paths)
    if (!path.norm) whole.push_back(path.x);
  bool written = !whole.empty();
  if (written) sum(tape, whole, out);
  for (const Normalised& path : paths) {
    if (!path.norm) continue;
    normalise(tape, path.x, path.norm, out, written);
    written = true;
  }
}

}  // namespace

Var cell_output(Tape& tape, const CellPlace& place, Var state0) {
  const int step = place.reduction ? 2 : 1;
  const Shape s = tape.shape(state0);
  return tape.activation({s.n, s.h / step, s.w / step, kNodes * place.channels});
}

Var node_slice(Tape& tape, const CellPlace& place, Var output, int node) {
  return tape.slice(output, node * place.channels, (node + 1) * place.channels);
}

Var cell_nodes(Tape& tape, const CellPlace& place, std::vector<Var> states, bool packed,
               const std::function<void(int node, const std::vector<Var>& states, Var out)>& add_node) {
  const Var output = cell_output(tape, place, states[0]);
  const Shape s = tape.shape(output);
  const size_t inputs = states.size();
  for (int node = 0; node < kNodes; ++node) {
    const Var out =
        packed ? tape.activation({s.n, s.h, s.w, place.channels}) : node_slice(tape, place, output, node);
    add_node(node, states, out);
    states.push_back(out);
  }
  for (int node = 0; packed && node < kNodes; ++node)
    copy(tape, states[inputs + size_t(node)], node_slice(tape, place, output, node));
  return output;
}

Mixing mixing_weights(Tape& tape, Var alpha, Var beta) {
  Mixing mixing;
  mixing.ops = softmax(tape, alpha, std::vector<int>(kEdges, kOps));
  if (!beta) return mixing;
  mixing.edges = softmax(tape, beta, {2, 3, 4, 5});
  mixing.ops = scale_segments(tape, mixing.ops, mixing.edges, std::vector<int>(kEdges, kOps));
  return mixing;
}

Var supernet_cell(Builder& b, const std::string& name, const CellPlace& place, int partial,
                  const Mixing& mixing, Var input0, Var input1) {
  CHECK(place.channels % partial == 0, "supernet: ", place.channels,
        " channels are not divisible by partial ", partial);
  const std::string prefix = name_prefix(name);
  SupernetCell cell(b, prefix, place, partial, mixing);
  // Ops of partial channels read packed copies of them as it is.
  const bool packed = partial == 1 && b.tape.device() == Device::cpu;
  return cell_nodes(
      b.tape, place, preprocess_both(b, prefix, place, input0, input1, false), packed,
      [&](int node, const std::vector<Var>& states, Var out) { cell.add_node(node, states, out); });
}

Var derived_cell(Builder& b, const std::string& name, const CellGenotype& genotype, const CellPlace& place,
                 Var input0, Var input1, std::vector<Var>* drop_masks) {
  const std::string prefix = name_prefix(name);
  const bool packed = b.tape.device() == Device::cpu;
  return cell_nodes(
      b.tape, place, preprocess_both(b, prefix, place, input0, input1, true), packed,
      [&](int node, const std::vector<Var>& states, Var out) {
        std::vector<Normalised> paths;
        for (int j = 2 * node; j < 2 * node + 2; ++j) {
          const CellEdge& edge = genotype[j];
          paths.push_back(derived_path(b, join(prefix, "edges.", j), edge.op, states[edge.input],
                                       edge_stride(place, edge.input), drop_masks));
        }
        add_paths(b.tape, paths, out);
      });
}

}  // namespace lanas
