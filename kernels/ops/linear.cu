// linear.cu -- see linear.h. The products go to gemm on both devices; here are the bias and its gradient.
#include "kernels/core/packs.cuh"
#include "kernels/core/parallel.h"
#include "kernels/ops/linear.h"
#include "kernels/vendor/gemm.h"

namespace lanas {

namespace host {

namespace {

template <class T>
void fill_rows(View<T> y, const T* bias) {
  parallel_for(y.pixels(), [=](int64_t r) {
    T* __restrict row = y.pixel(r);
    for (int o = 0; o < y.c; ++o) row[o] = bias[o];
  });
}

// Sums in double, rows in order.
template <class T>
void bias_gradient(T* dbias, View<T> dy, T beta) {
  const int64_t rows = dy.pixels();
  parallel_for(dy.c, [=](int64_t o) {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) sum += double(dy.pixel(r)[o]);
    dbias[o] = beta == 0 ? T(sum) : T(sum + double(beta) * double(dbias[o]));
  });
}

}  // namespace

template <class T>
void linear_forward(View<T> y, View<T> x, View<T> w, const T* bias) {
  if (bias) fill_rows(y, bias);
  gemm_reference<T>(false, true, int(y.pixels()), y.c, x.c, 1, x.data, x.stride, w.data, w.stride,
                    bias ? 1 : 0, y.data, y.stride);
}

template <class T>
void linear_backward(View<T> dx, View<T> dw, T* dbias, View<T> dy, View<T> x, View<T> w, T beta_dx, T beta_dw,
                     T beta_dbias) {
  const int rows = int(dy.pixels());
  if (dx)
    gemm_reference<T>(false, false, rows, w.c, dy.c, 1, dy.data, dy.stride, w.data, w.stride, beta_dx,
                      dx.data, dx.stride);
  if (dw)
    gemm_reference<T>(true, false, dy.c, x.c, rows, 1, dy.data, dy.stride, x.data, x.stride, beta_dw, dw.data,
                      dw.stride);
  if (dbias) bias_gradient(dbias, dy, beta_dbias);
}

template void linear_forward(View<float>, View<float>, View<float>, const float*);
template void linear_forward(View<double>, View<double>, View<double>, const double*);
template void linear_backward(View<float>, View<float>, float*, View<float>, View<float>, View<float>, float,
                              float, float);
template void linear_backward(View<double>, View<double>, double*, View<double>, View<double>, View<double>,
                              double, double, double);

}  // namespace host

namespace {

template <int kPack>
__global__ void fill_rows_kernel(Tensor y, const float* bias) {
  for_packs<kPack>(y, [=](int64_t r, int o) { store<kPack>(y.pixel(r) + o, load<kPack>(bias + o)); });
}

constexpr unsigned kColumns = 32, kRows = 8;  // of a block's threads

// A block per 32 columns; its 8 rows of threads take every eighth row of dy.
__global__ void bias_gradient_kernel(float* dbias, Tensor dy, float beta) {
  const int column = int(blockIdx.x * kColumns + threadIdx.x % kColumns);
  double sum = 0;
  if (column < dy.c)
    for (int64_t r = threadIdx.x / kColumns; r < dy.pixels(); r += kRows) sum += double(dy.pixel(r)[column]);
  sum = column_sum(sum, kColumns, static_shared<double, kColumns * kRows>());
  if (threadIdx.x < kColumns && column < dy.c)
    dbias[column] = float(beta == 0 ? sum : sum + double(beta) * double(dbias[column]));
}

void fill_rows(Stream& stream, Tensor y, const float* bias) {
  if (stream.device() == Device::cpu) return host::fill_rows(y, bias);
  with_pack(pack_width(y, row_view(bias, y.c)), [&](auto pack) {
    launch(fill_rows_kernel<pack()>, pack_blocks(y, pack), kPackThreads, 0, stream, y, bias);
  });
}

void bias_gradient(Stream& stream, float* dbias, Tensor dy, float beta) {
  if (stream.device() == Device::cpu) return host::bias_gradient(dbias, dy, beta);
  launch(bias_gradient_kernel, (unsigned(dy.c) + kColumns - 1) / kColumns, kColumns * kRows, 0, stream, dbias,
         dy, beta);
}

}  // namespace

void linear_forward(Stream& stream, Tensor y, Tensor x, Tensor w, const float* bias) {
  CHECK(w.c == x.c && w.pixels() == y.c && y.pixels() == x.pixels(), "linear_forward: y ", y.shape(),
        " does not match x ", x.shape(), " and weights ", w.shape());
  if (bias) fill_rows(stream, y, bias);
  gemm(stream, false, true, int(y.pixels()), y.c, x.c, 1, x.data, x.stride, w.data, w.stride, bias ? 1 : 0,
       y.data, y.stride);
}

void linear_backward(Stream& stream, Tensor dx, Tensor dw, float* dbias, Tensor dy, Tensor x, Tensor w,
                     float beta_dx, float beta_dw, float beta_dbias) {
  const int rows = int(dy.pixels());
  CHECK(!dx || (w.pixels() == dy.c && dx.c == w.c && dx.pixels() == rows), "linear_backward: dx ", dx.shape(),
        " does not match dy ", dy.shape(), " and weights ", w.shape());
  CHECK(!dw || (x.pixels() == rows && dw.pixels() == dy.c && dw.c == x.c), "linear_backward: dw ", dw.shape(),
        " does not match dy ", dy.shape(), " and x ", x.shape());
  if (dx)
    gemm(stream, false, false, rows, w.c, dy.c, 1, dy.data, dy.stride, w.data, w.stride, beta_dx, dx.data,
         dx.stride);
  if (dw)
    gemm(stream, true, false, dy.c, x.c, rows, 1, dy.data, dy.stride, x.data, x.stride, beta_dw, dw.data,
         dw.stride);
  if (dbias) bias_gradient(stream, dbias, dy, beta_dbias);
}

}  // namespace lanas
