// random.cuh -- Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), for
// host and device. A draw is a pure function of (seed, stream, index): the same bits in any order and on any
// device.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define LANAS_HOST_DEVICE __host__ __device__
#else
#define LANAS_HOST_DEVICE
#endif

namespace lanas {

struct Random4 {
  uint32_t v[4];
};

// Four random words for counter (index, stream) under key seed.
LANAS_HOST_DEVICE inline Random4 philox(uint64_t seed, uint64_t stream, uint64_t index) {
  uint32_t c0 = uint32_t(index), c1 = uint32_t(index >> 32), c2 = uint32_t(stream),
           c3 = uint32_t(stream >> 32);
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform in (0, 1): a multiple of 2^-24, odd, so never 0 or 1: its logarithm is finite.
LANAS_HOST_DEVICE inline float to_uniform(uint32_t word) { return (float(word >> 9) + 0.5f) * 0x1p-23f; }

// A sequential source for host code: draws index 0, 1, 2, ... of one stream. State is two numbers, so it can
// be saved.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  uint32_t next() {
    if (used_ == 4) {
      words_ = philox(seed_, stream_, index_++);
      used_ = 0;
    }
    return words_.v[used_++];
  }
  float uniform() { return to_uniform(next()); }                                 // (0, 1)
  uint32_t below(uint32_t n) { return uint32_t((uint64_t{next()} * n) >> 32); }  // 0 .. n-1; bias < n / 2^32
  float normal() {                                                               // Box-Muller
    const float radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(6.28318530718f * uniform());
  }
  template <class Vector>
  void shuffle(Vector& v) {  // Fisher-Yates
    for (size_t i = v.size(); i > 1; --i) {
      const size_t j = below(uint32_t(i));
      auto t = v[i - 1];
      v[i - 1] = v[j];
      v[j] = t;
    }
  }

 private:
  uint64_t seed_, stream_, index_ = 0;
  Random4 words_{};
  int used_ = 4;
};

}  // namespace lanas
