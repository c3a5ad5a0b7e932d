#include "kernels/core/parallel.h"

#include <cstdlib>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/core/check.h"

namespace lanas {
namespace {

// The family that an x86 processor of AMD says it is of; else 0.
unsigned amd_family() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAuthentic = 0x68747541;  // the first four letters of the maker's name
  if (!__get_cpuid(0, &a, &b, &c, &d) || b != kAuthentic || !__get_cpuid(1, &a, &b, &c, &d)) return 0;
  return (a >> 8 & 0xf) + (a >> 20 & 0xff);
#else
  return 0;
#endif
}

CpuIsa widest() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd"))
    return CpuIsa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    return CpuIsa::avx2;
#endif
  return CpuIsa::base;
}

CpuIsa from_environment() {
  const char* wanted = std::getenv("LANAS_CPU");
  if (!wanted) return widest();
  for (CpuIsa isa : {CpuIsa::base, CpuIsa::avx2, CpuIsa::avx512})
    if (std::string_view(wanted) == cpu_isa_name(isa)) return isa < widest() ? isa : widest();
  throw Error(join("LANAS_CPU: expected base, avx2 or avx512, found '", wanted, "'"));
}

CpuIsa& current() {
  static CpuIsa isa = from_environment();
  return isa;
}

}  // namespace

const bool kPrefetchIntoL1 = amd_family() == 26;
const bool kWritePastCaches = kPrefetchIntoL1;

CpuIsa cpu_isa() { return current(); }

const char* cpu_isa_name(CpuIsa isa) {
  return isa == CpuIsa::avx512 ? "avx512" : isa == CpuIsa::avx2 ? "avx2" : "base";
}

void set_cpu_isa(CpuIsa isa) {
  CHECK(isa <= widest(), "set_cpu_isa: this processor has no ", cpu_isa_name(isa));
  current() = isa;
}

}  // namespace lanas
