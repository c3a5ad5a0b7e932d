// ops_convolution.cpp -- convolutions on the tape; see ops.h.
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
  std::vector<Var> vars;
  int depthwise = -1, pointwise = -1, mean = -1, inv_std = -1, gamma = -1, beta = -1, running_mean = -1,
      running_var = -1, bias = -1;

  int add(Var v) {
    if (!v) return -1;
    vars.push_back(v);
    return int(vars.size()) - 1;
  }
};

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

// The moments of y that its readers take: running ones where this is no training pass.
void finish_statistics(Run& run, const SeparableInputs& at, Tensor y, float* mean, float* inv_std) {
  float *running_mean = run.in(at.running_mean).data, *running_var = run.in(at.running_var).data;
  if (!run.training)
    batch_norm_statistics_from_running(run.stream, mean, inv_std, running_mean, running_var, y.c,
                                       kBatchNormEps);
  else if (run.update_statistics)
    batch_norm_update_running(run.stream, running_mean, running_var, mean, inv_std, y.c, y.pixels(),
                              kBatchNormEps);
}

void separable_forward(Run& run, const SeparableInputs& at, const Separable& unit) {
  const SeparableConv<float> op = bind(run, at, unit);
  const Tensor y = run.out(0);
  float *mean = run.out(1).data, *inv_std = run.out(2).data;
  separable_conv_forward(run.stream, op, y, run.in(0), run.training ? mean : nullptr,
                         run.training ? inv_std : nullptr, kBatchNormEps, run.scratch());
  finish_statistics(run, at, y, mean, inv_std);
}

SeparableConvGradient<float> bind_gradient(const Run& run, const SeparableInputs& at) {
  SeparableConvGradient<float> gradient;
  gradient.dx = run.grad_in(0);
  gradient.beta_dx = run.beta(0);
  gradient.dx_factors = run.factors(0);
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

void separable_backward(Run& run, const SeparableInputs& at, const Separable& unit) {
  separable_conv_backward(run.stream, bind(run, at, unit), bind_gradient(run, at), run.gradient(0), run.in(0),
                          run.scratch());
}

// Several units that read input 0; unit u has outputs 3u, 3u + 1, 3u + 2.
struct SeparableGroup {
  std::vector<SeparableInputs> at;  // positions among the inputs of all
  std::vector<Separable> units;

  std::vector<SeparableConv<float>> bind_all(const Run& run) const {
    std::vector<SeparableConv<float>> ops;
    for (size_t u = 0; u < units.size(); ++u) ops.push_back(bind(run, at[u], units[u]));
    return ops;
  }

  void forward(Run& run) const {
    std::vector<SeparableConvOutput<float>> outputs;
    for (int u = 0; u < int(units.size()); ++u) {
      outputs.push_back({run.out(3 * u)});
      if (run.training)
        outputs.back().mean = run.out(3 * u + 1).data, outputs.back().inv_std = run.out(3 * u + 2).data;
    }
    separable_convs_forward(run.stream, bind_all(run), outputs, run.in(0), kBatchNormEps, run.scratch());
    for (int u = 0; u < int(units.size()); ++u)
      finish_statistics(run, at[size_t(u)], run.out(3 * u), run.out(3 * u + 1).data, run.out(3 * u + 2).data);
  }

  void backward(Run& run) const {
    std::vector<SeparableConvGradient<float>> gradients;
    std::vector<GradientView<float>> dys;
    for (int u = 0; u < int(units.size()); ++u) {
      gradients.push_back(bind_gradient(run, at[size_t(u)]));
      dys.push_back(run.gradient(3 * u));
    }
    separable_convs_backward(run.stream, bind_all(run), gradients, dys, run.in(0), run.scratch());
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

Normalised separable_conv(Tape& tape, Normalised x, Separable unit, RunningMoments running, Normalised out) {
  const SeparableConv<float> op = shapes_only(tape, unit);
  const Shape xs = tape.shape(x.x), ys = op.output_shape(xs);
  CHECK(op.pointwise.c == xs.c && (!op.has_depthwise() || op.depthwise.c == xs.c),
        "separable_conv: weights of ", op.pointwise.c, " channels do not fit x ", xs);
  if (!out.x)
    out = {tape.activation(ys), {tape.statistic({1, 1, 1, ys.c}), tape.statistic({1, 1, 1, ys.c}), {}, {}}};
  CHECK(tape.shape(out.x) == ys, "separable_conv: output ", tape.shape(out.x), " does not match ", ys);
  SeparableInputs at;
  at.add(x.x);
  at.depthwise = at.add(unit.depthwise);
  at.pointwise = at.add(unit.pointwise);
  at.mean = at.add(x.norm.mean);
  at.inv_std = at.add(x.norm.inv_std);
  at.gamma = at.add(x.norm.gamma);
  at.beta = at.add(x.norm.beta);
  std::vector<Var> saved = at.vars;
  at.running_mean = at.add(running.mean);
  at.running_var = at.add(running.var);
  const Stream most;  // scratch for as many threads as this machine has
  const Stream one(tape.device(), 1);
  size_t scratch = 0;
  for (const Stream* stream : {&most, &one})
    scratch = std::max({scratch, separable_conv_forward_scratch_bytes(*stream, op, xs),
                        separable_conv_backward_scratch_bytes(*stream, op, xs)});
  tape.record({.name = "separable_conv",
               .inputs = at.vars,
               .outputs = {out.x, out.norm.mean, out.norm.inv_std},
               .saved = saved,
               .forward = [at, unit](Run& run) { separable_forward(run, at, unit); },
               .backward = [at, unit](Run& run) { separable_backward(run, at, unit); },
               .scratch_bytes = scratch,
               .leaves_factors = x.norm ? std::vector<Var>{x.x} : std::vector<Var>{},
               .takes_factors = true,
               .macs = separable_macs(op, ys)});
  return out;
}

std::vector<Normalised> separable_convs(Tape& tape, Var x, const std::vector<SeparableWithMoments>& units) {
  const Shape xs = tape.shape(x);
  std::vector<SeparableConv<float>> ops;
  std::vector<Normalised> results;
  std::vector<Var> outputs;
  SeparableInputs all;
  all.add(x);
  SeparableGroup group;
  int64_t macs = 0;
  for (const SeparableWithMoments& from : units) {
    ops.push_back(shapes_only(tape, from.unit));
    const Shape ys = ops.back().output_shape(xs);
    SeparableInputs at;
    at.depthwise = all.add(from.unit.depthwise);
    at.pointwise = all.add(from.unit.pointwise);
    group.at.push_back(at), group.units.push_back(from.unit);
    results.push_back(
        {tape.activation(ys), {tape.statistic({1, 1, 1, ys.c}), tape.statistic({1, 1, 1, ys.c}), {}, {}}});
    const Normalised& y = results.back();
    outputs.insert(outputs.end(), {y.x, y.norm.mean, y.norm.inv_std});
    macs += separable_macs(ops.back(), ys);
  }
  const std::vector<Var> saved = all.vars;
  for (size_t u = 0; u < units.size(); ++u) {
    group.at[u].running_mean = all.add(units[u].running.mean);
    group.at[u].running_var = all.add(units[u].running.var);
  }
  const Stream most, one(tape.device(), 1);
  size_t scratch = 0;
  for (const Stream* stream : {&most, &one})
    scratch = std::max({scratch, separable_convs_forward_scratch_bytes(*stream, ops, xs),
                        separable_convs_backward_scratch_bytes(*stream, ops, xs)});
  tape.record({.name = "separable_convs",
               .inputs = all.vars,
               .outputs = outputs,
               .saved = saved,
               .forward = [group](Run& run) { group.forward(run); },
               .backward = [group](Run& run) { group.backward(run); },
               .scratch_bytes = scratch,
               .takes_factors = true,
               .macs = macs});
  return results;
}

Var separable_conv_inference(Tape& tape, Var x, Separable unit, Var bias, Var out, bool accumulate,
                             bool relu) {
  const SeparableConv<float> op = shapes_only(tape, unit);
  const Shape xs = tape.shape(x), ys = op.output_shape(xs);
  CHECK(op.pointwise.c == xs.c, "separable_conv_inference: weights of ", op.pointwise.c,
        " channels do not fit x ", xs);
  CHECK(out || !accumulate, "separable_conv_inference: nothing to accumulate into");
  out = output_or_new(tape, "separable_conv_inference", out, ys);
  SeparableInputs at;
  at.add(x);
  at.depthwise = at.add(unit.depthwise);
  at.pointwise = at.add(unit.pointwise);
  at.bias = at.add(bias);
  const Stream most, one(tape.device(), 1);
  tape.record({.name = "separable_conv_inference",
               .inputs = at.vars,
               .outputs = {out},
               .saved = {},
               .forward =
                   [at, unit, accumulate, relu](Run& run) {
                     separable_conv_inference(run.stream, bind(run, at, unit, relu), run.out(0), run.in(0),
                                              at.bias >= 0 ? run.in(at.bias).data : nullptr,
                                              accumulate ? 1.f : 0.f, run.scratch());
                   },
               .backward = {},
               .scratch_bytes = std::max(separable_conv_inference_scratch_bytes(most, op, xs),
                                         separable_conv_inference_scratch_bytes(one, op, xs)),
               .macs = separable_macs(op, ys)});
  return out;
}

}  // namespace lanas
