// separable_conv_backward_rows.h -- the rows that backward of separable_conv begins and ends with, on the
// cpu: of dy, put together where it comes in parts, and of dz, masked and brought to where x's gradient goes.
#pragma once

#include "kernels/ops/separable_conv_backward.h"

namespace lanas::cpu {

// Rows of dy from its parts: `pixels` pixels of c channels a row.
template <int W>
LANAS_INLINE void put_together(const Backward& b, const Backward::Thread& t, const Rows& to, const Rows& g,
                               const Rows& v) {
  const int c = b.dy.g.c, pixels = b.dy.g.w, size = pixels * c, period = b.dy_period;
  const float* const* factors = b.dy_factors;
  const bool packed = g.stride == c && v.stride == c, whole = size % W == 0;
  const auto flat = [=](const Rows& out, const Rows& first, const Rows& second) LANAS_LAMBDA {
    isolated<W>([=]() LANAS_LAMBDA {
      for (int phase = 0; phase < period; phase += W) {
        const Vec<W> factor = load<W>(factors[0] + phase), slope = load<W>(factors[1] + phase),
                     shift = load<W>(factors[2] + phase);
        for (int r = 0; r < out.count; ++r) {
          float *put = out.row(r), *from = first.row(r), *value = second.row(r);
          for (int i = phase; i < size; i += period)
            store<W>(put + i, factor * load<W>(from + i) + (slope * load<W>(value + i) + shift));
        }
      }
    });
  };
  if (packed && whole && to.stride == c) return flat(to, g, v);
  for (int r = 0; r < to.count; ++r) {
    Rows parts[2] = {g.part(r, 1), v.part(r, 1)};
    if (period == c && !(packed && to.stride == c)) {
      for (int i = 0; i < c; i += W) {
        const Vec<W> factor = load<W>(factors[0] + i), slope = load<W>(factors[1] + i),
                     shift = load<W>(factors[2] + i);
        for (int p = 0; p < pixels; ++p)
          store<W>(to.row(r) + p * to.stride + i, factor * load<W>(g.row(r) + p * g.stride + i) +
                                                      (slope * load<W>(v.row(r) + p * v.stride + i) + shift));
      }
      continue;
    }
    if (!packed || !whole) {
      float* const copies[2] = {t.g, t.v};
      for (int i = 0; i < 2; ++i) {
        copy_pixels<W>(copies[i], c, parts[i].first, parts[i].stride, pixels, c);
        parts[i].first = copies[i];
      }
    }
    const bool direct = to.stride == c;
    const Rows out = direct ? to.part(r, 1) : Rows{t.g, 0, 1, c};
    flat(out, parts[0], parts[1]);
    if (direct)
      std::fill_n(out.first + size, round_up(size, W) - size, 0.0f);  // pixels share vectors
    else
      copy_pixels<W>(to.row(r), to.stride, t.g, c, pixels, c);
  }
}

template <int W>
LANAS_INLINE Rows dy_rows(const Backward& b, const Backward::Thread& t, int n, int o, int count,
                          Ahead* ahead) {
  const Plan& plan = b.plan;
  const Rows g = rows_of(b.dy.g, n, o, plan.step, count);
  if (!b.copies_dy()) return g;
  if (ahead) ahead->some(count * plan.y_copy_work);
  const int pixel = plan.flat ? plan.y.c : plan.cout_pad;
  const Rows dy{t.dy, round_up(plan.y.w * pixel, W), count, pixel};
  if (b.dy.factors)
    put_together<W>(b, t, dy, g, rows_of(b.dy.v, n, o, plan.step, count));
  else
    for (int r = 0; r < count; ++r) copy_pixels<W>(dy.row(r), pixel, g.row(r), g.stride, plan.y.w, plan.y.c);
  return dy;
}

// Rows of dz of `vectors` vectors: masked where z is not above 0 (MASK), beta*to + dz goes to `to`. SUMS: dz
// and dz xhat are added to `sums`, where xhat is z or, AFFINE, scale x + shift.
struct Finish {
  Rows to, dz, z, x;
  float beta;
  int vectors, period;
  float* sums;
  const NormTable* affine;
};
template <int W, bool MASK, bool SUMS, bool AFFINE, bool ADD>
LANAS_INLINE void finish_vectors(const Finish& f) {
  for (int phase = 0; phase < f.period; ++phase) {
    Vec<W> scale = {}, shift = {}, sum = {}, dot = {};
    if constexpr (AFFINE) scale = load<W>(f.affine->scale + phase * W);
    if constexpr (AFFINE) shift = load<W>(f.affine->shift + phase * W);
    for (int r = 0; r < f.to.count; ++r) {
      float* const to = f.to.row(r);
      const float *dz = f.dz.row(r), *z = f.z.row(r), *x = AFFINE ? f.x.row(r) : z;
      for (int v = phase; v < f.vectors; v += f.period) {
        Vec<W> g = load<W>(dz + v * W);
        if constexpr (MASK) g = load<W>(z + v * W) > Vec<W>{} ? g : Vec<W>{};
        if constexpr (AFFINE) sum += g, dot += g * (load<W>(x + v * W) * scale + shift);
        if constexpr (SUMS && !AFFINE) sum += g, dot += g * load<W>(x + v * W);
        if constexpr (ADD) g += f.beta * load<W>(to + v * W);
        store<W>(to + v * W, g, !ADD && f.to.past);
      }
    }
    if constexpr (SUMS) {
      float *s = f.sums + phase * W, *d = s + f.period * W;
      store<W>(s, load<W>(s) + sum), store<W>(d, load<W>(d) + dot);
    }
  }
}
template <int W>
LANAS_INLINE void finish(const Finish& f, bool mask) {
  isolated<W>([=]() LANAS_LAMBDA {
    with_flag(mask, [&](auto masks) LANAS_LAMBDA {
      if (f.sums && f.affine) return finish_vectors<W, masks, true, true, false>(f);
      if (f.sums) return finish_vectors<W, masks, true, false, false>(f);
      with_flag(f.beta != 0, [&](auto add) LANAS_LAMBDA { finish_vectors<W, masks, false, false, add>(f); });
    });
  });
}

// What becomes of rows of dz before the mask, of x's pixels from (iy, ix) on, rows `apart` apart, every
// `step`-th: rows have room for whole vectors. z: relu(normalise(x)) there, or empty to compute it. Without
// norm it goes to dx, else to where it waits for its sums.
template <int W>
LANAS_INLINE void finish_rows(const Backward& b, const Backward::Thread& t, const Rows& dz, Rows z, int n,
                              int iy, int apart, int ix, int step) {
  const Plan& plan = b.plan;
  const bool relu = plan.op.relu, norm = bool(plan.op.norm), affine = norm && plan.op.norm.gamma;
  const int c = plan.x.c, width = (plan.x.w - ix + step - 1) / step, size = width * c,
            vectors = (size + W - 1) / W;
  const Tensor target = norm ? b.dz : b.gradient.dx;
  const float beta = norm ? 0.0f : b.gradient.beta_dx;
  Rows out = target ? rows_of(target, n, iy, apart, dz.count, ix, step) : dz;
  out.past = b.past();
  Rows x = rows_of(b.x, n, iy, apart, dz.count, ix, step);
  const bool whole = size % W == 0, direct = b.gradient.dx && out.stride == c && whole;
  const bool copies_x = affine && (x.stride != c || !whole),
             computes_z = !z.first && (relu || (norm && !affine));
  const int together = direct && !copies_x && !computes_z ? dz.count : 1;
  for (int r = 0; r < dz.count; r += together) {
    const Rows from = dz.part(r, together);
    Rows to = direct ? out.part(r, together) : from, z_here = z.part(r, together),
         x_here = x.part(r, together);
    if (!whole) std::fill_n(from.first + size, vectors * W - size, 0.0f);
    if (computes_z) {
      z_here.first = t.z;
      activate_rows<W>(z_here, x_here, width, c, b.norm.scale, b.norm.shift, plan.period, relu);
    }
    if (copies_x) {
      copy_pixels<W>(t.x, c, x_here.first, x.stride, width, c);
      x_here.first = t.x;
    }
    finish<W>({to, from, z_here, x_here, direct ? beta : 0.0f, vectors, plan.period,
               norm ? t.norm_sums : nullptr, affine ? &b.xhat : nullptr},
              relu);
    if (!direct && b.gradient.dx) copy_pixels<W>(out.row(r), out.stride, from.first, c, width, c, beta);
  }
}

}  // namespace lanas::cpu
