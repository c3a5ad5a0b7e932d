// dot_loss.h -- an op of the tests: loss = sum of y * dy, so that the gradient arriving at y is exactly dy.
#pragma once

#include "autograd/tape.h"
#include "kernels/ops/elementwise.h"

namespace lanas::test {

// y and dy of one shape, on the cpu; dy takes no gradient. Returns [1,1,1,1].
inline Var dot_loss(Tape& tape, Var y, Var dy) {
  CHECK(tape.shape(y) == tape.shape(dy), "dot_loss: ", tape.shape(y), " and ", tape.shape(dy));
  const Var loss = tape.activation({1, 1, 1, 1});
  tape.record({.name = "dot_loss",
               .inputs = {y, dy},
               .outputs = {loss},
               .saved = {dy},
               .forward =
                   [](lanas::Run& run) {
                     const Tensor a = run.in(0), b = run.in(1);
                     double total = 0;
                     for (int64_t p = 0; p < a.pixels(); ++p)
                       for (int c = 0; c < a.c; ++c) total += double(a.pixel(p)[c]) * b.pixel(p)[c];
                     *run.out(0).data = float(total);
                   },
               .backward =
                   [](lanas::Run& run) {
                     copy_scaled(run.stream, run.grad_in(0), run.in(1), *run.grad_out(0).data, run.beta(0));
                   }});
  return loss;
}

}  // namespace lanas::test
