// lookup.h -- the look-up table, a baseline of `fit`: every op of the space timed on its own at every place
// of a network where it can stand, and a network's latency as their sum. What depends on an edge's place is
// only its cell's kind and, in reduction cells, whether it reads an input of the cell (stride 2).
#pragma once

#include <array>
#include <string>

#include "nas/latency.h"
#include "nas/search_space.h"

namespace lanas::bench {

struct LookupTable {
  // [kind: normal, reduce][edge from a cell's input: no, yes][op]: ms, summed over the network's cells.
  std::array<std::array<std::array<double, kOps>, 2>, 2> ms{};

  double sum_ms(const float* code) const;  // of a code [kCodeSize]
};

LookupTable measure_lookup(const LatencyConfig& config);
// As CSV with the setting as notes; reading refuses a file of another setting (text of setting_text).
void write_lookup(const std::string& path, const LookupTable& table, const LatencyConfig& config);
LookupTable read_lookup(const std::string& path, const std::string& setting);

}  // namespace lanas::bench
