// fake_campaign.h -- what tests of campaigns share: a machine whose latencies depend on the genotype alone,
// and the campaign's file as text, to cut it at any byte.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

#include "nas/campaign.h"

namespace lanas {

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline int64_t lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

// Milliseconds, 1 to 2.
inline double true_ms(const Genotype& genotype) { return 1 + double(genotype_key(genotype) % 1000) / 1000; }

// On a machine that is slower by the factor.
inline Latency fake(const Genotype& genotype, double factor = 1) {
  const double ms = true_ms(genotype) * factor;
  return {ms, ms * 0.9, ms * 1.2, 10, 12345};
}

}  // namespace lanas
