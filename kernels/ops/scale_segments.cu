// scale_segments.cu -- see scale_segments.h.
#include <algorithm>
#include <numeric>

#include "kernels/core/packs.cuh"
#include "kernels/core/parallel.h"
#include "kernels/ops/scale_segments.h"
#include "kernels/ops/segments.h"

namespace lanas {

namespace host {

template <class T>
void scale_segments_forward(View<T> y, View<T> x, View<T> s, std::span<const int> segments) {
  parallel_for(x.pixels(), [=](int64_t r) {
    const T* in = x.pixel(r);
    T* out = y.pixel(r);
    for (size_t k = 0; k < segments.size(); in += segments[k], out += segments[k], ++k)
      for (int i = 0; i < segments[k]; ++i) out[i] = in[i] * s.data[k];
  });
}

template <class T>
void scale_segments_backward(View<T> dx, View<T> ds, View<T> dy, View<T> x, View<T> s,
                             std::span<const int> segments, T beta_dx, T beta_ds) {
  if (dx)
    parallel_for(dy.pixels(), [=](int64_t r) {
      const T* gradient = dy.pixel(r);
      T* in = dx.pixel(r);
      for (size_t k = 0; k < segments.size(); in += segments[k], gradient += segments[k], ++k)
        for (int i = 0; i < segments[k]; ++i) {
          const T d = gradient[i] * s.data[k];
          in[i] = beta_dx == 0 ? d : beta_dx * in[i] + d;
        }
    });
  if (!ds) return;
  int first = 0;
  for (size_t k = 0; k < segments.size(); first += segments[k], ++k) {
    double sum = 0;
    for (int64_t r = 0; r < dy.pixels(); ++r)
      for (int i = first; i < first + segments[k]; ++i) sum += double(dy.pixel(r)[i]) * double(x.pixel(r)[i]);
    ds.data[k] = beta_ds == 0 ? T(sum) : T(sum + double(beta_ds) * double(ds.data[k]));
  }
}

#define INSTANTIATE(T)                                                                                     \
  template void scale_segments_forward(View<T>, View<T>, View<T>, std::span<const int>);                   \
  template void scale_segments_backward(View<T>, View<T>, View<T>, View<T>, View<T>, std::span<const int>, \
                                        T, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

// y = s x + beta y; forward with beta 0, and dx from dy.
__global__ void scale_kernel(Tensor y, Tensor x, const float* s, Segments segments, float beta) {
  for_packs<1>(x, [&](int64_t row, int i) {
    accumulate<1>(y.pixel(row) + i, {x.pixel(row)[i] * s[segments.of(i)]}, beta);
  });
}

// One block per segment.
__global__ void scale_gradient_kernel(float* ds, Tensor dy, Tensor x, Segments segments, float beta) {
  const int k = int(blockIdx.x), begin = segments.begin(k), length = segments.end[k] - begin;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < dy.pixels() * length; i += blockDim.x) {
    const int64_t row = i / length, column = begin + i % length;
    sum += double(dy.pixel(row)[column]) * double(x.pixel(row)[column]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) ds[k] = float(beta == 0 ? sum : sum + double(beta) * double(ds[k]));
}

void check(const char* name, Tensor y, Tensor x, Tensor s, std::span<const int> segments) {
  CHECK(y.shape() == x.shape(), name, ": y ", y.shape(), " does not match x ", x.shape());
  CHECK(std::all_of(segments.begin(), segments.end(), [](int length) { return length > 0; }), name,
        ": a segment is empty");
  const int columns = std::accumulate(segments.begin(), segments.end(), 0);
  CHECK(columns == x.c, name, ": segments of ", columns, " columns do not match x ", x.shape());
  CHECK(s.pixels() == 1 && s.c == int(segments.size()), name, ": factors ", s.shape(), " do not match ",
        segments.size(), " segments");
}

}  // namespace

void scale_segments_forward(Stream& stream, Tensor y, Tensor x, Tensor s, std::span<const int> segments) {
  check("scale_segments_forward", y, x, s, segments);
  if (stream.device() == Device::cpu) return host::scale_segments_forward(y, x, s, segments);
  launch(scale_kernel, pack_blocks(x, 1), kPackThreads, 0, stream, y, x, s.data,
         Segments::from("scale_segments_forward", segments), 0.0f);
}

void scale_segments_backward(Stream& stream, Tensor dx, Tensor ds, Tensor dy, Tensor x, Tensor s,
                             std::span<const int> segments, float beta_dx, float beta_ds) {
  if (dx) check("scale_segments_backward", dx, dy, s, segments);
  if (ds) check("scale_segments_backward", dy, x, ds, segments);
  if (stream.device() == Device::cpu)
    return host::scale_segments_backward(dx, ds, dy, x, s, segments, beta_dx, beta_ds);
  const Segments device_segments = Segments::from("scale_segments_backward", segments);
  if (dx)
    launch(scale_kernel, pack_blocks(dy, 1), kPackThreads, 0, stream, dx, dy, s.data, device_segments,
           beta_dx);
  if (ds)
    launch(scale_gradient_kernel, unsigned(segments.size()), 128, 0, stream, ds.data, dy, x, device_segments,
           beta_ds);
}

}  // namespace lanas
