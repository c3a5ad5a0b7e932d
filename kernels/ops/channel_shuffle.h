// channel_shuffle.h -- y[.., m*groups + g] = x[.., g*(c/groups) + m] for x, y [n,h,w,c] (ShuffleNet, Zhang et
// al., 2018; PC-DARTS, Xu et al., 2020), with x in two parts as PC-DARTS makes it: `first` is group 0, and
// all the others, so that groups = c / first.c, are a weighted sum of the channels that bypass the edges of a
// node: rest = sum_k weights[k] x_k. That sum is never in memory on a cpu. Backward is the inverse
// permutation; dx_k = weights[k] drest + beta_k dx_k, dweights[k] = sum drest x_k + beta_dweights
// dweights[k]. y must not overlap the parts. Throws Error when shapes differ.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

template <class T>
struct ShuffleRest {
  std::span<const View<T>> x;  // [n,h,w,c - first.c] each; empty: there is one group
  const T* weights = nullptr;  // [x.size()]; null: one x, as it is
};

template <class T>
struct ShuffleGradient {
  View<T> first;  // [n,h,w,c/groups], null data: not computed
  T beta_first = 0;
  std::span<const View<T>> x;  // of the rest, null data: not computed
  std::span<const T> beta;
  T* dweights = nullptr;  // null: not computed, and no x is read
  T beta_dweights = 0;
};

// scratch: channel_shuffle_scratch_floats(...) floats; null where there are no weights.
void channel_shuffle_forward(Stream& stream, Tensor y, Tensor first, const ShuffleRest<float>& rest,
                             float* scratch = nullptr);
void channel_shuffle_backward(Stream& stream, const ShuffleGradient<float>& gradient, Tensor dy,
                              const ShuffleRest<float>& rest, float* scratch = nullptr);

// With `terms` weighted x; 0 without weights. What either device needs: a cpu sums for dweights, a cuda
// device the weighted sum.
int64_t channel_shuffle_scratch_floats(Shape y, int first_channels, int terms);

namespace host {
template <class T>
void channel_shuffle_forward(View<T> y, View<T> first, const ShuffleRest<T>& rest);
// scratch: channel_shuffle_scratch_doubles(...) doubles, null without dweights.
template <class T>
void channel_shuffle_backward(const ShuffleGradient<T>& gradient, View<T> dy, const ShuffleRest<T>& rest,
                              double* scratch);
int64_t channel_shuffle_scratch_doubles(Shape y, int terms);
}  // namespace host

}  // namespace lanas
