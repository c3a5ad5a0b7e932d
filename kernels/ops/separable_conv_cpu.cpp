// separable_conv_cpu.cpp -- forward and inference of separable_conv in vectors: one image (or strip of rows)
// per thread at a time goes into a padded buffer, then, for each unit that reads it, four or eight rows at a
// time through the depthwise part, held in L1, and the pointwise part. Sums go to double per image and are
// added in the order of the images, so the statistics do not depend on the thread count.
#include "kernels/ops/separable_conv_cpu.h"

#include <cmath>
#include <vector>

#include "kernels/ops/separable_conv_plan.h"

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

void fill_flipped_table(float* table, const Plan& plan, const Lattice& lattice, int parity_y, int parity_x,
                        const float* zeros) {
  std::vector<const float*> taps;
  taps.reserve(size_t(lattice.taps * lattice.taps));
  for (int y = lattice.taps - 1; y >= 0; --y)
    for (int x = lattice.taps - 1; x >= 0; --x) {
      const int ky = parity_y + lattice.phases * y, kx = parity_x + lattice.phases * x;
      taps.push_back(ky < plan.k && kx < plan.k ? plan.op.depthwise.pixel(ky * plan.k + kx) : zeros);
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

namespace {

// One of the units that read one x.
struct Forward {
  Plan plan;
  Tensor y, x, added;  // added: to be added, may be y; or empty
  bool statistics = false;
  NormTable norm;
  float *depthwise, *pointwise_table, *bias;
  const float* pointwise;  // the table, or op.pointwise where that lies as the product reads it
  double* sums;            // [n][2][cout_pad]: of y and y^2

  Forward(const SeparableConv<float>& op, Shape x_shape, const Common& common, Carver& carver)
      : plan(op, x_shape, lanes_of(cpu_isa()), common) {
    const int cout = round_up(plan.y.c, kMaxLanes);
    norm.carve(carver, plan);
    depthwise = carver.take<float>(depthwise_table_size(plan));
    pointwise = pointwise_table = carver.take<float>(pointwise_table_size(plan));
    bias = carver.take<float>(size_t(cout));
    sums = carver.take<double>(size_t(plan.y.n) * 2 * cout);
  }

  // Buffers of one thread, for one unit after the other.
  struct Thread {
    float *padded, *d, *out, *sums;
    Thread(const Plan& plan, Carver& carver) {
      const int cout = round_up(plan.y.c, kMaxLanes);
      padded = carver.take<float>(size_t(plan.padded_rows()) * plan.pitch);
      d = carver.take<float>(kTileRows * size_t(plan.d_pitch));
      out = carver.take<float>(kTileRows * size_t(round_up(plan.y.w, kMaxLanes)) * cout);
      sums = carver.take<float>(2 * size_t(cout));
    }
  };
};

struct Forwards {
  std::vector<Forward> units;
  char* threads_base;
  size_t thread_bytes;
  Forwards(std::span<const SeparableConv<float>> ops, Shape x, int threads, Carver& carver) {
    const Common common(ops);
    units.reserve(ops.size());
    for (const SeparableConv<float>& op : ops) units.emplace_back(op, x, common, carver);
    Carver one(nullptr);
    Forward::Thread(units[0].plan, one);
    thread_bytes = one.used();
    threads_base = carver.take<char>(thread_bytes * size_t(threads));
  }
};

// y rows o, o + step, ... from the depthwise rows in d.
template <int W, bool STATS>
LANAS_INLINE void pointwise_rows(const Forward& f, const Forward::Thread& t, const Rows& d, int n, int o,
                                 Ahead* ahead) {
  const Plan& plan = f.plan;
  const int width = plan.y.w, cout = plan.y.c;
  const bool direct = plan.flat ? !f.added && f.y.packed() && width * cout % W == 0 : cout == plan.cout_pad;
  Rows out{{}, d.count, direct ? f.y.stride : plan.flat ? cout : plan.cout_pad};
  for (int r = 0; r < d.count; ++r)
    out.row[r] =
        direct ? f.y.at(n, o + r * plan.step, 0) : t.out + ptrdiff_t(r) * round_up(width * out.stride, W);
  Rows added{{}, direct && f.added ? d.count : 0, f.added.stride};
  for (int r = 0; r < added.count; ++r) added.row[r] = f.added.at(n, o + r * plan.step, 0);
  float *sum = t.sums, *square = t.sums + plan.cout_pad;
  if (ahead && plan.flat) ahead->some(d.count * plan.row_work());
  if constexpr (W > 4)
    if (plan.flat && cout == 4)
      flat_product<W, 4, STATS>(out, d, plan.d_vectors(), f.pointwise, f.bias, sum, square);
  if constexpr (W > 8)
    if (plan.flat && cout == 8)
      flat_product<W, 8, STATS>(out, d, plan.d_vectors(), f.pointwise, f.bias, sum, square);
  if (!plan.flat)
    product<W, STATS>(out, d, width, plan.x.c, f.pointwise, plan.cout_pad, f.bias, sum, square, added, ahead);
  for (int r = 0; !direct && r < d.count; ++r) {
    float* const to = f.y.at(n, o + r * plan.step, 0);
    if (f.added && f.added.data != f.y.data)
      copy_pixels<W>(to, f.y.stride, f.added.at(n, o + r * plan.step, 0), f.added.stride, width, cout);
    copy_pixels<W>(to, f.y.stride, out.row[r], out.stride, width, cout, f.added ? 1 : 0);
  }
}

// The weights of a network lie in the order of its ops, those of inference as products read them. One op
// after the other asks for as many as it reads, this many floats further on: L2 has room for 256 KB of them.
constexpr ptrdiff_t kWeightsAhead = 65536;

// Output rows [begin, end) of image n. `first` unit of those that read x: packs it. next: where y goes after
// this one, null for the last unit, which asks for the next image.
template <int W, bool STATS>
LANAS_INLINE void forward_strip(const Forward& f, const Forward::Thread& t, int n, int begin, int end,
                                bool first, const Forward* next, const Forward& after) {
  const Plan& plan = f.plan;
  const bool depthwise = plan.op.has_depthwise();
  const int tail = plan.d_vectors() * W - plan.y.w * plan.x.c;
  if (depthwise && first) pack_rows<W>(t.padded, plan, f.x, n, begin, end, f.norm);
  const StencilShape shape = plan.stencil_shape();
  // Training goes through a batch; inference of few images waits for weights, once for them all.
  const bool weights_ahead = !STATS && plan.op.transposed && n == 0;
  Ahead lines, *const ahead = STATS || weights_ahead ? &lines : nullptr;
  if (STATS) {
    if (!next) lines.add(f.x, n + 1, plan.spread(), plan.op.offset);
    lines.add(next ? next->y : after.y, next ? n : n + 1);
    lines.pace((depthwise ? plan.stencil_work(plan.k) : plan.y.h * plan.copy_work(plan.x.c)) +
               plan.product_work());
  }
  if (weights_ahead) lines.stretch(plan.op.pointwise.data + kWeightsAhead, plan.op.pointwise.size());
  for_tiles(begin, end, plan.step, plan.tile, [&](int o, int rows) LANAS_LAMBDA {
    Rows d{{}, rows, plan.x.c};
    for (int r = 0; r < kTileRows; ++r) d.row[r] = t.d + r * plan.d_pitch;
    if (depthwise) {
      const float* in = t.padded + ptrdiff_t((o - begin) * plan.op.stride + plan.inset) * plan.pitch;
      with_constants<W>(plan.k, plan.jump, rows, [&](auto k, auto jump, auto count) LANAS_LAMBDA {
        stencil<W, k, jump, count>({t.d, plan.d_pitch}, in, f.depthwise, shape, false,
                                   STATS ? ahead : nullptr);
      });
    } else {
      for (int r = 0; r < rows; ++r) {
        if (STATS) ahead->some(plan.copy_work(plan.x.c));
        gather_row<W>(d.row[r], plan, f.x, n, o + r * plan.step, f.norm);
      }
    }
    for (int r = 0; tail && r < rows; ++r) std::fill_n(d.row[r] + plan.y.w * plan.x.c, tail, 0.0f);
    pointwise_rows<W, STATS>(f, t, d, n, o, ahead);
  });
  if (STATS) lines.rest();
}

template <int W>
LANAS_INLINE void forward_thread(const Forwards& all, int thread, int threads) {
  const Forward& first = all.units[0];
  const Plan& plan = first.plan;
  Carver carver(all.threads_base + all.thread_bytes * size_t(thread));
  const Forward::Thread t(plan, carver);
  clear_borders(t.padded, plan);
  const int block = 4 * plan.step, blocks = (plan.y.h + block - 1) / block;
  const int strips = first.statistics ? 1 : std::clamp(threads / plan.y.n, 1, blocks);
  const int64_t items = int64_t{plan.y.n} * strips;
  for (int64_t i = items * thread / threads; i < items * (thread + 1) / threads; ++i) {
    const int n = int(i / strips), strip = int(i % strips);
    const int begin = blocks * strip / strips * block;
    const int end = std::min(plan.y.h, blocks * (strip + 1) / strips * block);
    if (!first.statistics) {
      forward_strip<W, false>(first, t, n, begin, end, true, nullptr, first);
      continue;
    }
    for (size_t u = 0; u < all.units.size(); ++u) {
      const Forward& f = all.units[u];
      std::fill_n(t.sums, 2 * plan.cout_pad, 0.0f);
      forward_strip<W, true>(f, t, n, begin, end, u == 0, u + 1 < all.units.size() ? &f + 1 : nullptr, first);
      for (int j = 0; j < 2 * plan.cout_pad; ++j)
        f.sums[int64_t{n} * 2 * plan.cout_pad + j] = double(t.sums[j]);
    }
  }
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

void run(Forwards& all, const float* bias) {
  for (Forward& f : all.units) {
    const Plan& plan = f.plan;
    f.norm.fill(plan, true);
    if (plan.op.has_depthwise()) fill_depthwise_table(f.depthwise, plan);
    if (plan.op.transposed && !plan.flat && plan.y.c == plan.cout_pad)
      f.pointwise = plan.op.pointwise.data;
    else
      fill_pointwise_table(f.pointwise_table, plan, false);
    for (int j = 0; j < plan.cout_pad; ++j) {
      const int channel = plan.flat ? j % plan.y.c : j;
      f.bias[j] = bias && channel < plan.y.c ? bias[channel] : 0.0f;
    }
  }
  on_threads([&](int thread, int threads) {
    const int lanes = all.units[0].plan.lanes;
    if (lanes == 16) return forward_avx512(all, thread, threads);
    if (lanes == 8) return forward_avx2(all, thread, threads);
    forward_base(all, thread, threads);
  });
}

// mean and 1/std of y from the sums of the images.
void statistics(const Forward& f, float* y_mean, float* y_inv_std, float eps) {
  const Plan& plan = f.plan;
  const double count = double(plan.y.pixels());
  const std::vector<double> total = sum_of_images(f.sums, plan.y.n, 2 * plan.cout_pad);
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
  Forwards(ops, x, threads, carver);
  return carver.used();
}

void separable_conv_forward(std::span<const SeparableConv<float>> ops,
                            std::span<const SeparableConvOutput<float>> outputs, Tensor x, float eps,
                            float* scratch) {
  Carver carver(scratch);
  Forwards all(ops, x.shape(), omp_get_max_threads(), carver);
  const bool with_statistics = outputs[0].mean;
  for (size_t u = 0; u < ops.size(); ++u) {
    Forward& f = all.units[u];
    f.y = outputs[u].y, f.x = x, f.statistics = with_statistics || ops.size() > 1;
  }
  run(all, nullptr);
  for (size_t u = 0; u < ops.size() && with_statistics; ++u)
    statistics(all.units[u], outputs[u].mean, outputs[u].inv_std, eps);
}

void separable_conv_inference(const SeparableConv<float>& op, Tensor y, Tensor x, const float* bias,
                              Tensor added, float* scratch) {
  Carver carver(scratch);
  Forwards all({&op, 1}, x.shape(), omp_get_max_threads(), carver);
  Forward& f = all.units[0];
  f.y = y, f.x = x, f.added = added;
  run(all, bias);
}

}  // namespace lanas::cpu
