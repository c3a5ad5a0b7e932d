// pool_pair.h -- max and average pooling (pool2d.h) of one x [n,h,w,c] over 3x3 windows, padding 1, with the
// batch statistics (batch_norm.h) of both results: what a supernet's edges from one state share. On a cuda
// device x is read once for all of it, in one launch, and a second one ends the statistics.
// Backward: dx = (gradients of both) + beta dx. All throw Error when shapes differ.
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas {

// One result [n,oh,ow,c] and its moments, arrays of c floats. mean and inv_std null, in both results: no
// statistics are wanted. Running moments move where they are not null.
struct PooledOutput {
  Tensor y;
  float *mean = nullptr, *inv_std = nullptr;
  float *running_mean = nullptr, *running_var = nullptr;
};

void pool_pair_forward(Stream& stream, const PooledOutput& max, const PooledOutput& avg, Tensor x, int stride,
                       float eps);
void pool_pair_backward(Stream& stream, Tensor dx, Tensor dmax, Tensor davg, Tensor x, int stride,
                        float beta);

namespace host {
// The pools alone.
template <class T>
void pool_pair_forward(View<T> max, View<T> avg, View<T> x, int stride);
template <class T>
void pool_pair_backward(View<T> dx, View<T> dmax, View<T> davg, View<T> x, int stride, T beta);
}  // namespace host

}  // namespace lanas
