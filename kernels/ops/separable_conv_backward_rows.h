// separable_conv_backward_rows.h -- the rows that backward of separable_conv begins and ends with, on the
// cpu: of dy, put together where it comes in parts, and of dz, masked and brought to where x's gradient goes.
#pragma once

#include "kernels/ops/separable_conv_backward.h"

namespace lanas::cpu {

// Row oy of dy from its parts: c channels a pixel, pixels `stride` apart.
template <int W>
LANAS_INLINE void put_together(const Backward& b, const Backward::Thread& t, float* to, int stride, int n,
                               int oy) {
  const Tensor &dy = b.dy.g, &y = b.dy.v;
  const int c = dy.c, width = dy.w, size = width * c, period = b.dy_period;
  const float *g = dy.at(n, oy, 0), *v = y.at(n, oy, 0);
  const bool packed = dy.stride == c && y.stride == c && stride == c;
  if (!packed && period == c) {
    for (int i = 0; i < c; i += W) {
      const Vec<W> factor = load<W>(b.dy_factors[0] + i), slope = load<W>(b.dy_factors[1] + i),
                   shift = load<W>(b.dy_factors[2] + i);
      for (int p = 0; p < width; ++p)
        store<W>(to + p * stride + i,
                 factor * load<W>(g + p * dy.stride + i) + (slope * load<W>(v + p * y.stride + i) + shift));
    }
    return;
  }
  if (dy.stride != c || size % W != 0) copy_pixels<W>(t.g, c, g, dy.stride, width, c), g = t.g;
  if (y.stride != c || size % W != 0) copy_pixels<W>(t.v, c, v, y.stride, width, c), v = t.v;
  float* out = stride == c ? to : t.g;
  for (int phase = 0; phase < period; phase += W) {
    const Vec<W> factor = load<W>(b.dy_factors[0] + phase), slope = load<W>(b.dy_factors[1] + phase),
                 shift = load<W>(b.dy_factors[2] + phase);
    for (int i = phase; i < size; i += period)
      store<W>(out + i, factor * load<W>(g + i) + (slope * load<W>(v + i) + shift));
  }
  if (out == to)
    std::fill_n(to + size, round_up(size, W) - size, 0.0f);  // pixels share vectors
  else
    copy_pixels<W>(to, stride, out, c, width, c);
}

template <int W>
LANAS_INLINE Rows dy_rows(const Backward& b, const Backward::Thread& t, int n, int o, int count,
                          Ahead* ahead) {
  const Plan& plan = b.plan;
  const int cout = plan.y.c;
  const Tensor& g = b.dy.g;
  const bool direct = !b.copies_dy();
  Rows dy{{}, count, direct ? g.stride : plan.flat ? cout : plan.cout_pad};
  for (int r = 0; r < count; ++r) {
    const int oy = o + r * plan.step;
    dy.row[r] = direct ? g.at(n, oy, 0) : t.dy + ptrdiff_t(r) * round_up(plan.y.w * dy.stride, W);
    if (ahead && !direct) ahead->some(plan.y_copy_work);
    if (b.dy.factors)
      put_together<W>(b, t, dy.row[r], dy.stride, n, oy);
    else if (!direct)
      copy_pixels<W>(dy.row[r], dy.stride, g.at(n, oy, 0), g.stride, plan.y.w, cout);
  }
  return dy;
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

}  // namespace lanas::cpu
