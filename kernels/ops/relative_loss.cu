// relative_loss.cu -- see relative_loss.h.
#include <cmath>

#include "kernels/core/reduce.cuh"
#include "kernels/ops/relative_loss.h"

namespace lanas {

namespace host {

template <class T>
void relative_loss_forward(T* loss, View<T> u, View<T> coefficients) {
  double sum = 0;
  for (int64_t i = 0; i < u.pixels(); ++i) {
    const T* c = coefficients.pixel(i);
    const T r = c[0] * *u.pixel(i) - c[1];
    sum += double(c[2] * (std::sqrt(1 + r * r) - 1));
  }
  *loss = T(sum);
}

template <class T>
void relative_loss_backward(View<T> du, View<T> u, View<T> coefficients, const T* dloss, T beta) {
  for (int64_t i = 0; i < u.pixels(); ++i) {
    const T* c = coefficients.pixel(i);
    const T r = c[0] * *u.pixel(i) - c[1];
    const T gradient = *dloss * c[2] * c[0] * r / std::sqrt(1 + r * r);
    T* const to = du.pixel(i);
    *to = beta == 0 ? gradient : gradient + beta * *to;
  }
}

template void relative_loss_forward(float*, View<float>, View<float>);
template void relative_loss_forward(double*, View<double>, View<double>);
template void relative_loss_backward(View<float>, View<float>, View<float>, const float*, float);
template void relative_loss_backward(View<double>, View<double>, View<double>, const double*, double);

}  // namespace host

namespace {

constexpr unsigned kThreads = 256;

__device__ __forceinline__ float residual(const Tensor& u, const float* c, int64_t i) {
  return c[0] * *u.pixel(i) - c[1];
}

// One block; a batch is some hundred rows.
__global__ void relative_loss_forward_kernel(float* loss, Tensor u, Tensor coefficients) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < u.pixels(); i += kThreads) {
    const float* c = coefficients.pixel(i);
    const float r = residual(u, c, i);
    sum += double(c[2] * (sqrtf(1 + r * r) - 1));
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = float(sum);
}

__global__ void relative_loss_backward_kernel(Tensor du, Tensor u, Tensor coefficients, const float* dloss,
                                              float beta) {
  for (const int64_t i : grid_stride(u.pixels())) {
    const float* c = coefficients.pixel(i);
    const float r = residual(u, c, i), gradient = *dloss * c[2] * c[0] * r / sqrtf(1 + r * r);
    float* const to = du.pixel(i);
    *to = beta == 0 ? gradient : gradient + beta * *to;
  }
}

}  // namespace

void relative_loss_forward(Stream& stream, float* loss, Tensor u, Tensor coefficients) {
  CHECK(u.c == 1 && coefficients.c == 3 && coefficients.pixels() == u.pixels(),
        "relative_loss_forward: predictions ", u.shape(), " do not match coefficients ",
        coefficients.shape());
  if (stream.device() == Device::cpu) return host::relative_loss_forward(loss, u, coefficients);
  launch(relative_loss_forward_kernel, 1, kThreads, 0, stream, loss, u, coefficients);
}

void relative_loss_backward(Stream& stream, Tensor du, Tensor u, Tensor coefficients, const float* dloss,
                            float beta) {
  CHECK(du.shape() == u.shape() && u.c == 1 && coefficients.c == 3 && coefficients.pixels() == u.pixels(),
        "relative_loss_backward: du ", du.shape(), " does not match predictions ", u.shape(),
        " and coefficients ", coefficients.shape());
  if (stream.device() == Device::cpu) return host::relative_loss_backward(du, u, coefficients, dloss, beta);
  launch(relative_loss_backward_kernel, grid_blocks(u.pixels(), kThreads), kThreads, 0, stream, du, u,
         coefficients, dloss, beta);
}

}  // namespace lanas
