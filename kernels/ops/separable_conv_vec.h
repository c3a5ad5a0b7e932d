// separable_conv_vec.h -- vectors of W floats for the cpu path of separable_conv.
// Everything here is always inlined into a function with a target attribute (see parallel.h): compiled
// outside of one, 64-byte vectors would be taken apart. W is 16 (AVX-512), 8 (AVX2) or 4 (base).
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/core/parallel.h"

// For lambdas that must be part of the function with the target attribute.
#define LANAS_LAMBDA __attribute__((always_inline))

namespace lanas::cpu {

template <int N>
using Count = std::integral_constant<int, N>;

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

// f with the flag as an integral constant.
template <class F>
LANAS_INLINE void with_flag(bool flag, F&& f) {
  if (flag)
    f(std::true_type());
  else
    f(std::false_type());
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
// The same past the caches, if `past`, where p is aligned to the vector.
template <int W>
LANAS_INLINE void store(float* p, Vec<W> v, bool past) {
#if defined(__x86_64__)
  if constexpr (W == 16)
    if (past) {
      asm volatile("vmovntps %1, %0" : "=m"(*reinterpret_cast<Vec<W>*>(p)) : "v"(v));
      return;
    }
#endif
  store<W>(p, v);
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

// G floats from p, repeated over the lanes by the load itself: where the compiler shuffles what it has
// loaded, multiply-adds wait for the port.
template <int W, int G, int... L>
LANAS_INLINE Vec<W> repeat(const float* p, std::integer_sequence<int, L...>) {
#if defined(__x86_64__)
  Vec<W> v;
  if constexpr (G == 2)
    asm("vbroadcastsd %1, %0" : "=v"(v) : "m"(*reinterpret_cast<const VecType<2>::unaligned*>(p)));
  else
    asm("vbroadcastf32x4 %1, %0" : "=v"(v) : "m"(*reinterpret_cast<const VecType<4>::unaligned*>(p)));
  return v;
#else
  return Vec<W>{p[L % G]...};
#endif
}
template <int W, int G>
LANAS_INLINE Vec<W> repeat(const float* p) {
  static_assert(G == 2 || G == 4);
  return repeat<W, G>(p, std::make_integer_sequence<int, W>());
}

// Keeps v in a register: the compiler would rather load it again for each multiply-add.
template <class V>
LANAS_INLINE V in_register(V v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#endif
  return v;
}

// v where it is above 0, else 0. The compiler would compare and then select, each reading v from memory.
template <class V>
LANAS_INLINE V rectified(V v) {
#if defined(__x86_64__)
  if constexpr (sizeof(V) > 16) {
    asm("vmaxps %1, %0, %0" : "+v"(v) : "v"(V{}));
    return v;
  }
#endif
  return v > V{} ? v : V{};
}

// acc += a * b, in place: the compiler would put sums into other registers, and moves take the ports of
// multiply-adds.
template <class V>
LANAS_INLINE void multiply_add(V& acc, V a, V b) {
#if defined(__x86_64__)
  if constexpr (sizeof(V) > 16) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return;
  }
#endif
  acc += a * b;
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
// Of each four lanes of a, 0 to 3, and the same four of b, 4 to 7, those named.
template <int I, int J, int K, int M, class V, int... L>
LANAS_INLINE V shuffle_quads(V a, V b, std::integer_sequence<int, L...>) {
  constexpr int kFrom[] = {I, J, K, M}, kSize = int(sizeof...(L));
  return __builtin_shufflevector(a, b, (L / 4 * 4 + kFrom[L % 4] % 4 + kFrom[L % 4] / 4 * kSize)...);
}
template <int I, int J, int K, int M, class V>
LANAS_INLINE V shuffle_quads(V a, V b) {
  return shuffle_quads<I, J, K, M>(a, b, std::make_integer_sequence<int, int(sizeof(V) / sizeof(float))>());
}
// Calls f(i, v with lanes l and l ^ i swapped) for i in [0, C), an integral constant; C is 4 or 8. Swaps
// within four lanes take half the time of others, so from 4 on they start from one swap of quads.
template <int W, int C, class F>
LANAS_INLINE void for_swapped(Vec<W> v, F&& f) {
  const auto quads = [&](auto first, Vec<W> from) LANAS_LAMBDA {
    constexpr int I = decltype(first)::value;
    f(Count<I>(), from);
    f(Count<I + 1>(), swap_lanes<W, 1>(from));
    f(Count<I + 2>(), swap_lanes<W, 2>(from));
    f(Count<I + 3>(), swap_lanes<W, 3>(from));
  };
  quads(Count<0>(), v);
  if constexpr (C == 8) quads(Count<4>(), in_register(swap_lanes<W, 4>(v)));
}

}  // namespace lanas::cpu
