// elementwise.cu -- y = max(x, 0); y = sum of xs; y = scale x + beta y; x = value. One pass over memory each.
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

#define INSTANTIATE(T)                                          \
  template void relu_forward(View<T>, View<T>);                 \
  template void relu_backward(View<T>, View<T>, View<T>, T);    \
  template void sum_forward(View<T>, std::span<const View<T>>); \
  template void copy_scaled(View<T>, View<T>, T, T);            \
  template void fill(View<T>, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {
void check_shape(const char* op, const char* name, Tensor x, Tensor y) {
  CHECK(x.shape() == y.shape(), op, ": ", name, " ", x.shape(), " does not match ", y.shape());
}
}  // namespace

void relu_forward(Stream& stream, Tensor y, Tensor x) {
  check_shape("relu_forward", "y", y, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::relu_forward<float>(y, x);
  throw Error("relu_forward: no cuda kernel in this build");
}

void relu_backward(Stream& stream, Tensor dx, Tensor dy, Tensor x, float beta) {
  check_shape("relu_backward", "dx", dx, x);
  check_shape("relu_backward", "dy", dy, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::relu_backward<float>(dx, dy, x, beta);
  throw Error("relu_backward: no cuda kernel in this build");
}

void sum_forward(Stream& stream, Tensor y, std::span<const Tensor> xs) {
  CHECK(!xs.empty(), "sum_forward: no inputs for y ", y.shape());
  for (Tensor x : xs) check_shape("sum_forward", "x", x, y);
  stream.activate();
  if (stream.device() == Device::cpu) return host::sum_forward<float>(y, xs);
  throw Error("sum_forward: no cuda kernel in this build");
}

void copy_scaled(Stream& stream, Tensor y, Tensor x, float scale, float beta) {
  check_shape("copy_scaled", "y", y, x);
  stream.activate();
  if (stream.device() == Device::cpu) return host::copy_scaled<float>(y, x, scale, beta);
  throw Error("copy_scaled: no cuda kernel in this build");
}

void add_scaled(Stream& stream, Tensor y, Tensor x, float scale) { copy_scaled(stream, y, x, scale, 1); }

void fill(Stream& stream, Tensor x, float value) {
  stream.activate();
  if (stream.device() == Device::cpu) return host::fill<float>(x, value);
  throw Error("fill: no cuda kernel in this build");
}

}  // namespace lanas
