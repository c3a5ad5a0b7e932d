// recording.h -- what the files that record ops on the tape (ops_*.cpp) share.
#pragma once

#include "autograd/tape.h"

namespace lanas {

constexpr float kBatchNormEps = 1e-5f;  // added to the variance, as in PyTorch

// `out` if given, else a new activation. Throws Error naming `op` where `out` has another shape.
inline Var output_or_new(Tape& tape, const char* op, Var out, Shape shape) {
  if (!out) return tape.activation(shape);
  CHECK(tape.shape(out) == shape, op, ": output ", tape.shape(out), " does not match ", shape);
  return out;
}

}  // namespace lanas
