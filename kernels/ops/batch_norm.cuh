// batch_norm.cuh -- what ops that normalise share on the device: the end of the statistics, and the end of
// backward, from the partial sums of dy and of dy (x - mean) per channel to dgamma, dbeta and the
// coefficients of dx = a dy + b x + k, and the pass that writes dx.
#pragma once

#include "kernels/core/channel_sums.cuh"
#include "kernels/ops/batch_norm.h"

namespace lanas {
namespace {

// The affine gradients, and coefficients [3][c] of dx = a dy + b x + k. pieces 0: constant statistics. All
// threads of blocks of kAddColumns channels call it.
__device__ __forceinline__ void finish_norm_gradient(float* coefficients, const NormGradient<float>& gradient,
                                                     const float* partial, int pieces, int channels,
                                                     const NormView<float>& norm, double pixels) {
  const int c = added_channel();
  const bool inside = c < channels;  // what does not wait for the sums comes first
  const double share = 1 / pixels, s = inside ? double(norm.inv_std[c]) : 0.0,
               mean = inside ? double(norm.mean[c]) : 0.0,
               a = s * (inside && norm.gamma ? double(norm.gamma[c]) : 1.0);
  double sums[2];
  add_pieces(sums, partial, pieces, 2 * channels, c, channels, inside);
  if (threadIdx.x >= kAddColumns || !inside) return;
  const double sum = sums[0], product = sums[1], b = -a * s * s * product * share;
  if (gradient.dgamma)
    gradient.dgamma[c] =
        float(product * s) + (gradient.beta_dgamma == 0 ? 0 : gradient.beta_dgamma * gradient.dgamma[c]);
  if (gradient.dbeta)
    gradient.dbeta[c] = float(sum) + (gradient.beta_dbeta == 0 ? 0 : gradient.beta_dbeta * gradient.dbeta[c]);
  coefficients[c] = float(a);
  coefficients[channels + c] = float(b);
  coefficients[2 * channels + c] = float(-a * sum * share - b * mean);
}

// Moves the running moments of channel c towards the batch's; null: none are kept. var is biased.
__device__ __forceinline__ void move_running(float* running_mean, float* running_var, int c, double mean,
                                             double var, double pixels) {
  if (!running_mean) return;
  const double m = double(kBatchNormMomentum), unbiased = var * pixels / fmax(pixels - 1, 1.0);
  running_mean[c] = float((1 - m) * double(running_mean[c]) + m * mean);
  running_var[c] = float((1 - m) * double(running_var[c]) + m * unbiased);
}

// The average of the first pixels; see host::sample_mean.
template <int kPack>
__device__ __forceinline__ Pack<kPack> sample_mean(const Tensor& x, int c) {
  const int count = int(min(x.pixels(), int64_t{8}));
  Pack<kPack> sum = {};
#pragma unroll
  for (int p = 0; p < 8; ++p) {
    const Pack<kPack> in = p < count ? load<kPack>(x.pixel(p) + c) : Pack<kPack>{};
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum.v[k] += in.v[k];
  }
#pragma unroll
  for (int k = 0; k < kPack; ++k) sum.v[k] /= float(count);
  return sum;
}

// The moments of channel c of what x was made to, `count` pixels, from the sums of its difference to x's
// sample mean, partial[piece * row_floats + first + c], and of the square of that, x.c further. All threads
// of blocks of kAddColumns channels call it.
__device__ __forceinline__ void finish_statistics(float* mean, float* inv_std, const float* partial,
                                                  int pieces, int64_t row_floats, int64_t first,
                                                  const Tensor& x, double count, float eps,
                                                  float* running_mean, float* running_var) {
  const int c = added_channel();
  const bool inside = c < x.c;  // what does not wait for the sums comes first
  const double share = 1 / count, sample = inside ? double(sample_mean<1>(x, c).v[0]) : 0.0;
  double sums[2];
  add_pieces(sums, partial, pieces, row_floats, first + c, x.c, inside);
  if (threadIdx.x >= kAddColumns || !inside) return;
  const double offset = sums[0] * share, var = fmax(sums[1] * share - offset * offset, 0.0);
  mean[c] = float(sample + offset);
  inv_std[c] = float(rsqrt(var + double(eps)));
  move_running(running_mean, running_var, c, sample + offset, var, count);
}

template <int kPack>
__global__ void norm_backward_kernel(Tensor dx, Tensor dy, Tensor x, const float* coefficients, float beta) {
  for_packs<kPack>(dy, [=](int64_t pixel, int c) {
    const Pack<kPack> g = load<kPack>(dy.pixel(pixel) + c), in = load<kPack>(x.pixel(pixel) + c),
                      a = load<kPack>(coefficients + c), b = load<kPack>(coefficients + dy.c + c),
                      constant = load<kPack>(coefficients + 2 * dy.c + c);
    Pack<kPack> d;
#pragma unroll
    for (int k = 0; k < kPack; ++k) d.v[k] = a.v[k] * g.v[k] + (b.v[k] * in.v[k] + constant.v[k]);
    accumulate<kPack>(dx.pixel(pixel) + c, d, beta);
  });
}

}  // namespace
}  // namespace lanas
