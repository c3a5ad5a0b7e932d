// batch_norm.h -- batch normalisation (Ioffe and Szegedy, 2015) of x [n,h,w,c] per channel, in parts:
//   mean_c, inv_std_c = 1 / sqrt(var_c + eps), var the biased variance over the n*h*w pixels;
//   xhat = (x - mean) inv_std;  y = gamma xhat + beta  (see norm.h; without gamma y = xhat)
//   dgamma = sum dy xhat;  dbeta = sum dy;  dx = gamma inv_std (dy - mean(dy) - xhat mean(dy xhat)) + beta dx
// mean, inv_std, running_mean, running_var are arrays of c floats. y may be x, and dx may be dy (both whole).
// All throw Error when shapes differ.
#pragma once

#include <cstdint>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/norm.h"

namespace lanas {

constexpr float kBatchNormMomentum = 0.1f;  // of the running moments, as in PyTorch

// Where they are not null, the running moments move: running = (1 - momentum) running + momentum batch, the
// variance's with the unbiased one of the batch.
void batch_norm_statistics(Stream& stream, float* mean, float* inv_std, Tensor x, float eps,
                           float* running_mean = nullptr, float* running_var = nullptr);

// The constant statistics of inference: mean = running_mean, inv_std = 1 / sqrt(running_var + eps).
void batch_norm_statistics_from_running(Stream& stream, float* mean, float* inv_std,
                                        const float* running_mean, const float* running_var, int c,
                                        float eps);

// accumulate: adds to y, which then must not be x.
void batch_norm_forward(Stream& stream, Tensor y, Tensor x, NormView<float> norm, bool accumulate = false);

// dx may be null (not computed), as may the pointers of `gradient`. With batch_statistics mean and inv_std
// are those of x and dx includes the way through them; without, they are constants: dx = gamma inv_std dy.
// factors, instead of dx where not null: [3][c] of dx = a dy + b x + d (gradient_view.h).
void batch_norm_backward(Stream& stream, Tensor dx, NormGradient<float> gradient, Tensor dy, Tensor x,
                         NormView<float> norm, float beta, bool batch_statistics = true,
                         float* factors = nullptr);

namespace host {
template <class T>
void batch_norm_statistics(T* mean, T* inv_std, View<T> x, T eps);
// The variance is recovered from inv_std; count is n*h*w, the pixels behind the moments.
template <class T>
void batch_norm_update_running(T* running_mean, T* running_var, const T* mean, const T* inv_std, int c,
                               int64_t count, T eps);
template <class T>
void batch_norm_statistics_from_running(T* mean, T* inv_std, const T* running_mean, const T* running_var,
                                        int c, T eps);
template <class T>
void batch_norm_forward(View<T> y, View<T> x, NormView<T> norm, bool accumulate);
template <class T>
void batch_norm_backward(View<T> dx, NormGradient<T> gradient, View<T> dy, View<T> x, NormView<T> norm,
                         T beta, bool batch_statistics, T* factors = nullptr);
}  // namespace host

}  // namespace lanas
