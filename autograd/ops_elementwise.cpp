// ops_elementwise.cpp -- elementwise ops and row ops on the tape; see ops.h.
#include "autograd/ops.h"
#include "autograd/recording.h"
#include "kernels/ops/add_bias.h"
#include "kernels/ops/architecture_code.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/ops/drop_path.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/linear.h"
#include "kernels/ops/mean_rows.h"
#include "kernels/ops/scale_segments.h"
#include "kernels/ops/softmax.h"

namespace lanas {
namespace {

const int* as_labels(Tensor t) { return reinterpret_cast<const int*>(t.data); }

}  // namespace

Var relu(Tape& tape, Var x) {
  const Var y = tape.activation(tape.shape(x));
  tape.record({.name = "relu",
               .inputs = {x},
               .outputs = {y},
               .saved = {x},
               .forward = [](Run& run) { relu_forward(run.stream, run.out(0), run.in(0)); },
               .backward =
                   [](Run& run) {
                     relu_backward(run.stream, run.grad_in(0), run.grad_out(0), run.in(0), run.beta(0));
                   }});
  return y;
}

Var sum(Tape& tape, std::vector<Var> xs, Var out) {
  CHECK(!xs.empty(), "sum: of nothing");
  const Var y = output_or_new(tape, "sum", out, tape.shape(xs[0]));
  const int count = int(xs.size());
  tape.record({.name = "sum",
               .inputs = xs,
               .outputs = {y},
               .saved = {},
               .forward =
                   [count](Run& run) {
                     Tensor terms[16];
                     CHECK(count <= 16, "sum: at most 16 terms, found ", count);
                     for (int i = 0; i < count; ++i) terms[i] = run.in(i);
                     sum_forward(run.stream, run.out(0), {terms, size_t(count)});
                   },
               .backward =
                   [count](Run& run) {
                     for (int i = 0; i < count; ++i)
                       if (run.wants(i))
                         copy_scaled(run.stream, run.grad_in(i), run.grad_out(0), 1, run.beta(i));
                   }});
  return y;
}

Var weighted_sum(Tape& tape, std::vector<Var> xs, std::vector<float> weights) {
  CHECK(!xs.empty() && xs.size() == weights.size(), "weighted_sum: ", xs.size(), " terms, ", weights.size(),
        " weights");
  const Var y = tape.activation(tape.shape(xs[0]));
  tape.record({.name = "weighted_sum",
               .inputs = xs,
               .outputs = {y},
               .saved = {},
               .forward =
                   [weights](Run& run) {
                     for (size_t i = 0; i < weights.size(); ++i)
                       copy_scaled(run.stream, run.out(0), run.in(int(i)), weights[i], i > 0);
                   },
               .backward =
                   [weights](Run& run) {
                     for (size_t i = 0; i < weights.size(); ++i)
                       if (run.wants(int(i)))
                         copy_scaled(run.stream, run.grad_in(int(i)), run.grad_out(0), weights[i],
                                     run.beta(int(i)));
                   }});
  return y;
}

Var copy(Tape& tape, Var x, Var out) { return sum(tape, {x}, out); }

Var add_bias(Tape& tape, Var x, Var bias) {
  const Shape s = tape.shape(x);
  CHECK(tape.shape(bias) == (Shape{1, 1, 1, s.c}), "add_bias: bias ", tape.shape(bias), " does not fit x ",
        s);
  tape.record({.name = "add_bias",
               .inputs = {x, bias},
               .outputs = {x},
               .saved = {},
               .forward = [](Run& run) { lanas::add_bias(run.stream, run.out(0), run.in(1).data); },
               .backward = {}});
  return x;
}

Var drop_path(Tape& tape, Var x, Var mask) {
  const Var y = tape.activation(tape.shape(x));
  tape.record({.name = "drop_path",
               .inputs = {x, mask},
               .outputs = {y},
               .saved = {mask},
               .forward =
                   [](Run& run) {
                     if (run.training)
                       drop_path_forward(run.stream, run.out(0), run.in(0), run.in(1).data);
                     else
                       copy_scaled(run.stream, run.out(0), run.in(0), 1, 0);
                   },
               .backward =
                   [](Run& run) {
                     drop_path_backward(run.stream, run.grad_in(0), run.grad_out(0), run.in(1).data,
                                        run.beta(0));
                   }});
  return y;
}

Var linear(Tape& tape, Var x, Var w, Var bias, Var out) {
  const Shape xs = tape.shape(x), ws = tape.shape(w);
  CHECK(xs.h == 1 && xs.w == 1 && ws.c == xs.c, "linear: weights ", ws, " do not fit x ", xs);
  const Var y = output_or_new(tape, "linear", out, {xs.n, 1, 1, ws.n});
  std::vector<Var> inputs = {x, w};
  if (bias) inputs.push_back(bias);
  const bool has_bias = bool(bias);
  tape.record({.name = "linear",
               .inputs = inputs,
               .outputs = {y},
               .saved = {x, w},
               .forward =
                   [has_bias](Run& run) {
                     linear_forward(run.stream, run.out(0), run.in(0), run.in(1),
                                    has_bias ? run.in(2).data : nullptr);
                   },
               .backward =
                   [has_bias](Run& run) {
                     linear_backward(run.stream, run.grad_in(0), run.grad_in(1),
                                     has_bias ? run.grad_in(2).data : nullptr, run.grad_out(0), run.in(0),
                                     run.in(1), run.beta(0), run.beta(1), has_bias ? run.beta(2) : 0);
                   },
               .macs = int64_t{ws.n} * ws.c});
  return y;
}

Var softmax(Tape& tape, Var x, std::vector<int> segments) {
  const Var y = tape.activation(tape.shape(x));
  tape.record(
      {.name = "softmax",
       .inputs = {x},
       .outputs = {y},
       .saved = {y},
       .forward = [segments](Run& run) { softmax_forward(run.stream, run.out(0), run.in(0), segments); },
       .backward =
           [segments](Run& run) {
             softmax_backward(run.stream, run.grad_in(0), run.grad_out(0), run.out(0), segments, run.beta(0));
           }});
  return y;
}

Var scale_segments(Tape& tape, Var x, Var scale, std::vector<int> segments) {
  const Var y = tape.activation(tape.shape(x));
  tape.record({.name = "scale_segments",
               .inputs = {x, scale},
               .outputs = {y},
               .saved = {x, scale},
               .forward =
                   [segments](Run& run) {
                     scale_segments_forward(run.stream, run.out(0), run.in(0), run.in(1), segments);
                   },
               .backward =
                   [segments](Run& run) {
                     scale_segments_backward(run.stream, run.grad_in(0), run.grad_in(1), run.grad_out(0),
                                             run.in(0), run.in(1), segments, run.beta(0), run.beta(1));
                   }});
  return y;
}

Var cross_entropy(Tape& tape, Var logits, Var labels, float smoothing) {
  CHECK(tape.shape(labels).size() == tape.shape(logits).n, "cross_entropy: labels ", tape.shape(labels),
        " do not fit logits ", tape.shape(logits));
  const Var loss = tape.activation({1, 1, 1, 1});
  const Var probabilities = tape.statistic(tape.shape(logits));
  tape.record({.name = "cross_entropy",
               .inputs = {logits, labels},
               .outputs = {loss, probabilities},
               .saved = {labels, probabilities},
               .forward =
                   [smoothing](Run& run) {
                     cross_entropy_forward(run.stream, run.out(0).data, run.out(1), run.in(0),
                                           as_labels(run.in(1)), smoothing);
                   },
               .backward =
                   [smoothing](Run& run) {
                     cross_entropy_backward(run.stream, run.grad_in(0), run.out(1), as_labels(run.in(1)),
                                            smoothing, run.grad_out(0).data, run.beta(0));
                   }});
  return loss;
}

Var mean_rows(Tape& tape, Var x) {
  const Var y = tape.activation({1, 1, 1, tape.shape(x).c});
  tape.record(
      {.name = "mean_rows",
       .inputs = {x},
       .outputs = {y},
       .saved = {},
       .forward = [](Run& run) { mean_rows_forward(run.stream, run.out(0), run.in(0)); },
       .backward =
           [](Run& run) { mean_rows_backward(run.stream, run.grad_in(0), run.grad_out(0), run.beta(0)); }});
  return y;
}

Var architecture_code(Tape& tape, Var alpha, Var edge_logits, Var noise, Var temperature, int samples,
                      bool hard, Var out) {
  const Var code = output_or_new(tape, "architecture_code", out, {samples, 1, 1, tape.shape(alpha).c});
  std::vector<Var> inputs = {alpha, temperature};
  const int at_edges = edge_logits ? 2 : -1, at_noise = noise ? int(inputs.size()) + bool(edge_logits) : -1;
  if (edge_logits) inputs.push_back(edge_logits);
  if (noise) inputs.push_back(noise);
  auto optional = [](Run& run, int at) { return at < 0 ? Tensor{} : run.in(at); };
  tape.record({.name = "architecture_code",
               .inputs = inputs,
               .outputs = {code},
               .saved = inputs,
               .forward =
                   [=](Run& run) {
                     architecture_code_forward(run.stream, run.out(0), run.in(0), optional(run, at_edges),
                                               optional(run, at_noise), run.in(1).data, hard);
                   },
               .backward =
                   [=](Run& run) {
                     const Tensor d_edges = at_edges < 0 ? Tensor{} : run.grad_in(at_edges);
                     architecture_code_backward(run.stream, run.grad_in(0), d_edges, run.grad_out(0),
                                                run.in(0), optional(run, at_edges), optional(run, at_noise),
                                                run.in(1).data, run.beta(0),
                                                at_edges < 0 ? 0 : run.beta(at_edges));
                   }});
  return code;
}

}  // namespace lanas
