// separable_conv_pixels.h -- rows of pixels for the cpu path of separable_conv: copied with other strides,
// split into even and odd ones and merged, normalised and rectified. W as in separable_conv_vec.h.
#pragma once

#include <cstring>

#include "kernels/core/tensor.h"
#include "kernels/ops/separable_conv_vec.h"

namespace lanas::cpu {

// Rows of pixels: row t starts at first + t * step, pixels are `stride` floats apart; past: products write
// them past the caches (see kWritePastCaches).
struct Rows {
  float* first = nullptr;
  ptrdiff_t step = 0;
  int count = 0;
  int stride = 0;
  bool past = false;
  LANAS_INLINE float* row(int t) const { return first + t * step; }
  // Rows [begin, begin + rows).
  LANAS_INLINE Rows part(int begin, int rows) const { return {row(begin), step, rows, stride, past}; }
};

// Rows y, y + step, ... of an image from pixel x on, of these every `every`-th.
LANAS_INLINE Rows rows_of(const Tensor& t, int n, int y, int step, int count, int x = 0, int every = 1) {
  return {t.at(n, y, x), ptrdiff_t(step) * t.w * t.stride, count, every * t.stride};
}

// Does each row begin where the one before it ends?
LANAS_INLINE bool one_run(const Rows& rows, int pixels) {
  return rows.count <= 1 || rows.step == ptrdiff_t(pixels) * rows.stride;
}

template <int W, int... L>
LANAS_INLINE Vec<W> join_halves(Vec<W / 2> a, Vec<W / 2> b, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(a, b, L...);
}
template <int From, int W, int... L>
LANAS_INLINE Vec<W / 2> half(Vec<W> v, std::integer_sequence<int, L...>) {
  return __builtin_shufflevector(v, v, (From + L)...);
}

// W / C pixels of C channels, `stride` floats apart, in one vector.
template <int W, int C>
LANAS_INLINE Vec<W> load_pixels(const float* p, ptrdiff_t stride) {
  if constexpr (W == C) {
    return load<W>(p);
  } else {
    return join_halves<W>(load_pixels<W / 2, C>(p, stride),
                          load_pixels<W / 2, C>(p + W / 2 / C * stride, stride),
                          std::make_integer_sequence<int, W>());
  }
}
template <int W, int C>
LANAS_INLINE void store_pixels(float* p, ptrdiff_t stride, Vec<W> v) {
  if constexpr (W == C) {
    store<W>(p, v);
  } else {
    constexpr std::make_integer_sequence<int, W / 2> lanes;
    store_pixels<W / 2, C>(p, stride, half<0, W>(v, lanes));
    store_pixels<W / 2, C>(p + W / 2 / C * stride, stride, half<W / 2, W>(v, lanes));
  }
}

// Copies `count` pixels of c channels: to and from step to_stride and from_stride floats a pixel.
// add: to = scale * to + from.
template <int W, int C>
LANAS_INLINE void copy_narrow(float* to, ptrdiff_t to_stride, const float* from, ptrdiff_t from_stride,
                              int count, bool add, float scale) {
  constexpr int kPixels = W / C;
  int p = 0;
  for (; p + kPixels <= count; p += kPixels) {
    Vec<W> v = load_pixels<W, C>(from + p * from_stride, from_stride);
    if (add) v += scale * load_pixels<W, C>(to + p * to_stride, to_stride);
    store_pixels<W, C>(to + p * to_stride, to_stride, v);
  }
  for (; p < count; ++p) {
    Vec<C> v = load<C>(from + p * from_stride);
    if (add) v += scale * load<C>(to + p * to_stride);
    store<C>(to + p * to_stride, v);
  }
}
template <int W>
LANAS_INLINE void copy_strided(float* to, ptrdiff_t to_stride, const float* from, ptrdiff_t from_stride,
                               int count, int c, float beta) {
  const bool add = beta != 0;
  if constexpr (W >= 4)
    if (c == 4) return copy_narrow<W, 4>(to, to_stride, from, from_stride, count, add, beta);
  if constexpr (W >= 8)
    if (c == 8) return copy_narrow<W, 8>(to, to_stride, from, from_stride, count, add, beta);
  for (int p = 0; p < count; ++p, to += to_stride, from += from_stride) {
    int i = 0;
    for (; i + W <= c; i += W)
      store<W>(to + i, add ? load<W>(from + i) + beta * load<W>(to + i) : load<W>(from + i));
    for (; i + 4 <= c; i += 4)
      store<4>(to + i, add ? load<4>(from + i) + beta * load<4>(to + i) : load<4>(from + i));
    for (; i < c; ++i) to[i] = add ? from[i] + beta * to[i] : from[i];
  }
}
// A function of its own: it is called from many places, and code that does not fit into the processor's
// caches costs up to a tenth of a unit.
template <int W>
LANAS_INLINE void copy_pixels(float* to, ptrdiff_t to_stride, const float* from, ptrdiff_t from_stride,
                              int count, int c, float beta = 0) {
  const bool add = beta != 0;
  if (to_stride == c && from_stride == c && !add) {
    std::memcpy(to, from, sizeof(float) * size_t(count) * size_t(c));
    return;
  }
  isolated<W>([=]() LANAS_LAMBDA { copy_strided<W>(to, to_stride, from, from_stride, count, c, beta); });
}

// Calls f(v, i) for the channels [i, ...) of a pixel of c, v being a vector of as many: whole ones, quads,
// singles.
template <int W, class F>
LANAS_INLINE void for_channels(int c, F&& f) {
  int i = 0;
  for (; i + W <= c; i += W) f(Vec<W>{}, i);
  for (; i + 4 <= c; i += 4) f(Vec<4>{}, i);
  for (; i < c; ++i) f(Vec<1>{}, i);
}

// The even pixels of a packed row to `even`, the odd ones to `odd`; relu: rectified. C: channels, where
// vectors hold several pixels; 0: c at run time.
template <int W, int C, int... L>
LANAS_INLINE void split_row(float* even, float* odd, const float* from, int pixels, int c, bool relu,
                            std::integer_sequence<int, L...>) {
  const auto rectify = [&](auto v) LANAS_LAMBDA { return relu ? rectified(v) : v; };
  int p = 0;
  if constexpr (C > 0)
    for (constexpr int kTwo = 2 * W / C; p + kTwo <= pixels; p += kTwo, from += 2 * W, even += W, odd += W) {
      const Vec<W> a = load<W>(from), b = load<W>(from + W);
      store<W>(even, rectify(__builtin_shufflevector(a, b, (L / C * 2 * C + L % C)...)));
      store<W>(odd, rectify(__builtin_shufflevector(a, b, (L / C * 2 * C + C + L % C)...)));
    }
  for (; p < pixels; ++p, from += c) {
    float*& to = p % 2 == 0 ? even : odd;
    for_channels<W>(c, [&](auto v, int i) LANAS_LAMBDA { store_as(to + i, rectify(load_as(v, from + i))); });
    to += c;
  }
}
// The same for rows: to[0] and to[1] are the even and the odd ones, from is packed.
template <int W>
LANAS_INLINE void split_pixels(const Rows* to, const Rows& from, int pixels, int c, bool relu) {
  isolated<W>([=]() LANAS_LAMBDA {
    const auto rows = [&](auto channels) LANAS_LAMBDA {
      for (int r = 0; r < from.count; ++r)
        split_row<W, channels>(to[0].row(r), to[1].row(r), from.row(r), pixels, c, relu,
                               std::make_integer_sequence<int, W>());
    };
    if (c == W) return rows(Count<W>());
    if (c == 4) return rows(Count<4>());
    if constexpr (W > 8)
      if (c == 8) return rows(Count<8>());
    rows(Count<0>());
  });
}

// The reverse: to = beta to + even and odd pixels in turn, those of a ReLU's output, z, that is not above 0
// as 0.
struct Pixels {
  const float *value, *z;
};
template <int W, int C, int... L>
LANAS_INLINE void merge_row(float* to, float beta, Pixels even, Pixels odd, int pixels, int c,
                            std::integer_sequence<int, L...>) {
  const auto take = [](auto v, const Pixels& from, int i) LANAS_LAMBDA {
    v = load_as(v, from.value + i);
    return load_as(v, from.z + i) > 0.0f ? v : v - v;
  };
  const auto put = [&](float* at, auto v)
                       LANAS_LAMBDA { store_as(at, beta == 0 ? v : v + beta * load_as(v, at)); };
  int p = 0;
  if constexpr (C > 0)
    for (constexpr int kTwo = 2 * W / C; p + kTwo <= pixels; p += kTwo, to += 2 * W) {
      const Vec<W> a = take(Vec<W>{}, even, p / 2 * C), b = take(Vec<W>{}, odd, p / 2 * C);
      put(to, __builtin_shufflevector(a, b, (L / C % 2 * W + L / C / 2 * C + L % C)...));
      put(to + W, __builtin_shufflevector(a, b, ((L + W) / C % 2 * W + (L + W) / C / 2 * C + L % C)...));
    }
  for (; p < pixels; ++p, to += c) {
    const Pixels& from = p % 2 == 0 ? even : odd;
    for_channels<W>(c, [&](auto v, int i) LANAS_LAMBDA { put(to + i, take(v, from, p / 2 * c + i)); });
  }
}
// The same for rows of even and odd pixels and of z, to is packed.
struct PixelRows {
  Rows value, z;
};
template <int W>
LANAS_INLINE void merge_pixels(const Rows& to, float beta, const PixelRows* from, int pixels, int c) {
  isolated<W>([=]() LANAS_LAMBDA {
    const auto rows = [&](auto channels) LANAS_LAMBDA {
      for (int r = 0; r < to.count; ++r)
        merge_row<W, channels>(to.row(r), beta, {from[0].value.row(r), from[0].z.row(r)},
                               {from[1].value.row(r), from[1].z.row(r)}, pixels, c,
                               std::make_integer_sequence<int, W>());
    };
    if (c == W) return rows(Count<W>());
    if (c == 4) return rows(Count<4>());
    if constexpr (W > 8)
      if (c == 8) return rows(Count<8>());
    rows(Count<0>());
  });
}

// z = relu(scale x + shift) of rows of `size` floats; the channels of scale and shift repeat after `period`
// vectors.
template <int W, bool RELU, bool NORM>
LANAS_INLINE void activate_flat(const Rows& z, const Rows& x, int size, const float* scale,
                                const float* shift, int period) {
  const int full = size / W;
  for (int phase = 0; phase < period; ++phase) {
    Vec<W> a = {}, b = {};
    if constexpr (NORM) a = load<W>(scale + phase * W), b = load<W>(shift + phase * W);
    const auto apply = [&](Vec<W> v) LANAS_LAMBDA {
      if constexpr (NORM) v = v * a + b;
      if constexpr (RELU) v = rectified(v);
      return v;
    };
    float* to = z.first;
    const float* from = x.first;
    for (int r = 0; r < z.count; ++r, to += z.step, from += x.step) {
      int v = phase;
      for (; v < full; v += period) store<W>(to + v * W, apply(load<W>(from + v * W)));
      if (v != full || size == full * W) continue;
      float tail[W] = {};
      for (int i = full * W; i < size; ++i) tail[i - full * W] = from[i];
      store<W>(tail, apply(load<W>(tail)));
      for (int i = full * W; i < size; ++i) to[i] = tail[i - full * W];
    }
  }
}

// z = relu(x) of `count` pixels of c channels, at least W, packed into z. The last vector of a pixel overlaps
// the one before it where c is no multiple of W.
template <int W>
LANAS_INLINE void rectify_strided(float* z, const float* x, ptrdiff_t x_stride, int count, int c) {
  isolated<W>([=]() LANAS_LAMBDA {
    float* to = z;
    const float* from = x;
    for (int p = 0; p < count; ++p, to += c, from += x_stride) {
      for (int i = 0; i + W < c; i += W) store<W>(to + i, rectified(load<W>(from + i)));
      store<W>(to + c - W, rectified(load<W>(from + c - W)));
    }
  });
}

// z = relu(scale x + shift) of rows of `pixels` pixels of c channels, packed within a row of z; without scale
// z = relu(x).
template <int W>
LANAS_INLINE void activate_rows(const Rows& z, Rows x, int pixels, int c, const float* scale,
                                const float* shift, int period, bool relu) {
  const int size = pixels * c;
  if (x.stride != c) {
    const bool rectifies = relu && !scale && c >= W;
    for (int r = 0; r < z.count; ++r)
      if (rectifies)
        rectify_strided<W>(z.row(r), x.row(r), x.stride, pixels, c);
      else
        copy_pixels<W>(z.row(r), c, x.row(r), x.stride, pixels, c);
    if (rectifies) return;
    x = z;
  }
  isolated<W>([=]() LANAS_LAMBDA {
    if (scale && relu) return activate_flat<W, true, true>(z, x, size, scale, shift, period);
    if (scale) return activate_flat<W, false, true>(z, x, size, scale, shift, period);
    if (relu) return activate_flat<W, true, false>(z, x, size, scale, shift, 1);
    for (int r = 0; r < z.count && x.first != z.first; ++r)
      std::memcpy(z.row(r), x.row(r), sizeof(float) * size_t(size));
  });
}

}  // namespace lanas::cpu
