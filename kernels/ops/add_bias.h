// add_bias.h -- x[p,c] += bias[c] for every pixel p, in place. For inference, after batch norm has been
// folded; training has no convolution with a bias, so there is no backward pass.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// x [n,h,w,c], may be strided; bias [c].
void add_bias(Stream& stream, Tensor x, const float* bias);

namespace host {
template <class T>
void add_bias(View<T> x, const T* bias);
}  // namespace host

}  // namespace lanas
