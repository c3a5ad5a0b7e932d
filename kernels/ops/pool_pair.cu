// pool_pair.cu -- see pool_pair.h. On the cpu it is the ops that it is made of.
#include "kernels/core/launch.cuh"
#include "kernels/ops/batch_norm.cuh"
#include "kernels/ops/pool2d.cuh"
#include "kernels/ops/pool_pair.h"

namespace lanas {
namespace {

constexpr int kKernel = 3, kPadding = 1;
}  // namespace

namespace host {

template <class T>
void pool_pair_forward(View<T> max, View<T> avg, View<T> x, int stride) {
  max_pool_forward<T>(max, x, kKernel, stride, kPadding);
  avg_pool_forward<T>(avg, x, kKernel, stride, kPadding);
}

template <class T>
void pool_pair_backward(View<T> dx, View<T> dmax, View<T> davg, View<T> x, int stride, T beta) {
  const GradientView<T> gradients[] = {dmax, davg};
  max_pool_backward<T>(dx, {gradients, 1}, x, kKernel, stride, kPadding, beta);
  avg_pool_backward<T>(dx, {gradients + 1, 1}, kKernel, stride, kPadding, T(1));
}

#define INSTANTIATE(T)                                             \
  template void pool_pair_forward(View<T>, View<T>, View<T>, int); \
  template void pool_pair_backward(View<T>, View<T>, View<T>, View<T>, int, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

constexpr int kSums = 4;  // of max - center, its square, and of the average the same

// Both results, and partial[piece][kSums][c]. The taps outside of the image are those at its border again,
// which are in the window too: no load waits for a condition.
template <int kPack>
__global__ void pool_pair_kernel(float* partial, Tensor y_max, Tensor y_avg, Tensor x, Window<kKernel> window,
                                 int columns) {
  const int channel = (int(blockIdx.y) * columns + int(threadIdx.x) % columns) * kPack;
  const Pack<kPack> center = channel < x.c ? sample_mean<kPack>(x, channel) : Pack<kPack>{};
  sum_channels<kPack, kSums, 1>(partial, y_max.pixels(), x.c, columns, [&](int64_t p, int c, auto& sums) {
    const int ox = int(p % y_max.w), oy = int(p / y_max.w % y_max.h),
              n = int(p / (int64_t{y_max.w} * y_max.h));
    Pack<kPack> best, mean = {};
#pragma unroll
    for (int k = 0; k < kPack; ++k) best.v[k] = -INFINITY;
#pragma unroll
    for (int ky = 0; ky < kKernel; ++ky)
#pragma unroll
      for (int kx = 0; kx < kKernel; ++kx) {
        const int wanted_y = window.begin(oy) + ky, iy = min(max(wanted_y, 0), x.h - 1),
                  wanted_x = window.begin(ox) + kx, ix = min(max(wanted_x, 0), x.w - 1);
        const bool inside = iy == wanted_y && ix == wanted_x;
        const Pack<kPack> in = load<kPack>(x.at(n, iy, ix) + c);
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
          best.v[k] = in.v[k] > best.v[k] ? in.v[k] : best.v[k];
          mean.v[k] += inside ? in.v[k] : 0.0f;
        }
      }
    const float factor = 1.0f / float(window.taps_inside(oy, x.h) * window.taps_inside(ox, x.w));
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      mean.v[k] *= factor;
      const float a = best.v[k] - center.v[k], b = mean.v[k] - center.v[k];
      sums[0][k] += a, sums[1][k] += a * a;
      sums[2][k] += b, sums[3][k] += b * b;
    }
    store<kPack>(y_max.pixel(p) + c, best);
    store<kPack>(y_avg.pixel(p) + c, mean);
  });
}

// Blocks (channels, result).
__global__ void pool_pair_statistics_kernel(PooledOutput max, PooledOutput avg, const float* partial,
                                            int pieces, Tensor x, float eps) {
  const PooledOutput& out = blockIdx.y == 0 ? max : avg;
  finish_statistics(out.mean, out.inv_std, partial, pieces, kSums * x.c, 2 * int(blockIdx.y) * x.c, x,
                    double(out.y.pixels()), eps, out.running_mean, out.running_var);
}

void check_output(const char* op, const char* which, const Tensor& y, const Tensor& x, int stride) {
  CHECK(stride > 0 && x.size() > 0, op, ": x ", x.shape(), " at stride ", stride);
  const Shape expected{x.n, pooled_size(x.h, kKernel, stride, kPadding),
                       pooled_size(x.w, kKernel, stride, kPadding), x.c};
  CHECK(y.shape() == expected, op, ": ", which, " ", y.shape(), " does not match ", expected, " from input ",
        x.shape());
}

void launch_forward(Stream& stream, const PooledOutput& max, const PooledOutput& avg, Tensor x, int stride,
                    float eps) {
  with_pack(pack_width(max.y, avg.y, x), [&](auto pack) {
    const ChannelLayout layout =
        channel_layout("pool_pair_forward", x.c, pack, max.y.pixels(), kSums * x.c, 0, 1);
    auto* partial =
        static_cast<float*>(stream_scratch(stream, layout.pieces * size_t(kSums * x.c) * sizeof(float)));
    launch(pool_pair_kernel<pack()>, layout.grid(), kSumThreads, 0, stream, partial, max.y, avg.y, x,
           Window<kKernel>{kKernel, stride, kPadding}, layout.columns);
    if (max.mean)
      launch(pool_pair_statistics_kernel, dim3(add_blocks(x.c), 2), kSumThreads, 0, stream, max, avg, partial,
             int(layout.pieces), x, eps);
  });
}

}  // namespace

void pool_pair_forward(Stream& stream, const PooledOutput& max, const PooledOutput& avg, Tensor x, int stride,
                       float eps) {
  check_output("pool_pair_forward", "max", max.y, x, stride);
  check_output("pool_pair_forward", "avg", avg.y, x, stride);
  for (const PooledOutput* out : {&max, &avg})
    CHECK(!out->mean == !max.mean && !out->inv_std == !max.mean && !out->running_mean == !out->running_var &&
              (out->mean || !out->running_mean),
          "pool_pair_forward: some moments of x ", x.shape(), " and not others");
  stream.activate();
  if (stream.device() == Device::cuda) return launch_forward(stream, max, avg, x, stride, eps);
  host::pool_pair_forward<float>(max.y, avg.y, x, stride);
  for (const PooledOutput* out : {&max, &avg})
    if (out->mean)
      batch_norm_statistics(stream, out->mean, out->inv_std, out->y, eps, out->running_mean,
                            out->running_var);
}

void pool_pair_backward(Stream& stream, Tensor dx, Tensor dmax, Tensor davg, Tensor x, int stride,
                        float beta) {
  check_output("pool_pair_backward", "dmax", dmax, x, stride);
  check_output("pool_pair_backward", "davg", davg, x, stride);
  CHECK(dx.shape() == x.shape(), "pool_pair_backward: dx ", dx.shape(), " does not match x ", x.shape());
  stream.activate();
  if (stream.device() == Device::cuda)
    return launch_max_backward<true>(stream, dx, dmax, davg, x, kKernel, stride, kPadding, beta);
  host::pool_pair_backward<float>(dx, dmax, davg, x, stride, beta);
}

}  // namespace lanas
