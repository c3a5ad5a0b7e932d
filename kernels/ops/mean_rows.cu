// mean_rows.cu -- see mean_rows.h. Small matrices: one host thread.
#include "kernels/core/packs.cuh"
#include "kernels/ops/mean_rows.h"

namespace lanas {
namespace host {

template <class T>
void mean_rows_forward(View<T> y, View<T> x) {
  for (int c = 0; c < x.c; ++c) {
    double sum = 0;
    for (int64_t r = 0; r < x.pixels(); ++r) sum += double(x.pixel(r)[c]);
    y.data[c] = T(sum / double(x.pixels()));
  }
}

template <class T>
void mean_rows_backward(View<T> dx, View<T> dy, T beta) {
  const T scale = T(1) / T(dx.pixels());
  for (int64_t r = 0; r < dx.pixels(); ++r)
    for (int c = 0; c < dx.c; ++c)
      dx.pixel(r)[c] = dy.data[c] * scale + (beta == 0 ? T(0) : beta * dx.pixel(r)[c]);
}

template void mean_rows_forward(View<float>, View<float>);
template void mean_rows_forward(View<double>, View<double>);
template void mean_rows_backward(View<float>, View<float>, float);
template void mean_rows_backward(View<double>, View<double>, double);

}  // namespace host

namespace {

// A thread per column: there are a few rows, the samples of a latency term.
__global__ void mean_rows_forward_kernel(float* y, Tensor x) {
  for (const int64_t c : grid_stride(x.c)) {
    double sum = 0;
    for (int64_t r = 0; r < x.pixels(); ++r) sum += double(x.pixel(r)[c]);
    y[c] = float(sum / double(x.pixels()));
  }
}

__global__ void mean_rows_backward_kernel(Tensor dx, const float* dy, float beta) {
  const float scale = 1 / float(dx.pixels());
  for_packs<1>(dx, [=](int64_t r, int c) { accumulate<1>(dx.pixel(r) + c, {dy[c] * scale}, beta); });
}

void check(const char* op, Tensor row, Tensor matrix) {
  CHECK(row.size() == row.c && row.c == matrix.c, op, ": row ", row.shape(), " does not match matrix ",
        matrix.shape());
}

}  // namespace

void mean_rows_forward(Stream& stream, Tensor y, Tensor x) {
  check("mean_rows_forward", y, x);
  if (stream.device() == Device::cpu) return host::mean_rows_forward(y, x);
  launch(mean_rows_forward_kernel, grid_blocks(x.c, 128), 128, 0, stream, y.data, x);
}

void mean_rows_backward(Stream& stream, Tensor dx, Tensor dy, float beta) {
  check("mean_rows_backward", dy, dx);
  if (stream.device() == Device::cpu) return host::mean_rows_backward(dx, dy, beta);
  launch(mean_rows_backward_kernel, pack_blocks(dx, 1), kPackThreads, 0, stream, dx, dy.data, beta);
}

}  // namespace lanas
