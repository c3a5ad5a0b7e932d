// shuffle.h -- a random order: indices sorted by random keys, Philox words of (seed, draw, position). Equal
// keys keep the given order, so an order is a pure function of its arguments, the same on every device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/device.h"

namespace lanas {

// Scratch for one call on this stream, 256-byte aligned.
size_t shuffle_scratch_bytes(const Stream& stream, int count);

// shuffled = indices in another order; both `count` numbers in the stream's memory, which must not overlap.
// draw numbers the orders of one seed. Throws Error for a negative count.
void shuffle(Stream& stream, int* shuffled, const int* indices, int count, uint64_t seed, uint64_t draw,
             void* scratch);

}  // namespace lanas
