// global_pool.cu -- the mean over each image's pixels per channel, added up in double.
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
  throw Error("global_average_pool_forward: no cuda kernel in this build");
}

void global_average_pool_backward(Stream& stream, Tensor dx, Tensor dy, float beta) {
  check_global_pool("global_average_pool_backward", dy, dx);
  stream.activate();
  if (stream.device() == Device::cpu) return host::global_average_pool_backward<float>(dx, dy, beta);
  throw Error("global_average_pool_backward: no cuda kernel in this build");
}

}  // namespace lanas
