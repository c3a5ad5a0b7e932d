#include "bench/ceilings.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/core/limits.h"
#include "kernels/core/parallel.h"
#include "kernels/core/random.cuh"
#include "kernels/core/tensor.h"
#include "kernels/core/timing.h"
#include "kernels/ops/elementwise.h"
#include "kernels/vendor/gemm.h"

namespace lanas::bench {
namespace {

// A rate that lasts as long as work does: within a few milliseconds multiply-adds reach up to 5% more.
constexpr int kRepeats = 9;
constexpr double kLastsMs = 250;

template <class Body>
double median_ms(const Body& body) {
  std::vector<double> times;
  body();
  const double begin = now_ms();
  while (int(times.size()) < kRepeats || now_ms() - begin < kLastsMs) {
    const double start = now_ms();
    body();
    times.push_back(now_ms() - start);
  }
  return quantile(times, 0.5);
}

double copy_rate(Stream& stream) {
  const size_t bytes = beyond_caches(Device::cpu);
  const Memory from(Device::cpu, bytes), to(Device::cpu, bytes);
  const int parts = stream.threads();
  const double ms = median_ms([&] {
    parallel_for(parts, [&](int64_t i) {
      const size_t begin = bytes * size_t(i) / size_t(parts), end = bytes * size_t(i + 1) / size_t(parts);
      std::memcpy(static_cast<char*>(to.data()) + begin, static_cast<char*>(from.data()) + begin,
                  end - begin);
    });
  });
  return 2e-6 * double(bytes) / ms;
}

double read_rate(Stream& stream) {
  const size_t bytes = beyond_caches(Device::cpu);
  const Memory from(Device::cpu, bytes);
  std::memset(from.data(), 0, bytes);
  const int parts = stream.threads();
  std::vector<int64_t> results(size_t(parts) * 8);  // a cache line each
  const double ms = median_ms([&] {
    parallel_for(parts, [&](int64_t i) {
      const auto* words = static_cast<const int64_t*>(from.data());
      const size_t size = bytes / sizeof(int64_t);
      const size_t begin = size * size_t(i) / size_t(parts), end = size * size_t(i + 1) / size_t(parts);
      int64_t sum = 0;
      for (size_t j = begin; j + 8 <= end; j += 8)  // one word of each cache line brings it in
        sum += words[j];
      results[size_t(i) * 8] = sum;
    });
  });
  return 1e-6 * double(bytes) / ms;
}

typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));

// Ten chains that do not depend on each other hide the latency of a multiply-add.
template <class Vector>
double fma_rate(Stream& stream) {
  constexpr int kChains = 10, kSteps = 200'000, kWidth = sizeof(Vector) / sizeof(float);
  std::vector<float> results(size_t(stream.threads()) * 16);  // a cache line each
  const double ms = median_ms([&] {
    parallel_for(stream.threads(), [&](int64_t thread) {
      const Vector a = Vector{} + 0.999f, b = Vector{} + float(thread + 1);
      Vector s0 = b, s1 = b + 1, s2 = b + 2, s3 = b + 3, s4 = b + 4;  // all different: none can be left out
      Vector s5 = b + 5, s6 = b + 6, s7 = b + 7, s8 = b + 8, s9 = b + 9;
      for (int i = 0; i < kSteps; ++i) {
        s0 = s0 * a + b, s1 = s1 * a + b, s2 = s2 * a + b, s3 = s3 * a + b, s4 = s4 * a + b;
        s5 = s5 * a + b, s6 = s6 * a + b, s7 = s7 * a + b, s8 = s8 * a + b, s9 = s9 * a + b;
      }
      const Vector sum = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9;
      results[size_t(thread) * 16] = sum[0];
    });
  });
  return 2e-6 * kChains * kSteps * kWidth * stream.threads() / ms;
}

// GB/s between two blocks of 512 MiB, far larger than any cache.
double cuda_copy_rate(Stream& stream) {
  const int rows = emulated() ? 8 : 8192, columns = 16384;
  const Memory from(Device::cuda, size_t(rows) * size_t(columns) * sizeof(float)),
      to(Device::cuda, from.bytes());
  const Shape shape{rows, 1, 1, columns};
  fill(stream, Tensor(from.floats(), shape), 1.5f);
  const double ms = median_ms([&] {
    copy_scaled(stream, Tensor(to.floats(), shape), Tensor(from.floats(), shape), 1, 0);
    stream.synchronize();
  });
  return 2e-6 * double(from.bytes()) / ms;
}

// GFLOP/s of a product of square matrices of normal draws.
double cuda_product_rate(Stream& stream) {
  const int side = emulated() ? 32 : 8192;
  std::vector<float> draws(size_t(side) * size_t(side));
  const Memory a(Device::cuda, draws.size() * sizeof(float)), b(Device::cuda, a.bytes()),
      c(Device::cuda, a.bytes());
  Random random(1);
  for (const Memory* m : {&a, &b}) {
    for (size_t i = 0; i < draws.size(); ++i)  // the first million, then repeated in another order
      draws[i] = i < 1'000'000 ? random.normal() : draws[i * 7919 % 1'000'000];
    upload(stream, m->data(), draws.data(), a.bytes());
  }
  const double ms = median_ms([&] {
    gemm(stream, false, false, side, side, side, 1, a.floats(), side, b.floats(), side, 0, c.floats(), side);
    stream.synchronize();
  });
  return 2e-6 * side * double(side) * side / ms;
}

}  // namespace

bool emulated() { return !backend::device_warning().empty(); }

size_t beyond_caches(Device device) {
  constexpr long kLeast = long{64} << 20;
  if (device != Device::cpu) return kLeast;
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);  // 0 or -1: not known
  const long memory = sysconf(_SC_PHYS_PAGES) / 8 * sysconf(_SC_PAGESIZE);
  return size_t(std::max(kLeast, std::min(2 * cache, memory)));
}

double Ceilings::memory_ms(const OpCost& cost) const {
  const double both = std::min(cost.read, cost.written);
  const double reading = read_gb_s > 0 ? read_gb_s : copy_gb_s;
  return 1e-6 * ((both + cost.written) / copy_gb_s + (cost.read - both) / reading);
}

Ceilings measure_ceilings(Stream& stream) {
  if (stream.device() == Device::cuda)
    return {.copy_gb_s = cuda_copy_rate(stream), .fma_gflop_s = cuda_product_rate(stream)};
  stream.activate();
  const CpuIsa isa = cpu_isa();
  const double fma = isa == CpuIsa::avx512 ? fma_rate<Float16>(stream)
                     : isa == CpuIsa::avx2 ? fma_rate<Float8>(stream)
                                           : fma_rate<Float4>(stream);
  return {copy_rate(stream), read_rate(stream), fma};
}

Ceilings greater_of(const Ceilings& a, const Ceilings& b) {
  return {std::max(a.copy_gb_s, b.copy_gb_s), std::max(a.read_gb_s, b.read_gb_s),
          std::max(a.fma_gflop_s, b.fma_gflop_s)};
}

void CacheFlusher::flush() {
  const int rows = 1024;
  fill(stream_, Tensor(memory_.floats(), {rows, 1, 1, int(memory_.bytes() / sizeof(float) / rows)}), 1.f);
  stream_.synchronize();
}

}  // namespace lanas::bench
