// ops.h -- the ops on a tape: each checks shapes, makes its output and records a forward and a backward
// closure. Activations are [n, h, w, c]; matrices [rows, 1, 1, cols]. `out`, where an op takes one, is a
// tensor (often a slice of channels) to write into instead of a new one. Weights: dense convolution [cout, k,
// k, cin], depthwise [1, k, k, c], linear [out, 1, 1, in].
#pragma once

#include <cstdint>
#include <vector>

#include "autograd/tape.h"

namespace lanas {

// How a tensor is normalised by the op that reads it. The moments are statistics of the tensor (see
// kernels/ops/norm.h).
struct Norm {
  Var mean, inv_std;  // [1,1,1,c]; absent: not normalised
  Var gamma, beta;    // [1,1,1,c]; absent: no affine part
  explicit operator bool() const { return bool(mean); }
};

// Running moments of a batch norm, in a store of buffers: moved by training passes, used by inference.
struct RunningMoments {
  Var mean, var;  // [1,1,1,c]
};

// A tensor together with the normalisation its readers apply.
struct Normalised {
  Var x;
  Norm norm;
};

// Elementwise
Var relu(Tape& tape, Var x);
Var sum(Tape& tape, std::vector<Var> xs, Var out = {});
Var weighted_sum(Tape& tape, std::vector<Var> xs, std::vector<float> weights);  // constant weights
Var copy(Tape& tape, Var x, Var out = {});   // e.g. a packed copy of a slice
Var drop_path(Tape& tape, Var x, Var mask);  // mask [n,1,1,1]: 0 or 1 / keep

Var add_bias(Tape& tape, Var x, Var bias);  // x + bias [1,1,1,c] in place: inference only

// Convolutions
struct ConvGeometry {
  int stride = 1, padding = 0, dilation = 1;
};
Var conv2d(Tape& tape, Var x, Var w, ConvGeometry g);
Var depthwise_conv(Tape& tape, Var x, Var w, ConvGeometry g);
// The unit of every convolution of the search space: pointwise(depthwise(relu(normalise(x)))), with the batch
// statistics of the result. Without `depthwise` a 1x1 convolution, which at stride 2 may start at row and
// column `offset`. `out` and `out_norm` may be slices.
struct Separable {
  Var depthwise, pointwise;
  int stride = 1, dilation = 1, offset = 0;
  bool transposed = false;  // pointwise lies [cin][cout]: separable_conv_inference alone
};
Normalised separable_conv(Tape& tape, Normalised x, Separable unit, RunningMoments running,
                          Normalised out = {});
// Several units recorded as one op, in their order: those that follow each other and read one x share it, and
// their gradients of it are added up before they are written; see kernels/ops/separable_conv.h.
struct SeparableUnit {
  Normalised x;
  Separable unit;
  RunningMoments running;
  Normalised out = {};
};
std::vector<Normalised> separable_convs(Tape& tape, const std::vector<SeparableUnit>& units);
// Units for inference with batch norms folded into weights and bias. A path is one unit from x to out, or
// two; paths that read one x share it, several of them have first units with depthwise parts and one stride,
// see kernels/ops/separable_conv.h. added: to be added, where given; it may be `out`, which an op or a path
// before this one has written.
struct InferenceUnit {
  Separable unit;
  Var bias;
};
struct InferencePath {
  InferenceUnit first = {}, second = {};
  Var out = {}, added = {};
  bool relu = true;        // before the first unit; false also where x is stored rectified
  bool rectified = false;  // out is stored as relu(out)
};
std::vector<Var> separable_convs_inference(Tape& tape, Var x, const std::vector<InferencePath>& paths);
Var separable_conv_inference(Tape& tape, Var x, const InferencePath& path);

// Pooling
Var max_pool(Tape& tape, Var x, int kernel, int stride, int padding, Var out = {});
Var avg_pool(Tape& tape, Var x, int kernel, int stride, int padding, Var out = {});  // padding is not counted
Var global_average_pool(Tape& tape, Var x);                                          // [n,1,1,c]

// Batch norm in two parts: the moments of x, and the normalisation by them.
Norm batch_statistics(Tape& tape, Var x, RunningMoments running);
// accumulate: adds to `out`, which an op before this one has written.
Var normalise(Tape& tape, Var x, Norm norm, Var out = {}, bool accumulate = false);

// Both pools of one state, 3x3 and padding 1, with their moments, which read it once; see
// kernels/ops/pool_pair.h.
struct PoolPair {
  Normalised max, avg;
};
PoolPair pool_pair(Tape& tape, Var x, int stride, RunningMoments max_running, RunningMoments avg_running);

// Mixed operation: y = sum_k weights[index_k] * normalise_k(x_k); weights is one row [1,1,1,m].
struct MixedTerm {
  Normalised x;  // no affine part
  int weight;
};
Var mixed_sum(Tape& tape, std::vector<MixedTerm> terms, Var weights, Var out = {});
// `first` and sum_k weights[k] rest_k, or without weights at most one rest as it is; see
// kernels/ops/channel_shuffle.h.
Var channel_shuffle(Tape& tape, Var first, std::vector<Var> rest, Var weights = {}, Var out = {});

// Rows
Var linear(Tape& tape, Var x, Var w, Var bias, Var out = {});
Var softmax(Tape& tape, Var x, std::vector<int> segments);  // over consecutive segments of each row
Var scale_segments(Tape& tape, Var x, Var scale, std::vector<int> segments);  // scale [rows,1,1,segments]
Var cross_entropy(Tape& tape, Var logits, Var labels,
                  float smoothing);  // labels: int32 in an input [rows,1,1,1]
// The predictor's encoding of one cell kind from architecture parameters; see
// kernels/ops/architecture_code.h.
Var architecture_code(Tape& tape, Var alpha, Var edge_logits, Var noise, Var temperature, int samples,
                      bool hard, Var out = {});
// skip(x) + sum of networks of one shape, of rows x [rows,1,1,inputs]; [rows,1,1,1]. The linear map may be
// absent. See kernels/ops/fused_mlp.h, also for the widths that a cuda device can run.
struct MlpLayers {
  std::vector<Var> weights, biases;  // hidden layers, then the output [1,1,1,width]
};
Var fused_mlp(Tape& tape, Var x, std::vector<MlpLayers> networks, Var skip_weight = {}, Var skip_bias = {});
Var relative_loss(Tape& tape, Var u, Var coefficients);  // see kernels/ops/relative_loss.h
Var mean_rows(Tape& tape, Var x);                        // [rows,1,1,c] -> [1,1,1,c]

}  // namespace lanas
