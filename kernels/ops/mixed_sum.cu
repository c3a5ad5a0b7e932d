// mixed_sum.cu -- y = sum_k w_k (x_k - mean_k) inv_std_k, in blocks of pixels that stay in L1 while the terms
// pass over them, four terms at a time. Backward: one pass of reductions (float per lane within a chunk of
// pixels, double over the chunks), one pass of dx_k = a_k dy + b_k x_k + d_k with a, b, d per channel. The
// device's kernels stand in mixed_sum.cuh.
#include "kernels/ops/gradient_sum.h"
#include "kernels/ops/mixed_sum.cuh"
#include "kernels/ops/mixed_sum.h"

namespace lanas {
namespace host {
namespace {

// Sums of kTerms terms from `first` on: y (+)= shift + sum scale_k x_k. Pointers are to this block.
template <int kTerms, class T>
LANAS_INLINE void add_terms(T* y, const T* const* x, const T* scale, const T* shift, int count, int period,
                            const NextBlocks<T>& next) {
  const T* in[4];
  for (int k = 0; k < 4; ++k) in[k] = x[k < kTerms ? k : 0];
  const T *x0 = in[0], *x1 = in[1], *x2 = in[2], *x3 = in[3];
  const auto sum = [=](int i, int j) {
    T value = scale[j] * x0[i];
    if constexpr (kTerms > 1) value += scale[period + j] * x1[i];
    if constexpr (kTerms > 2) value += scale[2 * period + j] * x2[i];
    if constexpr (kTerms > 3) value += scale[3 * period + j] * x3[i];
    return value;
  };
  if (shift)
    for_lanes(count, period, next, [=](int i, int j) { y[i] = shift[j] + sum(i, j); });
  else
    for_lanes(count, period, next, [=](int i, int j) { y[i] += sum(i, j); });
}

template <class T>
LANAS_INLINE void add_group(int terms, T* y, const T* const* x, const T* scale, const T* shift, int count,
                            int period, const NextBlocks<T>& next) {
  switch (terms) {
    case 1:
      return add_terms<1>(y, x, scale, shift, count, period, next);
    case 2:
      return add_terms<2>(y, x, scale, shift, count, period, next);
    case 3:
      return add_terms<3>(y, x, scale, shift, count, period, next);
    default:
      return add_terms<4>(y, x, scale, shift, count, period, next);
  }
}

template <class T>
struct Reduction {
  std::span<const MixedSumTerm<T>> terms;
  std::span<const MixedSumGradient<T>> gradients;
  bool weights, batch_statistics;  // is dweights wanted; do the statistics carry gradient
  // Does dx_k, or dweights, need sum(dy xhat_k)?
  bool needs(size_t k) const {
    return weights || (batch_statistics && terms[k].mean && (gradients[k].dx || gradients[k].factors));
  }
  bool any() const {
    for (size_t k = 0; k < terms.size(); ++k)
      if (needs(k)) return true;
    return false;
  }
};

// sums [terms + 1][c]: row k is sum(dy (x_k - mean_k)), without statistics sum(dy x_k); the last row is
// sum(dy). partials: one such matrix per chunk.
template <class T>
void reduce_terms(double* sums, double* partials, const Reduction<T>& reduction, View<T> dy,
                  const Blocks& blocks) {
  const int c = dy.c, period = blocks.period;
  const int64_t terms = int64_t(reduction.terms.size()), columns = (terms + 1) * c;
  Scratch<T> lanes(terms * period);
  T* const centers = lanes.get();
  for (int64_t k = 0; k < terms; ++k) {
    const T* mean = reduction.terms[size_t(k)].mean;
    fill_lanes(centers + k * period, period, c, [=](int j) { return mean ? mean[j] : T(0); });
  }
  parallel_for(blocks.chunks, [=](int64_t chunk) {
    Scratch<T> buffer(2 * int64_t{blocks.elements()} + (terms + 1) * period);
    T* const accumulators = buffer.get() + 2 * blocks.elements();
    std::fill_n(accumulators, (terms + 1) * period, T(0));
    for (int64_t b = blocks.chunk_begin(chunk); b < blocks.chunk_end(chunk); ++b) {
      const int64_t p = blocks.first(b);
      const int pixels = blocks.count(b), count = pixels * c;
      NextBlocks<T> next_dy;
      next_dy.add(dy, p, pixels);
      const T* g = read_block(dy, p, pixels, buffer.get());
      T* total = accumulators + terms * period;
      add_lanes(total, count, period, next_dy, [=](int i, int) { return g[i]; });
      for (int64_t k = 0; k < terms; ++k) {
        if (!reduction.needs(size_t(k))) continue;
        NextBlocks<T> next;
        next.add(reduction.terms[size_t(k)].x, p, pixels);
        const T* x = read_block(reduction.terms[size_t(k)].x, p, pixels, buffer.get() + blocks.elements());
        const T* center = centers + k * period;
        T* product = accumulators + k * period;
        add_lanes(product, count, period, next, [=](int i, int j) { return g[i] * (x[i] - center[j]); });
      }
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
  for_blocks<T, 5>(blocks, [=](int64_t p, int pixels, T* buffer) {
    T* out = open_block(y, p, pixels, buffer, false);
    for (int k = 0; k < count; k += 4) {
      const int group = std::min(4, count - k);
      const T* x[4] = {};
      NextBlocks<T> next;
      for (int i = 0; i < group; ++i) {
        next.add(terms[size_t(k + i)].x, p, pixels);
        x[i] = read_block(terms[size_t(k + i)].x, p, pixels, buffer + (i + 1) * blocks.elements());
      }
      add_group(group, out, x, scale + int64_t{k} * period, k == 0 ? shift : nullptr, pixels * c, period,
                next);
    }
    write_block(y, p, pixels, out);
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
  const Reduction<T> reduction{terms, gradients, dweights != nullptr, batch_statistics};
  if (reduction.any()) reduce_terms(sums, sums + int64_t(count + 1) * c, reduction, dy, blocks);
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
  gradient_lanes(parameters, terms, weights, batch_statistics && reduction.any() ? sums : nullptr, blocks);
  for (size_t k = 0; k < count; ++k)
    for (int i = 0; gradients[k].factors && i < 3; ++i)
      std::copy_n(parameters + (int64_t(k) * 3 + i) * period, c, gradients[k].factors + i * c);
  if (!any_dx) return;
  for_blocks<T, 3>(blocks, [=](int64_t p, int pixels, T* buffer) {
    const T* g = read_block(dy, p, pixels, buffer);
    for (size_t k = 0; k < count; ++k) {
      const View<T> dx = gradients[k].dx;
      if (!dx) continue;
      const bool through = batch_statistics && terms[k].mean;
      NextBlocks<T> next;
      if (dx.data != terms[k].x.data) next.add(dx, p, pixels);
      if (through) next.add(terms[k].x, p, pixels);
      const T* a = parameters + int64_t(k) * 3 * period;
      const T* x = through ? read_block(terms[k].x, p, pixels, buffer + blocks.elements()) : nullptr;
      T* out = open_block(dx, p, pixels, buffer + 2 * blocks.elements(), gradients[k].beta != 0);
      apply_gradient(out, g, x, a, through ? a + period : nullptr, a + 2 * period, gradients[k].beta,
                     pixels * c, period, next);
      write_block(dx, p, pixels, out);
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
