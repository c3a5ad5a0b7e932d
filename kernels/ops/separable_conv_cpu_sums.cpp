// separable_conv_cpu_sums.cpp -- backward of separable_conv in vectors, after the images: the sums of the
// threads in their order, and of the lanes that belong to one weight or channel, in double.
#include "kernels/ops/separable_conv_backward.h"

namespace lanas::cpu {

// The threads' sums, in their order, then the lanes that belong to one weight.
void weight_gradients(const Backwards& all, const Backward& b) {
  const Plan& plan = b.plan;
  const SeparableConvGradient<float>& g = b.gradient;
  const int cin = plan.x.c, cout = plan.y.c, taps = plan.k * plan.k;
  const Backward::Thread first = all.buffers(b, 0);
  double *dp = first.dp_sum, *dw = first.dw_sum;
  const size_t dp_size = size_t(cin) * plan.cout_pad, dw_size = size_t(taps) * b.lanes_c;
  for (int thread = 1; thread < all.threads_used; ++thread) {
    const Backward::Thread t = all.buffers(b, thread);
    for (size_t i = 0; b.want_dp && i < dp_size; ++i) dp[i] += t.dp_sum[i];
    for (size_t i = 0; b.want_dw && i < dw_size; ++i) dw[i] += t.dw_sum[i];
  }
  const auto write = [](float& to, double value, float beta) {
    to = float(value) + (beta == 0 ? 0.0f : beta * to);
  };
  for (int j = 0; b.want_dp && j < cout; ++j)
    for (int i = 0; i < cin; ++i) {
      double sum = 0;
      const int row = (plan.flat ? i ^ j : i) * plan.cout_pad;
      for (int l = plan.flat ? i : j; l < (plan.flat ? plan.cout_pad : j + 1); l += cout) sum += dp[row + l];
      write(g.d_pointwise.pixel(j)[i], sum, g.beta_d_pointwise);
    }
  std::vector<double> sums(size_t(cin), 0.0);
  for (int tap = 0; b.want_dw && tap < taps; ++tap) {
    std::fill(sums.begin(), sums.end(), 0.0);
    const double* lanes = dw + tap * plan.lanes;
    for (int phase = 0, c = 0; phase < plan.period; ++phase, lanes += taps * plan.lanes)
      for (int l = 0; l < plan.lanes; ++l, c = c + 1 == cin ? 0 : c + 1) sums[size_t(c)] += lanes[l];
    for (int c = 0; c < cin; ++c) write(g.d_depthwise.pixel(tap)[c], sums[size_t(c)], g.beta_d_depthwise);
  }
}

// dgamma, dbeta, and the factors of dx = gamma inv_std (dz - mean(dz) - xhat mean(dz xhat)).
void norm_gradients(const Backward& b) {
  const Plan& plan = b.plan;
  const NormView<float>& norm = plan.op.norm;
  const NormGradient<float>& g = b.gradient.norm;
  const double count = double(plan.x.pixels());
  const std::vector<double> total = sum_of_images(b.norm_sums, plan.x.n, 2 * b.lanes_c);
  for (int c = 0; c < plan.x.c; ++c) {
    double sum = 0, dot = 0;
    for (int l = c; l < b.lanes_c; l += plan.x.c)
      sum += total[size_t(l)], dot += total[size_t(b.lanes_c + l)];
    if (g.dgamma) g.dgamma[c] = float(dot) + (g.beta_dgamma == 0 ? 0.0f : g.beta_dgamma * g.dgamma[c]);
    if (g.dbeta) g.dbeta[c] = float(sum) + (g.beta_dbeta == 0 ? 0.0f : g.beta_dbeta * g.dbeta[c]);
    const double inv_std = double(norm.inv_std[c]);
    const double factor = inv_std * (norm.gamma ? double(norm.gamma[c]) : 1.0);
    const double slope = -factor * inv_std * dot / count;
    const double factors[3] = {factor, slope, -factor * sum / count - slope * double(norm.mean[c])};
    for (int l = c; l < b.lanes_c; l += plan.x.c) {
      b.dx_factor[l] = float(factors[0]);
      b.dx_table.scale[l] = float(factors[1]);
      b.dx_table.shift[l] = float(factors[2]);
    }
    for (int i = 0; b.gradient.dx_factors && i < 3; ++i)
      b.gradient.dx_factors[i * plan.x.c + c] = float(factors[i]);
  }
}

}  // namespace lanas::cpu
