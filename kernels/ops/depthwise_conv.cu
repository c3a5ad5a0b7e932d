// depthwise_conv.cu -- see depthwise_conv.h. On the host forward and dx run over rows of pixels, dw over
// images with one partial sum in double per image, added in image order. On the device a thread makes a pack
// of channels of one pixel; dw is summed over pieces of the pixels first, then over the pieces in order.
#include <algorithm>
#include <vector>

#include "kernels/core/packs.cuh"
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

struct Geometry {
  int stride, padding, dilation;
};

template <int kPack>
__global__ void forward_kernel(Tensor y, Tensor x, Tensor w, Geometry g) {
  for_packs<kPack>(y, [=](int64_t pixel, int c) {
    const int ox = int(pixel % y.w), oy = int(pixel / y.w % y.h), n = int(pixel / (int64_t{y.w} * y.h));
    Pack<kPack> sum = {};
    for (int ky = 0; ky < w.h; ++ky) {
      const int iy = oy * g.stride - g.padding + ky * g.dilation;
      if (iy < 0 || iy >= x.h) continue;
      for (int kx = 0; kx < w.w; ++kx) {
        const int ix = ox * g.stride - g.padding + kx * g.dilation;
        if (ix < 0 || ix >= x.w) continue;
        const Pack<kPack> in = load<kPack>(x.at(n, iy, ix) + c), weight = load<kPack>(w.at(0, ky, kx) + c);
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum.v[k] += weight.v[k] * in.v[k];
      }
    }
    store<kPack>(y.pixel(pixel) + c, sum);
  });
}

template <int kPack>
__global__ void backward_input_kernel(Tensor dx, Tensor dy, Tensor w, Geometry g, float beta) {
  for_packs<kPack>(dx, [=](int64_t pixel, int c) {
    const int ix = int(pixel % dx.w), iy = int(pixel / dx.w % dx.h), n = int(pixel / (int64_t{dx.w} * dx.h));
    Pack<kPack> sum = {};
    for (int ky = 0; ky < w.h; ++ky) {
      const int oy = iy + g.padding - ky * g.dilation;  // times the stride
      if (oy < 0 || oy % g.stride != 0 || oy / g.stride >= dy.h) continue;
      for (int kx = 0; kx < w.w; ++kx) {
        const int ox = ix + g.padding - kx * g.dilation;
        if (ox < 0 || ox % g.stride != 0 || ox / g.stride >= dy.w) continue;
        const Pack<kPack> in = load<kPack>(dy.at(n, oy / g.stride, ox / g.stride) + c),
                          weight = load<kPack>(w.at(0, ky, kx) + c);
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum.v[k] += weight.v[k] * in.v[k];
      }
    }
    accumulate<kPack>(dx.pixel(pixel) + c, sum, beta);
  });
}

constexpr unsigned kThreads = 256;
constexpr int kColumns = 64;  // channels of a block, at most

// Block (piece, tap, 64 channels): partial[piece][tap][c] = sum over the piece's pixels of dy x.
__global__ void backward_weights_kernel(float* partial, Tensor dy, Tensor x, int kernel_w, Geometry g) {
  const int first = int(blockIdx.z) * kColumns, columns = min(kColumns, dy.c - first);
  const int c = first + int(threadIdx.x) % columns, row = int(threadIdx.x) / columns,
            rows = int(kThreads) / columns, tap = int(blockIdx.y);
  const int ky = tap / kernel_w, kx = tap % kernel_w;
  float sum = 0;
  if (row < rows)
    for (int64_t p = int64_t{blockIdx.x} * rows + row; p < dy.pixels(); p += int64_t{gridDim.x} * rows) {
      const int ox = int(p % dy.w), oy = int(p / dy.w % dy.h), n = int(p / (int64_t{dy.w} * dy.h));
      const int iy = oy * g.stride - g.padding + ky * g.dilation,
                ix = ox * g.stride - g.padding + kx * g.dilation;
      if (iy >= 0 && iy < x.h && ix >= 0 && ix < x.w) sum += dy.pixel(p)[c] * x.at(n, iy, ix)[c];
    }
  sum = column_sum(sum, unsigned(columns), static_shared<float, int(kThreads)>());
  if (row == 0) partial[(int64_t{blockIdx.x} * gridDim.y + unsigned(tap)) * dy.c + c] = sum;
}

__global__ void add_pieces_kernel(Tensor dw, const float* partial, int pieces, float beta) {
  for (const int64_t i : grid_stride(dw.size())) {
    double sum = 0;
    for (int piece = 0; piece < pieces; ++piece) sum += double(partial[piece * dw.size() + i]);
    dw.data[i] = float(beta == 0 ? sum : sum + double(beta) * double(dw.data[i]));
  }
}

void launch_backward_weights(Stream& stream, Tensor dw, Tensor dy, Tensor x, Geometry g, float beta) {
  const int64_t most = int64_t(kStreamScratch / sizeof(float)) / dw.size();
  CHECK(most >= 1, "depthwise_conv_backward: dw ", dw.shape(), " is too large");
  const unsigned pieces = grid_blocks(dy.size(), 32 * kThreads, unsigned(std::min<int64_t>(most, 256)));
  auto* partial = static_cast<float*>(stream_scratch(stream, pieces * size_t(dw.size()) * sizeof(float)));
  const dim3 grid(pieces, unsigned(dw.h * dw.w), unsigned((dy.c + kColumns - 1) / kColumns));
  launch(backward_weights_kernel, grid, kThreads, 0, stream, partial, dy, x, dw.w, g);
  launch(add_pieces_kernel, grid_blocks(dw.size(), 128), 128, 0, stream, dw, partial, int(pieces), beta);
}

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
  with_pack(pack_width(y, x, w), [&](auto pack) {
    launch(forward_kernel<pack()>, pack_blocks(y, pack), kPackThreads, 0, stream, y, x, w,
           Geometry{stride, padding, dilation});
  });
}

void depthwise_conv_backward(Stream& stream, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, int stride,
                             int padding, int dilation, float beta_dx, float beta_dw) {
  if (dx) check_shapes("depthwise_conv_backward", dy, dx, w, stride, padding, dilation);
  if (dw) check_shapes("depthwise_conv_backward", dy, x, dw, stride, padding, dilation);
  if (stream.device() == Device::cpu)
    return host::depthwise_conv_backward(dx, dw, dy, x, w, stride, padding, dilation, beta_dx, beta_dw);
  const Geometry g{stride, padding, dilation};
  if (dx)
    with_pack(pack_width(dx, dy, w), [&](auto pack) {
      launch(backward_input_kernel<pack()>, pack_blocks(dx, pack), kPackThreads, 0, stream, dx, dy, w, g,
             beta_dx);
    });
  if (dw) launch_backward_weights(stream, dw, dy, x, g, beta_dw);
}

}  // namespace lanas
