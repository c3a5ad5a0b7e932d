// separable_conv_cpu.cpp -- forward of separable_conv in training, in vectors: a thread packs one image at a
// time into a padded buffer and takes it through each unit that reads it. Sums go to double per image and are
// added in the order of the images, so the statistics do not depend on the thread count. And the tables of
// weights that all passes use.
#include "kernels/ops/separable_conv_cpu.h"

#include <cmath>
#include <optional>
#include <vector>

#include "kernels/ops/separable_conv_forward.h"

namespace lanas::cpu {

void NormTable::fill(const Plan& plan, bool affine) {
  const NormView<float>& norm = plan.op.norm;
  if (!norm) {
    *this = {};
    return;
  }
  for (int i = 0, c = 0; i < plan.period * plan.lanes; ++i, c = c + 1 == plan.x.c ? 0 : c + 1) {
    const bool with_gamma = affine && norm.gamma;
    scale[i] = norm.inv_std[c] * (with_gamma ? norm.gamma[c] : 1.0f);
    shift[i] = (with_gamma ? norm.beta[c] : 0.0f) - norm.mean[c] * scale[i];
  }
}

size_t depthwise_table_size(const Plan& plan) {
  return size_t(plan.k) * plan.k * std::lcm(plan.x.c, kMaxLanes);
}

namespace {

// taps: the weights of the channels, for each tap of the table.
void fill_taps(float* table, const Plan& plan, const std::vector<const float*>& taps) {
  const int c = plan.x.c, lanes = plan.lanes;
  std::vector<float> around(size_t(c + lanes));  // the channels of a vector lie in a row wherever it begins
  for (size_t tap = 0; tap < taps.size(); ++tap) {
    std::copy_n(taps[tap], c, around.begin());
    for (int i = 0; i < lanes; ++i) around[size_t(c + i)] = around[size_t(i)];
    float* to = table + tap * size_t(lanes);
    for (int phase = 0, first = 0; phase < plan.period; ++phase, first = (first + lanes) % c) {
      for (int l = 0; l < lanes; l += 4) store<4>(to + l, load<4>(&around[size_t(first + l)]));
      to += taps.size() * size_t(lanes);
    }
  }
}

}  // namespace

void fill_depthwise_table(float* table, const Plan& plan) {
  std::vector<const float*> taps;
  taps.reserve(size_t(plan.k * plan.k));
  for (int tap = 0; tap < plan.k * plan.k; ++tap) taps.push_back(plan.op.depthwise.pixel(tap));
  fill_taps(table, plan, taps);
}

void fill_flipped_table(float* table, const Plan& plan, const Lattice& lattice, int parity_y, int parity_x) {
  const int rows = lattice.taps_of(parity_y, plan.k), columns = lattice.taps_of(parity_x, plan.k);
  std::vector<const float*> taps;
  taps.reserve(size_t(rows * columns));
  for (int y = rows - 1; y >= 0; --y)
    for (int x = columns - 1; x >= 0; --x) {
      const int ky = parity_y + lattice.phases * y, kx = parity_x + lattice.phases * x;
      taps.push_back(plan.op.depthwise.pixel(ky * plan.k + kx));
    }
  fill_taps(table, plan, taps);
}

size_t pointwise_table_size(const Plan& plan) {
  return size_t(std::max(plan.x.c * round_up(plan.y.c, kMaxLanes), plan.y.c * round_up(plan.x.c, kMaxLanes)));
}

namespace {

// to[i][j] = from[j][i] for i in [0, rows), j in [0, columns), four by four: small batches spend a tenth
// of their time here if it goes one by one.
void transpose(float* to, ptrdiff_t to_pitch, const float* from, ptrdiff_t from_pitch, int rows,
               int columns) {
  int j = 0;
  for (; j + 4 <= columns; j += 4) {
    int i = 0;
    for (; i + 4 <= rows; i += 4) {
      const float* f = from + j * from_pitch + i;
      const Vec<4> a = load<4>(f), b = load<4>(f + from_pitch), c = load<4>(f + 2 * from_pitch),
                   d = load<4>(f + 3 * from_pitch);
      const Vec<4> ac0 = shuffle_quads<0, 4, 1, 5>(a, c), ac1 = shuffle_quads<2, 6, 3, 7>(a, c);
      const Vec<4> bd0 = shuffle_quads<0, 4, 1, 5>(b, d), bd1 = shuffle_quads<2, 6, 3, 7>(b, d);
      float* t = to + i * to_pitch + j;
      store<4>(t, shuffle_quads<0, 4, 1, 5>(ac0, bd0));
      store<4>(t + to_pitch, shuffle_quads<2, 6, 3, 7>(ac0, bd0));
      store<4>(t + 2 * to_pitch, shuffle_quads<0, 4, 1, 5>(ac1, bd1));
      store<4>(t + 3 * to_pitch, shuffle_quads<2, 6, 3, 7>(ac1, bd1));
    }
    for (; i < rows; ++i)
      for (int k = j; k < j + 4; ++k) to[i * to_pitch + k] = from[k * from_pitch + i];
  }
  for (; j < columns; ++j)
    for (int i = 0; i < rows; ++i) to[i * to_pitch + j] = from[j * from_pitch + i];
}

}  // namespace

void fill_pointwise_table(float* table, const Plan& plan, bool backward) {
  const int cin = plan.x.c, cout = plan.y.c;
  const int depth = backward ? cout : cin, width = backward ? cin : cout;
  const int padded = backward ? plan.cin_pad : plan.cout_pad;
  const bool in_order = backward || plan.op.transposed;  // pointwise is [depth][width] already
  const float* weights = plan.op.pointwise.data;
  if (!plan.flat) {
    if (in_order)
      for (int i = 0; i < depth; ++i) std::copy_n(weights + i * width, width, table + i * padded);
    else
      transpose(table, padded, weights, depth, depth, width);
    for (int i = 0; i < depth && width < padded; ++i)
      std::fill_n(table + i * padded + width, padded - width, 0.0f);
    return;
  }
  for (int i = 0; i < depth; ++i)
    for (int j = 0; j < padded; ++j) {
      const int to = j % width, from = to ^ i;  // as flat_row reads them
      table[i * padded + j] = weights[in_order ? from * width + to : to * depth + from];
    }
}

void Forward::fill(const float* biases) {
  norm.fill(plan, true);
  if (plan.op.has_depthwise()) fill_depthwise_table(depthwise, plan);
  if (plan.op.transposed && !plan.flat && plan.y.c == plan.cout_pad)
    pointwise = plan.op.pointwise.data;
  else
    fill_pointwise_table(pointwise_table, plan, false);
  for (int j = 0; j < plan.cout_pad; ++j) {
    const int channel = plan.flat ? j % plan.y.c : j;
    bias[j] = biases && channel < plan.y.c ? biases[channel] : 0.0f;
  }
}

namespace {

// Units that read one x, and their sums of y and y^2: [n][2][cout_pad] of each. Every thread has them with
// tables and buffers of its own: tables that one fills and all read take longer to come from its caches.
struct Forwards {
  Tensor x;
  std::vector<Forward> units;
  std::vector<float*> sums;
  ForwardBuffers buffers;
  Forwards(std::span<const SeparableConv<float>> ops, Tensor input, int thread, int threads, Carver& carver)
      : x(input) {
    const Common common(ops);
    ForwardBuffers::Sizes sizes;
    units.reserve(ops.size()), sums.reserve(ops.size());
    for (const SeparableConv<float>& op : ops) {
      const Plan& plan = units.emplace_back(op, x.shape(), common).plan;
      sums.push_back(carver.take<float>(size_t(plan.y.n) * 2 * size_t(round_up(plan.y.c, kMaxLanes))));
      sizes.add(plan);
    }
    const auto carve = [&](Carver& own) {
      for (Forward& unit : units) unit.carve(own);
      buffers = ForwardBuffers(sizes, 1, own);
    };
    Carver own = ThreadMemory(carve, threads, carver).of(thread);
    carve(own);
  }
};

// Image n of a unit, which asks for its share of the next image. next: where y goes after this one, null for
// the last unit.
template <int W>
LANAS_INLINE void forward_image(const Forward& f, const ForwardBuffers& t, Tensor x, int n,
                                const Forward* next, const Forward& first, Ahead& lines) {
  const Plan& plan = f.plan;
  lines.add_share(x, n + 1, plan.spread(), plan.op.offset, int(&f - &first), plan.common.units);
  const Forward& after = next ? *next : first;
  if (!after.past) lines.add(after.y, next ? n : n + 1, 0, plan.y.h);
  lines.pace((plan.op.has_depthwise() ? plan.stencil_work(plan.k) : plan.y.h * plan.x_copy_work) +
             plan.product_work());
  forward_rows<W, Then::sums>(f, t, t.padded, x, {f.y, n}, n, 0, plan.y.h, &lines);
  lines.rest();
}

template <int W>
LANAS_INLINE void forward_thread(const Forwards& all, int thread, int threads) {
  const Forward& first = all.units[0];
  const Plan& plan = first.plan;
  const ForwardBuffers& t = all.buffers;
  clear_borders(t.padded, plan);
  Ahead lines;
  for (int n = plan.y.n * thread / threads; n < plan.y.n * (thread + 1) / threads; ++n) {
    if (plan.op.has_depthwise()) pack_rows<W>(t.padded, plan, all.x, n, 0, plan.y.h, first.norm);
    for (size_t u = 0; u < all.units.size(); ++u) {
      const Forward& f = all.units[u];
      const int size = 2 * f.plan.cout_pad;
      float* const sums = all.sums[u] + int64_t{n} * size;
      prefetch_to_write(sums, size);
      std::fill_n(t.sums, size, 0.0f);
      forward_image<W>(f, t, all.x, n, u + 1 < all.units.size() ? &f + 1 : nullptr, first, lines);
      std::copy_n(t.sums, size, sums);
    }
  }
  fence_writes_past_caches();
}

LANAS_TARGET_AVX512 void forward_avx512(const Forwards& f, int thread, int threads) {
  forward_thread<16>(f, thread, threads);
}
LANAS_TARGET_AVX2 void forward_avx2(const Forwards& f, int thread, int threads) {
  forward_thread<8>(f, thread, threads);
}
__attribute__((flatten)) void forward_base(const Forwards& f, int thread, int threads) {
  forward_thread<4>(f, thread, threads);
}

// mean and 1/std of y from the sums of the images.
void statistics(const Plan& plan, const float* sums, float* y_mean, float* y_inv_std, float eps) {
  const double count = double(plan.y.pixels());
  const std::vector<double> total = sum_of_images(sums, plan.y.n, 2 * plan.cout_pad);
  for (int j = 0; j < plan.y.c; ++j) {
    double sum = 0, square = 0;
    for (int l = j; l < plan.cout_pad; l += plan.y.c) {  // flat: the pixels of a vector
      sum += total[size_t(l)], square += total[size_t(plan.cout_pad + l)];
      if (!plan.flat) break;
    }
    const double mean = sum / count, variance = std::max(0.0, square / count - mean * mean);
    y_mean[j] = float(mean);
    y_inv_std[j] = float(1 / std::sqrt(variance + double(eps)));
  }
}

}  // namespace

size_t separable_conv_forward_scratch_bytes(std::span<const SeparableConv<float>> ops, Shape x, int threads) {
  Carver carver(nullptr);
  Forwards(ops, Tensor(nullptr, x), 0, threads, carver);
  std::vector<SeparablePath> paths;
  for (const SeparableConv<float>& op : ops) paths.push_back({.first = op});
  return std::max(carver.used(), separable_convs_inference_scratch_bytes(paths, x, threads));
}

void separable_conv_forward(std::span<const SeparableConv<float>> ops,
                            std::span<const SeparableConvOutput<float>> outputs, Tensor x, float eps,
                            float* scratch) {
  if (!outputs[0].mean) {
    std::vector<SeparablePath> paths;
    for (size_t u = 0; u < ops.size(); ++u) paths.push_back({.first = ops[u], .y = outputs[u].y});
    return separable_convs_inference(paths, x, scratch);
  }
  const int most = omp_get_max_threads();
  std::optional<Forwards> first;  // of thread 0
  on_threads([&](int thread, int threads) {
    Carver carver(scratch);
    Forwards all(ops, x, thread, most, carver);
    for (size_t u = 0; u < ops.size(); ++u) {
      Forward& f = all.units[u];
      const Plan& plan = f.plan;
      f.y = outputs[u].y;
      f.past = writes_past_caches(f.y, plan.flat ? plan.y.w * plan.y.c : plan.y.c, plan.lanes);
      f.fill(nullptr);
    }
    of_lanes(all.units[0].plan.lanes, forward_avx512, forward_avx2, forward_base)(all, thread, threads);
    if (thread == 0) first.emplace(std::move(all));
  });
  for (size_t u = 0; u < ops.size(); ++u)
    statistics(first->units[u].plan, first->sums[u], outputs[u].mean, outputs[u].inv_std, eps);
}

}  // namespace lanas::cpu
