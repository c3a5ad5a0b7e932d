// depthwise_conv.cu -- see depthwise_conv.h. Forward and dx run over rows of pixels, dw over images with one
// partial sum in double per image, added in image order.
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/ops/depthwise_conv.h"
#include "kernels/vendor/conv2d.h"

namespace lanas {

namespace host {

template <class T>
void depthwise_conv_forward(View<T> y, View<T> x, View<T> w, int stride, int padding, int dilation) {
  parallel_for(int64_t{y.n} * y.h, [=](int64_t row) {
    const int n = int(row / y.h), oy = int(row % y.h), channels = y.c;
    for (int ox = 0; ox < y.w; ++ox) {
      T* __restrict out = y.at(n, oy, ox);
      for (int c = 0; c < channels; ++c) out[c] = 0;
      for (int ky = 0; ky < w.h; ++ky) {
        const int iy = oy * stride - padding + ky * dilation;
        if (iy < 0 || iy >= x.h) continue;
        for (int kx = 0; kx < w.w; ++kx) {
          const int ix = ox * stride - padding + kx * dilation;
          if (ix < 0 || ix >= x.w) continue;
          const T* __restrict in = x.at(n, iy, ix);
          const T* __restrict weight = w.at(0, ky, kx);
          for (int c = 0; c < channels; ++c) out[c] += weight[c] * in[c];
        }
      }
    }
  });
}

namespace {

// Every input pixel gathers from the outputs that read it.
template <class T>
void backward_input(View<T> dx, View<T> dy, View<T> w, int stride, int padding, int dilation, T beta) {
  parallel_for(int64_t{dx.n} * dx.h, [=](int64_t row) {
    const int n = int(row / dx.h), iy = int(row % dx.h), channels = dx.c;
    for (int ix = 0; ix < dx.w; ++ix) {
      T* __restrict out = dx.at(n, iy, ix);
      if (beta == 0)
        for (int c = 0; c < channels; ++c) out[c] = 0;
      else
        for (int c = 0; c < channels; ++c) out[c] *= beta;
      for (int ky = 0; ky < w.h; ++ky) {
        const int y_stride = iy + padding - ky * dilation;
        if (y_stride < 0 || y_stride % stride != 0 || y_stride / stride >= dy.h) continue;
        for (int kx = 0; kx < w.w; ++kx) {
          const int x_stride = ix + padding - kx * dilation;
          if (x_stride < 0 || x_stride % stride != 0 || x_stride / stride >= dy.w) continue;
          const T* __restrict in = dy.at(n, y_stride / stride, x_stride / stride);
          const T* __restrict weight = w.at(0, ky, kx);
          for (int c = 0; c < channels; ++c) out[c] += weight[c] * in[c];
        }
      }
    }
  });
}

template <class T>
void backward_weights(View<T> dw, View<T> dy, View<T> x, int stride, int padding, int dilation, T beta) {
  const int64_t size = dw.size();
  std::vector<double> storage(size_t(dy.n * size), 0.0);
  double* partials = storage.data();  // [n, k, k, c]
  parallel_for(dy.n, [=](int64_t n) {
    const int channels = dy.c;
    for (int oy = 0; oy < dy.h; ++oy)
      for (int ox = 0; ox < dy.w; ++ox) {
        const T* __restrict gradient = dy.at(int(n), oy, ox);
        for (int ky = 0; ky < dw.h; ++ky) {
          const int iy = oy * stride - padding + ky * dilation;
          if (iy < 0 || iy >= x.h) continue;
          for (int kx = 0; kx < dw.w; ++kx) {
            const int ix = ox * stride - padding + kx * dilation;
            if (ix < 0 || ix >= x.w) continue;
            const T* __restrict in = x.at(int(n), iy, ix);
            double* __restrict sum = partials + n * size + int64_t{ky * dw.w + kx} * channels;
            for (int c = 0; c < channels; ++c) sum[c] += double(gradient[c]) * double(in[c]);
          }
        }
      }
  });
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0;
    for (int n = 0; n < dy.n; ++n) sum += partials[n * size + i];
    dw.data[i] = beta == 0 ? T(sum) : T(sum + double(beta) * double(dw.data[i]));
  }
}

}  // namespace

template <class T>
void depthwise_conv_backward(View<T> dx, View<T> dw, View<T> dy, View<T> x, View<T> w, int stride,
                             int padding, int dilation, T beta_dx, T beta_dw) {
  if (dx) backward_input(dx, dy, w, stride, padding, dilation, beta_dx);
  if (dw) backward_weights(dw, dy, x, stride, padding, dilation, beta_dw);
}

#define INSTANTIATE(T)                                                            \
  template void depthwise_conv_forward(View<T>, View<T>, View<T>, int, int, int); \
  template void depthwise_conv_backward(View<T>, View<T>, View<T>, View<T>, View<T>, int, int, int, T, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

namespace {

void check_shapes(const char* name, Tensor y, Tensor x, Tensor w, int stride, int padding, int dilation) {
  CHECK(stride >= 1 && dilation >= 1 && padding >= 0, name, ": stride ", stride, ", dilation ", dilation,
        ", padding ", padding);
  CHECK(w.n == 1 && w.c == x.c && w.packed(), name, ": weights ", w.shape(), " with pixel stride ", w.stride,
        " do not match the input ", x.shape());
  const Shape expected{x.n, conv_output_size(x.h, w.h, stride, padding, dilation),
                       conv_output_size(x.w, w.w, stride, padding, dilation), x.c};
  CHECK(y.shape() == expected, name, ": output ", y.shape(), " is not the expected ", expected);
}

}  // namespace

void depthwise_conv_forward(Stream& stream, Tensor y, Tensor x, Tensor w, int stride, int padding,
                            int dilation) {
  check_shapes("depthwise_conv_forward", y, x, w, stride, padding, dilation);
  if (stream.device() == Device::cpu) return host::depthwise_conv_forward(y, x, w, stride, padding, dilation);
  throw Error("depthwise_conv_forward: no cuda kernel in this build");
}

void depthwise_conv_backward(Stream& stream, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, int stride,
                             int padding, int dilation, float beta_dx, float beta_dw) {
  if (dx) check_shapes("depthwise_conv_backward", dy, dx, w, stride, padding, dilation);
  if (dw) check_shapes("depthwise_conv_backward", dy, x, dw, stride, padding, dilation);
  if (stream.device() == Device::cpu)
    return host::depthwise_conv_backward(dx, dw, dy, x, w, stride, padding, dilation, beta_dx, beta_dw);
  throw Error("depthwise_conv_backward: no cuda kernel in this build");
}

}  // namespace lanas
