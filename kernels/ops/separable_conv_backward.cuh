// separable_conv_backward.cuh -- backward of up to kMostUnits units of one output shape, a few launches for
// all of them: dd = dy p (the forward kernel with the weights transposed); the gradients of the weights
// (separable_conv_weights.cuh); dz = gather of w dd behind the ReLU, summed over the units that share an x,
// together with the sums that the batch norm of x needs; dx. All sums over pixels are partial sums per block,
// added in order by a second kernel.
#pragma once

#include <array>

#include "kernels/ops/separable_conv_weights.cuh"

namespace lanas {
namespace {

// The gather of w dd at input pixel (at), before the ReLU, of any geometry.
template <int kPack>
__device__ __forceinline__ Pack<kPack> input_gradient_at(const Unit& unit, const Tensor& dd, Place at,
                                                         int c) {
  Pack<kPack> sum = {};
  const int halve = unit.stride - 1;  // the stride is 1 or 2
  for (int ky = 0; ky < unit.kernel; ++ky) {
    const int oy = at.y + unit.padding - unit.offset - ky * unit.dilation;  // times the stride
    if (oy < 0 || (oy & halve) || oy >> halve >= dd.h) continue;
    for (int kx = 0; kx < unit.kernel; ++kx) {
      const int ox = at.x + unit.padding - unit.offset - kx * unit.dilation;
      if (ox < 0 || (ox & halve) || ox >> halve >= dd.w) continue;
      const Pack<kPack> g = load<kPack>(dd.at(at.n, oy >> halve, ox >> halve) + c);
      if (!unit.depthwise) return g;
      const Pack<kPack> w = load<kPack>(unit.depthwise + (ky * unit.kernel + kx) * dd.c + c);
#pragma unroll
      for (int k = 0; k < kPack; ++k) sum.v[k] += w.v[k] * g.v[k];
    }
  }
  return sum;
}

// The same at the four pixels (2 row + y, 2 column + x), in d[2 y + x], of a convolution of stride 2: which
// taps reach a pixel, and from where, depends on whether its row and column are odd.
template <int kKernel, int kDilation>
__device__ __forceinline__ void input_gradient_of_quad(Pack<4> (&d)[4], const float* weights,
                                                       const Tensor& dd, int n, int row, int column, int c) {
  constexpr int kPadding = kDilation * (kKernel - 1) / 2;
  const auto odd = [](int tap) { return (tap * kDilation + kPadding) % 2; };
  const auto from = [=](int tap) { return (odd(tap) + kPadding - tap * kDilation) / 2; };
#pragma unroll
  for (int pixel = 0; pixel < 4; ++pixel)
#pragma unroll 1
    for (int ky = 0; ky < kKernel; ++ky) {
      const int y = row + from(ky);
      if (odd(ky) != pixel / 2 || unsigned(y) >= unsigned(dd.h)) continue;
      Pack<4> g[kKernel] = {};
#pragma unroll
      for (int kx = 0; kx < kKernel; ++kx)
        if (odd(kx) == pixel % 2)
          g[kx] = load_inside<4>(unsigned(column + from(kx)) < unsigned(dd.w),
                                 dd.at(n, y, column + from(kx)) + c);
#pragma unroll
      for (int kx = 0; kx < kKernel; ++kx) {
        if (odd(kx) != pixel % 2) continue;
        const Pack<4> w = load<4>(weights + (ky * kKernel + kx) * dd.c + c);
#pragma unroll
        for (int k = 0; k < 4; ++k) d[pixel].v[k] += w.v[k] * g[kx].v[k];
      }
    }
}

// Pixels of a thread: a strip of a convolution of stride 1, four of one of stride 2, or one, of any geometry.
enum class PixelGroup { one, strip, quad };
inline PixelGroup pixel_group(const Unit& unit) {
  if (!unit.strips) return PixelGroup::one;
  if (unit.stride == 1) return PixelGroup::strip;
  return unit.x.h % 2 == 0 && unit.x.w % 2 == 0 ? PixelGroup::quad : PixelGroup::one;
}

// The gradient of one x: what its units, [first, first + count) of the batch, give, behind the ReLU.
struct InputGradient {
  int first, count;
  PixelGroup group;
  Tensor dx;                  // or null: sums alone
  float beta;                 // dx = beta dx + the gradient
  const float* coefficients;  // or null; [3][c]: a, b, k of a dz + b x + k, written instead of dz
};
struct InputGradients {
  UnitBatch<Unit> units;
  UnitBatch<InputGradient> targets;
};

// From the gathers d at these pixels to their dx, and to this thread's sums of dz and dz (x - mean). Loads
// come first, so that none waits for a store; the moments are read here, for registers are dear in the
// gather.
template <int kPack, int kCount>
__device__ __forceinline__ void finish_input_gradient(float (&sums)[2][kPack], Pack<kPack> (&d)[kCount],
                                                      const int64_t (&pixels)[kCount],
                                                      const InputGradient& to, const Unit& unit, int c) {
  const Activation<kPack> activation(unit, c);
  const Pack<kPack> mean = unit.norm.mean ? load<kPack>(unit.norm.mean + c) : Pack<kPack>{};
  Pack<kPack> in[kCount], old[kCount] = {};
  const bool adds = to.dx && to.beta != 0;
#pragma unroll
  for (int s = 0; s < kCount; ++s) in[s] = load<kPack>(unit.x.pixel(pixels[s]) + c);
#pragma unroll
  for (int s = 0; s < kCount; ++s) old[s] = load_inside<kPack>(adds, to.dx.pixel(pixels[s]) + c);
#pragma unroll
  for (int s = 0; s < kCount; ++s) {
    const Pack<kPack> z = activation(in[s]);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      if (unit.relu && !(z.v[k] > 0)) d[s].v[k] = 0;
      sums[0][k] += d[s].v[k];
      sums[1][k] += d[s].v[k] * (in[s].v[k] - mean.v[k]);
    }
  }
  if (!to.dx) return;
  if (to.coefficients) {
    const Pack<kPack> a = load<kPack>(to.coefficients + c), b = load<kPack>(to.coefficients + unit.x.c + c),
                      constant = load<kPack>(to.coefficients + 2 * unit.x.c + c);
#pragma unroll
    for (int s = 0; s < kCount; ++s)
#pragma unroll
      for (int k = 0; k < kPack; ++k) d[s].v[k] = a.v[k] * d[s].v[k] + (b.v[k] * in[s].v[k] + constant.v[k]);
  }
#pragma unroll
  for (int s = 0; s < kCount; ++s) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) d[s].v[k] += to.beta * old[s].v[k];
    store<kPack>(to.dx.pixel(pixels[s]) + c, d[s]);
  }
}

// Grid (pieces, groups of channels, targets). dx from dz, and partial[target][piece][2][c], where not null:
// sums of dz and dz (x - mean).
template <int kPack, PixelGroup kGroup>
__global__ void __launch_bounds__(kSumThreads, 2)
    input_gradient_kernel(const __grid_constant__ InputGradients batch, float* partial, Tensor dd,
                          int columns) {
  const InputGradient& to = batch.targets.at[blockIdx.z];
  const Unit& unit = batch.units.at[to.first];
  const Tensor& x = unit.x;
  const int rows = int(kSumThreads) / columns, first_c = int(blockIdx.y) * columns * kPack,
            c = first_c + int(threadIdx.x) % columns * kPack, row = int(threadIdx.x) / columns;
  const bool used = c < x.c;
  float sums[2][kPack] = {};
  // use(unit, its dd) for all units that read x.
  const auto for_units = [&](auto use) {
    Tensor of = dd;
    of.data += int64_t{to.first} * dd.size();
    for (int u = to.first; u < to.first + to.count; ++u, of.data += dd.size()) use(batch.units.at[u], of);
  };
  const unsigned step = gridDim.x * unsigned(rows),
                 groups = unsigned(x.pixels()) / (kGroup == PixelGroup::one ? 1 : 4);
  for (unsigned p = blockIdx.x * unsigned(rows) + unsigned(row); used && p < groups; p += step) {
    if constexpr (kGroup == PixelGroup::one) {
      const Place at = place_of(p, x.h, x.w);
      Pack<kPack> d[1] = {};
      for_units([&](const Unit& from, const Tensor& of) {
        const Pack<kPack> more = input_gradient_at<kPack>(from, of, at, c);
#pragma unroll
        for (int k = 0; k < kPack; ++k) d[0].v[k] += more.v[k];
      });
      const int64_t pixels[1] = {p};
      finish_input_gradient(sums, d, pixels, to, unit, c);
    } else {
      constexpr bool kOneColumn = kGroup == PixelGroup::strip;
      const Place at = kOneColumn ? place_of_strip(p, x.h, x.w) : place_of(p, x.h / 2, x.w / 2);
      Pack<4> d[4] = {};
      for_units([&](const Unit& from, const Tensor& of) {
        with_stencil<1>(from, [&](auto stencil) {
          using S = decltype(stencil);
          if constexpr (kOneColumn)
            depthwise_strip<S, true>(d, from.depthwise, of, at, c, Identity());
          else
            input_gradient_of_quad<S::kKernel, S::kDilation>(d, from.depthwise, of, at.n, at.y, at.x, c);
        });
      });
      const int64_t first = kOneColumn ? (int64_t{at.n} * x.h + at.y) * x.w + at.x
                                       : (int64_t{at.n} * x.h + 2 * at.y) * x.w + 2 * at.x;
      const int64_t pixels[4] = {first, first + (kOneColumn ? x.w : 1), first + (kOneColumn ? 2 : 1) * x.w,
                                 first + (kOneColumn ? 3 * x.w : x.w + 1)};
      finish_input_gradient(sums, d, pixels, to, unit, c);
    }
  }
  if (partial)
    write_channel_sums<kPack, 2>(partial + (int64_t{blockIdx.z} * gridDim.x + blockIdx.x) * 2 * x.c, sums,
                                 columns, first_c, x.c);
}

// use(pack, group), both as constants.
template <class Use>
void with_group(bool quads, PixelGroup group, Use use) {
  constexpr std::integral_constant<int, 4> four;
  if (!quads)
    use(std::integral_constant<int, 1>(), std::integral_constant<PixelGroup, PixelGroup::one>());
  else if (group == PixelGroup::one)
    use(four, std::integral_constant<PixelGroup, PixelGroup::one>());
  else if (group == PixelGroup::strip)
    use(four, std::integral_constant<PixelGroup, PixelGroup::strip>());
  else
    use(four, std::integral_constant<PixelGroup, PixelGroup::quad>());
}

struct FinishNorm {
  float* coefficients;
  NormGradient<float> gradient;
  NormView<float> norm;
};
// Grid (blocks of kAddColumns channels, 1, targets).
template <int kWhich = 0>
__global__ void finish_norm_gradients_kernel(const __grid_constant__ UnitBatch<FinishNorm> batch,
                                             const float* partial, int pieces, int channels, double pixels) {
  const FinishNorm& to = batch.at[blockIdx.z];
  finish_norm_gradient(to.coefficients, to.gradient, partial + int64_t{blockIdx.z} * pieces * 2 * channels,
                       pieces, channels, to.norm, pixels);
}

void launch_dd(Stream& stream, const UnitsBackward& all) {
  UnitBatch<UnitProduct> batch = {};
  bool quads = true;
  for (int u = 0; u < all.size(); ++u) {
    const GradientView<float>& dy = all.dys[size_t(u)];
    const Tensor dd(all.dd.data + u * all.dd.size(), all.dd.shape());
    batch.at[u] = {dy, all.ops[size_t(u)].pointwise.data, dd, pack_width(dd) == 4};
    quads = quads && takes_quads(dy);
  }
  launch_products(stream, batch, all.size(), all.dd.shape(), all.y.c, quads, nullptr, 0);
}

// dx and the affine gradients of targets whose x have one shape: all with a norm, or none.
void launch_input_gradients(Stream& stream, const UnitsBackward& all, const InputGradients& batch, int begin,
                            int end) {
  InputGradients some = {batch.units, {}};
  UnitBatch<FinishNorm> finish = {};
  const Unit& head = batch.units.at[batch.targets.at[begin].first];
  const int c = head.x.c, targets = end - begin;
  const bool norm = head.norm.mean;
  bool quads = true, again = false;
  for (int t = begin; t < end; ++t) {
    InputGradient& to = some.targets.at[t - begin] = batch.targets.at[t];
    for (int u = to.first; u < to.first + to.count; ++u) quads = quads && takes_quads(some.units.at[u]);
    quads = quads && pack_width(to.dx, all.dd) == 4;
  }
  const int64_t other = int64_t{3} * c * targets;
  const ChannelLayout layout = channel_layout("separable_conv_backward", c, quads ? 4 : 1, head.x.pixels(),
                                              int64_t{2} * c * targets, other, quads ? 4 : 1);
  float* coefficients = static_cast<float*>(
      stream_scratch(stream, size_t(other + layout.pieces * int64_t{2} * c * targets) * sizeof(float)));
  float* partial = norm ? coefficients + other : nullptr;
  std::array<Tensor, size_t(kMostUnits)> whole = {};  // dx that takes a second pass
  for (int t = 0; t < targets; ++t) {
    InputGradient& to = some.targets.at[t];
    const SeparableConvGradient<float>& gradient = all.gradients[size_t(to.first)];
    finish.at[t] = {gradient.dx_factors ? gradient.dx_factors : coefficients + 3 * c * t, gradient.norm,
                    some.units.at[to.first].norm};
    if (norm && !gradient.dx_factors) std::swap(whole[size_t(t)], to.dx), again = again || whole[size_t(t)];
  }
  const auto gather = [&](float* sums) {
    with_group(quads, batch.targets.at[begin].group, [&](auto pack, auto group) {
      launch(input_gradient_kernel<pack(), group()>,
             dim3(layout.pieces, unsigned(layout.groups), unsigned(targets)), kSumThreads, 0, stream, some,
             sums, all.dd, layout.columns);
    });
  };
  gather(partial);
  if (!norm) return;
  launch(finish_norm_gradients_kernel<>, dim3(add_blocks(c), 1, unsigned(targets)), kSumThreads, 0, stream,
         finish, partial, int(layout.pieces), c, double(head.x.pixels()));
  if (!again) return;
  for (int t = 0; t < targets; ++t) {
    some.targets.at[t].dx = whole[size_t(t)];
    some.targets.at[t].coefficients = finish.at[t].coefficients;
  }
  gather(nullptr);
}

// The gradients of x, of as many targets together as there are with one shape.
void launch_input_gradients(Stream& stream, const UnitsBackward& all) {
  InputGradients batch = {};
  int targets = 0;
  for (int u = 0; u < all.size(); ++u) {
    const SeparableConvGradient<float>& g = all.gradients[size_t(u)];
    const Unit& unit = batch.units.at[u] = all.unit(u);
    const PixelGroup group = pixel_group(unit);
    const bool shared = all.inputs[size_t(u)].shared;
    if (shared && u > 0) {
      InputGradient& to = batch.targets.at[targets - 1];
      ++to.count;
      if (to.group != group) to.group = PixelGroup::one;
    } else {  // a first unit that is shared: the launch before has written dx
      batch.targets.at[targets++] = {u, 1, group, g.dx, shared ? 1.0f : g.beta_dx, nullptr};
    }
  }
  const auto wanted = [&](int t) {
    const SeparableConvGradient<float>& g = all.gradients[size_t(batch.targets.at[t].first)];
    return g.dx || g.norm.dgamma || g.norm.dbeta;
  };
  const auto alike = [&](int a, int b) {
    const Unit &one = batch.units.at[batch.targets.at[a].first],
               &other = batch.units.at[batch.targets.at[b].first];
    return one.x.shape() == other.x.shape() && bool(one.norm) == bool(other.norm) &&
           batch.targets.at[a].group == batch.targets.at[b].group;
  };
  for (int begin = 0, end = 1; begin < targets; begin = end, ++end) {
    if (!wanted(begin)) continue;
    while (end < targets && wanted(end) && alike(begin, end)) ++end;
    launch_input_gradients(stream, all, batch, begin, end);
  }
}

}  // namespace
}  // namespace lanas
