#include "kernels/core/parallel.h"

#include <cstdlib>
#include <string_view>

#include "kernels/core/check.h"

namespace lanas {
namespace {

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

CpuIsa cpu_isa() { return current(); }

const char* cpu_isa_name(CpuIsa isa) {
  return isa == CpuIsa::avx512 ? "avx512" : isa == CpuIsa::avx2 ? "avx2" : "base";
}

void set_cpu_isa(CpuIsa isa) {
  CHECK(isa <= widest(), "set_cpu_isa: this processor has no ", cpu_isa_name(isa));
  current() = isa;
}

}  // namespace lanas
