// separable_conv_cpu_backward.cpp -- backward of separable_conv in vectors, one image per thread at a time.
// Four or eight rows at a time: the depthwise result d again, dp += dy^T d, dd = dy p into a padded buffer,
// and dw += dd z; then dz is a stencil with flipped weights over dd, masked by the ReLU: at stride 2 one for
// each parity of rows and columns, so that no zeros stand between the rows (Lattice). Behind a norm dz is
// stored, its sums are taken, and a second pass writes dx = a dz + b x + c, unless the factors alone are
// wanted. Weight gradients go to double per thread and are added in the order of the threads.
#include <optional>

#include "kernels/ops/separable_conv_backward_rows.h"
#include "kernels/ops/separable_conv_cpu.h"

namespace lanas::cpu {
namespace {

// Flat rows o, ... of dy: dd = dy p into rows of x.c channels a pixel and, where dp is wanted, dp += dy^T d.
template <int W>
LANAS_INLINE void flat_rows(const Backward& b, const Backward::Thread& t, const Rows& dd, const Rows& d,
                            int n, int o, Ahead* ahead) {
  const Plan& plan = b.plan;
  const int c = plan.x.c, width = plan.y.w;
  const bool whole = width * c % W == 0;
  const bool parts = b.dy.factors && whole && b.dy.g.packed() && b.dy.v.packed();
  const Rows out = whole ? dd : Rows{t.rows, round_up(width * c, W), dd.count, c};
  const Rows g =
      parts ? rows_of(b.dy.g, n, o, plan.step, dd.count) : dy_rows<W>(b, t, n, o, dd.count, nullptr);
  const Rows v = parts ? rows_of(b.dy.v, n, o, plan.step, dd.count) : Rows{};
  const float* const* factors = parts ? b.dy_factors : nullptr;
  float* dp = b.want_dp ? t.dp : nullptr;
  ahead->some((1 + b.want_dp) * dd.count * plan.row_work);
  if constexpr (W > 4)
    if (c == 4) flat_backward<W, 4>(dp, out, d, g, v, factors, plan.d_vectors, b.pointwise);
  if constexpr (W > 8)
    if (c == 8) flat_backward<W, 8>(dp, out, d, g, v, factors, plan.d_vectors, b.pointwise);
  for (int r = 0; r < dd.count && !whole; ++r) copy_pixels<W>(dd.row(r), c, out.row(r), c, width, c);
}

// dd = dy p into rows of x.c channels a pixel, which have vectors of their own.
template <int W>
LANAS_INLINE void input_rows(const Backward& b, const Backward::Thread& t, const Rows& dd, const Rows& dy,
                             Ahead* ahead) {
  const Plan& plan = b.plan;
  const int c = plan.x.c, width = plan.y.w;
  const bool direct = c == plan.cin_pad;
  const Rows out = direct ? dd : Rows{t.rows, round_up(width * plan.cin_pad, W), dd.count, plan.cin_pad};
  product<W, Then::nothing>(out, dy, width, plan.y.c, b.pointwise, plan.cin_pad, b.zeros, nullptr, nullptr,
                            {}, ahead);
  if (!direct)
    for (int r = 0; r < dd.count; ++r) copy_pixels<W>(dd.row(r), c, out.row(r), out.stride, width, c);
}

// Without depthwise part and norm: dx of the pixels that output rows o, o + 1, ... read, from dy p. d: these
// pixels of x rectified, where dp is wanted; else x itself tells what the ReLU let through.
template <int W>
LANAS_INLINE void masked_input_rows(const Backward& b, const Rows& d, const Rows& dy, int n, int o,
                                    Ahead* ahead) {
  const Plan& plan = b.plan;
  const int stride = plan.op.stride, offset = plan.op.offset;
  const auto read = [&](const Tensor& t) LANAS_LAMBDA {
    return rows_of(t, n, o * stride + offset, stride, dy.count, offset, stride);
  };
  Rows dx = read(b.gradient.dx);
  dx.past = plan.x.c % kMaxLanes == 0 && b.past();
  masked_product<W>(dx, b.want_dp ? d : read(b.x), dy, plan.y.w, plan.y.c, b.pointwise, plan.cin_pad, b.zeros,
                    b.gradient.beta_dx != 0, ahead);
}

// dy goes from its parts to the products by so many rows of a tile at a time, more where they have fewer
// pixels or channels than these, so that it is still in L1 there; weight gradients of more channels are too
// many to be taken up and put down that often.
constexpr int kPartRows = 2, kPartPixels = 32, kPartChannels = 32;

// dd, and with it everything but dz, of one tile of output rows.
template <int W>
LANAS_INLINE void backward_tile(const Backward& b, const Backward::Thread& t, int n, int o, int rows,
                                Ahead* ahead) {
  const Plan& plan = b.plan;
  const bool depthwise = plan.op.has_depthwise();
  const int c = plan.x.c, stride = plan.op.stride;
  const float* in = t.padded + ptrdiff_t(o * stride + plan.inset) * plan.pitch;
  const Rows d{t.d, plan.d_pitch, rows, c};
  const Rows dd = depthwise ? Rows{t.wide + (o + b.lattice.margin) * b.wide_pitch + b.lattice.margin * c,
                                   plan.step * ptrdiff_t(b.wide_pitch), rows, c}
                            : Rows{t.dd, plan.d_pitch, rows, c};
  const StencilShape shape = plan.stencil_shape(o);
  if (depthwise && b.want_dp)
    with_constants<W>(plan.k, plan.jump, rows, [&](auto k, auto jump, auto count) LANAS_LAMBDA {
      stencil<W, k, jump, count>({t.d, plan.d_pitch}, in, b.depthwise, shape, false, ahead);
    });
  const bool writes_dx = b.writes_dx();
  if (b.gathers_x())
    for (int r = 0; r < rows; ++r) {
      ahead->some(plan.x_copy_work);
      gather_row<W>(d.row(r), plan, b.x, n, o + r, b.norm);
    }
  if (plan.flat) {
    flat_rows<W>(b, t, dd, d, n, o, ahead);
  } else {
    const int floats = plan.y.w * std::min(c, kPartChannels);
    const int most =
        b.want_dp && c > kPartChannels ? rows : std::max(kPartRows, kPartPixels * kPartChannels / floats);
    for (int r = 0; r < rows; r += most) {
      const int count = std::min(most, rows - r);
      const Rows d_part = d.part(r, count);
      const Rows dy = dy_rows<W>(b, t, n, o + r * plan.step, count, ahead);
      if (b.want_dp) product_gradient<W>(t.dp, plan.cout_pad, plan.x.c, d_part, dy, plan.y.w, ahead);
      if (writes_dx)
        masked_input_rows<W>(b, d_part, dy, n, o + r, ahead);
      else if (b.want_dw || b.want_dz)
        input_rows<W>(b, t, dd.part(r, count), dy, ahead);
    }
    if (writes_dx) return;
  }
  if (b.want_dw)
    with_constants<W>(plan.k, plan.jump, rows, [&](auto k, auto jump, auto count) LANAS_LAMBDA {
      stencil_gradient<W, k, jump, count>(t.dw, {dd.first, dd.step}, in, shape, ahead);
    });
  if (!b.want_dz || depthwise) return;
  const int offset = plan.op.offset;
  finish_rows<W>(b, t, dd, d, n, o * stride + offset, stride, offset, stride);
}

// dx of one image from the sum of the units' dz.
template <int W>
LANAS_INLINE void finish_sum(const Backward& b, const Backward::Thread& t, int n) {
  const Plan& plan = b.plan;
  const int stride = plan.op.stride, pad = plan.common.pad, c = plan.x.c;
  const Tensor& dx = b.gradient.dx;
  const bool merges = plan.common.planes == 2 && dx.packed() && plan.op.relu;
  for (int iy = 0; iy < stride; ++iy) {
    const int count = plan.divide(plan.x.h - iy + stride - 1);
    const auto pixels = [&](int ix) LANAS_LAMBDA {
      return PixelRows{
          {t.dz_sum + ptrdiff_t((iy * stride + ix) * b.sum_rows) * b.sum_pitch, b.sum_pitch, count, c},
          {t.padded + ptrdiff_t(iy + pad) * plan.pitch + plan.column_of(ix + pad),
           ptrdiff_t(stride) * plan.pitch, count, c}};
    };
    if (merges) {
      const PixelRows from[2] = {pixels(0), pixels(1)};
      merge_pixels<W>(rows_of(dx, n, iy, stride, count), b.gradient.beta_dx, from, plan.x.w, c);
      continue;
    }
    for (int ix = 0; ix < stride && ix < plan.x.w; ++ix)
      finish_rows<W>(b, t, pixels(ix).value, pixels(ix).z, n, iy, stride, ix, stride);
  }
}

// dz of the pixels of one image whose rows and columns have these parities, from its dd.
template <int W>
LANAS_INLINE void input_gradient(const Backward& b, const Backward::Thread& t, int n, int parity_y,
                                 int parity_x, Ahead* ahead) {
  const Plan& plan = b.plan;
  const Lattice& l = b.lattice;
  const int c = plan.x.c, stride = plan.op.stride;
  const Backward::Parity &rows = b.rows[parity_y], &columns = b.columns[parity_x];
  const int iy = rows.first, ix = columns.first, width = columns.count;
  const StencilShape shape{rows.taps,
                           columns.taps,
                           (width * c + W - 1) / W,
                           plan.period,
                           ptrdiff_t(l.spacing) * b.wide_pitch,
                           b.dd_column,
                           rows.begin - l.margin,
                           l.spacing,
                           plan.y.h};
  const float* from = t.wide + rows.begin * b.wide_pitch + columns.begin * c;
  float* const activated = t.padded + plan.column_of(ix + plan.common.pad);
  float* sum = t.dz_sum + ptrdiff_t((iy * stride + ix) * b.sum_rows) * b.sum_pitch;
  const bool several = plan.common.units > 1;
  for_tiles(0, rows.count, l.spacing, tile_rows(plan.lanes, l.taps, width * c),
            [&](int o, int count) LANAS_LAMBDA {
              const StencilRows dz =
                  several ? StencilRows{sum + ptrdiff_t(o) * b.sum_pitch, ptrdiff_t(l.spacing) * b.sum_pitch}
                          : StencilRows{t.rows, b.wide_pitch};
              with_taps<W>(rows.taps, columns.taps, count, [&](auto k, auto kx, auto tile) LANAS_LAMBDA {
                stencil<W, k, 1, tile, kx>(dz, from + o * b.wide_pitch, b.flipped[parity_y][parity_x],
                                           shape.from(o), several && !b.writes_sum(), ahead);
              });
              if (several) return;
              const int y = iy + o * stride;
              const Rows z{activated + ptrdiff_t(y + plan.common.pad) * plan.pitch,
                           ptrdiff_t(l.spacing) * stride * plan.pitch, count, c};
              finish_rows<W>(b, t, {dz.first, dz.step, count, c}, z, n, y, l.spacing * stride, ix, stride);
            });
}

// Vectors multiplied and added by input_gradient() for all parities of one image.
int64_t input_gradient_work(const Backward& b) {
  const Plan& plan = b.plan;
  int64_t work = 0;
  for (int y = 0; y < b.lattice.phases; ++y)
    for (int x = 0; x < b.lattice.phases; ++x) {
      const int floats = b.columns[x].count * plan.x.c;
      work += int64_t{b.rows[y].count} * ((floats + plan.lanes - 1) / plan.lanes) * b.rows[y].taps *
              b.columns[x].taps;
    }
  return work;
}

int64_t work_of_image(const Backward& b) {
  const Plan& plan = b.plan;
  int64_t work = (b.want_dp + (b.want_dw || b.want_dz)) * plan.product_work();
  if (b.copies_dy()) work += plan.y.h * plan.y_copy_work;
  if (plan.op.has_depthwise())
    work += (b.want_dp + b.want_dw) * plan.stencil_work(plan.k) + b.want_dz * input_gradient_work(b);
  if (b.gathers_x()) work += plan.y.h * plan.x_copy_work;
  return work;
}

// What a 1x1 convolution asks for ahead waits in L2 while as much is read and written: an image of so many
// bytes, or else rows of it.
constexpr int64_t kImageBytes = 350 << 10, kStripBytes = 200 << 10;

int strip_rows(const Backward& b) {
  const Plan& plan = b.plan;
  const int64_t row = int64_t{4} * plan.y.w * (2 * plan.x.c + (b.dy.factors ? 2 : 1) * plan.y.c);
  if (plan.op.has_depthwise() || plan.op.stride > 1 || row * plan.y.h <= kImageBytes) return plan.y.h;
  return int(std::clamp<int64_t>(kStripBytes / row / 4 * 4, 4, plan.y.h));
}

// What comes after the rows up to `end` of image n of a unit: the next rows, or dy of the next unit or image
// and this unit's share of the next image's x and dx. fill: dx is written whole.
template <int W>
LANAS_INLINE void ask_ahead(const Backwards& all, const Backward& b, int n, int end, bool fill,
                            Ahead& ahead) {
  const Plan& plan = b.plan;
  const bool whole = end == plan.y.h, last = b.unit + 1 == plan.common.units;
  const GradientView<float>& dy = !whole ? b.dy : last ? all.units[0].dy : (&b + 1)->dy;
  const int next = whole && last ? n + 1 : n;
  const int from = whole ? 0 : end, to = std::min(from + b.strip, plan.y.h);
  ahead.add(dy.g, next, from, to);
  if (dy.factors) ahead.add(dy.v, next, from, to);
  const Tensor out = plan.op.norm ? b.dz : b.gradient.dx;
  const auto add = [&](const Tensor& t, int step, int first) LANAS_LAMBDA {
    if (b.strip < plan.y.h)
      ahead.add(t, next, from, to);
    else
      ahead.add_share(t, n + 1, step, first, b.unit, plan.common.units);
  };
  add(b.x, plan.spread(), plan.op.offset);
  if (!b.past()) add(out, fill ? 1 : plan.spread(), fill ? 0 : plan.op.offset);
}

// The gradients of one unit that image n gives.
template <int W>
LANAS_INLINE void backward_image(const Backwards& all, const Backward& b, const Backward::Thread& t, int n,
                                 Ahead& ahead) {
  const Plan& plan = b.plan;
  const bool depthwise = plan.op.has_depthwise(), several = plan.common.units > 1;
  const bool first = b.unit == 0, last = b.unit + 1 == plan.common.units;
  const Tensor out = plan.op.norm ? b.dz : b.gradient.dx;
  const bool fill =
      !several && plan.spread() > 1 && b.gradient.dx && (plan.op.norm || b.gradient.beta_dx == 0);
  if (fill)
    for (int p = 0; p < plan.x.h * plan.x.w; ++p)  // most pixels take no part
      std::fill_n(out.at(n, 0, 0) + ptrdiff_t(p) * out.stride, plan.x.c, 0.0f);
  if (depthwise && first) pack_rows<W>(t.padded, plan, b.x, n, 0, plan.y.h, b.norm);
  if (several && first && !b.writes_sum()) std::fill_n(t.dz_sum, b.sum_size(), 0.0f);
  for (int begin = 0, end; begin < plan.y.h; begin = end) {
    end = std::min(begin + b.strip, plan.y.h);
    ask_ahead<W>(all, b, n, end, fill, ahead);
    ahead.pace(b.work * (end - begin) / plan.y.h);
    for_tiles(begin, end, plan.step, plan.tile,
              [&](int o, int rows) LANAS_LAMBDA { backward_tile<W>(b, t, n, o, rows, &ahead); });
    for (int y = 0; b.want_dz && depthwise && y < b.lattice.phases; ++y)
      for (int x = 0; x < b.lattice.phases; ++x) input_gradient<W>(b, t, n, y, x, &ahead);
    ahead.rest();
  }
  if (b.want_dz && depthwise && several && last) finish_sum<W>(b, t, n);
}

// Weight gradients of so many pixels are added up in float, then go to double.
constexpr int kFlushPixels = 1024;

// sum += part, part = 0.
LANAS_INLINE void flush(double* sum, float* part, size_t size) {
  for (size_t i = 0; i < size; ++i) sum[i] += double(part[i]), part[i] = 0;
}

template <int W>
LANAS_INLINE void backward_thread(const Backwards& all, int thread, int threads) {
  all.buffers(all.units[0], thread).clear(all.units[0], all.buffers_bytes);
  const Shape y = all.units[0].plan.y;
  const int64_t begin = int64_t{y.n} * thread / threads, end = int64_t{y.n} * (thread + 1) / threads;
  const int64_t images = std::max(1, kFlushPixels / (y.h * y.w));
  std::vector<Backward::Thread> buffers;
  buffers.reserve(all.units.size());
  for (const Backward& b : all.units) buffers.push_back(all.buffers(b, thread));
  Ahead ahead;
  for (int64_t i = begin; i < end; ++i)
    for (const Backward& b : all.units) {
      const Plan& plan = b.plan;
      const Backward::Thread& t = buffers[size_t(b.unit)];
      const int size = plan.op.norm && b.want_dz ? 2 * b.lanes_c : 0;
      float* const sums = b.norm_sums + i * size;
      prefetch_to_write(sums, size);
      backward_image<W>(all, b, t, int(i), ahead);
      const bool flushes = (i - begin + 1) % images == 0 || i + 1 == end;
      if (flushes && b.want_dp) flush(t.dp_sum, t.dp, size_t(plan.x.c) * plan.cout_pad);
      if (flushes && b.want_dw) flush(t.dw_sum, t.dw, size_t(plan.k) * plan.k * b.lanes_c);
      std::copy_n(t.norm_sums, size, sums);
      std::fill_n(t.norm_sums, size, 0.0f);
    }
  fence_writes_past_caches();
}

// dx = beta dx + a dz + b x + c over the rows of this thread's images.
template <int W>
LANAS_INLINE void norm_thread(const Backwards& all, int thread, int threads) {
  const Backward& b = all.units[0];
  const Plan& plan = b.plan;
  const int c = plan.x.c, width = plan.x.w, size = width * c, period = plan.period;
  const Backward::Thread t = all.buffers(b, thread);
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
LANAS_INLINE void either_thread(const Backwards& b, bool norm, int thread, int threads) {
  if (norm)
    norm_thread<W>(b, thread, threads);
  else
    backward_thread<W>(b, thread, threads);
}
LANAS_TARGET_AVX512 void backward_avx512(const Backwards& b, bool norm, int thread, int threads) {
  either_thread<16>(b, norm, thread, threads);
}
LANAS_TARGET_AVX2 void backward_avx2(const Backwards& b, bool norm, int thread, int threads) {
  either_thread<8>(b, norm, thread, threads);
}
__attribute__((flatten)) void backward_base(const Backwards& b, bool norm, int thread, int threads) {
  either_thread<4>(b, norm, thread, threads);
}

void run(const Backwards& b, bool norm, int thread, int threads) {
  of_lanes(b.units[0].plan.lanes, backward_avx512, backward_avx2, backward_base)(b, norm, thread, threads);
}

void fill_tables(Backward& b) {
  b.work = work_of_image(b), b.strip = strip_rows(b);
  b.norm.fill(b.plan, true), b.xhat.fill(b.plan, false);
  std::fill_n(b.zeros, b.plan.cin_pad, 0.0f);
  if (b.plan.op.has_depthwise()) {
    fill_depthwise_table(b.depthwise, b.plan);
    for (int y = 0; y < b.lattice.phases; ++y)
      for (int x = 0; x < b.lattice.phases; ++x) fill_flipped_table(b.flipped[y][x], b.plan, b.lattice, y, x);
  }
  fill_pointwise_table(b.pointwise, b.plan, true);
  const int cout = b.plan.y.c;
  for (int i = 0; b.dy.factors && i < 3; ++i)
    for (int l = 0; l < std::lcm(cout, kMaxLanes); ++l)
      b.dy_factors[i][l] = b.dy.factors[i * cout + l % cout];
}

}  // namespace

size_t separable_conv_backward_scratch_bytes(std::span<const SeparableConv<float>> ops, Shape x,
                                             int threads) {
  Carver carver(nullptr);
  Backwards(ops, x, 0, threads, carver);
  return carver.used();
}

void separable_conv_backward(std::span<const SeparableConv<float>> ops,
                             std::span<const SeparableConvGradient<float>> gradients,
                             std::span<const GradientView<float>> dys, Tensor x, float* scratch) {
  const int most = omp_get_max_threads();
  std::optional<Backwards> first;  // of thread 0
  on_threads([&](int thread, int threads) {
    Carver carver(scratch);
    Backwards all(ops, x.shape(), thread, most, carver);
    all.threads_used = threads;
    bool any = false;
    for (size_t u = 0; u < ops.size(); ++u) {
      Backward& b = all.units[u];
      const SeparableConvGradient<float>& g = b.gradient = gradients[u];
      b.gradient.beta_dx = gradients[0].beta_dx;
      b.dy = dys[u], b.x = x;
      b.want_dp = bool(g.d_pointwise), b.want_dw = ops[u].has_depthwise() && g.d_depthwise;
      b.want_dz = g.dx || g.norm.dgamma || g.norm.dbeta;
      any |= b.want_dp || b.want_dw || b.want_dz;
      if (ops[u].norm && g.dx && g.beta_dx == 0) b.dz = g.dx;
      fill_tables(b);
    }
    if (!any) return;
    run(all, false, thread, threads);
    if (thread == 0) first.emplace(std::move(all));
  });
  if (!first) return;
  for (const Backward& b : first->units) weight_gradients(*first, b);
  if (!ops[0].norm || !first->units[0].want_dz) return;
  norm_gradients(first->units[0]);
  if (gradients[0].dx && !gradients[0].dx_factors)
    on_threads([&](int thread, int threads) { run(*first, true, thread, threads); });
}

}  // namespace lanas::cpu
