// ops_convolution.cpp -- convolutions on the tape; see ops.h.
#include <algorithm>

#include "autograd/ops.h"
#include "autograd/recording.h"
#include "kernels/ops/batch_norm.h"
#include "kernels/ops/depthwise_conv.h"
#include "kernels/ops/separable_conv.h"
#include "kernels/vendor/conv2d.h"

namespace lanas {
namespace {

Shape conv_shape(const char* op, Shape x, Shape w, int cout, ConvGeometry g) {
  const Shape y{x.n, conv_output_size(x.h, w.h, g.stride, g.padding, g.dilation),
                conv_output_size(x.w, w.w, g.stride, g.padding, g.dilation), cout};
  CHECK(w.c == x.c && y.h > 0 && y.w > 0, op, ": weights ", w, " do not fit x ", x);
  return y;
}

// The positions of a separable unit's inputs on the tape; -1 where it has none.
struct SeparableInputs {
  int x = -1, depthwise = -1, pointwise = -1, mean = -1, inv_std = -1, gamma = -1, beta = -1,
      running_mean = -1, running_var = -1, bias = -1;
};

int add(std::vector<Var>& vars, Var v) {
  if (!v) return -1;
  vars.push_back(v);
  return int(vars.size()) - 1;
}

SeparableConv<float> bind(const Run& run, const SeparableInputs& at, const Separable& unit,
                          bool relu = true) {
  SeparableConv<float> op;
  if (at.depthwise >= 0) op.depthwise = run.in(at.depthwise);
  op.pointwise = run.in(at.pointwise);
  if (at.mean >= 0) op.norm = {run.in(at.mean).data, run.in(at.inv_std).data, nullptr, nullptr};
  if (at.gamma >= 0) {
    op.norm.gamma = run.in(at.gamma).data;
    op.norm.beta = run.in(at.beta).data;
  }
  op.stride = unit.stride;
  op.dilation = unit.dilation;
  op.offset = unit.offset;
  op.transposed = unit.transposed;
  op.relu = relu;
  return op;
}

// The same with shapes only, for sizes.
SeparableConv<float> shapes_only(const Tape& tape, const Separable& unit) {
  SeparableConv<float> op;
  if (unit.depthwise) op.depthwise = Tensor(nullptr, tape.shape(unit.depthwise));
  op.pointwise = Tensor(nullptr, tape.shape(unit.pointwise));
  op.stride = unit.stride;
  op.dilation = unit.dilation;
  op.offset = unit.offset;
  op.transposed = unit.transposed;
  return op;
}

int64_t separable_macs(const SeparableConv<float>& op, Shape y) {
  const int64_t depthwise = op.has_depthwise() ? int64_t{op.kernel()} * op.kernel() * op.depthwise.c : 0;
  return y.pixels() / y.n * (depthwise + op.pointwise.size());
}

SeparableConvGradient<float> bind_gradient(const Run& run, const SeparableInputs& at) {
  SeparableConvGradient<float> gradient;
  gradient.dx = run.grad_in(at.x);
  gradient.beta_dx = run.beta(at.x);
  gradient.dx_factors = run.factors(at.x);
  if (at.depthwise >= 0) {
    gradient.d_depthwise = run.grad_in(at.depthwise);
    gradient.beta_d_depthwise = run.beta(at.depthwise);
  }
  gradient.d_pointwise = run.grad_in(at.pointwise);
  gradient.beta_d_pointwise = run.beta(at.pointwise);
  if (at.gamma >= 0)
    gradient.norm = {run.grad_in(at.gamma).data, run.grad_in(at.beta).data, run.beta(at.gamma),
                     run.beta(at.beta)};
  return gradient;
}

// Units that run together; unit u has outputs 3u, 3u + 1, 3u + 2. Input i is read by shares[i] of them.
struct SeparableGroup {
  std::vector<SeparableInputs> at;
  std::vector<Separable> units;
  std::vector<int> shares;

  std::vector<SeparableConv<float>> bind_all(const Run& run) const {
    std::vector<SeparableConv<float>> ops;
    for (size_t u = 0; u < units.size(); ++u) ops.push_back(bind(run, at[u], units[u]));
    return ops;
  }

  // x(unit) is a tensor.
  template <class X>
  std::vector<SeparableInput> inputs(X x) const {
    std::vector<SeparableInput> all;
    size_t first = 0;
    for (const int count : shares) {
      all.push_back({x(first), count});
      first += size_t(count);
    }
    return all;
  }
  std::vector<SeparableInput> inputs(const Run& run) const {
    return inputs([&](size_t u) { return run.in(at[u].x); });
  }

  // The moments of y that its readers take are running ones where this is no training pass.
  void forward(Run& run) const {
    std::vector<SeparableConvOutput<float>> outputs;
    for (int u = 0; u < int(units.size()); ++u) {
      SeparableConvOutput<float>& out = outputs.emplace_back();
      const SeparableInputs& in = at[size_t(u)];
      out.y = run.out(3 * u);
      if (!run.training) continue;
      out.mean = run.out(3 * u + 1).data, out.inv_std = run.out(3 * u + 2).data;
      if (run.update_statistics)
        out.running_mean = run.in(in.running_mean).data, out.running_var = run.in(in.running_var).data;
    }
    separable_convs_forward(run.stream, bind_all(run), outputs, inputs(run), kBatchNormEps, run.scratch());
    if (run.training) return;
    for (int u = 0; u < int(units.size()); ++u)
      batch_norm_statistics_from_running(run.stream, run.out(3 * u + 1).data, run.out(3 * u + 2).data,
                                         run.in(at[size_t(u)].running_mean).data,
                                         run.in(at[size_t(u)].running_var).data, run.out(3 * u).c,
                                         kBatchNormEps);
  }

  void backward(Run& run) const {
    std::vector<SeparableConvGradient<float>> gradients;
    std::vector<GradientView<float>> dys;
    for (int u = 0; u < int(units.size()); ++u) {
      gradients.push_back(bind_gradient(run, at[size_t(u)]));
      dys.push_back(run.gradient(3 * u));
    }
    separable_convs_backward(run.stream, bind_all(run), gradients, dys, inputs(run), run.scratch());
  }
};

}  // namespace

Var conv2d(Tape& tape, Var x, Var w, ConvGeometry g) {
  const Shape xs = tape.shape(x), ws = tape.shape(w), ys = conv_shape("conv2d", xs, ws, ws.n, g);
  const Var y = tape.activation(ys);
  const size_t scratch = conv2d_scratch_bytes(ys, xs, ws, g.stride, g.padding, g.dilation, tape.device());
  tape.record({.name = "conv2d",
               .inputs = {x, w},
               .outputs = {y},
               .saved = {x, w},
               .forward =
                   [g](Run& run) {
                     conv2d_forward(run.stream, run.out(0), run.in(0), run.in(1), g.stride, g.padding,
                                    g.dilation, run.scratch());
                   },
               .backward =
                   [g](Run& run) {
                     if (run.wants(0))
                       conv2d_backward_data(run.stream, run.grad_in(0), run.grad_out(0), run.in(1), g.stride,
                                            g.padding, g.dilation, run.beta(0), run.scratch());
                     if (run.wants(1))
                       conv2d_backward_weights(run.stream, run.grad_in(1), run.grad_out(0), run.in(0),
                                               g.stride, g.padding, g.dilation, run.beta(1), run.scratch());
                   },
               .scratch_bytes = scratch,
               .macs = ys.size() / ys.n * ws.h * ws.w * ws.c});
  return y;
}

Var depthwise_conv(Tape& tape, Var x, Var w, ConvGeometry g) {
  const Shape xs = tape.shape(x), ws = tape.shape(w), ys = conv_shape("depthwise_conv", xs, ws, xs.c, g);
  const Var y = tape.activation(ys);
  tape.record({.name = "depthwise_conv",
               .inputs = {x, w},
               .outputs = {y},
               .saved = {x, w},
               .forward =
                   [g](Run& run) {
                     depthwise_conv_forward(run.stream, run.out(0), run.in(0), run.in(1), g.stride, g.padding,
                                            g.dilation);
                   },
               .backward =
                   [g](Run& run) {
                     depthwise_conv_backward(run.stream, run.grad_in(0), run.grad_in(1), run.grad_out(0),
                                             run.in(0), run.in(1), g.stride, g.padding, g.dilation,
                                             run.beta(0), run.beta(1));
                   },
               .macs = ys.size() / ys.n * ws.h * ws.w});
  return y;
}

std::vector<Normalised> separable_convs(Tape& tape, const std::vector<SeparableUnit>& units) {
  std::vector<SeparableConv<float>> ops;
  std::vector<Normalised> results;
  std::vector<Var> vars, outputs, normalised;
  SeparableGroup group;
  int64_t macs = 0;
  for (const SeparableUnit& from : units) {
    const Shape xs = tape.shape(from.x.x);
    const SeparableConv<float>& op = ops.emplace_back(shapes_only(tape, from.unit));
    CHECK(op.pointwise.c == xs.c && (!op.has_depthwise() || op.depthwise.c == xs.c),
          "separable_conv: weights of ", op.pointwise.c, " channels do not fit x ", xs);
    const Shape ys = op.output_shape(xs);
    SeparableInputs& at = group.at.emplace_back();
    const bool shared = !group.units.empty() && vars[size_t(group.at[group.units.size() - 1].x)] == from.x.x;
    at.x = shared ? group.at[group.units.size() - 1].x : add(vars, from.x.x);
    if (shared)
      ++group.shares.back();
    else
      group.shares.push_back(1);
    at.depthwise = add(vars, from.unit.depthwise);
    at.pointwise = add(vars, from.unit.pointwise);
    at.mean = add(vars, from.x.norm.mean);
    at.inv_std = add(vars, from.x.norm.inv_std);
    at.gamma = add(vars, from.x.norm.gamma);
    at.beta = add(vars, from.x.norm.beta);
    group.units.push_back(from.unit);
    if (from.x.norm) normalised.push_back(from.x.x);
    Normalised y = from.out;
    if (!y.x)
      y = {tape.activation(ys), {tape.statistic({1, 1, 1, ys.c}), tape.statistic({1, 1, 1, ys.c}), {}, {}}};
    CHECK(tape.shape(y.x) == ys, "separable_conv: output ", tape.shape(y.x), " does not match ", ys);
    results.push_back(y);
    outputs.insert(outputs.end(), {y.x, y.norm.mean, y.norm.inv_std});
    macs += separable_macs(op, ys);
  }
  const std::vector<Var> saved = vars;
  for (size_t u = 0; u < units.size(); ++u) {
    group.at[u].running_mean = add(vars, units[u].running.mean);
    group.at[u].running_var = add(vars, units[u].running.var);
  }
  const auto inputs = group.inputs([&](size_t u) { return Tensor(nullptr, tape.shape(units[u].x.x)); });
  const Stream most;  // scratch for as many threads as this machine has
  const Stream one(tape.device(), 1);
  size_t scratch = 0;
  for (const Stream* stream : {&most, &one})
    scratch = std::max({scratch, separable_convs_forward_scratch_bytes(*stream, ops, inputs),
                        separable_convs_backward_scratch_bytes(*stream, ops, inputs)});
  tape.record({.name = units.size() == 1 ? "separable_conv" : "separable_convs",
               .inputs = vars,
               .outputs = outputs,
               .saved = saved,
               .forward = [group](Run& run) { group.forward(run); },
               .backward = [group](Run& run) { group.backward(run); },
               .scratch_bytes = scratch,
               .leaves_factors = normalised,
               .takes_factors = 1,
               .macs = macs});
  return results;
}

Normalised separable_conv(Tape& tape, Normalised x, Separable unit, RunningMoments running, Normalised out) {
  return separable_convs(tape, {{x, unit, running, out}})[0];
}

std::vector<Var> separable_convs_inference(Tape& tape, Var x, const std::vector<InferencePath>& paths) {
  // The positions of a path's units, of y among the outputs and of what is added among the inputs, or -1.
  struct Places {
    SeparableInputs first, second;
    int y = 0, added = -1;
    bool adds_to_y = false;
  };
  const char* name = paths.size() == 1 ? "separable_conv_inference" : "separable_convs_inference";
  std::vector<Var> vars{x}, outputs, results;
  std::vector<Places> places;
  std::vector<SeparablePath> shapes;
  int64_t macs = 0;
  // The shape that a unit makes of xs.
  const auto add_unit = [&](SeparableInputs& at, SeparableConv<float>& op, const InferenceUnit& u, Shape xs) {
    at.depthwise = add(vars, u.unit.depthwise);
    at.pointwise = add(vars, u.unit.pointwise);
    at.bias = add(vars, u.bias);
    op = shapes_only(tape, u.unit);
    CHECK(op.pointwise.c == xs.c, name, ": weights of ", op.pointwise.c, " channels do not fit x ", xs);
    const Shape ys = op.output_shape(xs);
    macs += separable_macs(op, ys);
    return ys;
  };
  for (const InferencePath& path : paths) {
    Places& at = places.emplace_back();
    SeparablePath& shape = shapes.emplace_back();
    at.first.x = 0;
    Shape ys = add_unit(at.first, shape.first, path.first, tape.shape(x));
    if (path.second.unit.pointwise) ys = add_unit(at.second, shape.second, path.second, ys);
    results.push_back(output_or_new(tape, name, path.out, ys));
    const auto known = std::find(outputs.begin(), outputs.end(), results.back());
    at.y = int(known - outputs.begin());
    if (known == outputs.end()) outputs.push_back(results.back());
    at.adds_to_y = path.added && path.added == path.out;
    if (!at.adds_to_y) at.added = add(vars, path.added);
  }
  const auto forward = [=](Run& run) {
    const auto bias = [&](const SeparableInputs& at) {
      return at.bias >= 0 ? run.in(at.bias).data : nullptr;
    };
    std::vector<SeparablePath> bound;
    for (size_t i = 0; i < paths.size(); ++i) {
      const Places& at = places[i];
      SeparablePath& path = bound.emplace_back();
      path.first = bind(run, at.first, paths[i].first.unit, paths[i].relu);
      path.first_bias = bias(at.first);
      if (at.second.pointwise >= 0) {
        path.second = bind(run, at.second, paths[i].second.unit);
        path.second_bias = bias(at.second);
      }
      path.y = run.out(at.y);
      path.rectified = paths[i].rectified;
      path.added = at.adds_to_y ? path.y : at.added >= 0 ? run.in(at.added) : Tensor();
    }
    separable_convs_inference(run.stream, bound, run.in(0), run.scratch());
  };
  const Stream most, one(tape.device(), 1);
  tape.record({.name = name,
               .inputs = vars,
               .outputs = outputs,
               .saved = {},
               .forward = forward,
               .backward = {},
               .scratch_bytes = std::max(separable_convs_inference_scratch_bytes(most, shapes, tape.shape(x)),
                                         separable_convs_inference_scratch_bytes(one, shapes, tape.shape(x))),
               .macs = macs});
  return results;
}

Var separable_conv_inference(Tape& tape, Var x, const InferencePath& path) {
  return separable_convs_inference(tape, x, {path})[0];
}

}  // namespace lanas
