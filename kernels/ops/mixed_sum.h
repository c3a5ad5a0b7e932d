// mixed_sum.h -- a node of the supernet: y = sum_k w_k xhat_k, xhat_k = (x_k - mean_k) inv_std_k per channel
// (mean_k null: xhat_k = x_k), w_k = weights[index_k]; DARTS' mixed operation (Liu et al., 2019) over all the
// incoming edges at once. x_k and y are [n,h,w,c] with any pixel strides.
//   dw_k = sum dy xhat_k;  dx_k = w_k inv_std_k (dy - mean(dy) - xhat_k mean(dy xhat_k)) + beta_k dx_k
// One pass over all terms gives sum(dy) and sum(dy xhat_k) per channel, and these are both the batch norms'
// backward sums and, added over the channels, the architecture gradient; a second pass writes every dx_k
// whose factors are not wanted instead.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

template <class T>
struct MixedSumTerm {
  View<T> x;
  const T* mean = nullptr;     // [c]; null: not normalised
  const T* inv_std = nullptr;  // [c]
  int weight = 0;              // index into weights and dweights
};

// Where the gradients of one term go. dx.data null: not computed.
template <class T>
struct MixedSumGradient {
  View<T> dx;
  T beta = 0;            // of dx
  T beta_dweight = 0;    // of dweights[weight]
  T* factors = nullptr;  // [3][c], instead of dx: dx_k = a dy + b x_k + d (gradient_view.h)
};

// y must not overlap any x but the first.
void mixed_sum_forward(Stream& stream, Tensor y, std::span<const MixedSumTerm<float>> terms,
                       const float* weights);

// gradients[k] belongs to terms[k]; they are written in the order of the terms, so several may share one dx
// (the first with beta 0, the others with beta 1), as they may share one weight; with beta 0 a dx may stand
// where the x of its own term does, if no other term reads that. dweights may be null. With batch_statistics
// the moments are statistics of x_k and dx_k includes the way through them; without, they are constants.
// scratch holds mixed_sum_scratch_floats(...) floats; it may be null where no sums are needed.
void mixed_sum_backward(Stream& stream, std::span<const MixedSumTerm<float>> terms,
                        std::span<const MixedSumGradient<float>> gradients, float* dweights, Tensor dy,
                        const float* weights, float* scratch, bool batch_statistics = true);

int64_t mixed_sum_scratch_floats(Shape y, int terms);

namespace host {
template <class T>
void mixed_sum_forward(View<T> y, std::span<const MixedSumTerm<T>> terms, const T* weights);
// scratch: mixed_sum_scratch_doubles(...) doubles.
template <class T>
void mixed_sum_backward(std::span<const MixedSumTerm<T>> terms,
                        std::span<const MixedSumGradient<T>> gradients, T* dweights, View<T> dy,
                        const T* weights, double* scratch, bool batch_statistics);
int64_t mixed_sum_scratch_doubles(Shape y, int terms);
}  // namespace host

}  // namespace lanas
