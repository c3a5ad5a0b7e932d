// separable_conv_vec.h -- vectors of W floats and rows of pixels for the cpu path of separable_conv.
// Everything here is always inlined into a function with a target attribute (see parallel.h): compiled
// outside of one, 64-byte vectors would be taken apart. W is 16 (AVX-512), 8 (AVX2) or 4 (base).
#pragma once

#include <cstddef>
#include <cstring>
#include <utility>

#include "kernels/core/parallel.h"

// For lambdas that must be part of the function with the target attribute.
#define LANAS_LAMBDA __attribute__((always_inline))

namespace lanas::cpu {

// Rows that loops take at a time, at most.
constexpr int kTileRows = 8;

// isolated<W>(f) calls f in a function of its own: among other loops the compiler runs out of registers and
// keeps addresses in vectors.
template <int W>
struct Isolated {
  template <class F>
  __attribute__((noinline)) static void run(const F& f) {
    f();
  }
};
template <>
struct Isolated<8> {
  template <class F>
  LANAS_TARGET_AVX2 __attribute__((noinline)) static void run(const F& f) {
    f();
  }
};
template <>
struct Isolated<16> {
  template <class F>
  LANAS_TARGET_AVX512 __attribute__((noinline)) static void run(const F& f) {
    f();
  }
};
template <int W, class F>
LANAS_INLINE void isolated(const F& f) {
  Isolated<W>::run(f);
}

template <int W>
struct VecType {
  typedef float type __attribute__((vector_size(4 * W)));
  typedef float unaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
  typedef int mask __attribute__((vector_size(4 * W)));
};
template <int W>
using Vec = typename VecType<W>::type;

template <int W>
LANAS_INLINE Vec<W> load(const float* p) {
  return *reinterpret_cast<const typename VecType<W>::unaligned*>(p);
}
template <int W>
LANAS_INLINE void store(float* p, Vec<W> v) {
  *reinterpret_cast<typename VecType<W>::unaligned*>(p) = v;
}
// The same for vectors of whatever width.
template <class V>
LANAS_INLINE V load_as(const V&, const float* p) {
  return load<int(sizeof(V) / sizeof(float))>(p);
}
template <class V>
LANAS_INLINE void store_as(float* p, V v) {
  store<int(sizeof(V) / sizeof(float))>(p, v);
}
template <int W>
LANAS_INLINE Vec<W> broadcast(float s) {
  return s - Vec<W>{};
}

// Keeps v in a register: the compiler would rather load it again for each multiply-add.
template <class V>
LANAS_INLINE V in_register(V v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}

// Pointers and indices through here stay apart in registers, where the compiler would make more of them than
// there are.
template <class T>
LANAS_INLINE T opaque(T value) {
#if defined(__x86_64__)
  asm("" : "+r"(value));
#endif
  return value;
}

// Lane l of the result is lane l ^ I of v.
template <int W, int I, int... L>
LANAS_INLINE Vec<W> swap_lanes(Vec<W> v, std::integer_sequence<int, L...>) {
  return __builtin_shuffle(v, typename VecType<W>::mask{(L ^ I)...});
}
template <int W, int I>
LANAS_INLINE Vec<W> swap_lanes(Vec<W> v) {
  return swap_lanes<W, I>(v, std::make_integer_sequence<int, W>());
}
// Calls f(i, v with lanes l and l ^ i swapped) for i in [0, C), an integral constant; C is 4 or 8. Swaps
// within four lanes take half the time of others, so from 4 on they start from one swap of quads.
template <int W, int C, class F>
LANAS_INLINE void for_swapped(Vec<W> v, F&& f) {
  const auto quads = [&](auto first, Vec<W> from) LANAS_LAMBDA {
    constexpr int I = decltype(first)::value;
    f(std::integral_constant<int, I>(), from);
    f(std::integral_constant<int, I + 1>(), swap_lanes<W, 1>(from));
    f(std::integral_constant<int, I + 2>(), swap_lanes<W, 2>(from));
    f(std::integral_constant<int, I + 3>(), swap_lanes<W, 3>(from));
  };
  quads(std::integral_constant<int, 0>(), v);
  if constexpr (C == 8) quads(std::integral_constant<int, 4>(), in_register(swap_lanes<W, 4>(v)));
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
  const auto rectify = [&](auto v) LANAS_LAMBDA { return !relu || v > 0.0f ? v : v - v; };
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
template <int W>
LANAS_INLINE void split_pixels(float* even, float* odd, const float* from, int pixels, int c, bool relu) {
  isolated<W>([=]() LANAS_LAMBDA {
    constexpr std::make_integer_sequence<int, W> lanes;
    if (c == W) return split_row<W, W>(even, odd, from, pixels, c, relu, lanes);
    if (c == 4) return split_row<W, 4>(even, odd, from, pixels, c, relu, lanes);
    if constexpr (W > 8)
      if (c == 8) return split_row<W, 8>(even, odd, from, pixels, c, relu, lanes);
    split_row<W, 0>(even, odd, from, pixels, c, relu, lanes);
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
template <int W>
LANAS_INLINE void merge_pixels(float* to, float beta, Pixels even, Pixels odd, int pixels, int c) {
  isolated<W>([=]() LANAS_LAMBDA {
    constexpr std::make_integer_sequence<int, W> lanes;
    if (c == W) return merge_row<W, W>(to, beta, even, odd, pixels, c, lanes);
    if (c == 4) return merge_row<W, 4>(to, beta, even, odd, pixels, c, lanes);
    if constexpr (W > 8)
      if (c == 8) return merge_row<W, 8>(to, beta, even, odd, pixels, c, lanes);
    merge_row<W, 0>(to, beta, even, odd, pixels, c, lanes);
  });
}

// z[i] = relu(scale x[i] + shift) for i in [0, size); the channels of scale and shift repeat after `period`
// vectors.
template <int W, bool RELU, bool NORM>
LANAS_INLINE void activate_flat(float* z, const float* x, int size, const float* scale, const float* shift,
                                int period) {
  const int full = size / W;
  for (int phase = 0; phase < period; ++phase) {
    Vec<W> a = {}, b = {};
    if constexpr (NORM) a = load<W>(scale + phase * W), b = load<W>(shift + phase * W);
    const auto apply = [&](Vec<W> v) LANAS_LAMBDA {
      if constexpr (NORM) v = v * a + b;
      if constexpr (RELU) v = v > Vec<W>{} ? v : Vec<W>{};
      return v;
    };
    int v = phase;
    for (; v < full; v += period) store<W>(z + v * W, apply(load<W>(x + v * W)));
    if (v != full || size == full * W) continue;
    float tail[W] = {};
    for (int i = full * W; i < size; ++i) tail[i - full * W] = x[i];
    store<W>(tail, apply(load<W>(tail)));
    for (int i = full * W; i < size; ++i) z[i] = tail[i - full * W];
  }
}

// z = relu(scale x + shift) of `count` pixels, packed into z; without scale z = relu(x).
template <int W>
LANAS_INLINE void activate_row(float* z, const float* x, ptrdiff_t x_stride, int count, int c,
                               const float* scale, const float* shift, int period, bool relu) {
  const int size = count * c;
  if (x_stride != c) {
    copy_pixels<W>(z, c, x, x_stride, count, c);
    x = z;
  }
  if (scale && relu) return activate_flat<W, true, true>(z, x, size, scale, shift, period);
  if (scale) return activate_flat<W, false, true>(z, x, size, scale, shift, period);
  if (relu) return activate_flat<W, true, false>(z, x, size, scale, shift, 1);
  if (x != z) std::memcpy(z, x, sizeof(float) * size_t(size));
}

}  // namespace lanas::cpu
