// mixed_sum.cuh -- the device kernels of mixed_sum.cu. Forward is one pass over all terms of a pack, with the
// scales in shared memory. Backward: partial sums of dy (x_k - mean_k) for eight terms per block (and of dy),
// then a block per term that adds them to dweights and to the coefficients of dx_k = a_k dy + b_k x_k + d_k,
// then one pass that writes every dx_k. What a launch needs of its terms goes in the kernel's argument.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/core/channel_sums.cuh"
#include "kernels/ops/mixed_sum.h"

namespace lanas {
namespace {

// At most kTerms terms go into one launch; the launchers make several where there are more.
struct Terms {
  static constexpr int kTerms = 48;
  struct Term {
    const float *x, *mean, *inv_std;
    float *dx, *factors;
    int stride, dx_stride, weight;
    float beta, beta_dweight;
  };
  int count = 0;
  Term at[kTerms] = {};

  // Terms [first, first + kTerms) of the span.
  static Terms from(std::span<const MixedSumTerm<float>> terms,
                    std::span<const MixedSumGradient<float>> gradients, size_t first, int most = kTerms) {
    Terms t;
    for (size_t k = first; k < terms.size() && t.count < most; ++k) {
      const MixedSumTerm<float>& from = terms[k];
      Term& to = t.at[t.count++];
      to = {from.x.data, from.mean, from.inv_std, nullptr, nullptr, from.x.stride, 0, from.weight, 0, 0};
      if (gradients.empty()) continue;
      to.dx = gradients[k].dx.data;
      to.dx_stride = gradients[k].dx.stride;
      to.beta = gradients[k].beta;
      to.beta_dweight = gradients[k].beta_dweight;
      to.factors = gradients[k].factors;
    }
    return t;
  }
};

// The widest pack for y or dy and all of the terms.
inline int terms_width(Tensor y, std::span<const MixedSumTerm<float>> terms,
                       std::span<const MixedSumGradient<float>> gradients) {
  int width = pack_width(y);
  for (const MixedSumTerm<float>& term : terms)
    width = std::min(width, pack_width(term.x, row_view(term.mean, y.c)));
  for (const MixedSumGradient<float>& gradient : gradients) width = std::min(width, pack_width(gradient.dx));
  return width;
}

// y = sum of the terms, plus y where `more`. Shared: scales [count][c], their shifts [count][c], and the
// whole shift [c].
template <int kPack>
__global__ void forward_kernel(Tensor y, const __grid_constant__ Terms terms, const float* weights,
                               bool more) {
  float* scale = dynamic_shared<float>();
  const int channels = y.c, count = terms.count;
  float *shifts = scale + count * channels, *shift = shifts + count * channels;
  for (int i = int(threadIdx.x); i < count * channels; i += int(kPackThreads)) {
    const Terms::Term& term = terms.at[i / channels];
    const int c = i % channels;
    const float weight = weights[term.weight] * (term.mean ? term.inv_std[c] : 1.0f);
    scale[i] = weight;
    shifts[i] = term.mean ? term.mean[c] * weight : 0.0f;
  }
  __syncthreads();
  for (int c = int(threadIdx.x); c < channels; c += int(kPackThreads)) {
    double sum = 0;
#pragma unroll 8
    for (int k = 0; k < count; ++k) sum -= double(shifts[k * channels + c]);
    shift[c] = float(sum);
  }
  __syncthreads();
  for_packs<kPack>(y, [&](int64_t pixel, int c) {
    Pack<kPack> sum = load<kPack>(shift + c);
#pragma unroll 8
    for (int k = 0; k < count; ++k) {
      const Pack<kPack> in = load<kPack>(terms.at[k].x + pixel * terms.at[k].stride + c),
                        factor = load<kPack>(scale + k * channels + c);
#pragma unroll
      for (int i = 0; i < kPack; ++i) sum.v[i] += factor.v[i] * in.v[i];
    }
    accumulate<kPack>(y.pixel(pixel) + c, sum, more ? 1.0f : 0.0f);
  });
}

constexpr int kTogether = 8;  // terms of a block of sums_kernel

// Grid (pieces, groups of channels, groups of 8 terms). partial[group of terms][piece][9][c]: of each term
// the sum of dy (x - mean), and last the sum of dy.
template <int kPack>
__global__ void __launch_bounds__(kSumThreads, 2)
    sums_kernel(float* partial, Tensor dy, const __grid_constant__ Terms terms, int columns) {
  const int first = int(blockIdx.z) * kTogether;
  const int channel = (int(blockIdx.y) * columns + int(threadIdx.x) % columns) * kPack;
  Pack<kPack> center[kTogether] = {};
#pragma unroll
  for (int k = 0; k < kTogether; ++k)
    if (channel < dy.c && first + k < terms.count && terms.at[first + k].mean)
      center[k] = load<kPack>(terms.at[first + k].mean + channel);
  float* mine = partial + int64_t{blockIdx.z} * gridDim.x * (kTogether + 1) * dy.c;
  sum_channels<kPack, kTogether + 1, 1>(mine, dy.pixels(), dy.c, columns, [&](int64_t p, int c, auto& sums) {
    const Pack<kPack> g = load<kPack>(dy.pixel(p) + c);
    Pack<kPack> in[kTogether] = {};
#pragma unroll
    for (int k = 0; k < kTogether; ++k)
      if (first + k < terms.count)
        in[k] = load<kPack>(terms.at[first + k].x + p * terms.at[first + k].stride + c);
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
#pragma unroll
      for (int k = 0; k < kTogether; ++k) sums[k][i] += g.v[i] * (in[k].v[i] - center[k].v[i]);
      sums[kTogether][i] += g.v[i];
    }
  });
}

// What the blocks of finish_kernel share.
struct Finish {
  float* coefficients;  // [terms][3][c]
  const float* partial;
  const float* weights;
  int pieces, channels;  // pieces 0: no sums, constant moments
  double pixels;
};

// Writes the coefficients of term k and returns, in thread 0, sum over channels of its sum(dy xhat).
__device__ __forceinline__ double finish_term(const Finish& f, const Terms& terms, int k) {
  const auto& term = terms.at[k];
  const int64_t row_floats = int64_t{kTogether + 1} * f.channels;
  const float* partial = f.partial + int64_t{k / kTogether} * f.pieces * row_floats;
  const double share = 1 / f.pixels;
  double weight_sum = 0;
  for (int first = 0; first < f.channels; first += kAddColumns) {
    const int c = first + int(threadIdx.x) % kAddColumns;
    const bool inside = c < f.channels, norm = inside && term.mean;
    const double s = norm ? double(term.inv_std[c]) : 1.0, mean = norm ? double(term.mean[c]) : 0.0,
                 a = double(f.weights[term.weight]) * s;  // what does not wait for the sums comes first
    double sums[2];                                       // of dy (x - mean), of dy
    add_pieces(sums, partial, f.pieces, row_floats, int64_t{k % kTogether} * f.channels + c,
               int64_t{kTogether - k % kTogether} * f.channels, inside);
    if (threadIdx.x >= unsigned(kAddColumns) || !inside) continue;  // the barriers are all in add_pieces
    weight_sum += sums[0] * s;
    const double b = norm ? -a * s * s * sums[0] * share : 0.0;
    float* to = (term.factors ? term.factors : f.coefficients + int64_t{k} * 3 * f.channels) + c;
    to[0] = float(a);
    to[f.channels] = float(b);
    to[2 * f.channels] = norm ? float(-a * sums[1] * share - b * mean) : 0.0f;
  }
  return block_sum(weight_sum);
}

// A block per term; that of the first term with some weight adds up all terms with it, in their order.
__global__ void finish_kernel(Finish f, const __grid_constant__ Terms terms, float* dweights) {
  const int mine = int(blockIdx.x), weight = terms.at[mine].weight;
  double sum = finish_term(f, terms, mine);
  if (!dweights) return;
  for (int k = 0; k < mine; ++k)
    if (terms.at[k].weight == weight) return;
  float dw = 0;
  for (int k = mine; k < terms.count; ++k) {
    if (terms.at[k].weight != weight) continue;
    if (k > mine) sum = finish_term(f, terms, k);
    const float beta = terms.at[k].beta_dweight;
    const float old = k > mine ? dw : beta == 0 || threadIdx.x != 0 ? 0.0f : dweights[weight];
    dw = float(sum) + (beta == 0 ? 0.0f : beta * old);
  }
  if (threadIdx.x == 0) dweights[weight] = dw;
}

constexpr int kAhead = 8;  // terms whose x is read before any of their dx is written

template <int kPack>
__global__ void gradient_kernel(Tensor dy, const __grid_constant__ Terms terms, const float* coefficients,
                                bool through) {
  const int channels = dy.c;
  for_packs<kPack>(dy, [&](int64_t pixel, int c) {
    const Pack<kPack> g = load<kPack>(dy.pixel(pixel) + c);
    for (int first = 0; first < terms.count; first += kAhead) {
      Pack<kPack> in[kAhead] = {};
#pragma unroll
      for (int k = 0; k < kAhead; ++k)
        if (first + k < terms.count && terms.at[first + k].dx && through && terms.at[first + k].mean)
          in[k] = load<kPack>(terms.at[first + k].x + pixel * terms.at[first + k].stride + c);
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        if (first + k >= terms.count || !terms.at[first + k].dx) continue;
        const float* at = coefficients + int64_t{first + k} * 3 * channels + c;
        const Pack<kPack> a = load<kPack>(at), b = load<kPack>(at + channels),
                          d = load<kPack>(at + 2 * channels);
        Pack<kPack> out;
#pragma unroll
        for (int i = 0; i < kPack; ++i) out.v[i] = a.v[i] * g.v[i] + (b.v[i] * in[k].v[i] + d.v[i]);
        accumulate<kPack>(terms.at[first + k].dx + pixel * terms.at[first + k].dx_stride + c, out,
                          terms.at[first + k].beta);
      }
    }
  });
}

void launch_forward(Stream& stream, Tensor y, std::span<const MixedSumTerm<float>> terms,
                    const float* weights) {
  constexpr size_t kShared = 48 * 1024;
  const int rows = int(kShared / (size_t(y.c) * sizeof(float)));  // of y.c numbers
  const int most = std::min(int(Terms::kTerms), (rows - 1) / 2);
  CHECK(most >= 1, "mixed_sum_forward: y ", y.shape(), " has too many channels");
  with_pack(terms_width(y, terms, {}), [&](auto pack) {
    for (size_t first = 0; first < terms.size(); first += size_t(most)) {
      const Terms some = Terms::from(terms, {}, first, most);
      launch(forward_kernel<pack()>, std::min(pack_blocks(y, pack), 1056u), kPackThreads,
             size_t(2 * some.count + 1) * size_t(y.c) * sizeof(float), stream, y, some, weights, first > 0);
    }
  });
}

void launch_backward(Stream& stream, std::span<const MixedSumTerm<float>> terms,
                     std::span<const MixedSumGradient<float>> gradients, float* dweights, Tensor dy,
                     const float* weights, bool batch_statistics) {
  bool any_dx = false, any_factors = false, sums = dweights != nullptr;
  for (size_t k = 0; k < terms.size(); ++k) {
    any_dx |= bool(gradients[k].dx), any_factors |= gradients[k].factors != nullptr;
    sums |= batch_statistics && terms[k].mean && (gradients[k].dx || gradients[k].factors);
  }
  if (!sums && !any_dx && !any_factors) return;
  with_pack(terms_width(dy, terms, gradients), [&](auto pack) {
    for (size_t first = 0; first < terms.size(); first += Terms::kTerms) {
      const Terms some = Terms::from(terms, gradients, first);
      const int groups = (some.count + kTogether - 1) / kTogether;
      const int64_t row = int64_t{kTogether + 1} * dy.c * groups, other = int64_t{some.count} * 3 * dy.c;
      const ChannelLayout layout = channel_layout("mixed_sum_backward", dy.c, pack, dy.pixels(), row, other);
      auto* coefficients =
          static_cast<float*>(stream_scratch(stream, size_t(other + layout.pieces * row) * sizeof(float)));
      float* partial = coefficients + other;
      const dim3 grid(layout.pieces, unsigned(layout.groups), unsigned(groups));
      if (sums) launch(sums_kernel<pack()>, grid, kSumThreads, 0, stream, partial, dy, some, layout.columns);
      const Finish finish{coefficients, partial,
                          weights,      sums ? int(layout.pieces) : 0,
                          dy.c,         batch_statistics ? double(dy.pixels()) : HUGE_VAL};
      launch(finish_kernel, unsigned(some.count), kSumThreads, 0, stream, finish, some, dweights);
      if (any_dx)
        launch(gradient_kernel<pack()>, pack_blocks(dy, pack), kPackThreads, 0, stream, dy, some,
               coefficients, batch_statistics);
    }
  });
}

}  // namespace
}  // namespace lanas
