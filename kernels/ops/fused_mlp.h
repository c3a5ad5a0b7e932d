// fused_mlp.h -- a sum of small networks of one shape, and of a linear map, of every row of x:
//   y[r] = skip . x[r] + skip_bias + sum_k mlp_k(x[r]),   mlp(x) = w_L . relu(... relu(W_0 x + b_0)) + b_L
// On cuda forward is one kernel and backward two (rows; then, where weights want gradients, sums over rows);
// a block keeps all weights of one network in shared memory, in which they must fit: 224-128-64-1 takes 161
// KiB of the 163 (sm_80) or 227 (sm_90) that a block can have. Nothing of forward is kept for backward.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

constexpr int kMlpHidden = 4, kMlpMembers = 8;         // hidden layers and networks at most
constexpr size_t kMlpTicketBytes = 128 * sizeof(int);  // see FusedMlp::tickets

template <class T>
struct FusedMlp {
  int inputs = 0, members = 1, hidden = 0;  // numbers in a row of x; networks; hidden layers, at least one
  int width[kMlpHidden] = {};               // of the hidden layers
  // [member][layer]: weights [width[l]][inputs or width[l - 1]] packed, biases [width[l]]; layer `hidden` is
  // the output of one number.
  const T* weight[kMlpMembers][kMlpHidden + 1] = {};
  const T* bias[kMlpMembers][kMlpHidden + 1] = {};
  const T *skip_weight = nullptr, *skip_bias = nullptr;  // [inputs] and one number; both null: no linear map
  // cuda: kMlpTicketBytes of device memory that hold zeros before and after each call.
  unsigned* tickets = nullptr;

  constexpr int fan_in(int layer) const { return layer == 0 ? inputs : width[layer - 1]; }
  std::string widths() const;  // "224-128-64-1"
};

// The gradients wanted: where data is null none is computed. beta 0 overwrites, 1 adds.
template <class T>
struct MlpGradient {
  T* data = nullptr;
  T beta = 0;
};
template <class T>
struct FusedMlpGradient {
  View<T> dx;  // [rows, inputs], may be strided
  T beta_dx = 0;
  MlpGradient<T> weight[kMlpMembers][kMlpHidden + 1] = {}, bias[kMlpMembers][kMlpHidden + 1] = {};
  MlpGradient<T> skip_weight, skip_bias;

  bool wants_weights() const;
};

// Whether the shape can run on the device at hand; where not, the functions below throw an Error that says
// what it needs and what there is. The cpu has no limit.
bool fused_mlp_fits(const FusedMlp<float>& op, Device device);
size_t fused_mlp_scratch_bytes(const FusedMlp<float>& op, int64_t rows, Device device);

// x [rows, inputs], may be strided; y [rows, 1]. dy like y.
void fused_mlp_forward(Stream& stream, const FusedMlp<float>& op, Tensor y, Tensor x, float* scratch);
void fused_mlp_backward(Stream& stream, const FusedMlp<float>& op, const FusedMlpGradient<float>& gradient,
                        Tensor dy, Tensor x, float* scratch);

namespace host {
template <class T>
void fused_mlp_forward(const FusedMlp<T>& op, View<T> y, View<T> x);
template <class T>
void fused_mlp_backward(const FusedMlp<T>& op, const FusedMlpGradient<T>& gradient, View<T> dy, View<T> x);
}  // namespace host

}  // namespace lanas
