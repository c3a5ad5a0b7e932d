// warp_product.cuh -- the product of one warp: c [16,8] += a [16,8] b [8,8]^T, with c spread over the lanes
// as mma.m16n8k8 does it. a(m, k) and b(n, k) are functions that give an element, so rows, columns and edges
// are the caller's. With kTf32 the operands are rounded to TF32: one tensor core instruction on a real
// device, the same arithmetic in plain code elsewhere. Without it fp32 throughout. Sums are fp32.
#pragma once

#include "kernels/core/launch.cuh"

namespace lanas {

constexpr int kProductRows = 16, kProductColumns = 8, kProductDepth = 8;

// Row and column of c[i] in this lane.
__device__ __forceinline__ int product_row(int i) { return int(threadIdx.x % 32 / 4) + 8 * (i / 2); }
__device__ __forceinline__ int product_column(int i) { return int(threadIdx.x % 4) * 2 + i % 2; }

// The nearest TF32 number, ties away from zero, as cvt.rna.tf32.f32 rounds.
__device__ __forceinline__ float round_to_tf32(float v) {
  const unsigned bits = __float_as_uint(v);
  return (bits & 0x7f800000u) == 0x7f800000u ? v : __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}

// All 32 lanes call it; block sizes are multiples of 32 in x.
template <bool kTf32, class A, class B>
__device__ __forceinline__ void warp_product(float (&c)[4], const A& a, const B& b) {
#ifdef __CUDA_ARCH__
  if constexpr (kTf32) {
    const int g = int(threadIdx.x % 32 / 4), t = int(threadIdx.x % 4);
    const unsigned a0 = __float_as_uint(round_to_tf32(a(g, t))),
                   a1 = __float_as_uint(round_to_tf32(a(g + 8, t))),
                   a2 = __float_as_uint(round_to_tf32(a(g, t + 4))),
                   a3 = __float_as_uint(round_to_tf32(a(g + 8, t + 4))),
                   b0 = __float_as_uint(round_to_tf32(b(g, t))),
                   b1 = __float_as_uint(round_to_tf32(b(g, t + 4)));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    return;
  }
#endif
  const auto operand = [](float v) { return kTf32 ? round_to_tf32(v) : v; };
#pragma unroll
  for (int k = 0; k < kProductDepth; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      c[i] = fmaf(operand(a(product_row(i), k)), operand(b(product_column(i), k)), c[i]);
  }
}

}  // namespace lanas
