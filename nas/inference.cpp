// inference.cpp -- the deployed form of a derived network; see network.h.
#include <algorithm>
#include <cmath>
#include <utility>

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

  // State by state, so that all convolutions that read one share it, and soon after it was written. What a
  // node has of paths without weights comes before its convolutions. Nodes are slices of the output: in one
  // pass over few images, in the caches, copies of packed nodes cost more than they give.
  // last: the output goes to the classifier, which does not rectify it as the next cells do. On a cuda device
  // reading rectified costs nothing.
  Var cell(const std::string& name, const CellGenotype& genotype, const CellPlace& place, Var input0,
           Var input1, bool last) {
    std::vector<Var> states;
    std::vector<Node> nodes;
    Var output;
    for (int state = 0; state <= kNodes; ++state) {  // nobody reads the last node
      if (state == 0) {
        states.push_back(preprocess(name + ".preprocess0", input0, place.channels, place.after_reduction));
        output = cell_output(tape_, place, states[0]);
        for (int n = 0; n < kNodes; ++n)
          nodes.emplace_back(genotype, place, n, node_slice(tape_, place, output, n),
                             !last && tape_.device() == Device::cpu);
      } else if (state == 1) {
        states.push_back(preprocess(name + ".preprocess1", input1, place.channels, false));
      } else {
        states.push_back(nodes[size_t(state - 2)].out);
      }
      for (Node& node : nodes)
        if (node.begins == state) begin(node, states);
      for (int input = 0; input <= state; ++input) {
        std::vector<InferencePath> paths;
        for (Node& node : nodes)
          for (const Edge& edge : node.convolutions)
            if (edge.input == input && std::max(input, node.begins) == state)
              convolve(join(name, ".edges.", edge.index), edge, states[size_t(input)], node, paths);
        if (!paths.empty()) separable_convs_inference(tape_, states[size_t(input)], paths);
      }
    }
    if (std::all_of(nodes.begin(), nodes.end(), [](const Node& n) { return n.rectified; }))
      rectified_.push_back(output);
    return output;
  }

  Var classify(Var x, int classes) {
    const Var pooled = global_average_pool(tape_, x);
    const int c = tape_.shape(pooled).c;
    return linear(tape_, pooled, copied("classifier.weight", {classes, 1, 1, c}),
                  copied("classifier.bias", {1, 1, 1, classes}));
  }

 private:
  bool is_rectified(Var x) const {
    return std::find(rectified_.begin(), rectified_.end(), x) != rectified_.end();
  }

  static bool has_depthwise(OpKind op) { return !is_pool(op) && op != OpKind::skip_connect; }

  struct Edge : CellEdge {
    int index;  // of the genotype's edges
    int stride;
  };

  struct Node {
    Var out;
    std::vector<Edge> plain, convolutions;  // without and with weights
    int begins = 0;  // the state behind which it can be written: the last of the plain ones
    Var added;       // what it is so far: nothing, a state, or `out`
    size_t left;     // convolutions still to be added
    // The last of them stores it rectified, as all its readers rectify it: those in the cell have a depthwise
    // part.
    bool rectified;
    Node(const CellGenotype& genotype, const CellPlace& place, int node, Var to, bool rectify) : out(to) {
      for (int j : {2 * node, 2 * node + 1}) {
        const Edge edge{genotype[j], j, edge_stride(place, genotype[j].input)};
        const bool weights = !is_pool(edge.op) && (edge.op != OpKind::skip_connect || edge.stride == 2);
        (weights ? convolutions : plain).push_back(edge);
        if (!weights) begins = std::max(begins, edge.input);
      }
      left = convolutions.size();
      rectified = rectify && left > 0;
      for (const CellEdge& edge : genotype)
        if (edge.input == node + 2 && !has_depthwise(edge.op)) rectified = false;
    }
  };

  // Paths without weights: two of them as one sum, a pool alone as the node itself. A state alone is not
  // copied: the convolution adds it.
  void begin(Node& node, const std::vector<Var>& states) {
    const bool both = node.convolutions.empty();
    std::vector<Var> plain;
    for (const Edge& edge : node.plain)
      plain.push_back(weightless(edge, states[size_t(edge.input)], both ? Var() : node.out));
    if (both) sum(tape_, plain, node.out);
    if (!both && !plain.empty()) node.added = plain[0];
  }

  // A pool, written to `out` where given, or the state as it is.
  Var weightless(const Edge& edge, Var x, Var out) {
    if (edge.op == OpKind::max_pool_3x3) return max_pool(tape_, x, 3, edge.stride, 1, out);
    if (edge.op == OpKind::avg_pool_3x3) return avg_pool(tape_, x, 3, edge.stride, 1, out);
    return x;
  }

  // Appends to the paths from x; a skip connection of stride 2 is recorded at once.
  void convolve(const std::string& name, const Edge& edge, Var x, Node& node,
                std::vector<InferencePath>& paths) {
    const Var added = std::exchange(node.added, node.out);
    const bool rectify = --node.left == 0 && node.rectified;
    const int c = tape_.shape(x).c;
    if (edge.op == OpKind::skip_connect) return reduce(name, x, node.out, added, rectify);
    const int kernel = edge.op == OpKind::sep_conv_5x5 || edge.op == OpKind::dil_conv_5x5 ? 5 : 3;
    InferencePath& path = paths.emplace_back();
    path.out = node.out, path.added = added, path.rectified = rectify;
    if (edge.op == OpKind::dil_conv_3x3 || edge.op == OpKind::dil_conv_5x5) {
      path.first = unit(name, "", ".bn", c, {c, kernel, edge.stride, 2});
    } else {
      path.first = unit(name, "1", ".bn1", c, {c, kernel, edge.stride});
      path.second = unit(name, "2", ".bn2", c, {c, kernel, 1});
    }
  }

  Var preprocess(const std::string& name, Var x, int c, bool is_reduce) {
    const Shape s = tape_.shape(x);
    if (!is_reduce) {
      InferencePath path{.relu = !is_rectified(x)};
      path.first = folded_unit(name + ".conv", name + ".bn", {}, {c, 1, 1, s.c}, 0);
      return separable_conv_inference(tape_, x, path);
    }
    const Var out = tape_.activation({s.n, s.h / 2, s.w / 2, c});
    reduce(name, x, out, {}, false);
    return out;
  }

  void reduce(const std::string& name, Var x, Var out, Var added, bool rectify) {
    const int c = tape_.shape(out).c;
    for (int half = 0; half < 2; ++half) {
      const auto part = [&](Var of) { return tape_.slice(of, half * c / 2, (half + 1) * c / 2); };
      Separable geometry;
      geometry.stride = 2;
      geometry.offset = half;
      InferencePath path{.out = part(out), .relu = !is_rectified(x), .rectified = rectify};
      path.added = path.out;  // the same where the node adds to itself
      if (added != out) path.added = added ? part(added) : Var();
      path.first = folded_unit(name + (half ? ".conv2" : ".conv1"), name + ".bn", geometry,
                               {c / 2, 1, 1, tape_.shape(x).c}, half * c / 2);
      separable_conv_inference(tape_, x, path);
    }
  }

  InferenceUnit unit(const std::string& name, const char* number, const char* bn, int cin, UnitGeometry g) {
    Separable geometry;
    geometry.depthwise = copied(name + ".depthwise" + number, {1, g.kernel, g.kernel, cin});
    geometry.stride = g.stride;
    geometry.dilation = g.dilation;
    return folded_unit(name + ".pointwise" + number, name + bn, geometry, {g.cout, 1, 1, cin}, 0);
  }

  InferenceUnit folded_unit(const std::string& weight, const std::string& bn, Separable geometry, Shape shape,
                            int c0) {
    const auto [w, bias] = folded(weight, bn, shape, c0, true);
    geometry.pointwise = w;
    geometry.transposed = true;
    return {geometry, bias};
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
  std::vector<Var> rectified_;  // cells' outputs that are stored so
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
    const Var output =
        builder.cell(join("cells.", i), cell, places[i], previous, current, i + 1 == config.layers);
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
