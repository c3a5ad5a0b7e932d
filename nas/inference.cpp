// inference.cpp -- the deployed form of a derived network; see network.h.
#include <cmath>

#include "nas/cell.h"
#include "nas/network.h"

namespace lanas {

class InferenceBuilder {
 public:
  InferenceBuilder(InferenceNetwork& network, const NetworkConfig& config)
      : net_(network), tape_(network.tape), config_(config) {}

  std::pair<Var, Var> stem(Var images) {
    return record_stem(tape_, config_, images, [this](const std::string& name, Var x, int cout, int stride) {
      return dense(name, x, cout, stride);
    });
  }

  Var cell(const std::string& name, const CellGenotype& genotype, const CellPlace& place, Var input0,
           Var input1) {
    const int c = place.channels;
    const Var state0 = preprocess(name + ".preprocess0", input0, c, place.after_reduction);
    const Var state1 = preprocess(name + ".preprocess1", input1, c, false);
    // One pass over few images, in the caches: the copies cost more than they give.
    const bool packed = false;
    return cell_nodes(tape_, place, {state0, state1}, packed,
                      [&](int node, const std::vector<Var>& states, Var out) {
                        add_node(join(name, ".edges."), genotype, node, place, states, out);
                      });
  }

  Var classify(Var x, int classes) {
    const Var pooled = global_average_pool(tape_, x);
    const int c = tape_.shape(pooled).c;
    return linear(tape_, pooled, copied("classifier.weight", {classes, 1, 1, c}),
                  copied("classifier.bias", {1, 1, 1, classes}));
  }

 private:
  // Paths without weights come first: two of them as one sum, a pool alone as the node itself. A state alone
  // is not copied: the convolution adds it.
  void add_node(const std::string& prefix, const CellGenotype& genotype, int node, const CellPlace& place,
                const std::vector<Var>& states, Var out) {
    const auto has_weights = [&](int j) {
      const CellEdge& edge = genotype[j];
      return !is_pool(edge.op) && (edge.op != OpKind::skip_connect || edge_stride(place, edge.input) == 2);
    };
    const int first = 2 * node, second = first + 1;
    const bool both = !has_weights(first) && !has_weights(second);
    std::vector<Var> plain;
    for (int j : {first, second})
      if (!has_weights(j)) plain.push_back(weightless(genotype[j], place, states, both ? Var() : out));
    if (both) {
      sum(tape_, plain, out);
      return;
    }
    Var added = plain.empty() ? Var() : plain[0];
    for (int j : {first, second}) {
      if (!has_weights(j)) continue;
      const CellEdge& edge = genotype[j];
      convolve(join(prefix, j), edge.op, states[edge.input], edge_stride(place, edge.input), out, added);
      added = out;
    }
  }

  // A pool, written to `out` where given, or the state as it is.
  Var weightless(const CellEdge& edge, const CellPlace& place, const std::vector<Var>& states, Var out) {
    const Var x = states[edge.input];
    const int stride = edge_stride(place, edge.input);
    if (edge.op == OpKind::max_pool_3x3) return max_pool(tape_, x, 3, stride, 1, out);
    if (edge.op == OpKind::avg_pool_3x3) return avg_pool(tape_, x, 3, stride, 1, out);
    return x;
  }

  void convolve(const std::string& name, OpKind op, Var x, int stride, Var out, Var added) {
    const int c = tape_.shape(x).c;
    if (op == OpKind::skip_connect) return reduce(name, x, out, added);
    const int kernel = op == OpKind::sep_conv_5x5 || op == OpKind::dil_conv_5x5 ? 5 : 3;
    if (op == OpKind::dil_conv_3x3 || op == OpKind::dil_conv_5x5) {
      unit(name, "", ".bn", x, {c, kernel, stride, 2}, out, added);
    } else {
      const Var half = unit(name, "1", ".bn1", x, {c, kernel, stride}, {}, {});
      unit(name, "2", ".bn2", half, {c, kernel, 1}, out, added);
    }
  }

  Var preprocess(const std::string& name, Var x, int c, bool is_reduce) {
    if (!is_reduce) return pointwise(name + ".conv", name + ".bn", x, {c}, {}, {});
    const Shape s = tape_.shape(x);
    const Var out = tape_.activation({s.n, s.h / 2, s.w / 2, c});
    reduce(name, x, out, {});
    return out;
  }

  void reduce(const std::string& name, Var x, Var out, Var added) {
    const int c = tape_.shape(out).c;
    for (int half = 0; half < 2; ++half) {
      const auto part = [&](Var of) { return tape_.slice(of, half * c / 2, (half + 1) * c / 2); };
      const Var to = part(out);
      Separable geometry;
      geometry.stride = 2;
      geometry.offset = half;
      Var more = to;  // the same where the node adds to itself
      if (added != out) more = added ? part(added) : Var();
      folded_unit(name + (half ? ".conv2" : ".conv1"), name + ".bn", x, geometry, c / 2, to, more,
                  half * c / 2);
    }
  }

  Var pointwise(const std::string& weight, const std::string& bn, Var x, UnitGeometry g, Var out, Var added) {
    return folded_unit(weight, bn, x, {}, g.cout, out, added, 0);
  }

  Var unit(const std::string& name, const char* number, const char* bn, Var x, UnitGeometry g, Var out,
           Var added) {
    Separable geometry;
    geometry.depthwise = copied(name + ".depthwise" + number, {1, g.kernel, g.kernel, tape_.shape(x).c});
    geometry.stride = g.stride;
    geometry.dilation = g.dilation;
    return folded_unit(name + ".pointwise" + number, name + bn, x, geometry, g.cout, out, added, 0);
  }

  Var folded_unit(const std::string& weight, const std::string& bn, Var x, Separable geometry, int cout,
                  Var out, Var added, int c0) {
    const auto [w, bias] = folded(weight, bn, {cout, 1, 1, tape_.shape(x).c}, c0, true);
    geometry.pointwise = w;
    geometry.transposed = true;
    return separable_conv_inference(tape_, x, geometry, bias, out, added);
  }

  // 3x3 convolution with padding 1 and folded batch norm.
  Var dense(const std::string& name, Var x, int cout, int stride) {
    const auto [w, bias] = folded(name + ".conv", name + ".bn", {cout, 3, 3, tape_.shape(x).c}, 0);
    return add_bias(tape_, conv2d(tape_, x, w, {stride, 1, 1}), bias);
  }

  std::pair<Var, Var> folded(const std::string& weight, const std::string& bn, Shape shape, int c0,
                             bool transposed = false) {
    const float bound = 1.f / std::sqrt(float(shape.h * shape.w * shape.c));
    const int w = net_.folded_.add(weight, shape, Init::uniform(bound));
    const int bias = net_.folded_.add(weight + ".bias", {1, 1, 1, shape.n}, Init::uniform(bound));
    net_.foldings_.push_back({w, bias, weight, bn, c0, transposed});
    return {tape_.parameter(net_.folded_, w), tape_.parameter(net_.folded_, bias)};
  }

  Var copied(const std::string& name, Shape shape) {
    const int index = net_.folded_.add(name, shape, Init::uniform(0.3f));
    net_.copies_.push_back({index, name});
    return tape_.parameter(net_.folded_, index);
  }

  InferenceNetwork& net_;
  Tape& tape_;
  const NetworkConfig& config_;
};

InferenceNetwork::InferenceNetwork(const NetworkConfig& config, const Genotype& genotype,
                                   ParameterStore& folded)
    : tape(folded.device()), folded_(folded) {
  CHECK(config.image >= 8 && config.image % 4 == 0, "network: image side ", config.image,
        " is not divisible by 4");
  check_genotype(genotype, "network");
  InferenceBuilder builder(*this, config);
  images = tape.input({config.batch, config.image, config.image, 3});
  auto [previous, current] = builder.stem(images);
  const std::vector<CellPlace> places = cell_places(config.channels, config.layers, config.imagenet());
  for (int i = 0; i < config.layers; ++i) {
    const CellGenotype& cell = places[i].reduction ? genotype.reduce : genotype.normal;
    const Var output = builder.cell(join("cells.", i), cell, places[i], previous, current);
    previous = current;
    current = output;
  }
  logits = builder.classify(current, config.classes);
}

void InferenceNetwork::fold(const ParameterStore& weights, const ParameterStore& buffers) {
  const auto read = [](const ParameterStore& store, const std::string& name) {
    std::vector<float> values = store.read(name);
    CHECK(!values.empty(), "InferenceNetwork::fold: the trained network has no ", name);
    return values;
  };
  const auto write = [&](Tensor to, const std::vector<float>& values, const std::string& name) {
    CHECK(int64_t(values.size()) == to.size(), "InferenceNetwork::fold: ", name, " has ", values.size(),
          " numbers, expected ", to.shape());
    upload(folded_.device(), to.data, values.data(), values.size() * sizeof(float));
  };
  constexpr double kEps = 1e-5;
  for (const Folding& f : foldings_) {
    const Tensor to = folded_.value(f.weight);
    const int source = weights.find(f.source);
    CHECK(source >= 0 && weights.entries()[size_t(source)].shape == to.shape(),
          "InferenceNetwork::fold: ", f.source, source < 0 ? " is missing" : " has another shape",
          ", expected ", to.shape());
    const std::vector<float> source_weights = read(weights, f.source);
    std::vector<float> folded(source_weights.size()), bias(size_t(to.n));
    const std::vector<float> gamma = read(weights, f.batch_norm + ".gamma"),
                             beta = read(weights, f.batch_norm + ".beta"),
                             mean = read(buffers, f.batch_norm + ".running_mean"),
                             var = read(buffers, f.batch_norm + ".running_var");
    const size_t row = size_t(to.size() / to.n), outputs = size_t(to.n);
    for (size_t o = 0; o < bias.size(); ++o) {
      const size_t c = size_t(f.c0) + o;
      const double scale = gamma[c] / std::sqrt(double(var[c]) + kEps);
      for (size_t i = 0; i < row; ++i)
        folded[f.transposed ? i * outputs + o : o * row + i] = float(source_weights[o * row + i] * scale);
      bias[o] = float(beta[c] - mean[c] * scale);
    }
    write(to, folded, f.source);
    write(folded_.value(f.bias), bias, f.source);
  }
  for (const auto& [index, name] : copies_) write(folded_.value(index), read(weights, name), name);
}

}  // namespace lanas
