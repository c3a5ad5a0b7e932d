// batch_norm.cu -- statistics, normalisation and its backward: y = gamma (x - mean) inv_std + beta.
// The sums over pixels run in two levels: float per lane within a chunk of pixels, double over the chunks,
// and the moments are taken about a value near the mean, so that var = E[d^2] - E[d]^2 does not cancel. On
// the device they are channel_sums.cuh's: one kernel of partial sums, one that adds them.
#include <cmath>

#include "kernels/core/channel_sums.cuh"
#include "kernels/ops/batch_norm.cuh"
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
      prefetch_next(dy, blocks.first(b), blocks.count(b));
      prefetch_next(x, blocks.first(b), blocks.count(b));
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
                               int64_t count, T eps) {
  const double unbias = double(count) / double(std::max<int64_t>(count - 1, 1));
  const double m = double(kBatchNormMomentum);
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
void batch_norm_forward(View<T> y, View<T> x, NormView<T> norm, bool accumulate) {
  const Blocks blocks(x.c, x.pixels());
  const int c = x.c, period = blocks.period;
  Scratch<T> lanes(2 * period);
  T *const scale = lanes.get(), *const shift = scale + period;
  const auto gain = [&](int j) { return double(norm.inv_std[j]) * double(norm.gamma ? norm.gamma[j] : 1); };
  fill_lanes(scale, period, c, gain);
  fill_lanes(shift, period, c,
             [&](int j) { return double(norm.beta ? norm.beta[j] : 0) - double(norm.mean[j]) * gain(j); });
  for_blocks<T, 2>(blocks, [=](int64_t p, int count, T* buffer) {
    prefetch_next(x, p, count);
    prefetch_next(y, p, count);
    const T* in = read_block(x, p, count, buffer);
    T* out = open_block(y, p, count, buffer + blocks.elements(), accumulate);
    if (accumulate)
      for_lanes(count * c, period, [=](int i, int j) { out[i] += in[i] * scale[j] + shift[j]; });
    else
      for_lanes(count * c, period, [=](int i, int j) { out[i] = in[i] * scale[j] + shift[j]; });
    write_block(y, p, count, out);
  });
}

template <class T>
void batch_norm_backward(View<T> dx, NormGradient<T> gradient, View<T> dy, View<T> x, NormView<T> norm,
                         T beta, bool batch_statistics, T* factors) {
  const Blocks blocks(x.c, x.pixels());
  const int c = x.c, period = blocks.period;
  Scratch<double> sums(2 * c);
  std::fill_n(sums.get(), 2 * c, 0.0);
  if (gradient.dgamma || gradient.dbeta || ((dx || factors) && batch_statistics))
    reduce_gradient(sums.get(), dy, x, norm.mean);
  for (int j = 0; j < c && gradient.dgamma; ++j)
    gradient.dgamma[j] = T(sums[c + j] * double(norm.inv_std[j])) +
                         (gradient.beta_dgamma == 0 ? T(0) : gradient.beta_dgamma * gradient.dgamma[j]);
  for (int j = 0; j < c && gradient.dbeta; ++j)
    gradient.dbeta[j] =
        T(sums[j]) + (gradient.beta_dbeta == 0 ? T(0) : gradient.beta_dbeta * gradient.dbeta[j]);
  if (!dx && !factors) return;

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
  for (int i = 0; factors && i < 3; ++i) std::copy_n(a + i * period, c, factors + i * c);
  if (!dx) return;
  for_blocks<T, 3>(blocks, [=](int64_t p, int count, T* buffer) {
    prefetch_next(dy, p, count);
    if (batch_statistics) prefetch_next(x, p, count);
    prefetch_next(dx, p, count);
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

#define INSTANTIATE(T)                                                                  \
  template void batch_norm_statistics(T*, T*, View<T>, T);                              \
  template void batch_norm_update_running(T*, T*, const T*, const T*, int, int64_t, T); \
  template void batch_norm_statistics_from_running(T*, T*, const T*, const T*, int, T); \
  template void batch_norm_forward(View<T>, View<T>, NormView<T>, bool);                \
  template void batch_norm_backward(View<T>, NormGradient<T>, View<T>, View<T>, NormView<T>, T, bool, T*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

// partial[piece][2][c]: sum of x - sample mean, and of its square.
template <int kPack>
__global__ void statistics_kernel(float* partial, Tensor x, int columns) {
  const int channel = (int(blockIdx.y) * columns + int(threadIdx.x) % columns) * kPack;
  const Pack<kPack> center = channel < x.c ? sample_mean<kPack>(x, channel) : Pack<kPack>{};
  sum_channels<kPack, 2>(partial, x.pixels(), x.c, columns, [&](int64_t p, int c, auto& sums) {
    const Pack<kPack> in = load<kPack>(x.pixel(p) + c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float d = in.v[k] - center.v[k];
      sums[0][k] += d;
      sums[1][k] += d * d;
    }
  });
}

__global__ void finish_statistics_kernel(float* mean, float* inv_std, const float* partial, int pieces,
                                         Tensor x, float eps, float* running_mean, float* running_var) {
  finish_statistics(mean, inv_std, partial, pieces, 2 * x.c, 0, x, double(x.pixels()), eps, running_mean,
                    running_var);
}

__global__ void finish_norm_gradient_kernel(float* coefficients, NormGradient<float> gradient,
                                            const float* partial, int pieces, int channels,
                                            NormView<float> norm, double pixels) {
  finish_norm_gradient(coefficients, gradient, partial, pieces, channels, norm, pixels);
}

__global__ void running_statistics_kernel(float* mean, float* inv_std, const float* running_mean,
                                          const float* running_var, int c, float eps) {
  for (const int64_t j : grid_stride(c)) {
    mean[j] = running_mean[j];
    inv_std[j] = float(rsqrt(double(running_var[j]) + double(eps)));
  }
}

template <int kPack>
__global__ void forward_kernel(Tensor y, Tensor x, NormView<float> norm, float accumulated) {
  for_packs<kPack>(x, [=](int64_t pixel, int c) {
    const Pack<kPack> in = load<kPack>(x.pixel(pixel) + c), mean = load<kPack>(norm.mean + c);
    Pack<kPack> gain = load<kPack>(norm.inv_std + c), shift = {}, out;
    if (norm.gamma) {
      const Pack<kPack> gamma = load<kPack>(norm.gamma + c);
      shift = load<kPack>(norm.beta + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) gain.v[k] *= gamma.v[k];
    }
#pragma unroll
    for (int k = 0; k < kPack; ++k) out.v[k] = (in.v[k] - mean.v[k]) * gain.v[k] + shift.v[k];
    accumulate<kPack>(y.pixel(pixel) + c, out, accumulated);
  });
}

// partial[piece][2][c]: sum of dy, and of dy (x - mean).
template <int kPack>
__global__ void gradient_sums_kernel(float* partial, Tensor dy, Tensor x, const float* mean, int columns) {
  const int channel = (int(blockIdx.y) * columns + int(threadIdx.x) % columns) * kPack;
  const Pack<kPack> center = channel < x.c ? load<kPack>(mean + channel) : Pack<kPack>{};
  sum_channels<kPack, 2>(partial, x.pixels(), x.c, columns, [&](int64_t p, int c, auto& sums) {
    const Pack<kPack> g = load<kPack>(dy.pixel(p) + c), in = load<kPack>(x.pixel(p) + c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      sums[0][k] += g.v[k];
      sums[1][k] += g.v[k] * (in.v[k] - center.v[k]);
    }
  });
}

void launch_statistics(Stream& stream, float* mean, float* inv_std, Tensor x, float eps, float* running_mean,
                       float* running_var) {
  with_pack(pack_width(x), [&](auto pack) {
    const ChannelLayout layout = channel_layout("batch_norm_statistics", x.c, pack, x.pixels(), 2 * x.c);
    auto* partial =
        static_cast<float*>(stream_scratch(stream, layout.pieces * 2 * size_t(x.c) * sizeof(float)));
    launch(statistics_kernel<pack()>, layout.grid(), kSumThreads, 0, stream, partial, x, layout.columns);
    launch(finish_statistics_kernel, add_blocks(x.c), kSumThreads, 0, stream, mean, inv_std, partial,
           int(layout.pieces), x, eps, running_mean, running_var);
  });
}

void launch_backward(Stream& stream, Tensor dx, NormGradient<float> gradient, Tensor dy, Tensor x,
                     NormView<float> norm, float beta, bool batch_statistics, float* factors) {
  const bool sums = gradient.dgamma || gradient.dbeta || ((dx || factors) && batch_statistics);
  with_pack(pack_width(dx, dy, x, row_view(norm.mean, x.c)), [&](auto pack) {
    const int64_t rows = 2 * x.c, other = 3 * int64_t{x.c};
    const ChannelLayout layout = channel_layout("batch_norm_backward", x.c, pack, x.pixels(), rows, other);
    auto* coefficients =
        static_cast<float*>(stream_scratch(stream, size_t(other + layout.pieces * rows) * sizeof(float)));
    float* partial = coefficients + other;
    if (sums)
      launch(gradient_sums_kernel<pack()>, layout.grid(), kSumThreads, 0, stream, partial, dy, x, norm.mean,
             layout.columns);
    if (factors) coefficients = factors;
    launch(finish_norm_gradient_kernel, add_blocks(x.c), kSumThreads, 0, stream, coefficients, gradient,
           partial, sums ? int(layout.pieces) : 0, x.c, norm,
           batch_statistics ? double(x.pixels()) : HUGE_VAL);
    if (dx)
      launch(norm_backward_kernel<pack()>, pack_blocks(dy, pack), kPackThreads, 0, stream, dx, dy, x,
             coefficients, beta);
  });
}

}  // namespace

void batch_norm_statistics(Stream& stream, float* mean, float* inv_std, Tensor x, float eps,
                           float* running_mean, float* running_var) {
  CHECK(mean && inv_std && x && !running_mean == !running_var, "batch_norm_statistics: null argument for x ",
        x.shape());
  stream.activate();
  if (stream.device() == Device::cpu) {
    host::batch_norm_statistics<float>(mean, inv_std, x, eps);
    if (running_mean)
      host::batch_norm_update_running<float>(running_mean, running_var, mean, inv_std, x.c, x.pixels(), eps);
    return;
  }
  launch_statistics(stream, mean, inv_std, x, eps, running_mean, running_var);
}

void batch_norm_statistics_from_running(Stream& stream, float* mean, float* inv_std,
                                        const float* running_mean, const float* running_var, int c,
                                        float eps) {
  if (stream.device() == Device::cpu)
    return host::batch_norm_statistics_from_running<float>(mean, inv_std, running_mean, running_var, c, eps);
  launch(running_statistics_kernel, grid_blocks(c, 128), 128, 0, stream, mean, inv_std, running_mean,
         running_var, c, eps);
}

void batch_norm_forward(Stream& stream, Tensor y, Tensor x, NormView<float> norm, bool accumulate) {
  CHECK(y.shape() == x.shape(), "batch_norm_forward: y ", y.shape(), " does not match x ", x.shape());
  CHECK(norm.mean && norm.inv_std, "batch_norm_forward: no statistics for x ", x.shape());
  CHECK(!accumulate || y.data != x.data, "batch_norm_forward: adds to its own x ", x.shape());
  stream.activate();
  if (stream.device() == Device::cpu) return host::batch_norm_forward<float>(y, x, norm, accumulate);
  const int width = pack_width(y, x, row_view(norm.mean, x.c), row_view(norm.inv_std, x.c),
                               row_view(norm.gamma, x.c), row_view(norm.beta, x.c));
  with_pack(width, [&](auto pack) {
    launch(forward_kernel<pack()>, pack_blocks(x, pack), kPackThreads, 0, stream, y, x, norm,
           accumulate ? 1.0f : 0.0f);
  });
}

void batch_norm_backward(Stream& stream, Tensor dx, NormGradient<float> gradient, Tensor dy, Tensor x,
                         NormView<float> norm, float beta, bool batch_statistics, float* factors) {
  CHECK(dy.shape() == x.shape(), "batch_norm_backward: dy ", dy.shape(), " does not match x ", x.shape());
  CHECK(!dx || dx.shape() == x.shape(), "batch_norm_backward: dx ", dx.shape(), " does not match x ",
        x.shape());
  CHECK(norm.mean && norm.inv_std, "batch_norm_backward: no statistics for x ", x.shape());
  CHECK(!dx || !factors, "batch_norm_backward: dx and its factors for x ", x.shape());
  stream.activate();
  if (stream.device() == Device::cpu)
    return host::batch_norm_backward<float>(dx, gradient, dy, x, norm, beta, batch_statistics, factors);
  launch_backward(stream, dx, gradient, dy, x, norm, beta, batch_statistics, factors);
}

}  // namespace lanas
