// batch_norm.cu -- statistics, normalisation and its backward: y = gamma (x - mean) inv_std + beta.
// The sums over pixels run in two levels: float per lane within a chunk of pixels, double over the chunks,
// and the moments are taken about a value near the mean, so that var = E[d^2] - E[d]^2 does not cancel.
#include <cmath>

#include "kernels/ops/batch_norm.h"
#include "kernels/ops/blocks.h"

namespace lanas {
namespace host {
namespace {

// The average of the first pixels: near enough to the mean to keep the variance sound.
template <class T>
void sample_mean(T* sample, View<T> x) {
  const int64_t count = std::min<int64_t>(x.pixels(), 16);
  for (int c = 0; c < x.c; ++c) {
    double sum = 0;
    for (int64_t p = 0; p < count; ++p) sum += double(x.pixel(p)[c]);
    sample[c] = T(sum / double(count));
  }
}

// sums[c] = sum of dy, sums[C + c] = sum of dy (x - mean).
template <class T>
void reduce_gradient(double* sums, View<T> dy, View<T> x, const T* mean) {
  const Blocks blocks(x.c, x.pixels());
  const int c = x.c, period = blocks.period;
  Scratch<T> mean_lanes(period);
  fill_lanes(mean_lanes.get(), period, c, [=](int j) { return mean[j]; });
  Scratch<double> partial(blocks.chunks * 2 * c);
  double* const partials = partial.get();
  const T* const center = mean_lanes.get();
  parallel_for(blocks.chunks, [=](int64_t chunk) {
    Scratch<T> buffer(2 * (int64_t{blocks.elements()} + period));
    T* sum = buffer.get() + 2 * blocks.elements();
    T* product = sum + period;
    std::fill_n(sum, 2 * period, T(0));
    for (int64_t b = blocks.chunk_begin(chunk); b < blocks.chunk_end(chunk); ++b) {
      const T* g = read_block(dy, blocks.first(b), blocks.count(b), buffer.get());
      const T* in = read_block(x, blocks.first(b), blocks.count(b), buffer.get() + blocks.elements());
      for_lanes(blocks.count(b) * c, period, [=](int i, int j) {
        sum[j] += g[i];
        product[j] += g[i] * (in[i] - center[j]);
      });
    }
    double* mine = partials + chunk * 2 * c;
    std::fill_n(mine, 2 * c, 0.0);
    flush_lanes(mine, sum, period, c);
    flush_lanes(mine + c, product, period, c);
  });
  add_rows(sums, partials, blocks.chunks, 2 * c);
}

}  // namespace

template <class T>
void batch_norm_statistics(T* mean, T* inv_std, View<T> x, T eps) {
  const Blocks blocks(x.c, x.pixels());
  const int c = x.c, period = blocks.period;
  Scratch<T> sample(c), sample_lanes(period);
  sample_mean(sample.get(), x);
  fill_lanes(sample_lanes.get(), period, c, [&](int j) { return sample[j]; });
  Scratch<double> partial(blocks.chunks * 2 * c), sums(2 * c);
  double* const partials = partial.get();
  const T* const center = sample_lanes.get();
  parallel_for(blocks.chunks, [=](int64_t chunk) {
    Scratch<T> buffer(int64_t{blocks.elements()} + 2 * period);
    T* sum = buffer.get() + blocks.elements();
    T* square = sum + period;
    std::fill_n(sum, 2 * period, T(0));
    for (int64_t b = blocks.chunk_begin(chunk); b < blocks.chunk_end(chunk); ++b) {
      const T* in = read_block(x, blocks.first(b), blocks.count(b), buffer.get());
      for_lanes(blocks.count(b) * c, period, [=](int i, int j) {
        const T d = in[i] - center[j];
        sum[j] += d;
        square[j] += d * d;
      });
    }
    double* mine = partials + chunk * 2 * c;
    std::fill_n(mine, 2 * c, 0.0);
    flush_lanes(mine, sum, period, c);
    flush_lanes(mine + c, square, period, c);
  });
  add_rows(sums.get(), partials, blocks.chunks, 2 * c);
  for (int j = 0; j < c; ++j) {
    const double offset = sums[j] / double(x.pixels());
    const double var = std::max(sums[c + j] / double(x.pixels()) - offset * offset, 0.0);
    mean[j] = T(double(sample[j]) + offset);
    inv_std[j] = T(1 / std::sqrt(var + double(eps)));
  }
}

template <class T>
void batch_norm_update_running(T* running_mean, T* running_var, const T* mean, const T* inv_std, int c,
                               int64_t count, T eps, T momentum) {
  const double unbias = double(count) / double(std::max<int64_t>(count - 1, 1));
  const double m = double(momentum);
  for (int j = 0; j < c; ++j) {
    const double s = double(inv_std[j]), var = std::max(1 / (s * s) - double(eps), 0.0) * unbias;
    running_mean[j] = T((1 - m) * double(running_mean[j]) + m * double(mean[j]));
    running_var[j] = T((1 - m) * double(running_var[j]) + m * var);
  }
}

template <class T>
void batch_norm_statistics_from_running(T* mean, T* inv_std, const T* running_mean, const T* running_var,
                                        int c, T eps) {
  for (int j = 0; j < c; ++j) {
    mean[j] = running_mean[j];
    inv_std[j] = T(1 / std::sqrt(double(running_var[j]) + double(eps)));
  }
}

template <class T>
void batch_norm_forward(View<T> y, View<T> x, NormView<T> norm) {
  const Blocks blocks(x.c, x.pixels());
  const int c = x.c, period = blocks.period;
  Scratch<T> lanes(2 * period);
  T *const scale = lanes.get(), *const shift = scale + period;
  const auto gain = [&](int j) { return double(norm.inv_std[j]) * double(norm.gamma ? norm.gamma[j] : 1); };
  fill_lanes(scale, period, c, gain);
  fill_lanes(shift, period, c,
             [&](int j) { return double(norm.beta ? norm.beta[j] : 0) - double(norm.mean[j]) * gain(j); });
  for_blocks<T, 2>(blocks, [=](int64_t p, int count, T* buffer) {
    const T* in = read_block(x, p, count, buffer);
    T* out = open_block(y, p, count, buffer + blocks.elements(), false);
    for_lanes(count * c, period, [=](int i, int j) { out[i] = in[i] * scale[j] + shift[j]; });
    write_block(y, p, count, out);
  });
}

template <class T>
void batch_norm_backward(View<T> dx, NormGradient<T> gradient, View<T> dy, View<T> x, NormView<T> norm,
                         T beta, bool batch_statistics) {
  const Blocks blocks(x.c, x.pixels());
  const int c = x.c, period = blocks.period;
  Scratch<double> sums(2 * c);
  std::fill_n(sums.get(), 2 * c, 0.0);
  if (gradient.dgamma || gradient.dbeta || (dx && batch_statistics))
    reduce_gradient(sums.get(), dy, x, norm.mean);
  for (int j = 0; j < c && gradient.dgamma; ++j)
    gradient.dgamma[j] = T(sums[c + j] * double(norm.inv_std[j])) +
                         (gradient.beta_dgamma == 0 ? T(0) : gradient.beta_dgamma * gradient.dgamma[j]);
  for (int j = 0; j < c && gradient.dbeta; ++j)
    gradient.dbeta[j] =
        T(sums[j]) + (gradient.beta_dbeta == 0 ? T(0) : gradient.beta_dbeta * gradient.dbeta[j]);
  if (!dx) return;

  // dx = a dy + b x + k + beta dx, with a, b, k per channel.
  Scratch<T> lanes(3 * period);
  T *const a = lanes.get(), *const b = a + period, *const k = b + period;
  const double pixels = batch_statistics ? double(x.pixels()) : HUGE_VAL;
  const auto gain = [&](int j) { return double(norm.inv_std[j]) * double(norm.gamma ? norm.gamma[j] : 1); };
  const auto slope = [&](int j) {
    return -gain(j) * double(norm.inv_std[j]) * double(norm.inv_std[j]) * sums[c + j] / pixels;
  };
  fill_lanes(a, period, c, gain);
  fill_lanes(b, period, c, slope);
  fill_lanes(k, period, c,
             [&](int j) { return -gain(j) * sums[j] / pixels - slope(j) * double(norm.mean[j]); });
  for_blocks<T, 3>(blocks, [=](int64_t p, int count, T* buffer) {
    const T* g = read_block(dy, p, count, buffer);
    T* out = open_block(dx, p, count, buffer + blocks.elements(), beta != 0);
    const T* in = batch_statistics ? read_block(x, p, count, buffer + 2 * blocks.elements()) : g;
    if (!batch_statistics && beta == 0)
      for_lanes(count * c, period, [=](int i, int j) { out[i] = a[j] * g[i]; });
    else if (beta == 0)
      for_lanes(count * c, period, [=](int i, int j) { out[i] = a[j] * g[i] + (b[j] * in[i] + k[j]); });
    else
      for_lanes(count * c, period,
                [=](int i, int j) { out[i] = beta * out[i] + (a[j] * g[i] + (b[j] * in[i] + k[j])); });
    write_block(dx, p, count, out);
  });
}

#define INSTANTIATE(T)                                                                     \
  template void batch_norm_statistics(T*, T*, View<T>, T);                                 \
  template void batch_norm_update_running(T*, T*, const T*, const T*, int, int64_t, T, T); \
  template void batch_norm_statistics_from_running(T*, T*, const T*, const T*, int, T);    \
  template void batch_norm_forward(View<T>, View<T>, NormView<T>);                         \
  template void batch_norm_backward(View<T>, NormGradient<T>, View<T>, View<T>, NormView<T>, T, bool);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

void batch_norm_statistics(Stream& stream, float* mean, float* inv_std, Tensor x, float eps) {
  CHECK(mean && inv_std && x, "batch_norm_statistics: null argument for x ", x.shape());
  stream.activate();
  if (stream.device() == Device::cpu) return host::batch_norm_statistics<float>(mean, inv_std, x, eps);
  throw Error("batch_norm_statistics: no cuda kernel in this build");
}

void batch_norm_update_running(Stream& stream, float* running_mean, float* running_var, const float* mean,
                               const float* inv_std, int c, int64_t count, float eps, float momentum) {
  CHECK(count > 0, "batch_norm_update_running: statistics of ", count, " pixels");
  if (stream.device() == Device::cpu)
    return host::batch_norm_update_running<float>(running_mean, running_var, mean, inv_std, c, count, eps,
                                                  momentum);
  throw Error("batch_norm_update_running: no cuda kernel in this build");
}

void batch_norm_statistics_from_running(Stream& stream, float* mean, float* inv_std,
                                        const float* running_mean, const float* running_var, int c,
                                        float eps) {
  if (stream.device() == Device::cpu)
    return host::batch_norm_statistics_from_running<float>(mean, inv_std, running_mean, running_var, c, eps);
  throw Error("batch_norm_statistics_from_running: no cuda kernel in this build");
}

void batch_norm_forward(Stream& stream, Tensor y, Tensor x, NormView<float> norm) {
  CHECK(y.shape() == x.shape(), "batch_norm_forward: y ", y.shape(), " does not match x ", x.shape());
  CHECK(norm.mean && norm.inv_std, "batch_norm_forward: no statistics for x ", x.shape());
  stream.activate();
  if (stream.device() == Device::cpu) return host::batch_norm_forward<float>(y, x, norm);
  throw Error("batch_norm_forward: no cuda kernel in this build");
}

void batch_norm_backward(Stream& stream, Tensor dx, NormGradient<float> gradient, Tensor dy, Tensor x,
                         NormView<float> norm, float beta, bool batch_statistics) {
  CHECK(dy.shape() == x.shape(), "batch_norm_backward: dy ", dy.shape(), " does not match x ", x.shape());
  CHECK(!dx || dx.shape() == x.shape(), "batch_norm_backward: dx ", dx.shape(), " does not match x ",
        x.shape());
  CHECK(norm.mean && norm.inv_std, "batch_norm_backward: no statistics for x ", x.shape());
  stream.activate();
  if (stream.device() == Device::cpu)
    return host::batch_norm_backward<float>(dx, gradient, dy, x, norm, beta, batch_statistics);
  throw Error("batch_norm_backward: no cuda kernel in this build");
}

}  // namespace lanas
