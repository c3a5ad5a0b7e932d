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
#ifdef __CUDA_ARCH__
  unsigned rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(v));
  return __uint_as_float(rounded);
#else
  const unsigned bits = __float_as_uint(v);
  return (bits & 0x7f800000u) == 0x7f800000u ? v : __uint_as_float((bits + 0x1000u) & 0xffffe000u);
#endif
}

// Products side by side, [kDown][kAcross] of them: a(m, k) has 16 kDown rows, b(n, k) 8 kAcross; an element
// is read once. All 32 lanes call it; block sizes are multiples of 32 in x.
template <bool kTf32, int kDown, int kAcross, class A, class B>
__device__ __forceinline__ void warp_products(float (&c)[kDown * kAcross][4], const A& a, const B& b) {
#ifdef __CUDA_ARCH__
  if constexpr (kTf32) {
    const int g = int(threadIdx.x % 32 / 4), t = int(threadIdx.x % 4);
    const auto operand = [](float v) { return __float_as_uint(round_to_tf32(v)); };
    unsigned rows[kDown][4], columns[kAcross][2];
#pragma unroll
    for (int i = 0; i < 4 * kDown; ++i)
      rows[i / 4][i % 4] = operand(a(i / 4 * kProductRows + g + i % 2 * 8, t + i % 4 / 2 * 4));
#pragma unroll
    for (int i = 0; i < 2 * kAcross; ++i)
      columns[i / 2][i % 2] = operand(b(i / 2 * kProductColumns + g, t + i % 2 * 4));
#pragma unroll
    for (int i = 0; i < kDown * kAcross; ++i)
      asm volatile(  // no lane may be elsewhere
          "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
          "{%0,%1,%2,%3};"
          : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
          : "r"(rows[i / kAcross][0]), "r"(rows[i / kAcross][1]), "r"(rows[i / kAcross][2]),
            "r"(rows[i / kAcross][3]), "r"(columns[i % kAcross][0]), "r"(columns[i % kAcross][1]));
    return;
  }
#endif
  const auto operand = [](float v) { return kTf32 ? round_to_tf32(v) : v; };
#pragma unroll
  for (int i = 0; i < kDown * kAcross; ++i) {
    const int m = i / kAcross * kProductRows + product_row(0),
              n = i % kAcross * kProductColumns + product_column(0);
#pragma unroll
    for (int k = 0; k < kProductDepth; ++k) {
      const float a0 = operand(a(m, k)), a1 = operand(a(m + 8, k)), b0 = operand(b(n, k)),
                  b1 = operand(b(n + 1, k));
      c[i][0] = fmaf(a0, b0, c[i][0]), c[i][1] = fmaf(a0, b1, c[i][1]);
      c[i][2] = fmaf(a1, b0, c[i][2]), c[i][3] = fmaf(a1, b1, c[i][3]);
    }
  }
}

// use(row, column, value) for what this lane has of them.
template <int kAcross, int kCount, class Use>
__device__ __forceinline__ void for_products(const float (&c)[kCount][4], const Use& use) {
#pragma unroll
  for (int i = 0; i < kCount; ++i)
#pragma unroll
    for (int k = 0; k < 4; ++k)
      use(i / kAcross * kProductRows + product_row(k), i % kAcross * kProductColumns + product_column(k),
          c[i][k]);
}

// One of them.
template <bool kTf32, class A, class B>
__device__ __forceinline__ void warp_product(float (&c)[4], const A& a, const B& b) {
  float one[1][4] = {{c[0], c[1], c[2], c[3]}};
  warp_products<kTf32, 1, 1>(one, a, b);
#pragma unroll
  for (int i = 0; i < 4; ++i) c[i] = one[0][i];
}

}  // namespace lanas
