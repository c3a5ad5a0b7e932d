// global_pool.h -- y[n,0,0,c] = the mean of x[n,:,:,c] over its h*w pixels, for x [n,h,w,c], y [n,1,1,c].
// Backward: dx[n,y,x,c] = dy[n,0,0,c] / (h*w) + beta dx. Throws Error when shapes differ.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

void global_average_pool_forward(Stream& stream, Tensor y, Tensor x);
void global_average_pool_backward(Stream& stream, Tensor dx, Tensor dy, float beta);

namespace host {
template <class T>
void global_average_pool_forward(View<T> y, View<T> x);
template <class T>
void global_average_pool_backward(View<T> dx, View<T> dy, T beta);
}  // namespace host

}  // namespace lanas
