// elementwise.cu -- y = max(x, 0); y = sum of xs; y = scale x + beta y; x = value. One pass over memory each.
#include "kernels/core/packs.cuh"
#include "kernels/ops/blocks.h"
#include "kernels/ops/elementwise.h"

namespace lanas {
namespace host {

template <class T>
void relu_forward(View<T> y, View<T> x) {
  const Blocks blocks(x.c, x.pixels());
  for_blocks<T, 2>(blocks, [=](int64_t p, int count, T* buffer) {
    const T* from = read_block(x, p, count, buffer);
    T* to = open_block(y, p, count, buffer + blocks.elements(), false);
    for_flat(count * x.c, [=](int i) { to[i] = from[i] < 0 ? T(0) : from[i]; });
    write_block(y, p, count, to);
  });
}

template <class T>
void relu_backward(View<T> dx, View<T> dy, View<T> x, T beta) {
  const Blocks blocks(x.c, x.pixels());
  for_blocks<T, 3>(blocks, [=](int64_t p, int count, T* buffer) {
    const T* input = read_block(x, p, count, buffer);
    const T* gradient = read_block(dy, p, count, buffer + blocks.elements());
    T* to = open_block(dx, p, count, buffer + 2 * blocks.elements(), beta != 0);
    if (beta == 0)
      for_flat(count * x.c, [=](int i) { to[i] = input[i] > 0 ? gradient[i] : T(0); });
    else
      for_flat(count * x.c, [=](int i) { to[i] = beta * to[i] + (input[i] > 0 ? gradient[i] : T(0)); });
    write_block(dx, p, count, to);
  });
}

template <class T>
void sum_forward(View<T> y, std::span<const View<T>> xs) {
  const Blocks blocks(y.c, y.pixels());
  for_blocks<T, 3>(blocks, [=](int64_t p, int count, T* buffer) {
    prefetch_next(y, p, count);
    for (const View<T>& x : xs) prefetch_next(x, p, count);
    T* to = open_block(y, p, count, buffer, false);
    const T* first = read_block(xs[0], p, count, buffer + blocks.elements());
    if (xs.size() == 1) for_flat(count * y.c, [=](int i) { to[i] = first[i]; });
    for (size_t k = 1; k < xs.size(); ++k) {
      const T* left = k == 1 ? first : to;
      const T* right = read_block(xs[k], p, count, buffer + 2 * blocks.elements());
      for_flat(count * y.c, [=](int i) { to[i] = left[i] + right[i]; });
    }
    write_block(y, p, count, to);
  });
}

template <class T>
void copy_scaled(View<T> y, View<T> x, T scale, T beta) {
  const Blocks blocks(x.c, x.pixels());
  for_blocks<T, 2>(blocks, [=](int64_t p, int count, T* buffer) {
    prefetch_next(x, p, count);
    prefetch_next(y, p, count);
    if (beta == 0 && scale == 1) {
      if (y.data != x.data) copy_pixels<T>(y.pixel(p), y.stride, x.pixel(p), x.stride, count, x.c);
      return;
    }
    const T* from = read_block(x, p, count, buffer);
    T* to = open_block(y, p, count, buffer + blocks.elements(), beta != 0);
    if (beta == 0)
      for_flat(count * x.c, [=](int i) { to[i] = scale * from[i]; });
    else
      for_flat(count * x.c, [=](int i) { to[i] = beta * to[i] + scale * from[i]; });
    write_block(y, p, count, to);
  });
}

template <class T>
void fill(View<T> x, T value) {
  const Blocks blocks(x.c, x.pixels());
  for_blocks<T, 1>(blocks, [=](int64_t p, int count, T* buffer) {
    T* to = open_block(x, p, count, buffer, false);
    for_flat(count * x.c, [=](int i) { to[i] = value; });
    write_block(x, p, count, to);
  });
}

template <class T>
void copy_scaled_by(View<T> y, View<T> x, const T* factor, T scale, T beta) {
  const T s = scale * *factor;
  if (s != 0) return copy_scaled(y, x, s, beta);
  beta == 0 ? fill(y, T(0)) : copy_scaled(y, y, beta, T(0));
}

#define INSTANTIATE(T)                                            \
  template void relu_forward(View<T>, View<T>);                   \
  template void relu_backward(View<T>, View<T>, View<T>, T);      \
  template void sum_forward(View<T>, std::span<const View<T>>);   \
  template void copy_scaled(View<T>, View<T>, T, T);              \
  template void copy_scaled_by(View<T>, View<T>, const T*, T, T); \
  template void fill(View<T>, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

template <int kPack>
__global__ void relu_forward_kernel(Tensor y, Tensor x) {
  for_packs<kPack>(x, [=](int64_t pixel, int c) {
    Pack<kPack> v = load<kPack>(x.pixel(pixel) + c);
#pragma unroll
    for (float& value : v.v) value = value < 0 ? 0 : value;
    store<kPack>(y.pixel(pixel) + c, v);
  });
}

template <int kPack>
__global__ void relu_backward_kernel(Tensor dx, Tensor dy, Tensor x, float beta) {
  for_packs<kPack>(x, [=](int64_t pixel, int c) {
    const Pack<kPack> input = load<kPack>(x.pixel(pixel) + c);
    Pack<kPack> v = load<kPack>(dy.pixel(pixel) + c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) v.v[k] = input.v[k] > 0 ? v.v[k] : 0;
    accumulate<kPack>(dx.pixel(pixel) + c, v, beta);
  });
}

struct Terms {
  static constexpr int kMost = 8;  // more are added in several passes
  int count = 0;
  const float* data[kMost] = {};
  int stride[kMost] = {};
};

template <int kPack>
__global__ void sum_kernel(Tensor y, Terms xs) {
  for_packs<kPack>(y, [&](int64_t pixel, int c) {
    Pack<kPack> sum = load<kPack>(xs.data[0] + pixel * xs.stride[0] + c);
#pragma unroll
    for (int i = 1; i < Terms::kMost; ++i) {
      if (i >= xs.count) break;
      const Pack<kPack> x = load<kPack>(xs.data[i] + pixel * xs.stride[i] + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum.v[k] += x.v[k];
    }
    store<kPack>(y.pixel(pixel) + c, sum);
  });
}

template <int kPack>
__global__ void copy_scaled_kernel(Tensor y, Tensor x, float scale, float beta) {
  for_packs<kPack>(x, [=](int64_t pixel, int c) {
    Pack<kPack> v = load<kPack>(x.pixel(pixel) + c);
#pragma unroll
    for (float& value : v.v) value *= scale;
    accumulate<kPack>(y.pixel(pixel) + c, v, beta);
  });
}

template <int kPack>
__global__ void copy_scaled_by_kernel(Tensor y, Tensor x, const float* factor, float scale, float beta) {
  const float s = scale * *factor;
  for_packs<kPack>(x, [=](int64_t pixel, int c) {
    Pack<kPack> v = load<kPack>(x.pixel(pixel) + c);
#pragma unroll
    for (float& value : v.v) value = s == 0 ? 0 : s * value;
    accumulate<kPack>(y.pixel(pixel) + c, v, beta);
  });
}

template <int kPack>
__global__ void fill_kernel(Tensor x, float value) {
  Pack<kPack> v;
  for (float& element : v.v) element = value;
  for_packs<kPack>(x, [=](int64_t pixel, int c) { store<kPack>(x.pixel(pixel) + c, v); });
}

// One pass over at most Terms::kMost terms, of which the first may be y.
void launch_sum(Stream& stream, Tensor y, std::span<const Tensor> xs) {
  Terms terms;
  int width = pack_width(y);
  bool packed = y.packed() && y.size() <= std::numeric_limits<int>::max();
  for (const Tensor& x : xs) packed = packed && x.packed();
  if (packed) {
    flatten(y);
    width = pack_width(y);
  }
  for (Tensor x : xs) {
    if (packed) flatten(x);
    width = std::min(width, pack_width(y, x));
    terms.data[terms.count] = x.data;
    terms.stride[terms.count++] = x.stride;
  }
  with_pack(width, [&](auto pack) {
    launch(sum_kernel<pack()>, pack_blocks(y, pack), kPackThreads, 0, stream, y, terms);
  });
}

void check_shape(const char* op, const char* name, Tensor x, Tensor y) {
  CHECK(x.shape() == y.shape(), op, ": ", name, " ", x.shape(), " does not match ", y.shape());
}
}  // namespace

void relu_forward(Stream& stream, Tensor y, Tensor x) {
  check_shape("relu_forward", "y", y, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::relu_forward<float>(y, x);
  flatten(y, x);
  with_pack(pack_width(y, x), [&](auto pack) {
    launch(relu_forward_kernel<pack()>, pack_blocks(x, pack), kPackThreads, 0, stream, y, x);
  });
}

void relu_backward(Stream& stream, Tensor dx, Tensor dy, Tensor x, float beta) {
  check_shape("relu_backward", "dx", dx, x);
  check_shape("relu_backward", "dy", dy, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::relu_backward<float>(dx, dy, x, beta);
  flatten(dx, dy, x);
  with_pack(pack_width(dx, dy, x), [&](auto pack) {
    launch(relu_backward_kernel<pack()>, pack_blocks(x, pack), kPackThreads, 0, stream, dx, dy, x, beta);
  });
}

void sum_forward(Stream& stream, Tensor y, std::span<const Tensor> xs) {
  CHECK(!xs.empty(), "sum_forward: no inputs for y ", y.shape());
  for (Tensor x : xs) check_shape("sum_forward", "x", x, y);
  stream.activate();
  if (stream.device() == Device::cpu) return host::sum_forward<float>(y, xs);
  size_t done = std::min<size_t>(xs.size(), Terms::kMost);
  launch_sum(stream, y, xs.first(done));
  while (done < xs.size()) {
    Tensor terms[Terms::kMost] = {y};
    size_t count = 1;
    while (count < Terms::kMost && done < xs.size()) terms[count++] = xs[done++];
    launch_sum(stream, y, {terms, count});
  }
}

void copy_scaled(Stream& stream, Tensor y, Tensor x, float scale, float beta) {
  check_shape("copy_scaled", "y", y, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::copy_scaled<float>(y, x, scale, beta);
  flatten(y, x);
  with_pack(pack_width(y, x), [&](auto pack) {
    launch(copy_scaled_kernel<pack()>, pack_blocks(x, pack), kPackThreads, 0, stream, y, x, scale, beta);
  });
}

void add_scaled(Stream& stream, Tensor y, Tensor x, float scale) { copy_scaled(stream, y, x, scale, 1); }

void copy_scaled_by(Stream& stream, Tensor y, Tensor x, const float* factor, float scale, float beta) {
  check_shape("copy_scaled_by", "y", y, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::copy_scaled_by<float>(y, x, factor, scale, beta);
  flatten(y, x);
  with_pack(pack_width(y, x), [&](auto pack) {
    launch(copy_scaled_by_kernel<pack()>, pack_blocks(x, pack), kPackThreads, 0, stream, y, x, factor, scale,
           beta);
  });
}

void fill(Stream& stream, Tensor x, float value) {
  stream.activate();
  if (stream.device() == Device::cpu) return host::fill<float>(x, value);
  flatten(x);
  with_pack(pack_width(x), [&](auto pack) {
    launch(fill_kernel<pack()>, pack_blocks(x, pack), kPackThreads, 0, stream, x, value);
  });
}

}  // namespace lanas
