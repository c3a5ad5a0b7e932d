#include "nas/onnx.h"

#include <limits>

#include "nas/cell.h"
#include "nas/protobuf.h"

namespace lanas {
namespace {

// Field numbers and constants of onnx.proto (ONNX 1.8, IR version 7).
constexpr int kFloat = 1, kInt64 = 7;
constexpr int kAttributeInt = 2, kAttributeInts = 7;

std::string raw(const void* data, size_t bytes) { return {static_cast<const char*>(data), bytes}; }

ProtoMessage tensor(const std::string& name, const std::vector<int64_t>& dims, int type, std::string data) {
  ProtoMessage t;
  for (const int64_t dim : dims) t.integer(1, dim);
  t.integer(2, type).bytes(8, name).bytes(9, data);
  return t;
}

ProtoMessage ints(const std::string& name, const std::vector<int64_t>& values) {
  ProtoMessage attribute;
  attribute.bytes(1, name);
  for (const int64_t v : values) attribute.integer(8, v);
  attribute.integer(20, kAttributeInts);
  return attribute;
}

ProtoMessage integer(const std::string& name, int64_t value) {
  ProtoMessage attribute;
  attribute.bytes(1, name).integer(3, value).integer(20, kAttributeInt);
  return attribute;
}

// "N" for the batch, then the given dimensions.
ProtoMessage value_info(const std::string& name, const std::vector<int64_t>& dims) {
  ProtoMessage shape;
  shape.message(1, ProtoMessage().bytes(2, "N"));
  for (const int64_t dim : dims) shape.message(1, ProtoMessage().integer(1, dim));
  ProtoMessage type;
  type.message(1, ProtoMessage().integer(1, kFloat).message(2, shape));
  ProtoMessage info;
  info.bytes(1, name).message(2, type);
  return info;
}

// Records nodes of the graph; a value is known by its name, its channels by the caller.
class OnnxGraph {
 public:
  explicit OnnxGraph(const ParameterStore& folded) : folded_(folded) {}

  std::string node(const std::string& op, const std::vector<std::string>& inputs,
                   const std::vector<ProtoMessage>& attributes = {}, const std::string& output = {}) {
    const std::string name = output.empty() ? join(op, "_", count_++) : output;
    ProtoMessage n;
    for (const std::string& input : inputs) n.bytes(1, input);
    n.bytes(2, name).bytes(3, name).bytes(4, op);
    for (const ProtoMessage& attribute : attributes) n.message(5, attribute);
    graph_.message(1, n);
    return name;
  }

  std::string floats(const std::string& name, const std::vector<int64_t>& dims,
                     const std::vector<float>& values) {
    initializers_.push_back(tensor(name, dims, kFloat, raw(values.data(), values.size() * sizeof(float))));
    return name;
  }
  std::string indices(const std::vector<int64_t>& values) {
    const std::string name = join("indices_", count_++);
    initializers_.push_back(
        tensor(name, {int64_t(values.size())}, kInt64, raw(values.data(), values.size() * sizeof(int64_t))));
    return name;
  }

  // The folded convolution `weight` [cout, k, k, cin] (depthwise: [1, k, k, c]; pointwise: it lies
  // [cin][cout]) and its bias, if it has one.
  std::string conv(const std::string& x, const std::string& weight, int stride, int padding,
                   int dilation = 1) {
    const int index = folded_.find(weight);
    CHECK(index >= 0, "onnx: the network has no ", weight);
    const Tensor w = folded_.value(index);
    const bool depthwise = w.n == 1 && w.h > 1, pointwise = w.h == 1 && w.w == 1;
    const int outer = depthwise ? w.c : w.n, inner = depthwise ? 1 : w.c;
    std::vector<float> values;  // [outer, inner, k, k]
    for (int o = 0; o < outer; ++o)
      for (int i = 0; i < inner; ++i)
        for (int y = 0; y < w.h; ++y)
          for (int x_at = 0; x_at < w.w; ++x_at)
            values.push_back(pointwise ? w.data[i * outer + o]
                                       : w.at(depthwise ? 0 : o, y, x_at)[depthwise ? o : i]);
    std::vector<std::string> inputs = {x, floats(weight, {outer, inner, w.h, w.w}, values)};
    if (folded_.find(weight + ".bias") >= 0)
      inputs.push_back(floats(weight + ".bias", {outer}, folded_.read(weight + ".bias")));
    return node("Conv", inputs,
                {ints("strides", {stride, stride}), ints("pads", {padding, padding, padding, padding}),
                 ints("dilations", {dilation, dilation}), ints("kernel_shape", {w.h, w.w}),
                 integer("group", depthwise ? w.c : 1)});
  }

  ProtoMessage finish() {
    graph_.bytes(2, "lanas");
    for (const ProtoMessage& t : initializers_) graph_.message(5, t);
    return std::move(graph_);
  }

 private:
  const ParameterStore& folded_;
  ProtoMessage graph_;
  std::vector<ProtoMessage> initializers_;
  int count_ = 0;
};

// The cells of InferenceNetwork (inference.cpp), as nodes.
class CellWriter {
 public:
  CellWriter(OnnxGraph& graph, const std::string& name, const CellPlace& place)
      : g_(graph), name_(name), place_(place) {}

  std::string write(const CellGenotype& genotype, const std::string& input0, const std::string& input1) {
    std::vector<std::string> states = {
        place_.after_reduction ? reduce(name_ + ".preprocess0", input0) : pointwise("preprocess0", input0),
        pointwise("preprocess1", input1)};
    for (int node = 0; node < kNodes; ++node) {
      std::string paths[2];
      for (int e = 0; e < 2; ++e) {
        const int pair = 2 * node + e;
        const CellEdge& edge = genotype[size_t(pair)];
        paths[e] = path(join(name_, ".edges.", pair), edge.op, states[size_t(edge.input)],
                        edge_stride(place_, edge.input));
      }
      states.push_back(g_.node("Add", {paths[0], paths[1]}));
    }
    return g_.node("Concat", {states.begin() + 2, states.end()}, {integer("axis", 1)});
  }

 private:
  std::string pointwise(const std::string& name, const std::string& x) {
    return g_.conv(g_.node("Relu", {x}), name_ + "." + name + ".conv", 1, 0);
  }

  // The second half reads the map without its first row and column.
  std::string reduce(const std::string& name, const std::string& x) {
    const std::string y = g_.node("Relu", {x});
    const int64_t end = std::numeric_limits<int64_t>::max();
    const std::string shifted =
        g_.node("Slice", {y, g_.indices({1, 1}), g_.indices({end, end}), g_.indices({2, 3})});
    return g_.node("Concat", {g_.conv(y, name + ".conv1", 2, 0), g_.conv(shifted, name + ".conv2", 2, 0)},
                   {integer("axis", 1)});
  }

  std::string unit(const std::string& name, const char* number, const std::string& x, int kernel, int stride,
                   int dilation) {
    const std::string y = g_.conv(g_.node("Relu", {x}), name + ".depthwise" + number, stride,
                                  dilation * (kernel - 1) / 2, dilation);
    return g_.conv(y, name + ".pointwise" + number, 1, 0);
  }

  std::string path(const std::string& name, OpKind op, const std::string& x, int stride) {
    const std::vector<ProtoMessage> pool = {ints("kernel_shape", {3, 3}), ints("strides", {stride, stride}),
                                            ints("pads", {1, 1, 1, 1})};
    switch (op) {
      case OpKind::max_pool_3x3:
        return g_.node("MaxPool", {x}, pool);
      case OpKind::avg_pool_3x3:  // padding is not counted, which is ONNX's default
        return g_.node("AveragePool", {x}, pool);
      case OpKind::skip_connect:
        return stride == 1 ? x : reduce(name, x);
      case OpKind::sep_conv_3x3:
      case OpKind::sep_conv_5x5: {
        const int kernel = op == OpKind::sep_conv_3x3 ? 3 : 5;
        return unit(name, "2", unit(name, "1", x, kernel, stride, 1), kernel, 1, 1);
      }
      default:
        return unit(name, "", x, op == OpKind::dil_conv_3x3 ? 3 : 5, stride, 2);
    }
  }

  OnnxGraph& g_;
  std::string name_;
  CellPlace place_;
};

// (pixel - mean) / stddev, then the stem's convolutions; the two inputs of the first cell.
std::pair<std::string, std::string> write_stem(OnnxGraph& g, const TrainedNetwork& network) {
  const std::vector<float> mean(network.mean, network.mean + 3), stddev(network.stddev, network.stddev + 3);
  const std::string centred = g.node("Sub", {"images", g.floats("mean", {3, 1, 1}, mean)});
  const std::string x = g.node("Div", {centred, g.floats("stddev", {3, 1, 1}, stddev)});
  if (!network.config.imagenet()) {
    const std::string y = g.conv(x, "stem.conv", 1, 1);
    return {y, y};
  }
  const std::string half = g.node("Relu", {g.conv(x, "stem0.0.conv", 2, 1)});
  const std::string stem0 = g.conv(half, "stem0.1.conv", 2, 1);
  return {stem0, g.conv(g.node("Relu", {stem0}), "stem1.conv", 2, 1)};
}

}  // namespace

std::string onnx_model(const TrainedNetwork& network) {
  const NetworkConfig& config = network.config;
  ParameterStore folded;
  InferenceNetwork inference(config, network.genotype, folded);
  folded.allocate(0);
  inference.fold(network.weights, network.buffers);

  OnnxGraph g(folded);
  auto [previous, current] = write_stem(g, network);
  const std::vector<CellPlace> places = cell_places(config.channels, config.layers, config.imagenet());
  for (size_t i = 0; i < places.size(); ++i) {
    const CellGenotype& cell = places[i].reduction ? network.genotype.reduce : network.genotype.normal;
    const std::string output = CellWriter(g, join("cells.", i), places[i]).write(cell, previous, current);
    previous = current;
    current = output;
  }
  const std::string pooled =
      g.node("Flatten", {g.node("GlobalAveragePool", {current})}, {integer("axis", 1)});
  const int64_t features = folded.value(folded.find("classifier.weight")).c;
  g.node("Gemm",
         {pooled, g.floats("classifier.weight", {config.classes, features}, folded.read("classifier.weight")),
          g.floats("classifier.bias", {config.classes}, folded.read("classifier.bias"))},
         {integer("transB", 1)}, "logits");
  ProtoMessage graph = g.finish();
  graph.message(11, value_info("images", {3, config.image, config.image}));
  graph.message(12, value_info("logits", {config.classes}));

  ProtoMessage model, opset;
  opset.bytes(1, "").integer(2, 13);
  model.integer(1, 7).bytes(2, "lanas").message(7, graph).message(8, opset);
  for (const auto& [key, value] :
       {std::pair<std::string, std::string>{"genotype", write_genotype(network.genotype)},
        {"data", network.data_name},
        {"input", "pixels in [0, 1], RGB"}})
    model.message(14, ProtoMessage().bytes(1, key).bytes(2, value));
  return model.str();
}

}  // namespace lanas
