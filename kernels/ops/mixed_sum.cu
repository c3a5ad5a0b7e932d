// mixed_sum.cu -- y = sum_k w_k (x_k - mean_k) inv_std_k, a chunk of pixels of y in L2 while the terms pass
// over it, four at a time: each is read in runs long enough for the processor to foresee. Backward: one pass
// of reductions (float per lane within a chunk, double over the chunks), one pass of
// dx_k = a_k dy + b_k x_k + d_k with a, b, d per channel. The device's kernels stand in mixed_sum.cuh.
#include "kernels/ops/blocks.h"
#include "kernels/ops/mixed_sum.cuh"
#include "kernels/ops/mixed_sum.h"

namespace lanas {
namespace host {
namespace {

// sums_k += g (x_k - center_k), lane by lane, over `terms` terms of this block.
template <class T>
LANAS_INLINE void add_products(int terms, T* const* sums, const T* g, const T* const* x,
                               const T* const* centers, int count, int period) {
  with_terms(
      terms, [&](auto n) __attribute__((always_inline)) {
        constexpr int k1 = n > 1 ? 1 : 0, k2 = n > 2 ? 2 : 0, k3 = n > 3 ? 3 : 0;
        T *s0 = sums[0], *s1 = sums[k1], *s2 = sums[k2], *s3 = sums[k3];
        const T *x0 = x[0], *x1 = x[k1], *x2 = x[k2], *x3 = x[k3];
        const T *m0 = centers[0], *m1 = centers[k1], *m2 = centers[k2], *m3 = centers[k3];
        for_lanes(count, period, [=](int i, int j) {
          s0[j] += g[i] * (x0[i] - m0[j]);
          if constexpr (n > 1) s1[j] += g[i] * (x1[i] - m1[j]);
          if constexpr (n > 2) s2[j] += g[i] * (x2[i] - m2[j]);
          if constexpr (n > 3) s3[j] += g[i] * (x3[i] - m3[j]);
        });
      });
}

// to = a g + b x + d + beta to for one block; b and d null: without them.
template <class T>
LANAS_INLINE void apply_gradient(T* to, const T* g, const T* x, const T* a, const T* b, const T* d, T beta,
                                 int count, int period) {
  if (b && beta == 0)
    for_lanes(count, period, [=](int i, int j) { to[i] = a[j] * g[i] + (b[j] * x[i] + d[j]); });
  else if (b)
    for_lanes(count, period,
              [=](int i, int j) { to[i] = beta * to[i] + (a[j] * g[i] + (b[j] * x[i] + d[j])); });
  else if (beta == 0)
    for_lanes(count, period, [=](int i, int j) { to[i] = a[j] * g[i]; });
  else
    for_lanes(count, period, [=](int i, int j) { to[i] = beta * to[i] + a[j] * g[i]; });
}

// The terms of which dweights (weights: wanted), or dx_k through the statistics, needs sum(dy xhat_k).
template <class T>
std::vector<int> needed_sums(std::span<const MixedSumTerm<T>> terms,
                             std::span<const MixedSumGradient<T>> gradients, bool weights,
                             bool batch_statistics) {
  std::vector<int> needed;
  for (size_t k = 0; k < terms.size(); ++k)
    if (weights || (batch_statistics && terms[k].mean && (gradients[k].dx || gradients[k].factors)))
      needed.push_back(int(k));
  return needed;
}

// sums [terms + 1][c]: row k, of those needed, is sum(dy (x_k - mean_k)), without statistics sum(dy x_k); the
// last row is sum(dy). partials: one such matrix per chunk.
template <class T>
void reduce_terms(double* sums, double* partials, std::span<const MixedSumTerm<T>> all,
                  std::span<const int> needed, View<T> dy, const Blocks& blocks) {
  const int c = dy.c, period = blocks.period;
  const int64_t terms = int64_t(all.size()), columns = (terms + 1) * c;
  Scratch<T> lanes(terms * period);
  T* const centers = lanes.get();
  for (int64_t k = 0; k < terms; ++k) {
    const T* mean = all[size_t(k)].mean;
    fill_lanes(centers + k * period, period, c, [=](int j) { return mean ? mean[j] : T(0); });
  }
  parallel_for(blocks.chunks, [=](int64_t chunk) {
    Scratch<T> buffer((kGroup + 1) * int64_t{blocks.elements()} + (terms + 1) * period);
    T* const accumulators = buffer.get() + (kGroup + 1) * blocks.elements();
    std::fill_n(accumulators, (terms + 1) * period, T(0));
    for_chunk(blocks, chunk, [=, &buffer](int64_t p, int pixels) {
      T* const total = accumulators + terms * period;
      const T* g = read_block(dy, p, pixels, buffer.get());
      for_lanes(pixels * c, period, [=](int i, int j) { total[j] += g[i]; });
    });
    for (size_t first = 0; first < needed.size(); first += kGroup) {
      const std::span<const int> group =
          needed.subspan(first, std::min<size_t>(kGroup, needed.size() - first));
      for_chunk(blocks, chunk, [=, &buffer](int64_t p, int pixels) {
        const T *g = read_block(dy, p, pixels, buffer.get()), *x[kGroup] = {}, *center[kGroup] = {};
        T* sum[kGroup] = {};
        for (size_t i = 0; i < group.size(); ++i) {
          x[i] = read_block(all[size_t(group[i])].x, p, pixels,
                            buffer.get() + int64_t(i + 1) * blocks.elements());
          center[i] = centers + group[i] * period, sum[i] = accumulators + group[i] * period;
        }
        add_products(int(group.size()), sum, g, x, center, pixels * c, period);
      });
    }
    double* mine = partials + chunk * columns;
    std::fill_n(mine, columns, 0.0);
    for (int64_t k = 0; k <= terms; ++k) flush_lanes(mine + k * c, accumulators + k * period, period, c);
  });
  add_rows(sums, partials, blocks.chunks, columns);
}

// Lanes [terms][3][period] of a, b, d; see apply_gradient. Without sums only a.
template <class T>
void gradient_lanes(T* lanes, std::span<const MixedSumTerm<T>> terms, const T* weights, const double* sums,
                    const Blocks& blocks) {
  const int c = blocks.c, period = blocks.period;
  const double pixels = double(blocks.total);
  for (size_t k = 0; k < terms.size(); ++k) {
    const MixedSumTerm<T>& term = terms[k];
    const double* product = sums ? sums + int64_t(k) * c : nullptr;
    const double* total = sums ? sums + int64_t(terms.size()) * c : nullptr;
    const auto a = [&](int j) {
      return double(weights[term.weight]) * double(term.mean ? term.inv_std[j] : 1);
    };
    const auto b = [&](int j) {
      return -a(j) * double(term.inv_std[j]) * double(term.inv_std[j]) * product[j] / pixels;
    };
    T* to = lanes + int64_t(k) * 3 * period;
    fill_lanes(to, period, c, a);
    if (!term.mean || !sums) {
      std::fill_n(to + period, 2 * period, T(0));
      continue;
    }
    fill_lanes(to + period, period, c, b);
    fill_lanes(to + 2 * period, period, c,
               [&](int j) { return -a(j) * total[j] / pixels - b(j) * double(term.mean[j]); });
  }
}

}  // namespace

template <class T>
void mixed_sum_forward(View<T> y, std::span<const MixedSumTerm<T>> terms, const T* weights) {
  const Blocks blocks(y.c, y.pixels());
  const int c = y.c, period = blocks.period, count = int(terms.size());
  Scratch<T> lanes(int64_t{count + 1} * period);
  T *const scale = lanes.get(), *const shift = scale + int64_t{count} * period;
  for (int k = 0; k < count; ++k) {
    const MixedSumTerm<T>& term = terms[size_t(k)];
    fill_lanes(scale + int64_t{k} * period, period, c,
               [&](int j) { return weights[term.weight] * (term.mean ? term.inv_std[j] : T(1)); });
  }
  fill_lanes(shift, period, c, [&](int j) {
    double sum = 0;
    for (int k = 0; k < count; ++k)
      if (terms[size_t(k)].mean)
        sum -= double(terms[size_t(k)].mean[j]) * double(scale[int64_t{k} * period + j]);
    return sum;
  });
  parallel_for(blocks.chunks, [=](int64_t chunk) {
    Scratch<T> buffer((kGroup + 1) * int64_t{blocks.elements()});
    for (int k = 0; k < count; k += kGroup)
      for_chunk(blocks, chunk, [=, &buffer](int64_t p, int pixels) {
        const int group = std::min(kGroup, count - k);
        T* out = open_block(y, p, pixels, buffer.get(), k > 0);
        const T* x[kGroup] = {};
        for (int i = 0; i < group; ++i)
          x[i] = read_block(terms[size_t(k + i)].x, p, pixels, buffer.get() + (i + 1) * blocks.elements());
        add_terms(group, out, x, scale + int64_t{k} * period, k == 0 ? shift : nullptr, pixels * c, period);
        write_block(y, p, pixels, out);
      });
  });
}

template <class T>
void mixed_sum_backward(std::span<const MixedSumTerm<T>> terms,
                        std::span<const MixedSumGradient<T>> gradients, T* dweights, View<T> dy,
                        const T* weights, double* scratch, bool batch_statistics) {
  const Blocks blocks(dy.c, dy.pixels());
  const int c = dy.c, period = blocks.period;
  const size_t count = terms.size();
  double* const sums = scratch;
  const std::vector<int> needed = needed_sums(terms, gradients, dweights != nullptr, batch_statistics);
  const bool summed = !needed.empty();
  if (summed) reduce_terms<T>(sums, sums + int64_t(count + 1) * c, terms, needed, dy, blocks);
  for (size_t k = 0; k < count && dweights; ++k) {
    double sum = 0;
    for (int j = 0; j < c; ++j)
      sum += sums[int64_t(k) * c + j] * double(terms[k].mean ? terms[k].inv_std[j] : 1);
    T& dw = dweights[terms[k].weight];
    dw = T(sum) + (gradients[k].beta_dweight == 0 ? T(0) : gradients[k].beta_dweight * dw);
  }
  bool any_dx = false, any_factors = false;
  for (const MixedSumGradient<T>& gradient : gradients)
    any_dx |= bool(gradient.dx), any_factors |= gradient.factors != nullptr;
  if (!any_dx && !any_factors) return;

  Scratch<T> lanes(int64_t(count) * 3 * period);
  T* const parameters = lanes.get();
  gradient_lanes(parameters, terms, weights, batch_statistics && summed ? sums : nullptr, blocks);
  for (size_t k = 0; k < count; ++k)
    for (int i = 0; gradients[k].factors && i < 3; ++i)
      std::copy_n(parameters + (int64_t(k) * 3 + i) * period, c, gradients[k].factors + i * c);
  if (!any_dx) return;
  parallel_for(blocks.chunks, [=](int64_t chunk) {
    Scratch<T> buffer(3 * int64_t{blocks.elements()});
    for (size_t k = 0; k < count; ++k) {
      const View<T> dx = gradients[k].dx;
      if (!dx) continue;
      const bool through = batch_statistics && terms[k].mean;
      const T* a = parameters + int64_t(k) * 3 * period;
      for_chunk(blocks, chunk, [=, &buffer](int64_t p, int pixels) {
        const T* g = read_block(dy, p, pixels, buffer.get());
        const T* x = through ? read_block(terms[k].x, p, pixels, buffer.get() + blocks.elements()) : nullptr;
        T* out = open_block(dx, p, pixels, buffer.get() + 2 * blocks.elements(), gradients[k].beta != 0);
        apply_gradient(out, g, x, a, through ? a + period : nullptr, a + 2 * period, gradients[k].beta,
                       pixels * c, period);
        write_block(dx, p, pixels, out);
      });
    }
  });
}

int64_t mixed_sum_scratch_doubles(Shape y, int terms) {
  return (Blocks(y.c, y.pixels()).chunks + 1) * (terms + 1) * y.c;
}

#define INSTANTIATE(T)                                                                                     \
  template void mixed_sum_forward(View<T>, std::span<const MixedSumTerm<T>>, const T*);                    \
  template void mixed_sum_backward(std::span<const MixedSumTerm<T>>, std::span<const MixedSumGradient<T>>, \
                                   T*, View<T>, const T*, double*, bool);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

int64_t mixed_sum_scratch_floats(Shape y, int terms) {
  return 2 * host::mixed_sum_scratch_doubles(y, terms) + 1;  // one for the alignment of doubles
}

void mixed_sum_forward(Stream& stream, Tensor y, std::span<const MixedSumTerm<float>> terms,
                       const float* weights) {
  CHECK(!terms.empty(), "mixed_sum_forward: no terms for y ", y.shape());
  for (const auto& term : terms)
    CHECK(term.x.shape() == y.shape(), "mixed_sum_forward: x ", term.x.shape(), " does not match y ",
          y.shape());
  stream.activate();
  if (stream.device() == Device::cpu) return host::mixed_sum_forward<float>(y, terms, weights);
  launch_forward(stream, y, terms, weights);
}

void mixed_sum_backward(Stream& stream, std::span<const MixedSumTerm<float>> terms,
                        std::span<const MixedSumGradient<float>> gradients, float* dweights, Tensor dy,
                        const float* weights, float* scratch, bool batch_statistics) {
  CHECK(terms.size() == gradients.size(), "mixed_sum_backward: ", gradients.size(), " gradients for ",
        terms.size(), " terms");
  for (size_t k = 0; k < terms.size(); ++k) {
    CHECK(terms[k].x.shape() == dy.shape(), "mixed_sum_backward: x ", terms[k].x.shape(),
          " does not match dy ", dy.shape());
    CHECK(!gradients[k].dx || gradients[k].dx.shape() == dy.shape(), "mixed_sum_backward: dx ",
          gradients[k].dx.shape(), " does not match dy ", dy.shape());
    CHECK(!gradients[k].dx || !gradients[k].factors, "mixed_sum_backward: dx and its factors of term ", k);
  }
  stream.activate();
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(scratch) + 7) / 8 * 8;
  if (stream.device() == Device::cpu)
    return host::mixed_sum_backward<float>(terms, gradients, dweights, dy, weights,
                                           reinterpret_cast<double*>(aligned), batch_statistics);
  launch_backward(stream, terms, gradients, dweights, dy, weights, batch_statistics);
}

}  // namespace lanas
