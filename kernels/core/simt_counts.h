// simt_counts.h -- what the emulated device has done for this thread since it began, for tests of how often a
// program makes the host wait for a device and how often it records.
#pragma once

#include <cstdint>

namespace lanas::simt {

struct Counts {
  int64_t downloads = 0;  // copies to the host
  int64_t recorded = 0;   // graphs
  int64_t replayed = 0;
};
const Counts& counts();

}  // namespace lanas::simt
