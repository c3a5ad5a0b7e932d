// ops_norm.cpp -- batch norm, the mixed sum, channel shuffle and pooling on the tape; see ops.h.
#include "autograd/ops.h"
#include "autograd/recording.h"
#include "kernels/ops/batch_norm.h"
#include "kernels/ops/channel_shuffle.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/global_pool.h"
#include "kernels/ops/mixed_sum.h"
#include "kernels/ops/pool2d.h"
#include "kernels/ops/pool_pair.h"
#include "kernels/vendor/conv2d.h"

namespace lanas {
namespace {

// Whose factors a pool takes: on the cpu, where an image's gradient is put together once; a thread of a cuda
// device would do so for every window around a pixel.
constexpr int kMostReaders = 16;

using PoolForward = void (*)(Stream&, Tensor y, Tensor x, int kernel, int stride, int padding);

Var record_pool(Tape& tape, const char* name, Var x, int kernel, int stride, int padding, Var out,
                PoolForward forward, std::vector<Var> saved, std::function<void(Run&)> backward) {
  const Shape s = tape.shape(x);
  const int h = conv_output_size(s.h, kernel, stride, padding, 1),
            w = conv_output_size(s.w, kernel, stride, padding, 1);
  CHECK(h > 0 && w > 0, name, ": kernel ", kernel, " does not fit x ", s);
  const Var y = output_or_new(tape, name, out, {s.n, h, w, s.c});
  tape.record(
      {.name = name,
       .inputs = {x},
       .outputs = {y},
       .saved = std::move(saved),
       .forward = [=](Run& run) { forward(run.stream, run.out(0), run.in(0), kernel, stride, padding); },
       .backward = std::move(backward),
       .takes_factors = tape.device() == Device::cpu ? kMostReaders : 0});
  return y;
}

}  // namespace

Norm batch_statistics(Tape& tape, Var x, RunningMoments running) {
  const Shape s = tape.shape(x);
  const Norm norm = {tape.statistic({1, 1, 1, s.c}), tape.statistic({1, 1, 1, s.c}), {}, {}};
  tape.record({.name = "batch_statistics",
               .inputs = {x, running.mean, running.var},
               .outputs = {norm.mean, norm.inv_std},
               .saved = {},
               .forward =
                   [](Run& run) {
                     float *mean = run.out(0).data, *inv_std = run.out(1).data;
                     float *running_mean = run.in(1).data, *running_var = run.in(2).data;
                     const int c = run.in(0).c;
                     if (!run.training)
                       return batch_norm_statistics_from_running(run.stream, mean, inv_std, running_mean,
                                                                 running_var, c, kBatchNormEps);
                     const bool moves = run.update_statistics;
                     batch_norm_statistics(run.stream, mean, inv_std, run.in(0), kBatchNormEps,
                                           moves ? running_mean : nullptr, moves ? running_var : nullptr);
                   },
               .backward = {}});
  return norm;
}

Var normalise(Tape& tape, Var x, Norm norm, Var out, bool accumulate) {
  CHECK(out || !accumulate, "batch_norm: nothing to add to");
  const Var y = output_or_new(tape, "normalise", out, tape.shape(x));
  std::vector<Var> inputs = {x, norm.mean, norm.inv_std};
  const bool affine = bool(norm.gamma);
  if (affine) inputs.insert(inputs.end(), {norm.gamma, norm.beta});
  auto view = [affine](Run& run) {
    NormView<float> v{run.in(1).data, run.in(2).data, nullptr, nullptr};
    if (affine) {
      v.gamma = run.in(3).data;
      v.beta = run.in(4).data;
    }
    return v;
  };
  tape.record({.name = "batch_norm",
               .inputs = inputs,
               .outputs = {y},
               .saved = inputs,
               .forward =
                   [view, accumulate](Run& run) {
                     batch_norm_forward(run.stream, run.out(0), run.in(0), view(run), accumulate);
                   },
               .backward =
                   [view, affine](Run& run) {
                     NormGradient<float> gradient;
                     if (affine)
                       gradient = {run.grad_in(3).data, run.grad_in(4).data, run.beta(3), run.beta(4)};
                     batch_norm_backward(run.stream, run.grad_in(0), gradient, run.grad_out(0), run.in(0),
                                         view(run), run.beta(0), true, run.factors(0));
                   },
               .leaves_factors = {x},
               .factors_of_output = true});
  return y;
}

Var max_pool(Tape& tape, Var x, int kernel, int stride, int padding, Var out) {
  return record_pool(tape, "max_pool", x, kernel, stride, padding, out, max_pool_forward, {x}, [=](Run& run) {
    max_pool_backward(run.stream, run.grad_in(0), run.gradients(0), run.in(0), kernel, stride, padding,
                      run.beta(0));
  });
}

Var avg_pool(Tape& tape, Var x, int kernel, int stride, int padding, Var out) {
  return record_pool(tape, "avg_pool", x, kernel, stride, padding, out, avg_pool_forward, {}, [=](Run& run) {
    avg_pool_backward(run.stream, run.grad_in(0), run.gradients(0), kernel, stride, padding, run.beta(0));
  });
}

PoolPair pool_pair(Tape& tape, Var x, int stride, RunningMoments max_running, RunningMoments avg_running) {
  const Shape s = tape.shape(x);
  const Shape shape{s.n, pooled_size(s.h, 3, stride, 1), pooled_size(s.w, 3, stride, 1), s.c};
  const auto result = [&]() -> Normalised {
    return {tape.activation(shape), {tape.statistic({1, 1, 1, s.c}), tape.statistic({1, 1, 1, s.c}), {}, {}}};
  };
  const PoolPair pair{result(), result()};
  // Outputs y, mean and inv_std of the maximum, then of the average; inputs x and their running moments.
  const auto forward = [=](Run& run) {
    PooledOutput outputs[2];
    for (int k = 0; k < 2; ++k) {
      PooledOutput& out = outputs[k];
      out.y = run.out(3 * k);
      if (run.training) out.mean = run.out(3 * k + 1).data, out.inv_std = run.out(3 * k + 2).data;
      if (run.training && run.update_statistics)
        out.running_mean = run.in(2 * k + 1).data, out.running_var = run.in(2 * k + 2).data;
    }
    pool_pair_forward(run.stream, outputs[0], outputs[1], run.in(0), stride, kBatchNormEps);
    for (int k = 0; k < 2 && !run.training; ++k)
      batch_norm_statistics_from_running(run.stream, run.out(3 * k + 1).data, run.out(3 * k + 2).data,
                                         run.in(2 * k + 1).data, run.in(2 * k + 2).data, run.in(0).c,
                                         kBatchNormEps);
  };
  const auto backward = [=](Run& run) {
    pool_pair_backward(run.stream, run.grad_in(0), run.grad_out(0), run.grad_out(3), run.in(0), stride,
                       run.beta(0));
  };
  tape.record({.name = "pool_pair",
               .inputs = {x, max_running.mean, max_running.var, avg_running.mean, avg_running.var},
               .outputs = {pair.max.x, pair.max.norm.mean, pair.max.norm.inv_std, pair.avg.x,
                           pair.avg.norm.mean, pair.avg.norm.inv_std},
               .saved = {x},
               .forward = forward,
               .backward = backward});
  return pair;
}

Var global_average_pool(Tape& tape, Var x) {
  const Shape s = tape.shape(x);
  const Var y = tape.activation({s.n, 1, 1, s.c});
  tape.record({.name = "global_average_pool",
               .inputs = {x},
               .outputs = {y},
               .saved = {},
               .forward = [](Run& run) { global_average_pool_forward(run.stream, run.out(0), run.in(0)); },
               .backward =
                   [](Run& run) {
                     global_average_pool_backward(run.stream, run.grad_in(0), run.grad_out(0), run.beta(0));
                   }});
  return y;
}

Var mixed_sum(Tape& tape, std::vector<MixedTerm> terms, Var weights, Var out) {
  CHECK(!terms.empty(), "mixed_sum: of nothing");
  const Shape s = tape.shape(terms[0].x.x);
  const Var y = output_or_new(tape, "mixed_sum", out, s);
  // Inputs: the weights, then for each term x and, if it is normalised, mean and inv_std.
  std::vector<Var> inputs = {weights};
  struct Position {
    int x, mean, weight;
  };
  std::vector<Position> at;
  std::vector<Var> normalised;
  for (const MixedTerm& term : terms) {
    CHECK(tape.shape(term.x.x) == s, "mixed_sum: term ", tape.shape(term.x.x), " does not match ", s);
    CHECK(term.weight >= 0 && term.weight < tape.shape(weights).c, "mixed_sum: weight ", term.weight, " of ",
          tape.shape(weights));
    CHECK(!term.x.norm.gamma, "mixed_sum: terms have no affine part");
    at.push_back({int(inputs.size()), term.x.norm ? int(inputs.size()) + 1 : -1, term.weight});
    inputs.push_back(term.x.x);
    if (!term.x.norm) continue;
    inputs.insert(inputs.end(), {term.x.norm.mean, term.x.norm.inv_std});
    normalised.push_back(term.x.x);
  }
  auto bind = [at](Run& run) -> std::span<const MixedSumTerm<float>> {
    thread_local std::vector<MixedSumTerm<float>> bound;  // keeps its capacity: a step allocates nothing
    bound.clear();
    for (const Position& p : at)
      bound.push_back({run.in(p.x), p.mean < 0 ? nullptr : run.in(p.mean).data,
                       p.mean < 0 ? nullptr : run.in(p.mean + 1).data, p.weight});
    return bound;
  };
  tape.record(
      {.name = "mixed_sum",
       .inputs = inputs,
       .outputs = {y},
       .saved = inputs,
       .forward = [bind](Run& run) { mixed_sum_forward(run.stream, run.out(0), bind(run), run.in(0).data); },
       .backward =
           [bind, at](Run& run) {
             thread_local std::vector<MixedSumGradient<float>> gradients;
             gradients.clear();
             const Tensor dweights = run.grad_in(0);
             // Weights without a term (none) have no gradient: cleared first, then every term adds its own.
             if (dweights && run.beta(0) == 0) fill(run.stream, dweights, 0);
             for (const Position& p : at)
               gradients.push_back({run.grad_in(p.x), run.beta(p.x), 1, run.factors(p.x)});
             mixed_sum_backward(run.stream, bind(run), gradients, dweights.data, run.grad_out(0),
                                run.in(0).data, run.scratch());
           },
       .scratch_bytes = size_t(mixed_sum_scratch_floats(s, int(terms.size()))) * sizeof(float),
       .in_place = true,
       .leaves_factors = normalised,
       .factors_of_output = true});
  return y;
}

Var channel_shuffle(Tape& tape, Var first, std::vector<Var> rest, Var weights, Var out) {
  Shape s = tape.shape(first);
  const int members = s.c, terms = int(rest.size());
  if (terms > 0) s.c += tape.shape(rest[0]).c;
  CHECK(weights ? tape.shape(weights) == (Shape{1, 1, 1, terms}) : terms <= 1, "channel_shuffle: weights ",
        weights ? tape.shape(weights) : Shape{1, 1, 1, 0}, " of ", terms, " tensors");
  const Var y = output_or_new(tape, "channel_shuffle", out, s);
  std::vector<Var> inputs = {first};  // then the tensors that bypass, then their weights
  inputs.insert(inputs.end(), rest.begin(), rest.end());
  std::vector<Var> saved;
  if (weights) {
    inputs.push_back(weights);
    saved.assign(inputs.begin() + 1, inputs.end());
  }
  const bool weighted = bool(weights);
  const auto bind = [=](Run& run) -> ShuffleRest<float> {
    thread_local std::vector<Tensor> bound;  // keeps its capacity: a step allocates nothing
    bound.clear();
    for (int k = 1; k <= terms; ++k) bound.push_back(run.in(k));
    return {bound, weighted ? run.in(terms + 1).data : nullptr};
  };
  tape.record({.name = "channel_shuffle",
               .inputs = inputs,
               .outputs = {y},
               .saved = saved,
               .forward =
                   [=](Run& run) {
                     channel_shuffle_forward(run.stream, run.out(0), run.in(0), bind(run), run.scratch());
                   },
               .backward =
                   [=](Run& run) {
                     thread_local std::vector<Tensor> gradients;
                     thread_local std::vector<float> betas;
                     gradients.clear(), betas.clear();
                     const auto part = [&](int i, Shape shape) {
                       return run.wants(i) ? run.grad_in(i) : Tensor(nullptr, shape);
                     };
                     for (int k = 1; k <= terms; ++k) {
                       gradients.push_back(part(k, {s.n, s.h, s.w, s.c - members}));
                       betas.push_back(run.beta(k));
                     }
                     ShuffleGradient<float> gradient{part(0, {s.n, s.h, s.w, members}), run.beta(0),
                                                     gradients, betas};
                     if (weighted && run.wants(terms + 1))
                       gradient.dweights = run.grad_in(terms + 1).data,
                       gradient.beta_dweights = run.beta(terms + 1);
                     channel_shuffle_backward(run.stream, gradient, run.grad_out(0),
                                              weighted ? bind(run) : ShuffleRest<float>{}, run.scratch());
                   },
               .scratch_bytes =
                   size_t(channel_shuffle_scratch_floats(s, members, weighted ? terms : 0)) * sizeof(float)});
  return y;
}

}  // namespace lanas
