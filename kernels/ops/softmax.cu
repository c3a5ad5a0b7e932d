// softmax.cu -- see softmax.h. The segment's maximum is subtracted first, so that no exp overflows.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/parallel.h"
#include "kernels/core/reduce.cuh"
#include "kernels/ops/segments.h"
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

constexpr unsigned kThreads = 128;  // four warps, each with one segment of one row

// The segment of this thread's warp: row -1 where there is none. It is the same in all lanes.
struct WarpSegment {
  int64_t row;
  int begin, end;
};
__device__ WarpSegment warp_segment(int64_t rows, const Segments& segments) {
  const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  const int k = int(index % segments.count);
  return {index < rows * segments.count ? index / segments.count : -1, segments.begin(k), segments.end[k]};
}

__global__ void softmax_forward_kernel(Tensor y, Tensor x, Segments segments) {
  const WarpSegment s = warp_segment(x.pixels(), segments);
  if (s.row < 0) return;  // the whole warp; there is no barrier of the block
  const float* in = x.pixel(s.row);
  float* out = y.pixel(s.row);
  const int first = s.begin + int(threadIdx.x % 32);
  float largest = -INFINITY, sum = 0;
  for (int i = first; i < s.end; i += 32) largest = fmaxf(largest, in[i]);
  largest = warp_max(largest);
  for (int i = first; i < s.end; i += 32) sum += expf(in[i] - largest);
  sum = warp_sum(sum);
  for (int i = first; i < s.end; i += 32) out[i] = expf(in[i] - largest) / sum;
}

__global__ void softmax_backward_kernel(Tensor dx, Tensor dy, Tensor y, Segments segments, float beta) {
  const WarpSegment s = warp_segment(y.pixels(), segments);
  if (s.row < 0) return;
  const float *out = y.pixel(s.row), *gradient = dy.pixel(s.row);
  float* in = dx.pixel(s.row);
  const int first = s.begin + int(threadIdx.x % 32);
  float mean = 0;
  for (int i = first; i < s.end; i += 32) mean += gradient[i] * out[i];
  mean = warp_sum(mean);
  for (int i = first; i < s.end; i += 32) {
    const float d = out[i] * (gradient[i] - mean);
    in[i] = beta == 0 ? d : beta * in[i] + d;
  }
}

unsigned warp_blocks(Tensor x, const Segments& segments) {
  const int64_t blocks = (x.pixels() * segments.count + kThreads / 32 - 1) / (kThreads / 32);
  CHECK(blocks < (int64_t{1} << 31), "softmax: ", x.shape(), " has too many segments");
  return unsigned(blocks);
}

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
  const Segments s = Segments::from("softmax_forward", segments);
  launch(softmax_forward_kernel, warp_blocks(x, s), kThreads, 0, stream, y, x, s);
}

void softmax_backward(Stream& stream, Tensor dx, Tensor dy, Tensor y, std::span<const int> segments,
                      float beta) {
  CHECK(dy.shape() == y.shape(), "softmax_backward: dy ", dy.shape(), " does not match y ", y.shape());
  CHECK(dx.shape() == y.shape(), "softmax_backward: dx ", dx.shape(), " does not match y ", y.shape());
  check_segments("softmax_backward", y, segments);
  if (stream.device() == Device::cpu) return host::softmax_backward(dx, dy, y, segments, beta);
  const Segments s = Segments::from("softmax_backward", segments);
  launch(softmax_backward_kernel, warp_blocks(y, s), kThreads, 0, stream, dx, dy, y, s, beta);
}

}  // namespace lanas
