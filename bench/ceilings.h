// ceilings.h -- what this machine can do at most, measured now: copying memory that is in no cache (bytes
// read plus bytes written per second), and multiply-adds (two FLOPs each): on the cpu on vectors in
// registers, on cuda a large matrix product of the library, in TF32 where that is switched on.
#pragma once

#include "kernels/core/device.h"

namespace lanas::bench {

struct Ceilings {
  double copy_gb_s = 0, fma_gflop_s = 0;  // 1e9 bytes, 1e9 FLOPs per second
};

// Whether the cuda device is the emulated one, whose times mean nothing: any size and number of repeats will
// do.
bool emulated();

// On the cpu with the stream's threads.
Ceilings measure_ceilings(Stream& stream);

// Pushes everything else out of the caches by writing memory of this size.
class CacheFlusher {
 public:
  static constexpr size_t kBytes = size_t{64} << 20;
  explicit CacheFlusher(Stream& stream) : stream_(stream), memory_(stream.device(), kBytes) {}
  void flush();

 private:
  Stream& stream_;
  Memory memory_;
};

}  // namespace lanas::bench
