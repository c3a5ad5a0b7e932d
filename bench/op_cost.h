// op_cost.h -- the work of one step of a plan, from the shapes on its tape.
// FLOPs = 2 MACs forward; backward as many again for the input's gradient and for the weights', where each is
// wanted. Only convolutions and linear layers count. Bytes = the sizes of the tensors read and written, each
// once: forward inputs and outputs; backward saved values, output gradients (with their values, where they
// are put together from factors) and written gradients, which are read as well where others wrote before and
// this op adds. What an op reads again, or keeps to itself, is not in it: a lower bound on traffic, where
// nothing was in a cache.
#pragma once

#include <string>

#include "autograd/plan.h"

namespace lanas::bench {

struct OpCost {
  double flops = 0, read = 0, written = 0;  // bytes
  double bytes() const { return read + written; }
  OpCost& operator+=(const OpCost& other) {
    flops += other.flops, read += other.read, written += other.written;
    return *this;
  }
  OpCost operator/(double n) const { return {flops / n, read / n, written / n}; }
};

OpCost op_cost(const Tape& tape, const Plan& plan, int step);

// "1x32x32x36>1x16x16x72 k3": first input, first output where it differs, sides of its spatial
// kernels, equal ones as "k3 x4". Ops of one name and shape may differ in what stands in no shape: dilations,
// the number of states that a sum or shuffle reads, whether a gradient comes in factors.
std::string op_shape(const Tape& tape, const Op& op);

}  // namespace lanas::bench
