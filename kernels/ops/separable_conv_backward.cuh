// separable_conv_backward.cuh -- the unit's backward on the device: dd = dy p (the forward kernel with the
// weights transposed); dp = dy^T d with d computed again, a tile of pixels at a time; dw[t] = sum of dd z,
// a row of taps per block; dz = gather of w dd behind the ReLU together with the sums that the batch norm of
// x needs; dx. All sums over pixels are partial sums per block, added in order by a second kernel.
#pragma once

#include "kernels/ops/batch_norm.cuh"
#include "kernels/ops/separable_conv.cuh"

namespace lanas {
namespace {

constexpr int kProductPixels = 64;  // staged at a time

// Grid (pieces, chunks of cin, groups of 4 kColumns of cout). partial[piece][cout][cin] = sum of dy d.
// Threads stand [slice of the pixels][4 quads of the chunk][kColumns quads of cout].
template <int kPack, int kColumns>
__global__ void pointwise_gradient_kernel(float* partial, Tensor dy, Tensor x, Unit unit) {
  constexpr int kWidth = 4 * kColumns, kGap = kWidth + 4, kSlices = kUnitThreads / (kColumns * 4);
  float* d = static_shared<float, kProductPixels * kPitch, 0>();
  float* g = static_shared<float, kProductPixels * kGap, 1>();
  float* sums = static_shared<float, kUnitThreads * 16, 2>();  // [slice][j][c]
  const int column = int(threadIdx.x) % kColumns, quad = int(threadIdx.x) / kColumns % 4,
            slice = int(threadIdx.x) / (kColumns * 4);
  const int first = int(blockIdx.y) * kChunk, first_j = int(blockIdx.z) * kWidth,
            chunk = chunk_size(x.c, first);
  float product[4][4] = {};  // [j][c]
  const int64_t step = int64_t{gridDim.x} * kProductPixels;
  for (int64_t begin = int64_t{blockIdx.x} * kProductPixels; begin < dy.pixels(); begin += step) {
    __syncthreads();
    stage_depthwise<kPack>(d, unit, x, dy.h, dy.w, begin, kProductPixels, first, chunk);
    for (int i = int(threadIdx.x); i < kProductPixels * kWidth; i += kUnitThreads) {
      const int pixel = i / kWidth, j = first_j + i % kWidth;
      const bool inside = begin + pixel < dy.pixels() && j < dy.c;
      g[pixel * kGap + i % kWidth] = inside ? dy.pixel(begin + pixel)[j] : 0.0f;
    }
    __syncthreads();
    if (quad * 4 < chunk)
#pragma unroll 4
      for (int p = slice; p < kProductPixels; p += kSlices) {
        const Pack<4> from = load<4>(g + p * kGap + column * 4), in = load<4>(d + p * kPitch + quad * 4);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
          for (int c = 0; c < 4; ++c) product[j][c] += from.v[j] * in.v[c];
      }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int c = 0; c < 4; ++c)
      sums[(slice * kWidth + column * 4 + j) * kChunk + quad * 4 + c] = product[j][c];
  __syncthreads();
  for (int i = int(threadIdx.x); i < kWidth * kChunk; i += kUnitThreads) {
    float sum = 0;
    for (int s = 0; s < kSlices; ++s) sum += sums[s * kWidth * kChunk + i];
    const int j = first_j + i / kChunk, c = first + i % kChunk;
    if (j < dy.c && c < x.c) partial[(int64_t{blockIdx.x} * dy.c + j) * x.c + c] = sum;
  }
}

// Grid (pieces, groups of channels, groups of kTaps taps of one row). partial[group][piece][kTaps][c].
template <int kPack, int kTaps>
__global__ void depthwise_gradient_kernel(float* partial, Tensor dd, Tensor x, Unit unit, int columns) {
  const int tap = int(blockIdx.z) * kTaps, ky = tap / unit.kernel, first_kx = tap % unit.kernel;
  const int channel = (int(blockIdx.y) * columns + int(threadIdx.x) % columns) * kPack;
  const Activation<kPack> activation(unit, channel < x.c ? channel : 0);
  float* mine = partial + int64_t{blockIdx.z} * gridDim.x * kTaps * x.c;
  sum_channels<kPack, kTaps, 1>(mine, dd.pixels(), x.c, columns, [&](int64_t p, int c, auto& sums) {
    const int ox = int(p % dd.w), oy = int(p / dd.w % dd.h), n = int(p / (int64_t{dd.w} * dd.h));
    const int iy = unit.input(oy, ky);
    if (iy < 0 || iy >= x.h) return;
    const Pack<kPack> g = load<kPack>(dd.pixel(p) + c);
#pragma unroll
    for (int t = 0; t < kTaps; ++t) {
      const int ix = unit.input(ox, first_kx + t);
      if (ix < 0 || ix >= x.w) continue;
      const Pack<kPack> z = activation(load<kPack>(x.at(n, iy, ix) + c));
#pragma unroll
      for (int k = 0; k < kPack; ++k) sums[t][k] += g.v[k] * z.v[k];
    }
  });
}

// to[i] = beta to[i] + sum over the pieces of partial[i / row][piece][i % row].
template <int kWhich = 0>
__global__ void add_gradient_kernel(float* to, const float* partial, int pieces, int64_t row, int64_t count,
                                    float beta) {
  const int64_t i = int64_t{blockIdx.x} * kAddColumns + int(threadIdx.x) % kAddColumns, group = i / row;
  const double sum = add_pieces(partial + group * pieces * row, pieces, row, i - group * row, i < count);
  if (threadIdx.x < unsigned(kAddColumns) && i < count)
    to[i] = float(beta == 0 ? sum : sum + double(beta) * double(to[i]));
}

// The gather of w dd at input pixel (iy, ix), before the ReLU. kKernel 0: any kernel.
template <int kPack, int kKernel>
__device__ __forceinline__ Pack<kPack> input_gradient_at(const Unit& unit, const Tensor& dd, int n, int iy,
                                                         int ix, int c) {
  const int kernel = kKernel > 0 ? kKernel : unit.kernel;
  Pack<kPack> sum = {};
#pragma unroll 1
  for (int ky = 0; ky < kernel; ++ky) {
    const int oy = iy + unit.padding - unit.offset - ky * unit.dilation;  // times the stride
    if (oy < 0 || oy % unit.stride != 0 || oy / unit.stride >= dd.h) continue;
#pragma unroll
    for (int kx = 0; kx < kernel; ++kx) {
      const int ox = ix + unit.padding - unit.offset - kx * unit.dilation;
      if (ox < 0 || ox % unit.stride != 0 || ox / unit.stride >= dd.w) continue;
      const Pack<kPack> g = load<kPack>(dd.at(n, oy / unit.stride, ox / unit.stride) + c);
      if (unit.depthwise) {
        const Pack<kPack> w = load<kPack>(unit.depthwise + (ky * kernel + kx) * dd.c + c);
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum.v[k] += w.v[k] * g.v[k];
      } else {
        sum = g;
      }
    }
  }
  return sum;
}

// dz = beta dz + the gradient behind the ReLU; partial[piece][2][c]: sums of dz and dz (x - mean), for a unit
// that normalises (mean of 0 otherwise, and nobody reads them).
template <int kPack, int kKernel>
__global__ void input_gradient_kernel(Tensor dz, float* partial, Tensor dd, Tensor x, Unit unit, float beta,
                                      int columns) {
  const int channel = (int(blockIdx.y) * columns + int(threadIdx.x) % columns) * kPack;
  const bool used = channel < x.c;
  const Activation<kPack> activation(unit, used ? channel : 0);
  const Pack<kPack> mean = used && unit.norm.mean ? load<kPack>(unit.norm.mean + channel) : Pack<kPack>{};
  sum_channels<kPack, 2, 1>(partial, x.pixels(), x.c, columns, [&](int64_t p, int c, auto& sums) {
    const int ix = int(p % x.w), iy = int(p / x.w % x.h), n = int(p / (int64_t{x.w} * x.h));
    const Pack<kPack> in = load<kPack>(x.pixel(p) + c), z = activation(in);
    Pack<kPack> d = input_gradient_at<kPack, kKernel>(unit, dd, n, iy, ix, c);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      if (unit.relu && !(z.v[k] > 0)) d.v[k] = 0;
      sums[0][k] += d.v[k];
      sums[1][k] += d.v[k] * (in.v[k] - mean.v[k]);
    }
    accumulate<kPack>(dz.pixel(p) + c, d, beta);
  });
}

float* partial_sums(Stream& stream, int64_t floats) {
  return static_cast<float*>(stream_scratch(stream, size_t(floats) * sizeof(float)));
}

void launch_pointwise_gradient(Stream& stream, const Unit& unit, const SeparableConvGradient<float>& gradient,
                               Tensor dy, Tensor x) {
  const int64_t size = gradient.d_pointwise.size(),
                tiles = (dy.pixels() + kProductPixels - 1) / kProductPixels,
                most = int64_t(kStreamScratch / sizeof(float)) / size;
  CHECK(most >= 1, "separable_conv_backward: d_pointwise ", gradient.d_pointwise.shape(), " is too large");
  const auto with_columns = [&](auto columns) {
    const unsigned chunks = unsigned((x.c + kChunk - 1) / kChunk),
                   groups = unsigned((dy.c + 4 * columns() - 1) / (4 * columns()));
    const int64_t pieces = std::min({tiles, most, std::max<int64_t>(1, 528 / (chunks * groups))});
    float* partial = partial_sums(stream, pieces * size);
    with_quads(
        [&](auto pack) {
          launch(pointwise_gradient_kernel<pack(), columns()>, dim3(unsigned(pieces), chunks, groups),
                 kUnitThreads, 0, stream, partial, dy, x, unit);
        },
        x, depthwise_view(unit, x.c));
    launch(add_gradient_kernel<>, add_blocks(size), kSumThreads, 0, stream, gradient.d_pointwise.data,
           partial, int(pieces), size, size, gradient.beta_d_pointwise);
  };
  if (dy.c <= 4)
    with_columns(std::integral_constant<int, 1>());
  else if (dy.c <= 16)
    with_columns(std::integral_constant<int, 4>());
  else
    with_columns(std::integral_constant<int, 16>());
}

void launch_depthwise_gradient(Stream& stream, const Unit& unit, const SeparableConvGradient<float>& gradient,
                               Tensor dd, Tensor x) {
  const int64_t size = gradient.d_depthwise.size();
  const auto with_taps = [&](auto taps) {
    with_quads(
        [&](auto pack) {
          const ChannelLayout layout =
              channel_layout("separable_conv_backward", x.c, pack, dd.pixels(), size);
          float* partial = partial_sums(stream, layout.pieces * size);
          const dim3 grid(layout.pieces, unsigned(layout.groups),
                          unsigned(unit.kernel * unit.kernel / taps()));
          launch(depthwise_gradient_kernel<pack(), taps()>, grid, kSumThreads, 0, stream, partial, dd, x,
                 unit, layout.columns);
          launch(add_gradient_kernel<>, add_blocks(size), kSumThreads, 0, stream, gradient.d_depthwise.data,
                 partial, int(layout.pieces), int64_t{taps()} * x.c, size, gradient.beta_d_depthwise);
        },
        dd, x);
  };
  if (unit.kernel == 3)
    with_taps(std::integral_constant<int, 3>());
  else if (unit.kernel == 5)
    with_taps(std::integral_constant<int, 5>());
  else
    with_taps(std::integral_constant<int, 1>());
}

// dx and the affine gradients. dz: scratch of x's size, used where the unit normalises.
void launch_input_gradient(Stream& stream, const Unit& unit, const SeparableConvGradient<float>& gradient,
                           Tensor dd, Tensor x, Tensor dz) {
  const bool norm = unit.norm.mean;
  if (!norm || gradient.dx_factors) dz = gradient.dx;
  with_quads(
      [&](auto pack) {
        const int64_t rows = 2 * int64_t{x.c}, other = 3 * int64_t{x.c};
        const ChannelLayout layout =
            channel_layout("separable_conv_backward", x.c, pack, x.pixels(), rows, other, 1);
        float* coefficients = partial_sums(stream, other + layout.pieces * rows);
        float* partial = coefficients + other;
        if (gradient.dx_factors) coefficients = gradient.dx_factors;
        const auto gather = [&](auto kernel) {
          launch(input_gradient_kernel<pack(), kernel()>, layout.grid(), kSumThreads, 0, stream, dz, partial,
                 dd, x, unit, norm ? 0.0f : gradient.beta_dx, layout.columns);
        };
        if (unit.kernel == 1)
          gather(std::integral_constant<int, 1>());
        else if (unit.kernel == 3)
          gather(std::integral_constant<int, 3>());
        else if (unit.kernel == 5)
          gather(std::integral_constant<int, 5>());
        else
          gather(std::integral_constant<int, 0>());
        if (!norm) return;
        launch(finish_norm_gradient_kernel, add_blocks(x.c), kSumThreads, 0, stream, coefficients,
               gradient.norm, partial, int(layout.pieces), x.c, unit.norm, double(x.pixels()));
        if (gradient.dx && !gradient.dx_factors)
          launch(norm_backward_kernel<pack()>, pack_blocks(dz, pack), kPackThreads, 0, stream, gradient.dx,
                 dz, x, coefficients, gradient.beta_dx);
      },
      dd, x, dz, gradient.dx, norm ? row_view(unit.norm.mean, x.c) : Tensor{}, depthwise_view(unit, x.c));
}

// dy from its parts, in a pass of its own.
void launch_put_together(Stream& stream, Tensor to, const GradientView<float>& dy) {
  with_pack(pack_width(to, dy.g, dy.v, row_view(dy.factors, dy.g.c)), [&](auto pack) {
    launch(norm_backward_kernel<pack()>, pack_blocks(to, pack), kPackThreads, 0, stream, to, dy.g, dy.v,
           dy.factors, 0.0f);
  });
}

// dd, dz and dy, where it has to be put together, stand in the op's scratch, each from a multiple of 64 bytes
// on.
inline int64_t whole_lines(int64_t floats) { return (floats + 15) / 16 * 16; }

inline size_t unit_backward_scratch_bytes(const SeparableConv<float>& op, Shape x) {
  const Shape y = op.output_shape(x);
  return size_t(whole_lines(y.pixels() * x.c) + whole_lines(x.size()) + whole_lines(y.size())) *
         sizeof(float);
}

void launch_unit_backward(Stream& stream, const SeparableConv<float>& op,
                          const SeparableConvGradient<float>& gradient, const GradientView<float>& dy_view,
                          Tensor x, float* scratch) {
  const Unit unit = Unit::from(op);
  const Shape y = dy_view.shape();
  const Tensor dd(scratch, {y.n, y.h, y.w, x.c});
  const Tensor dz(scratch + whole_lines(dd.size()), x.shape());
  const Tensor whole(dz.data + whole_lines(dz.size()), y);
  const Tensor dy = dy_view.factors ? whole : dy_view.g;
  if (dy_view.factors) launch_put_together(stream, whole, dy_view);
  const bool input = gradient.dx || gradient.norm.dgamma || gradient.norm.dbeta,
             depthwise = bool(gradient.d_depthwise);
  if (input || depthwise)
    launch_unit(stream, dd, dy, Unit::transposed_product(op.pointwise.data), nullptr, 0, nullptr, nullptr, 0);
  if (gradient.d_pointwise) launch_pointwise_gradient(stream, unit, gradient, dy, x);
  if (depthwise) launch_depthwise_gradient(stream, unit, gradient, dd, x);
  if (input) launch_input_gradient(stream, unit, gradient, dd, x, dz);
}

}  // namespace
}  // namespace lanas
