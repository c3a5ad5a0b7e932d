// separable_conv_cpu_backward.cpp -- backward of separable_conv in vectors, one image per thread at a time.
// Four rows at a time: the depthwise result d again, dp += dy^T d, dd = dy p into a padded buffer, and
// dw += dd z; then dz is a stencil with flipped weights over dd, masked by the ReLU: at stride 2 one for each
// parity of rows and columns, so that no zeros stand between the rows (Lattice). Behind a norm dz is stored,
// its sums are taken, and a second pass writes dx = a dz + b x + c.
// Weight gradients go to double per image and thread and are added in the order of the threads.
#include <cmath>

#include "kernels/ops/separable_conv_cpu.h"
#include "kernels/ops/separable_conv_plan.h"

namespace lanas::cpu {
namespace {

struct Backward {
  Plan plan;
  Lattice lattice;
  SeparableConvGradient<float> gradient;
  Tensor dy, x;
  bool want_dp, want_dw, want_dz;
  Tensor dz;  // behind a norm: where dz waits for its sums; dx itself where that may be overwritten
  NormTable norm, xhat, dx_table;  // dx_table: scale and shift of x; a: factor of dz
  float *dx_factor, *depthwise, *pointwise, *zeros;
  float* flipped[2][2];  // of the parities of rows and columns
  double* norm_sums;     // [n][2][lanes repeating the channels]: of dz and dz xhat
  int lanes_c;           // floats after which channels repeat, for whole vectors
  int wide_pitch, wide_rows, x_pitch;
  char* threads_base;
  size_t thread_bytes;
  int threads_used = 1;

  Backward(const SeparableConv<float>& op, Shape x_shape, int threads, Carver& carver)
      : plan(op, x_shape, lanes_of(cpu_isa())), lattice(plan) {
    const size_t most = size_t(std::lcm(x_shape.c, kMaxLanes));
    lanes_c = plan.period * plan.lanes;
    const auto wide = [&](int size) { return lattice.margin + (size - 1 + plan.pad) / op.stride + 1; };
    wide_pitch = round_up(wide(x_shape.w) * x_shape.c, kMaxLanes) + kMaxLanes;
    wide_rows = wide(x_shape.h);
    x_pitch = round_up(x_shape.w * x_shape.c, kMaxLanes);
    norm.carve(carver, plan), xhat.carve(carver, plan), dx_table.carve(carver, plan);
    dx_factor = carver.take<float>(most);
    depthwise = carver.take<float>(depthwise_table_size(plan));
    for (auto& row : flipped)
      for (float*& table : row) table = carver.take<float>(depthwise_table_size(plan));
    pointwise = carver.take<float>(pointwise_table_size(plan));
    zeros = carver.take<float>(size_t(round_up(x_shape.c, kMaxLanes)));
    norm_sums = carver.take<double>(size_t(x_shape.n) * 2 * most);
    dz = Tensor(carver.take<float>(size_t(x_shape.size())), x_shape);
    Carver one(nullptr);
    Thread(*this, one);
    thread_bytes = one.used();
    threads_base = carver.take<char>(thread_bytes * size_t(threads));
  }

  size_t dp_size() const { return size_t(plan.x.c) * round_up(plan.y.c, kMaxLanes); }

  struct Thread {
    double *dp_sum, *dw_sum;                            // of this thread's images
    float *dp, *dw, *norm_sums;                         // of one image
    float *padded, *wide, *d, *dd, *dy, *rows, *z, *x;  // wide: dd with zeros around
    Thread(const Backward& b, Carver& carver) {
      const Plan& plan = b.plan;
      const size_t cout = size_t(round_up(plan.y.c, kMaxLanes)), cin = size_t(round_up(plan.x.c, kMaxLanes));
      const size_t row = size_t(round_up(plan.y.w, kMaxLanes));
      dp_sum = carver.take<double>(b.dp_size()), dp = carver.take<float>(b.dp_size());
      dw_sum = carver.take<double>(depthwise_table_size(plan)),
      dw = carver.take<float>(depthwise_table_size(plan));
      norm_sums = carver.take<float>(2 * size_t(std::lcm(plan.x.c, kMaxLanes)));
      padded = carver.take<float>(size_t(plan.padded_rows()) * plan.pitch);
      wide = carver.take<float>(size_t(b.wide_rows) * b.wide_pitch);
      d = carver.take<float>(4 * size_t(plan.d_pitch)), dd = carver.take<float>(4 * size_t(plan.d_pitch));
      dy = carver.take<float>(4 * row * cout);
      rows = carver.take<float>(4 * std::max({row * cin, size_t(b.wide_pitch), size_t(b.x_pitch)}));
      z = carver.take<float>(size_t(b.x_pitch)), x = carver.take<float>(size_t(b.x_pitch));
    }
  };
};

template <int W>
LANAS_INLINE Rows dy_rows(const Backward& b, const Backward::Thread& t, int n, int o, int count) {
  const Plan& plan = b.plan;
  const int cout = plan.y.c;
  const bool direct = plan.flat ? b.dy.packed() && plan.y.w * cout % W == 0 : cout == plan.cout_pad;
  Rows dy{{}, count, direct ? b.dy.stride : plan.flat ? cout : plan.cout_pad};
  for (int r = 0; r < count; ++r) {
    float* from = b.dy.at(n, o + r * plan.step, 0);
    dy.row[r] = direct ? from : t.dy + ptrdiff_t(r) * round_up(plan.y.w * dy.stride, W);
    if (!direct) copy_pixels<W>(dy.row[r], dy.stride, from, b.dy.stride, plan.y.w, cout);
  }
  return dy;
}

template <int W>
LANAS_INLINE void pointwise_gradient(const Backward& b, const Backward::Thread& t, const Rows& d,
                                     const Rows& dy) {
  const Plan& plan = b.plan;
  if constexpr (W > 4)
    if (plan.flat && plan.x.c == 4) return flat_product_gradient<W, 4>(t.dp, d, dy, plan.d_vectors());
  if constexpr (W > 8)
    if (plan.flat && plan.x.c == 8) return flat_product_gradient<W, 8>(t.dp, d, dy, plan.d_vectors());
  product_gradient<W>(t.dp, plan.cout_pad, plan.x.c, d, dy, plan.y.w);
}

// dd = dy p into rows of x.c channels a pixel.
template <int W>
LANAS_INLINE void input_rows(const Backward& b, const Backward::Thread& t, const Rows& dd, const Rows& dy) {
  const Plan& plan = b.plan;
  const int c = plan.x.c, width = plan.y.w;
  const bool direct = plan.flat ? width * c % W == 0 : c == plan.cin_pad;
  Rows out = dd;
  if (!direct) {
    out.stride = plan.flat ? c : plan.cin_pad;
    for (int r = 0; r < dd.count; ++r) out.row[r] = t.rows + ptrdiff_t(r) * round_up(width * out.stride, W);
  }
  if constexpr (W > 4)
    if (plan.flat && c == 4)
      flat_product<W, 4, false>(out, dy, plan.d_vectors(), b.pointwise, b.zeros, nullptr, nullptr);
  if constexpr (W > 8)
    if (plan.flat && c == 8)
      flat_product<W, 8, false>(out, dy, plan.d_vectors(), b.pointwise, b.zeros, nullptr, nullptr);
  if (!plan.flat)
    product<W, false>(out, dy, width, plan.y.c, b.pointwise, plan.cin_pad, b.zeros, nullptr, nullptr);
  if (!direct)
    for (int r = 0; r < dd.count; ++r) copy_pixels<W>(dd.row[r], c, out.row[r], out.stride, width, c);
}

// Masks the vectors of a row of dz where z is not above 0 (z null: keeps them) and writes beta*to + dz to
// `to`. With sums (null: none) also adds dz and dz xhat to them, with xhat = scale x + shift, or x if affine
// is null.
template <int W>
LANAS_INLINE void finish_vectors(float* to, float beta, const float* dz, const float* z, int vectors,
                                 int period, float* sums, const float* x, const NormTable* affine) {
  for (int phase = 0; phase < period; ++phase) {
    const Vec<W> scale = affine ? load<W>(affine->scale + phase * W) : broadcast<W>(1);
    const Vec<W> shift = affine ? load<W>(affine->shift + phase * W) : Vec<W>{};
    Vec<W> sum = {}, dot = {};
    for (int v = phase; v < vectors; v += period) {
      Vec<W> g = load<W>(dz + v * W);
      if (z) g = load<W>(z + v * W) > Vec<W>{} ? g : Vec<W>{};
      if (sums) sum += g, dot += g * (load<W>(x + v * W) * scale + shift);
      if (beta != 0) g += beta * load<W>(to + v * W);
      store<W>(to + v * W, g);
    }
    if (!sums) continue;
    float *s = sums + phase * W, *d = s + period * W;
    store<W>(s, load<W>(s) + sum), store<W>(d, load<W>(d) + dot);
  }
}

// What becomes of a row of dz before the mask, of x's pixels from (iy, ix) on in steps of `step`; it has room
// for whole vectors: z is relu(normalise(x)) there, or null to compute it. Without norm it goes to dx, else
// to where it waits for its sums.
template <int W>
LANAS_INLINE void finish_row(const Backward& b, const Backward::Thread& t, float* dz, const float* z, int n,
                             int iy, int ix, int step) {
  const Plan& plan = b.plan;
  const bool relu = plan.op.relu, norm = bool(plan.op.norm), affine = norm && plan.op.norm.gamma;
  const int c = plan.x.c, width = (plan.x.w - ix + step - 1) / step, size = width * c,
            vectors = (size + W - 1) / W;
  const Tensor out = norm ? b.dz : b.gradient.dx;
  const float beta = norm ? 0.0f : b.gradient.beta_dx;
  const int x_stride = step * b.x.stride, out_stride = step * out.stride;
  const bool whole = size % W == 0, direct = b.gradient.dx && out_stride == c && whole;
  if (!whole) std::fill_n(dz + size, vectors * W - size, 0.0f);
  const float* x = b.x.at(n, iy, ix);
  if (!z && (relu || (norm && !affine))) {
    activate_row<W>(t.z, x, x_stride, width, c, b.norm.scale, b.norm.shift, plan.period, relu);
    z = t.z;
  }
  if (affine && (x_stride != c || !whole)) {
    copy_pixels<W>(t.x, c, x, x_stride, width, c);
    x = t.x;
  }
  if (!affine) x = z;  // without gamma z is xhat wherever dz is not zero
  finish_vectors<W>(direct ? out.at(n, iy, ix) : dz, direct ? beta : 0.0f, dz, relu ? z : nullptr, vectors,
                    plan.period, norm ? t.norm_sums : nullptr, x, affine ? &b.xhat : nullptr);
  if (!direct && b.gradient.dx) copy_pixels<W>(out.at(n, iy, ix), out_stride, dz, c, width, c, beta);
}

// dd, and with it everything but dz, of one tile of output rows.
template <int W>
LANAS_INLINE void backward_tile(const Backward& b, const Backward::Thread& t, int n, int o, int rows) {
  const Plan& plan = b.plan;
  const bool depthwise = plan.op.has_depthwise();
  const int c = plan.x.c, stride = plan.op.stride;
  const float* in = t.padded + ptrdiff_t(o) * stride * plan.pitch;
  Rows d{{}, rows, c}, dd{{}, rows, c};
  for (int r = 0; r < 4; ++r) {
    d.row[r] = t.d + r * plan.d_pitch;
    dd.row[r] = t.dd + r * plan.d_pitch;
    if (depthwise)
      dd.row[r] = t.wide + (o + r * plan.step + b.lattice.margin) * b.wide_pitch + b.lattice.margin * c;
  }
  const StencilShape shape = plan.stencil_shape();
  if (depthwise && b.want_dp)
    with_constants<W>(plan.k, plan.jump, rows, [&](auto k, auto jump, auto count) LANAS_LAMBDA {
      stencil<W, k, jump, count>(d.row, in, b.depthwise, shape);
    });
  if (!depthwise)
    for (int r = 0; r < rows; ++r) gather_row<W>(d.row[r], plan, b.x, n, o + r, b.norm);
  const Rows dy = dy_rows<W>(b, t, n, o, rows);
  if (b.want_dp) pointwise_gradient<W>(b, t, d, dy);
  if (!b.want_dw && !b.want_dz) return;
  input_rows<W>(b, t, dd, dy);
  if (b.want_dw)
    with_constants<W>(plan.k, plan.jump, rows, [&](auto k, auto jump, auto count) LANAS_LAMBDA {
      stencil_gradient<W, k, jump, count>(t.dw, dd.row, in, shape);
    });
  if (!b.want_dz || depthwise) return;
  for (int r = 0; r < rows; ++r)
    finish_row<W>(b, t, dd.row[r], d.row[r], n, (o + r) * stride + plan.op.offset, plan.op.offset, stride);
}

// dz of the pixels of one image whose rows and columns have these parities, from its dd.
template <int W>
LANAS_INLINE void input_gradient(const Backward& b, const Backward::Thread& t, int n, int parity_y,
                                 int parity_x) {
  const Plan& plan = b.plan;
  const Lattice& l = b.lattice;
  const int c = plan.x.c, stride = plan.op.stride;
  // First row and column of x, and the pixels of the padded dd where their stencils begin.
  const auto first = [&](int parity) { return (parity + plan.pad) % stride; };
  const auto begin = [&](int parity) {
    return (first(parity) + plan.pad - parity * l.spacing) / stride - (l.taps - 1) * l.spacing + l.margin;
  };
  const int iy = first(parity_y), ix = first(parity_x);
  const int height = (plan.x.h - iy + stride - 1) / stride, width = (plan.x.w - ix + stride - 1) / stride;
  int column[kMaxKernel];
  for (int kx = 0; kx < l.taps; ++kx) column[kx] = kx * l.spacing * c;
  const StencilShape shape{l.taps, (width * c + W - 1) / W, plan.period, ptrdiff_t(l.spacing) * b.wide_pitch,
                           column};
  const float* from = t.wide + begin(parity_y) * b.wide_pitch + begin(parity_x) * c;
  const float* activated = t.padded + parity_x * plan.plane + (ix + plan.pad) / stride * c;
  float* dz[4];
  for (int r = 0; r < 4; ++r) dz[r] = t.rows + ptrdiff_t(r) * b.wide_pitch;
  for_tiles(0, height, l.spacing, [&](int o, int rows) LANAS_LAMBDA {
    with_constants<W>(l.taps, 1, rows, [&](auto k, auto jump, auto count) LANAS_LAMBDA {
      stencil<W, k, jump, count>(dz, from + o * b.wide_pitch, b.flipped[parity_y][parity_x], shape);
    });
    for (int r = 0; r < rows; ++r) {
      const int y = iy + (o + r * l.spacing) * stride;
      finish_row<W>(b, t, dz[r], activated + (y + plan.pad) * plan.pitch, n, y, ix, stride);
    }
  });
}

template <int W>
LANAS_INLINE void backward_image(const Backward& b, const Backward::Thread& t, int n) {
  const Plan& plan = b.plan;
  const bool depthwise = plan.op.has_depthwise();
  const Tensor out = plan.op.norm ? b.dz : b.gradient.dx;
  const bool fill = plan.spread() > 1 && b.gradient.dx && (plan.op.norm || b.gradient.beta_dx == 0);
  if (fill)
    for (int p = 0; p < plan.x.h * plan.x.w; ++p)  // most pixels take no part
      std::fill_n(out.at(n, 0, 0) + ptrdiff_t(p) * out.stride, plan.x.c, 0.0f);
  if (depthwise) pack_rows<W>(t.padded, plan, b.x, n, 0, plan.y.h, b.norm);
  int done = 0;
  for_tiles(0, plan.y.h, plan.step, [&](int o, int rows) LANAS_LAMBDA {
    backward_tile<W>(b, t, n, o, rows);
    const int from = done * plan.op.stride, to = (done + rows) * plan.op.stride;
    prefetch_rows<false>(b.x, n + 1, from, to, plan.spread(), plan.op.offset);
    prefetch_rows<false>(b.dy, n + 1, done, done + rows);
    prefetch_rows<true>(out, n + 1, from, to, fill ? 1 : plan.spread(), fill ? 0 : plan.op.offset);
    done += rows;
  });
  if (!b.want_dz || !depthwise) return;
  for (int y = 0; y < b.lattice.phases; ++y)
    for (int x = 0; x < b.lattice.phases; ++x) input_gradient<W>(b, t, n, y, x);
}

// sum += part, part = 0.
LANAS_INLINE void flush(double* sum, float* part, size_t size) {
  for (size_t i = 0; i < size; ++i) sum[i] += double(part[i]), part[i] = 0;
}

template <int W>
LANAS_INLINE void backward_thread(const Backward& b, int thread, int threads) {
  const Plan& plan = b.plan;
  Carver carver(b.threads_base + b.thread_bytes * size_t(thread));
  const Backward::Thread t(b, carver);
  const size_t dw_size = size_t(plan.k) * plan.k * b.lanes_c;
  std::memset(b.threads_base + b.thread_bytes * size_t(thread), 0, carver.used());
  const int64_t n = plan.y.n;
  for (int64_t i = n * thread / threads; i < n * (thread + 1) / threads; ++i) {
    backward_image<W>(b, t, int(i));
    if (b.want_dp) flush(t.dp_sum, t.dp, size_t(plan.x.c) * plan.cout_pad);
    if (b.want_dw) flush(t.dw_sum, t.dw, dw_size);
    if (!plan.op.norm || !b.want_dz) continue;
    for (int j = 0; j < 2 * b.lanes_c; ++j) {
      b.norm_sums[i * 2 * b.lanes_c + j] = double(t.norm_sums[j]);
      t.norm_sums[j] = 0;
    }
  }
}

// dx = beta dx + a dz + b x + c over the rows of this thread's images.
template <int W>
LANAS_INLINE void norm_thread(const Backward& b, int thread, int threads) {
  const Plan& plan = b.plan;
  const int c = plan.x.c, width = plan.x.w, size = width * c, period = plan.period;
  Carver carver(b.threads_base + b.thread_bytes * size_t(thread));
  const Backward::Thread t(b, carver);
  const Tensor dx = b.gradient.dx;
  const bool whole = size % W == 0;
  const float beta = b.gradient.beta_dx;
  const int64_t n = plan.x.n, h = plan.x.h;
  for (int64_t row = n * thread / threads * h; row < n * (thread + 1) / threads * h; ++row) {
    const int64_t p = row * width;
    float *x = b.x.pixel(p), *dz = b.dz.pixel(p), *to = dx.pixel(p);
    if (!b.x.packed() || !whole) copy_pixels<W>(t.x, c, x, b.x.stride, width, c), x = t.x;
    if (!b.dz.packed() || !whole) copy_pixels<W>(t.z, c, dz, b.dz.stride, width, c), dz = t.z;
    const bool direct = dx.packed() && whole;
    if (!direct) to = t.rows;
    for (int phase = 0; phase < period; ++phase) {
      const Vec<W> factor = load<W>(b.dx_factor + phase * W);
      const Vec<W> scale = load<W>(b.dx_table.scale + phase * W),
                   shift = load<W>(b.dx_table.shift + phase * W);
      for (int i = phase * W; i < size; i += period * W) {
        Vec<W> g = factor * load<W>(dz + i) + (scale * load<W>(x + i) + shift);
        if (direct && beta != 0) g += beta * load<W>(to + i);
        store<W>(to + i, g);
      }
    }
    if (!direct) copy_pixels<W>(dx.pixel(p), dx.stride, to, c, width, c, beta);
  }
}

template <int W>
LANAS_INLINE void either_thread(const Backward& b, bool norm, int thread, int threads) {
  if (norm)
    norm_thread<W>(b, thread, threads);
  else
    backward_thread<W>(b, thread, threads);
}
LANAS_TARGET_AVX512 void backward_avx512(const Backward& b, bool norm, int thread, int threads) {
  either_thread<16>(b, norm, thread, threads);
}
LANAS_TARGET_AVX2 void backward_avx2(const Backward& b, bool norm, int thread, int threads) {
  either_thread<8>(b, norm, thread, threads);
}
__attribute__((flatten)) void backward_base(const Backward& b, bool norm, int thread, int threads) {
  either_thread<4>(b, norm, thread, threads);
}

void run(Backward& b, bool norm) {
  on_threads([&](int thread, int threads) {
    if (thread == 0) b.threads_used = threads;
    if (b.plan.lanes == 16) return backward_avx512(b, norm, thread, threads);
    if (b.plan.lanes == 8) return backward_avx2(b, norm, thread, threads);
    backward_base(b, norm, thread, threads);
  });
}

// The threads' sums, in their order, then the lanes that belong to one weight.
void weight_gradients(const Backward& b) {
  const Plan& plan = b.plan;
  const SeparableConvGradient<float>& g = b.gradient;
  const int cin = plan.x.c, cout = plan.y.c, taps = plan.k * plan.k;
  Carver first_carver(b.threads_base);
  const Backward::Thread first(b, first_carver);
  double *dp = first.dp_sum, *dw = first.dw_sum;
  const size_t dp_size = size_t(cin) * plan.cout_pad, dw_size = size_t(taps) * b.lanes_c;
  for (int thread = 1; thread < b.threads_used; ++thread) {
    Carver carver(b.threads_base + b.thread_bytes * size_t(thread));
    const Backward::Thread t(b, carver);
    for (size_t i = 0; b.want_dp && i < dp_size; ++i) dp[i] += t.dp_sum[i];
    for (size_t i = 0; b.want_dw && i < dw_size; ++i) dw[i] += t.dw_sum[i];
  }
  const auto write = [](float& to, double value, float beta) {
    to = float(value) + (beta == 0 ? 0.0f : beta * to);
  };
  for (int j = 0; b.want_dp && j < cout; ++j)
    for (int i = 0; i < cin; ++i) {
      double sum = 0;
      for (int l = j; l < (plan.flat ? plan.cout_pad : j + 1); l += cout) sum += dp[i * plan.cout_pad + l];
      write(g.d_pointwise.pixel(j)[i], sum, g.beta_d_pointwise);
    }
  for (int tap = 0; b.want_dw && tap < taps; ++tap)
    for (int c = 0; c < cin; ++c) {
      double sum = 0;
      for (int l = c; l < b.lanes_c; l += cin)
        sum += dw[(size_t(l / plan.lanes) * taps + tap) * plan.lanes + l % plan.lanes];
      write(g.d_depthwise.pixel(tap)[c], sum, g.beta_d_depthwise);
    }
}

// dgamma, dbeta, and the factors of dx = gamma inv_std (dz - mean(dz) - xhat mean(dz xhat)).
void norm_gradients(const Backward& b) {
  const Plan& plan = b.plan;
  const NormView<float>& norm = plan.op.norm;
  const NormGradient<float>& g = b.gradient.norm;
  const double count = double(plan.x.pixels());
  for (int c = 0; c < plan.x.c; ++c) {
    double sum = 0, dot = 0;
    for (int n = 0; n < plan.x.n; ++n)
      for (int l = c; l < b.lanes_c; l += plan.x.c) {
        sum += b.norm_sums[int64_t{n} * 2 * b.lanes_c + l];
        dot += b.norm_sums[(int64_t{n} * 2 + 1) * b.lanes_c + l];
      }
    if (g.dgamma) g.dgamma[c] = float(dot) + (g.beta_dgamma == 0 ? 0.0f : g.beta_dgamma * g.dgamma[c]);
    if (g.dbeta) g.dbeta[c] = float(sum) + (g.beta_dbeta == 0 ? 0.0f : g.beta_dbeta * g.dbeta[c]);
    const double inv_std = double(norm.inv_std[c]);
    const double factor = inv_std * (norm.gamma ? double(norm.gamma[c]) : 1.0);
    const double slope = -factor * inv_std * dot / count;
    for (int l = c; l < b.lanes_c; l += plan.x.c) {
      b.dx_factor[l] = float(factor);
      b.dx_table.scale[l] = float(slope);
      b.dx_table.shift[l] = float(-factor * sum / count - slope * double(norm.mean[c]));
    }
  }
}

}  // namespace

size_t separable_conv_backward_scratch_bytes(const SeparableConv<float>& op, Shape x, int threads) {
  Carver carver(nullptr);
  Backward(op, x, threads, carver);
  return carver.used();
}

void separable_conv_backward(const SeparableConv<float>& op, const SeparableConvGradient<float>& gradient,
                             Tensor dy, Tensor x, float* scratch) {
  Carver carver(scratch);
  Backward b(op, x.shape(), omp_get_max_threads(), carver);
  b.gradient = gradient, b.dy = dy, b.x = x;
  b.want_dp = bool(gradient.d_pointwise), b.want_dw = op.has_depthwise() && gradient.d_depthwise;
  b.want_dz = gradient.dx || gradient.norm.dgamma || gradient.norm.dbeta;
  if (!b.want_dp && !b.want_dw && !b.want_dz) return;
  if (op.norm && gradient.dx && gradient.beta_dx == 0) b.dz = gradient.dx;
  b.norm.fill(b.plan, true), b.xhat.fill(b.plan, false);
  std::fill_n(b.zeros, b.plan.cin_pad, 0.0f);
  if (op.has_depthwise()) {
    fill_depthwise_table(b.depthwise, b.plan);
    for (int y = 0; y < b.lattice.phases; ++y)
      for (int x = 0; x < b.lattice.phases; ++x)
        fill_flipped_table(b.flipped[y][x], b.plan, b.lattice, y, x, b.zeros);
  }
  fill_pointwise_table(b.pointwise, b.plan, true);
  run(b, false);
  weight_gradients(b);
  if (!op.norm || !b.want_dz) return;
  norm_gradients(b);
  if (gradient.dx) run(b, true);
}

}  // namespace lanas::cpu
