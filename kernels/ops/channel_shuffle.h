// channel_shuffle.h -- y[.., m*groups + g] = x[.., g*(c/groups) + m] for x, y [n,h,w,c] (ShuffleNet, Zhang et
// al., 2018; PC-DARTS, Xu et al., 2020). Backward is the inverse permutation: dx[g*(c/groups) + m] =
// dy[m*groups + g] + beta dx. groups divides c; y must not overlap x. Throws Error when shapes differ.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

void channel_shuffle_forward(Stream& stream, Tensor y, Tensor x, int groups);
void channel_shuffle_backward(Stream& stream, Tensor dx, Tensor dy, int groups, float beta);

namespace host {
template <class T>
void channel_shuffle_forward(View<T> y, View<T> x, int groups);
template <class T>
void channel_shuffle_backward(View<T> dx, View<T> dy, int groups, T beta);
}  // namespace host

}  // namespace lanas
