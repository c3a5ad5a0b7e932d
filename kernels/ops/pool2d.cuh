// pool2d.cuh -- the device kernels of pool2d.cu. Forward and the average's backward: a thread per pack of
// channels of one pixel, whose taps come from the cache. Max backward needs the place of the maximum of every
// window that holds a pixel: a block finds the places for the windows of a strip of rows once, in shared
// memory, and then each input pixel adds the windows that chose it; pool_pair's backward adds the average's
// gradient there as well.
#pragma once

#include <algorithm>

#include "kernels/core/packs.cuh"
#include "kernels/ops/pool2d.h"

namespace lanas {
namespace {

// kKernel is the window's side, 0: only known at run time.
template <int kKernel>
struct Window {
  static constexpr int kConstant = kKernel;
  int side, stride, padding;
  __device__ __forceinline__ int kernel() const { return kKernel > 0 ? kKernel : side; }
  // First row or column of a window; the tap t of it lies at begin + t.
  __device__ __forceinline__ int begin(int out) const { return out * stride - padding; }
  __device__ __forceinline__ int taps_inside(int out, int size) const {
    return min(size, begin(out) + kernel()) - max(0, begin(out));
  }
};

// use(iy, ix, tap) for the pixels of window (oy, ox) that lie in the image of h x w, in row-major order.
template <int kKernel, class Use>
__device__ __forceinline__ void for_taps(const Window<kKernel>& window, int oy, int ox, int h, int w,
                                         Use use) {
#pragma unroll
  for (int ky = 0; ky < window.kernel(); ++ky)
#pragma unroll
    for (int kx = 0; kx < window.kernel(); ++kx) {
      const int iy = window.begin(oy) + ky, ix = window.begin(ox) + kx;
      if (iy >= 0 && iy < h && ix >= 0 && ix < w) use(iy, ix, ky * window.kernel() + kx);
    }
}

template <int kPack, int kKernel>
__global__ void max_forward_kernel(Tensor y, Tensor x, Window<kKernel> window) {
  for_packs<kPack>(y, [=](int64_t pixel, int c) {
    const int ox = int(pixel % y.w), oy = int(pixel / y.w % y.h), n = int(pixel / (int64_t{y.w} * y.h));
    Pack<kPack> best;
#pragma unroll
    for (int k = 0; k < kPack; ++k) best.v[k] = -INFINITY;
    for_taps(window, oy, ox, x.h, x.w, [&](int iy, int ix, int) {
      const Pack<kPack> in = load<kPack>(x.at(n, iy, ix) + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) best.v[k] = in.v[k] > best.v[k] ? in.v[k] : best.v[k];
    });
    store<kPack>(y.pixel(pixel) + c, best);
  });
}

template <int kPack, int kKernel>
__global__ void avg_forward_kernel(Tensor y, Tensor x, Window<kKernel> window) {
  for_packs<kPack>(y, [=](int64_t pixel, int c) {
    const int ox = int(pixel % y.w), oy = int(pixel / y.w % y.h), n = int(pixel / (int64_t{y.w} * y.h));
    Pack<kPack> sum = {};
    for_taps(window, oy, ox, x.h, x.w, [&](int iy, int ix, int) {
      const Pack<kPack> in = load<kPack>(x.at(n, iy, ix) + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum.v[k] += in.v[k];
    });
    const float factor = 1.0f / float(window.taps_inside(oy, x.h) * window.taps_inside(ox, x.w));
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum.v[k] *= factor;
    store<kPack>(y.pixel(pixel) + c, sum);
  });
}

// use(oy, ox, tap) for the windows that hold pixel (iy, ix): there it is tap `tap` in row-major order.
template <int kKernel, class Use>
__device__ __forceinline__ void for_windows(const Window<kKernel>& window, int iy, int ix, int oh, int ow,
                                            Use use) {
#pragma unroll
  for (int ky = 0; ky < window.kernel(); ++ky) {
    const int oy = iy + window.padding - ky;  // times the stride
    if (oy < 0 || oy % window.stride != 0 || oy / window.stride >= oh) continue;
#pragma unroll
    for (int kx = 0; kx < window.kernel(); ++kx) {
      const int ox = ix + window.padding - kx;
      if (ox < 0 || ox % window.stride != 0 || ox / window.stride >= ow) continue;
      use(oy / window.stride, ox / window.stride, ky * window.kernel() + kx);
    }
  }
}

template <int kPack, int kKernel>
__global__ void avg_backward_kernel(Tensor dx, Tensor dy, Window<kKernel> window, float beta) {
  for_packs<kPack>(dx, [=](int64_t pixel, int c) {
    const int ix = int(pixel % dx.w), iy = int(pixel / dx.w % dx.h), n = int(pixel / (int64_t{dx.w} * dx.h));
    Pack<kPack> sum = {};
    for_windows(window, iy, ix, dy.h, dy.w, [&](int oy, int ox, int) {
      const Pack<kPack> g = load<kPack>(dy.at(n, oy, ox) + c);
      const float factor = 1.0f / float(window.taps_inside(oy, dx.h) * window.taps_inside(ox, dx.w));
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum.v[k] += factor * g.v[k];
    });
    accumulate<kPack>(dx.pixel(pixel) + c, sum, beta);
  });
}

// The strip of input rows and the packs of channels of one block.
struct Strip {
  int rows, strips;   // rows of a strip; strips of an image
  int packs, groups;  // packs of a block; groups of packs of a pixel
};

// The taps of the first maxima of one window, a byte for each channel of a pack.
template <int kPack, int kKernel>
__device__ __forceinline__ unsigned first_maxima(const Tensor& x, int n, int oy, int ox, int c,
                                                 const Window<kKernel>& window) {
  Pack<kPack> best;
  unsigned where = 0;
#pragma unroll
  for (int k = 0; k < kPack; ++k) best.v[k] = -INFINITY;
  for_taps(window, oy, ox, x.h, x.w, [&](int iy, int ix, int tap) {
    const Pack<kPack> in = load<kPack>(x.at(n, iy, ix) + c);
#pragma unroll
    for (int k = 0; k < kPack; ++k)
      if (in.v[k] > best.v[k]) {
        best.v[k] = in.v[k];
        where = (where & ~(0xffu << (8 * k))) | (unsigned(tap) << (8 * k));
      }
  });
  return where;
}

// Block (image and strip, group of packs). Shared: the places of the windows that touch the strip. With
// kAverage dx also takes the gradient of the average, davg.
template <int kPack, int kKernel, bool kAverage>
__global__ void max_backward_kernel(Tensor dx, Tensor dy, Tensor davg, Tensor x, Window<kKernel> window,
                                    Strip strip, float beta) {
  unsigned* places = dynamic_shared<unsigned>();  // [window row - first][ox][pack]
  const int n = int(blockIdx.x) / strip.strips, first_row = int(blockIdx.x) % strip.strips * strip.rows,
            last_row = min(first_row + strip.rows, x.h) - 1;
  const int first_pack = int(blockIdx.y) * strip.packs, packs = min(strip.packs, x.c / kPack - first_pack);
  const int before = first_row + window.padding - window.kernel() + 1;  // times the stride, rounded up
  const int first = before <= 0 ? 0 : (before + window.stride - 1) / window.stride,
            last = min(dy.h - 1, (last_row + window.padding) / window.stride), row_packs = dy.w * packs;
  for (int i = int(threadIdx.x); i < (last - first + 1) * row_packs; i += int(kPackThreads)) {
    const int row = i / row_packs, ox = i % row_packs / packs, pack = i % packs;
    places[i] = first_maxima<kPack>(x, n, first + row, ox, (first_pack + pack) * kPack, window);
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < (last_row - first_row + 1) * x.w * packs; i += int(kPackThreads)) {
    const int iy = first_row + i / (x.w * packs), ix = i % (x.w * packs) / packs, pack = i % packs,
              c = (first_pack + pack) * kPack;
    Pack<kPack> sum = {};
    for_windows(window, iy, ix, dy.h, dy.w, [&](int oy, int ox, int tap) {
      const unsigned where = places[(oy - first) * row_packs + ox * packs + pack];
      const Pack<kPack> g = load<kPack>(dy.at(n, oy, ox) + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum.v[k] += ((where >> (8 * k)) & 0xffu) == unsigned(tap) ? g.v[k] : 0;
      if constexpr (kAverage) {
        const Pack<kPack> mean = load<kPack>(davg.at(n, oy, ox) + c);
        const float factor = 1.0f / float(window.taps_inside(oy, x.h) * window.taps_inside(ox, x.w));
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum.v[k] += factor * mean.v[k];
      }
    });
    accumulate<kPack>(dx.at(n, iy, ix) + c, sum, beta);
  }
}

// use(window) with the usual kernel as a constant.
template <class Use>
void with_window(int kernel, int stride, int padding, Use use) {
  if (kernel == 3)
    use(Window<3>{kernel, stride, padding});
  else
    use(Window<0>{kernel, stride, padding});
}

// davg: read with kAverage, else anything.
template <bool kAverage>
void launch_max_backward(Stream& stream, Tensor dx, Tensor dy, Tensor davg, Tensor x, int kernel, int stride,
                         int padding, float beta) {
  constexpr int kPlaces = 48 * 1024 / 4;  // of a block, at most
  with_pack(kAverage ? pack_width(dx, dy, davg, x) : pack_width(dx, dy, x), [&](auto pack) {
    Strip strip;
    strip.packs = std::min(x.c / pack, 4);
    while (strip.packs > 1 && (kernel + 1) * dy.w * strip.packs > kPlaces) --strip.packs;
    strip.groups = (x.c / pack + strip.packs - 1) / strip.packs;
    const auto places = [&](int rows) { return ((rows + kernel - 2) / stride + 1) * dy.w * strip.packs; };
    strip.rows = 8;
    const auto blocks = [&] { return int64_t{x.n} * ((x.h + strip.rows - 1) / strip.rows) * strip.groups; };
    while (strip.rows > 1 && (places(strip.rows) > kPlaces || (strip.rows > 4 && blocks() < 264)))
      strip.rows /= 2;
    strip.strips = (x.h + strip.rows - 1) / strip.rows;
    CHECK(places(strip.rows) <= kPlaces, "max_pool_backward: rows of x ", x.shape(), " are too long");
    const dim3 grid(unsigned(x.n * strip.strips), unsigned(strip.groups));
    with_window(kernel, stride, padding, [&](auto window) {
      launch(max_backward_kernel<pack(), decltype(window)::kConstant, kAverage>, grid, kPackThreads,
             size_t(places(strip.rows)) * sizeof(unsigned), stream, dx, dy, davg, x, window, strip, beta);
    });
  });
}

}  // namespace
}  // namespace lanas
