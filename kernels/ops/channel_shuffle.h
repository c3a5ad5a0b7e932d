// channel_shuffle.h -- y[.., m*groups + g] = x[.., g*(c/groups) + m] for x, y [n,h,w,c] (ShuffleNet, Zhang et
// al., 2018; PC-DARTS, Xu et al., 2020), with x in two tensors as PC-DARTS makes it: `first` is group 0,
// `rest` all the others, so that groups = c / first.c. Backward is the inverse permutation. rest may be
// empty; y must not overlap the parts. Throws Error when shapes differ.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

void channel_shuffle_forward(Stream& stream, Tensor y, Tensor first, Tensor rest);
// dfirst [n,h,w,c/groups] and drest get their part of dy, plus beta times what they held; null data: not
// computed.
void channel_shuffle_backward(Stream& stream, Tensor dfirst, Tensor drest, Tensor dy, float beta_first,
                              float beta_rest);

namespace host {
template <class T>
void channel_shuffle_forward(View<T> y, View<T> first, View<T> rest);
template <class T>
void channel_shuffle_backward(View<T> dfirst, View<T> drest, View<T> dy, T beta_first, T beta_rest);
}  // namespace host

}  // namespace lanas
