// separable_conv_unit.cuh -- what the unit's kernels share: a unit as they want it, up to kMostUnits of which
// go to one launch; the depthwise part, a strip of 4 rows of one column and 4 channels per thread, of which
// neighbouring taps share their loads and neighbouring threads read neighbouring columns; and the staging of
// a tile of pixels in shared memory.
#pragma once

#include "kernels/core/channel_sums.cuh"
#include "kernels/core/precision.h"
#include "kernels/core/warp_product.cuh"
#include "kernels/ops/separable_conv.h"

namespace lanas {
namespace {

constexpr int kUnitThreads = 256;
constexpr int kMostUnits = 20;  // of one launch: as many as the last node of a DARTS cell has
constexpr int kStrip = 4;       // rows of a strip
constexpr int kFull = 132;      // blocks that give every multiprocessor of an H100 one

// The thread's index, read again, so that nothing which depends on it need be kept in a register meanwhile.
__device__ __forceinline__ int thread_again() {
#ifdef __CUDA_ARCH__
  int index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
#else
  return int(threadIdx.x);
#endif
}

// The units of a launch, by value: their number is the grid's z.
template <class T>
struct UnitBatch {
  T at[kMostUnits];
};

// A SeparableConv as the kernels want it.
struct Unit {
  Tensor x;
  const float *depthwise, *pointwise;  // depthwise null: none, kernel 1
  NormView<float> norm;
  int kernel, stride, dilation, padding, offset;
  bool relu, transposed;  // transposed: pointwise [cin][cout] instead of [cout][cin]
  // The geometry is one of with_stencil's, with ReLU, at stride 2 without a norm; columns of y are whole
  // strips.
  bool strips;

  static Unit from(const SeparableConv<float>& op, Tensor x) {
    const bool known = (op.kernel() == 3 || op.kernel() == 5) && op.dilation <= 2 && op.relu &&
                       (op.stride == 1 || !op.norm),
               whole = op.output_shape(x.shape()).h % kStrip == 0;
    return {x,
            op.has_depthwise() ? op.depthwise.data : nullptr,
            op.pointwise.data,
            op.norm,
            op.kernel(),
            op.stride,
            op.dilation,
            op.padding(),
            op.offset,
            op.relu,
            op.transposed,
            known && whole};
  }
  // The row or column of x under tap t of output row or column o.
  __device__ __forceinline__ int input(int o, int t) const {
    return o * stride + offset + t * dilation - padding;
  }
};

// An image, a row and a column.
struct Place {
  int n, y, x;
};
__device__ __forceinline__ Place place_of(unsigned pixel, int h, int w) {
  const unsigned row = pixel / unsigned(w), n = row / unsigned(h);
  return {int(n), int(row - n * unsigned(h)), int(pixel - row * unsigned(w))};
}
// Of the first pixel of a strip, where columns are whole strips.
__device__ __forceinline__ Place place_of_strip(unsigned strip, int h, int w) {
  Place at = place_of(strip, h / kStrip, w);
  at.y *= kStrip;
  return at;
}
// Of a tile's pixel: the pixels of a strip follow each other.
__device__ __forceinline__ Place place_in_tile(unsigned pixel, int h, int w) {
  if (h % kStrip != 0) return place_of(pixel, h, w);
  Place at = place_of_strip(pixel / kStrip, h, w);
  at.y += int(pixel % kStrip);
  return at;
}

// z = relu(scale x + shift) for a pack of channels.
template <int kPack>
struct Activation {
  Pack<kPack> scale, shift;
  bool relu;

  __device__ __forceinline__ Activation(const Unit& unit, int c) : relu(unit.relu) {
    const NormView<float>& norm = unit.norm;
    Pack<kPack> mean = {}, gamma, beta = {};
#pragma unroll
    for (int k = 0; k < kPack; ++k) scale.v[k] = gamma.v[k] = 1;
    if (norm.mean) scale = load<kPack>(norm.inv_std + c), mean = load<kPack>(norm.mean + c);
    if (norm.gamma) gamma = load<kPack>(norm.gamma + c), beta = load<kPack>(norm.beta + c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      scale.v[k] *= gamma.v[k];
      shift.v[k] = beta.v[k] - mean.v[k] * scale.v[k];
    }
  }
  // Of what was read where `inside`, of zeros elsewhere, which stay zeros.
  __device__ __forceinline__ Pack<kPack> operator()(Pack<kPack> x, bool inside = true) const {
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      x.v[k] = x.v[k] * scale.v[k] + (inside ? shift.v[k] : 0.0f);
      if (relu) x.v[k] = fmaxf(x.v[k], 0.0f);
    }
    return x;
  }
};

// The same for a strip of a unit: with ReLU, and with a norm or without.
template <bool kNorm>
struct StripActivation {
  Pack<4> scale, shift;

  __device__ __forceinline__ StripActivation(const Unit& unit, int c) {
    if constexpr (kNorm) {
      const Activation<4> whole(unit, c);
      scale = whole.scale, shift = whole.shift;
    }
  }
  __device__ __forceinline__ Pack<4> operator()(Pack<4> x, bool inside) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if constexpr (kNorm) x.v[k] = x.v[k] * scale.v[k] + (inside ? shift.v[k] : 0.0f);
      x.v[k] = fmaxf(x.v[k], 0.0f);
    }
    return x;
  }
};

// p[...] or zeros. What is done with it stands outside the condition, or the loads of a loop wait for each
// other.
template <int kPack>
__device__ __forceinline__ Pack<kPack> load_inside(bool inside, const float* p) {
  Pack<kPack> x = {};
  if (inside) x = load<kPack>(p);
  return x;
}

// Kernel, stride and dilation of a depthwise convolution with "same" padding, as constants, and what it reads
// for a strip: output row m kClasses + r under tap ky reads row r + (m kJump + ky) kDilation from the first
// on. At stride 1 and dilation 2 even and odd rows read nothing in common: two classes r, one after the
// other.
template <int kKernelSize, int kStrideSize, int kDilationSize>
struct Stencil {
  static constexpr int kKernel = kKernelSize, kStride = kStrideSize, kDilation = kDilationSize,
                       kPadding = kDilation * (kKernel - 1) / 2,
                       kClasses = kStride == 1 && kDilation == 2 ? 2 : 1, kRows = kStrip / kClasses,
                       kJump = kDilation == 2 ? 1 : kStride, kSpan = (kRows - 1) * kJump + kKernel;
};

// use(Stencil) for a unit with strips. kStrides 1: none has stride 2.
template <int kStrides = 2, class Use>
__device__ __forceinline__ void with_stencil(const Unit& unit, Use use) {
  const auto with_stride = [&](auto kernel, auto stride) {
    if (unit.dilation == 1)
      use(Stencil<kernel(), stride(), 1>());
    else
      use(Stencil<kernel(), stride(), 2>());
  };
  const auto with_kernel = [&](auto kernel) {
    if (kStrides == 1 || unit.stride == 1)
      with_stride(kernel, std::integral_constant<int, 1>());
    else if constexpr (kStrides == 2)
      with_stride(kernel, std::integral_constant<int, 2>());
  };
  if (unit.kernel == 3)
    with_kernel(std::integral_constant<int, 3>());
  else
    with_kernel(std::integral_constant<int, 5>());
}

// Gradients are read as they are.
struct Identity {
  __device__ __forceinline__ Pack<4> operator()(Pack<4> x, bool) const { return x; }
};

// z[i] = value(x[n, first + i step, column, c...]), 0 outside.
template <int kSpan, class Value>
__device__ __forceinline__ void load_span(Pack<4> (&z)[kSpan], const Tensor& x, int n, int first, int step,
                                          int column, int c, const Value& value) {
  const float* from = x.at(n, first, column) + c;
  const int rows = step * x.w * x.stride;
#pragma unroll
  for (int i = 0; i < kSpan; ++i)
    z[i] = load_inside<4>(unsigned(first + i * step) < unsigned(x.h), from + i * rows);
#pragma unroll
  for (int i = 0; i < kSpan; ++i) z[i] = value(z[i], unsigned(first + i * step) < unsigned(x.h));
}

// sum[s] += the taps of the output pixels of a strip, of x behind `value`. kFlip: the taps in reverse order,
// as the gradient of x gathers them.
template <class S, bool kFlip, class Value>
__device__ __forceinline__ void depthwise_strip(Pack<4> (&sum)[kStrip], const float* weights, const Tensor& x,
                                                Place at, int c, const Value& value) {
  constexpr int kTaps = S::kKernel * S::kKernel;
#pragma unroll 1
  for (int kx = 0; kx < S::kKernel; ++kx) {
    const int ix = at.x * S::kStride + kx * S::kDilation - S::kPadding;
    if (unsigned(ix) >= unsigned(x.w)) continue;
#pragma unroll
    for (int r = 0; r < S::kClasses; ++r) {
      Pack<4> z[S::kSpan];
      load_span<S::kSpan>(z, x, at.n, at.y * S::kStride - S::kPadding + r, S::kDilation, ix, c, value);
#pragma unroll
      for (int ky = 0; ky < S::kKernel; ++ky) {
        const int tap = ky * S::kKernel + kx;
        const Pack<4> w = load<4>(weights + (kFlip ? kTaps - 1 - tap : tap) * x.c + c);
#pragma unroll
        for (int m = 0; m < S::kRows; ++m)
#pragma unroll
          for (int k = 0; k < 4; ++k) sum[m * S::kClasses + r].v[k] += w.v[k] * z[m * S::kJump + ky].v[k];
      }
    }
  }
}

// The depthwise result at one output pixel, of any geometry.
template <int kPack>
__device__ __forceinline__ Pack<kPack> depthwise_at(const Unit& unit, const Activation<kPack>& activation,
                                                    Place at, int c) {
  const Tensor& x = unit.x;
  Pack<kPack> sum = {};
  for (int ky = 0; ky < unit.kernel; ++ky) {
    const int iy = unit.input(at.y, ky);
    if (unsigned(iy) >= unsigned(x.h)) continue;
#pragma unroll 1
    for (int kx = 0; kx < unit.kernel; ++kx) {
      const int ix = unit.input(at.x, kx);
      if (unsigned(ix) >= unsigned(x.w)) continue;
      const Pack<kPack> z = activation(load<kPack>(x.at(at.n, iy, ix) + c)),
                        w = load<kPack>(unit.depthwise + (ky * unit.kernel + kx) * x.c + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum.v[k] += w.v[k] * z.v[k];
    }
  }
  return sum;
}

// A tile in shared memory: kPixels pixels, kChunk channels at a time, of which those in use are rounded up to
// kRound. Gaps behind each pixel and each strip keep banks apart.
template <int kTilePixels, int kTileChunk, int kPad = kTileChunk <= 8 ? 0 : 4, int kGap = 4, int kRound = 4>
struct StagedTile {
  static constexpr int kPixels = kTilePixels, kChunk = kTileChunk, kPitch = kChunk + kPad,
                       kFloats = kPixels * kPitch + kPixels / kStrip * kGap;
  // Where a pixel's channels begin.
  __device__ __forceinline__ static int at(int pixel) { return pixel * kPitch + pixel / kStrip * kGap; }
  // The channels of the chunk at `first`, rounded up; those past the last are zeros.
  __device__ __forceinline__ static int size(int channels, int first) {
    return min(kChunk, (channels - first + kRound - 1) / kRound * kRound);
  }
};

// The tile's pixels from `begin` on, channels from `first` on, of the depthwise result of an output of this
// shape; zeros past its pixels and past cin. kNorm: what units with strips have.
template <int kPack, class Tile, bool kNorm>
__device__ __forceinline__ void stage_depthwise(float* to, const Unit& unit, const Shape& y, unsigned begin,
                                                int first) {
  const int packs = Tile::size(unit.x.c, first) / kPack, column = int(threadIdx.x) % packs,
            slots = kUnitThreads / packs, slot = int(threadIdx.x) / packs, c = first + column * kPack;
  if (slot >= slots) return;
  const bool inside = c < unit.x.c;
  const unsigned pixels = unsigned(y.n) * unsigned(y.h) * unsigned(y.w);
  to += column * kPack;
  if constexpr (kPack == 4)
    if (unit.strips) {
      const StripActivation<kNorm> activation(unit, inside ? c : 0);
      with_stencil<kNorm ? 1 : 2>(unit, [&](auto stencil) {
        for (int i = slot * kStrip; i < Tile::kPixels; i += slots * kStrip) {
          Pack<4> d[kStrip] = {};
          const unsigned p = begin + unsigned(i);
          if (inside && p < pixels)
            depthwise_strip<decltype(stencil), false>(d, unit.depthwise, unit.x,
                                                      place_of_strip(p / kStrip, y.h, y.w), c, activation);
#pragma unroll
          for (int s = 0; s < kStrip; ++s) store<4>(to + Tile::at(i + s), d[s]);
        }
      });
      return;
    }
  const Activation<kPack> activation(unit, inside ? c : 0);
  if (!unit.depthwise) {
#pragma unroll 4
    for (int i = slot; i < Tile::kPixels; i += slots) {
      const unsigned p = begin + unsigned(i);
      const bool reads = inside && p < pixels;
      const Place at = place_in_tile(p, y.h, y.w);
      const float* from = unit.x.at(at.n, unit.input(at.y, 0), unit.input(at.x, 0)) + c;
      store<kPack>(to + Tile::at(i), activation(load_inside<kPack>(reads, from), reads));
    }
    return;
  }
  for (int i = slot; i < Tile::kPixels; i += slots) {
    const unsigned p = begin + unsigned(i);
    Pack<kPack> d = {};
    if (inside && p < pixels) d = depthwise_at<kPack>(unit, activation, place_in_tile(p, y.h, y.w), c);
    store<kPack>(to + Tile::at(i), d);
  }
}

// A pack of a gradient, put together from its factors where it has any; zeros unless `inside`.
template <int kPack>
__device__ __forceinline__ Pack<kPack> gradient_at(const GradientView<float>& dy, int64_t pixel, int c,
                                                   bool inside) {
  Pack<kPack> g = load_inside<kPack>(inside, dy.g.pixel(pixel) + c);
  if (!dy.factors) return g;
  const Pack<kPack> v = load_inside<kPack>(inside, dy.v.pixel(pixel) + c),
                    a = load_inside<kPack>(inside, dy.factors + c),
                    b = load_inside<kPack>(inside, dy.factors + dy.g.c + c),
                    d = load_inside<kPack>(inside, dy.factors + 2 * dy.g.c + c);
#pragma unroll
  for (int k = 0; k < kPack; ++k) g.v[k] = a.v[k] * g.v[k] + (b.v[k] * v.v[k] + d.v[k]);
  return g;
}

// As stage_depthwise: to = dy. kInOrder: pixel after pixel, not strip after strip.
template <int kPack, class Tile, bool kInOrder>
__device__ __forceinline__ void stage_gradient(float* to, const GradientView<float>& dy, unsigned begin,
                                               int first) {
  const int packs = Tile::size(dy.g.c, first) / kPack, h = dy.g.h, w = dy.g.w;
  const unsigned pixels = unsigned(dy.g.pixels());
#pragma unroll 2
  for (int i = int(threadIdx.x); i < Tile::kPixels * packs; i += kUnitThreads) {
    const int row = i / packs, column = i - row * packs, c = first + column * kPack;
    const unsigned p = begin + unsigned(row);
    const Place at = kInOrder ? Place{} : place_in_tile(p, h, w);
    const int64_t pixel = kInOrder ? int64_t{p} : (int64_t{at.n} * h + at.y) * w + at.x;
    store<kPack>(to + Tile::at(row) + column * kPack,
                 gradient_at<kPack>(dy, pixel, c, p < pixels && c < dy.g.c));
  }
}

// Whether all of a unit's tensors take packs of 4.
inline bool takes_quads(const Unit& unit) {
  const int c = unit.x.c;
  const auto row = [=](const float* data) { return data ? row_view(data, c) : Tensor{}; };
  return pack_width(unit.x, row(unit.depthwise), row(unit.norm.mean), row(unit.norm.inv_std),
                    row(unit.norm.gamma), row(unit.norm.beta)) == 4;
}
inline bool takes_quads(const GradientView<float>& dy) {
  return pack_width(dy.g, dy.v, dy.factors ? row_view(dy.factors, dy.g.c) : Tensor{}) == 4;
}

// use(pack) for packs of 4 channels or, with kSingles, single ones.
template <bool kSingles = true, class Use>
void with_quads(bool quads, Use use) {
  if constexpr (kSingles)
    if (!quads) return use(std::integral_constant<int, 1>());
  use(std::integral_constant<int, 4>());
}
// use(pack, norm): whether units with strips, which take packs of 4, have a norm.
template <class Use>
void with_quads(bool quads, bool norm, Use use) {
  with_quads(quads, [&](auto pack) {
    if (!norm && pack() == 4)
      use(pack, std::bool_constant<pack() != 4>());
    else
      use(pack, std::true_type());
  });
}

// use(columns): 4 columns channels are what a block's threads have side by side.
template <class Use>
void with_columns(int channels, Use use) {
  if (channels <= 4)
    use(std::integral_constant<int, 1>());
  else if (channels <= 8)
    use(std::integral_constant<int, 2>());
  else if (channels <= 16)
    use(std::integral_constant<int, 4>());
  else if (channels <= 32)
    use(std::integral_constant<int, 8>());
  else
    use(std::integral_constant<int, 16>());
}

// use(tf32): whether products of a tile of kColumns go to the tensor cores; narrower ones have too little to
// do.
template <int kPack, int kColumns, class Use>
void with_precision(Use use) {
  if constexpr (kPack == 4 && kColumns >= 4)
    if (tf32()) return use(std::true_type());
  use(std::false_type());
}

}  // namespace
}  // namespace lanas
