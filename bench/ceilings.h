// ceilings.h -- what this machine can do at most, measured now: copying memory that is in no cache (bytes
// read plus bytes written per second), reading it, and multiply-adds (two FLOPs each): on the cpu on vectors
// in registers, on cuda a large matrix product of the library, in TF32 where that is switched on.
#pragma once

#include "bench/op_cost.h"
#include "kernels/core/device.h"

namespace lanas::bench {

struct Ceilings {
  double copy_gb_s = 0, read_gb_s = 0, fma_gflop_s = 0;  // 1e9 bytes, 1e9 FLOPs per second; read: cpu only

  // What memory alone would take: copying as much as is both read and written, reading or writing the rest.
  // Copies may bypass the caches with what they write, so that a byte of them can take less than one read.
  // For writes, and on cuda, the rate of copying stands for all.
  double memory_ms(const OpCost& cost) const;
  double fma_ms(const OpCost& cost) const { return 1e-6 * cost.flops / fma_gflop_s; }
};

// Whether the cuda device is the emulated one, whose times mean nothing: any size and number of repeats will
// do.
bool emulated();

// On the cpu with the stream's threads.
Ceilings measure_ceilings(Stream& stream);

// The greater of each: one that was measured while the host was disturbed is no ceiling.
Ceilings greater_of(const Ceilings& a, const Ceilings& b);

// Bytes that no cache holds: on the cpu twice the last level, where the system tells how large that is (on a
// shared host it may be all of the host's), at least 64 MiB, at most an eighth of the machine's memory.
size_t beyond_caches(Device device);

// Pushes everything else out of the caches by writing memory of that size.
class CacheFlusher {
 public:
  explicit CacheFlusher(Stream& stream)
      : stream_(stream), memory_(stream.device(), beyond_caches(stream.device())) {}
  void flush();

 private:
  Stream& stream_;
  Memory memory_;
};

}  // namespace lanas::bench
