// softmax.cu -- see softmax.h. The segment's maximum is subtracted first, so that no exp overflows.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/parallel.h"
#include "kernels/ops/softmax.h"

namespace lanas {

namespace host {

template <class T>
void softmax_forward(View<T> y, View<T> x, std::span<const int> segments) {
  parallel_for(x.pixels(), [=](int64_t r) {
    const T* in = x.pixel(r);
    T* out = y.pixel(r);
    for (const int length : segments) {
      T largest = in[0], sum = 0;
      for (int i = 1; i < length; ++i) largest = std::max(largest, in[i]);
      for (int i = 0; i < length; ++i) sum += out[i] = std::exp(in[i] - largest);
      for (int i = 0; i < length; ++i) out[i] /= sum;
      in += length;
      out += length;
    }
  });
}

template <class T>
void softmax_backward(View<T> dx, View<T> dy, View<T> y, std::span<const int> segments, T beta) {
  parallel_for(y.pixels(), [=](int64_t r) {
    const T *out = y.pixel(r), *gradient = dy.pixel(r);
    T* in = dx.pixel(r);
    for (const int length : segments) {
      T mean = 0;
      for (int i = 0; i < length; ++i) mean += gradient[i] * out[i];
      for (int i = 0; i < length; ++i) {
        const T d = out[i] * (gradient[i] - mean);
        in[i] = beta == 0 ? d : beta * in[i] + d;
      }
      in += length;
      out += length;
      gradient += length;
    }
  });
}

template void softmax_forward(View<float>, View<float>, std::span<const int>);
template void softmax_forward(View<double>, View<double>, std::span<const int>);
template void softmax_backward(View<float>, View<float>, View<float>, std::span<const int>, float);
template void softmax_backward(View<double>, View<double>, View<double>, std::span<const int>, double);

}  // namespace host

namespace {

void check_segments(const char* name, Tensor x, std::span<const int> segments) {
  CHECK(std::all_of(segments.begin(), segments.end(), [](int length) { return length > 0; }), name,
        ": a segment is empty");
  const int columns = std::accumulate(segments.begin(), segments.end(), 0);
  CHECK(columns == x.c, name, ": segments of ", columns, " columns do not match x ", x.shape());
}

}  // namespace

void softmax_forward(Stream& stream, Tensor y, Tensor x, std::span<const int> segments) {
  CHECK(y.shape() == x.shape(), "softmax_forward: y ", y.shape(), " does not match x ", x.shape());
  check_segments("softmax_forward", x, segments);
  if (stream.device() == Device::cpu) return host::softmax_forward(y, x, segments);
  throw Error("softmax_forward: no cuda kernel in this build");
}

void softmax_backward(Stream& stream, Tensor dx, Tensor dy, Tensor y, std::span<const int> segments,
                      float beta) {
  CHECK(dy.shape() == y.shape(), "softmax_backward: dy ", dy.shape(), " does not match y ", y.shape());
  CHECK(dx.shape() == y.shape(), "softmax_backward: dx ", dx.shape(), " does not match y ", y.shape());
  check_segments("softmax_backward", y, segments);
  if (stream.device() == Device::cpu) return host::softmax_backward(dx, dy, y, segments, beta);
  throw Error("softmax_backward: no cuda kernel in this build");
}

}  // namespace lanas
