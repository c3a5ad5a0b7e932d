// global_pool.cu -- the mean over each image's pixels per channel, added up in double.
#include "kernels/core/packs.cuh"
#include "kernels/ops/blocks.h"
#include "kernels/ops/global_pool.h"

namespace lanas {
namespace host {

template <class T>
void global_average_pool_forward(View<T> y, View<T> x) {
  parallel_for(x.n, [=](int64_t n) {
    const int64_t pixels = int64_t{x.h} * x.w;
    const int c = x.c;
    Scratch<double> sums(c);
    double* const sum = sums.get();
    std::fill_n(sum, c, 0.0);
    for (int64_t p = 0; p < pixels; ++p) {
      const T* in = x.pixel(n * pixels + p);
      for_flat(c, [=](int j) { sum[j] += double(in[j]); });
    }
    T* out = y.pixel(n);
    for_flat(c, [=](int j) { out[j] = T(sum[j] / double(pixels)); });
  });
}

template <class T>
void global_average_pool_backward(View<T> dx, View<T> dy, T beta) {
  parallel_for(dx.n, [=](int64_t n) {
    const int64_t pixels = int64_t{dx.h} * dx.w;
    const T share = T(1) / T(pixels);
    const T* g = dy.pixel(n);
    for (int64_t p = 0; p < pixels; ++p) {
      T* out = dx.pixel(n * pixels + p);
      if (beta == 0)
        for_flat(dx.c, [=](int j) { out[j] = share * g[j]; });
      else
        for_flat(dx.c, [=](int j) { out[j] = beta * out[j] + share * g[j]; });
    }
  });
}

#define INSTANTIATE(T)                                         \
  template void global_average_pool_forward(View<T>, View<T>); \
  template void global_average_pool_backward(View<T>, View<T>, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

constexpr int kColumns = 8, kRows = int(kPackThreads) / kColumns;  // of a block: 8 packs of channels

// Block (image, 8 packs of channels): its rows of threads share the pixels, then the rows are added up.
template <int kPack>
__global__ void forward_kernel(Tensor y, Tensor x) {
  const int n = int(blockIdx.x), pixels = x.h * x.w, row = int(threadIdx.x) / kColumns;
  const int c = (int(blockIdx.y) * kColumns + int(threadIdx.x) % kColumns) * kPack;
  Pack<kPack> sum = {};
  if (c < x.c)
    for (int p = row; p < pixels; p += kRows) {
      const Pack<kPack> in = load<kPack>(x.pixel(int64_t{n} * pixels + p) + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum.v[k] += in.v[k];
    }
#pragma unroll
  for (int k = 0; k < kPack; ++k)
    sum.v[k] = column_sum(sum.v[k], kColumns, static_shared<float, int(kPackThreads)>()) / float(pixels);
  if (row == 0 && c < x.c) store<kPack>(y.pixel(n) + c, sum);
}

template <int kPack>
__global__ void backward_kernel(Tensor dx, Tensor dy, float beta) {
  const unsigned pixels = unsigned(dx.h * dx.w);
  const float share = 1.0f / float(pixels);
  for_packs<kPack>(dx, [=](int64_t pixel, int c) {
    Pack<kPack> g = load<kPack>(dy.pixel(int64_t(unsigned(pixel) / pixels)) + c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) g.v[k] *= share;
    accumulate<kPack>(dx.pixel(pixel) + c, g, beta);
  });
}

void check_global_pool(const char* op, Tensor y, Tensor x) {
  const Shape expected{x.n, 1, 1, x.c};
  CHECK(y.shape() == expected, op, ": output ", y.shape(), " does not match ", expected, " from input ",
        x.shape());
}

}  // namespace

void global_average_pool_forward(Stream& stream, Tensor y, Tensor x) {
  check_global_pool("global_average_pool_forward", y, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::global_average_pool_forward<float>(y, x);
  with_pack(pack_width(y, x), [&](auto pack) {
    const dim3 grid(unsigned(x.n), unsigned((x.c / pack + kColumns - 1) / kColumns));
    launch(forward_kernel<pack()>, grid, kPackThreads, 0, stream, y, x);
  });
}

void global_average_pool_backward(Stream& stream, Tensor dx, Tensor dy, float beta) {
  check_global_pool("global_average_pool_backward", dy, dx);
  stream.activate();
  if (stream.device() == Device::cpu) return host::global_average_pool_backward<float>(dx, dy, beta);
  with_pack(pack_width(dx, dy), [&](auto pack) {
    launch(backward_kernel<pack()>, pack_blocks(dx, pack), kPackThreads, 0, stream, dx, dy, beta);
  });
}

}  // namespace lanas
