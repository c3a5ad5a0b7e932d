// parallel.h -- host loops over threads and vectors.
// parallel_for(count, body) splits [0, count) into one contiguous part per OpenMP thread, always the same
// parts for the same thread count, and compiles the body for the instruction sets of cpu_isa(): a body that
// inlines whole (lambdas and templates in headers or the same file do) is vectorised for AVX-512, AVX2 and
// the base x86-64 from one source, and the best one that the processor has is chosen at run time.
#pragma once

#include <omp.h>

#include <cstddef>
#include <cstdint>

namespace lanas {

enum class CpuIsa { base, avx2, avx512 };

// The widest instruction set of this processor that the environment variable LANAS_CPU (base, avx2, avx512)
// allows.
CpuIsa cpu_isa();
const char* cpu_isa_name(CpuIsa isa);
void set_cpu_isa(CpuIsa isa);  // for tests and benchmarks; CHECKs that the processor has it

// Whether memory that is needed soon is asked for into the first cache or into the second alone. AMD's family
// 26 (Zen 5) drops many of those for the second; Intel's (Emerald Rapids) is faster with them.
extern const bool kPrefetchIntoL1;

// Whether what is written whole and read much later goes past the caches: no line is fetched to be
// overwritten, and others stay. As the above, where measured.
extern const bool kWritePastCaches;
// After such writes, before another thread reads them.
inline void fence_writes_past_caches() {
#if defined(__x86_64__)
  if (kWritePastCaches) asm volatile("sfence" ::: "memory");
#endif
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LANAS_TARGET_AVX512 \
  __attribute__((target("arch=x86-64-v4,prefer-vector-width=512"), flatten, noinline))
#define LANAS_TARGET_AVX2 __attribute__((target("arch=x86-64-v3"), flatten, noinline))
#else
#define LANAS_TARGET_AVX512 __attribute__((noinline))
#define LANAS_TARGET_AVX2 __attribute__((noinline))
#endif
#define LANAS_INLINE inline __attribute__((always_inline))

// The line at p, before it is read or, kWrite, written.
template <bool kWrite = false>
LANAS_INLINE void prefetch(const void* p) {
  if (kPrefetchIntoL1)
    __builtin_prefetch(p, kWrite ? 1 : 0, 3);
  else
    __builtin_prefetch(p, kWrite ? 1 : 0, 2);
}

// The same for lines `step` floats apart, to be read: the cache is chosen once for all of them.
LANAS_INLINE void prefetch_lines(const float* line, ptrdiff_t step, int lines) {
  if (kPrefetchIntoL1)
    for (; lines > 0; --lines, line += step) __builtin_prefetch(line, 0, 3);
  else
    for (; lines > 0; --lines, line += step) __builtin_prefetch(line, 0, 2);
}

// The lines of `floats` at p before they are written, where another thread read or wrote them last: a write
// that waits for its line from another core, above all from one with an L3 of its own, holds up all after it.
inline void prefetch_to_write(const float* p, int64_t floats) {
  constexpr int kLine = 16;
  for (int64_t i = 0; i < floats; i += kLine)
#if defined(__x86_64__)
    asm volatile("prefetchw %0" : : "m"(p[i]));  // __builtin_prefetch gives it to some instruction sets alone
#else
    __builtin_prefetch(p + i, 1, 3);
#endif
}

namespace detail {
template <class Body>
LANAS_TARGET_AVX512 void run_avx512(Body& body, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) body(i);
}
template <class Body>
LANAS_TARGET_AVX2 void run_avx2(Body& body, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) body(i);
}
template <class Body>
void run_base(Body& body, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) body(i);
}
template <class Body>
void run_part(Body& body, int64_t begin, int64_t end) {
  switch (cpu_isa()) {
    case CpuIsa::avx512:
      return run_avx512(body, begin, end);
    case CpuIsa::avx2:
      return run_avx2(body, begin, end);
    case CpuIsa::base:
      return run_base(body, begin, end);
  }
}
}  // namespace detail

// body(i) for every i in [0, count); iterations must be independent. Inside a parallel region it runs
// serially.
template <class Body>
void parallel_for(int64_t count, Body&& body) {
  if (count <= 1 || omp_in_parallel() || omp_get_max_threads() == 1) {
    detail::run_part(body, 0, count);
    return;
  }
#pragma omp parallel
  {
    const int64_t threads = omp_get_num_threads(), t = omp_get_thread_num();
    detail::run_part(body, count * t / threads, count * (t + 1) / threads);
  }
}

}  // namespace lanas
