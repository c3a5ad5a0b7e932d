#include "bench/op_cost.h"

#include <map>

#include "kernels/core/check.h"

namespace lanas::bench {
namespace {

double bytes_of(const Tape& tape, Var v) { return double(tape.shape(v).size()) * sizeof(float); }

std::string text(Shape s) { return join(s.n, 'x', s.h, 'x', s.w, 'x', s.c); }

}  // namespace

OpCost op_cost(const Tape& tape, const Plan& plan, int step) {
  using Role = Tape::Role;
  const Op& op = plan.op(step);
  const bool backward = step >= plan.forward_steps();
  OpCost cost;
  const double forward_flops =
      op.outputs.empty() ? 0 : 2 * double(op.macs) * tape.shape(op.outputs.front()).n;
  if (!backward) {
    cost.flops = forward_flops;
    for (Var v : op.inputs) cost.read += bytes_of(tape, v);
    for (Var v : op.outputs) cost.written += bytes_of(tape, v);
    return cost;
  }
  bool weights = false, data = false;
  for (Var v : op.saved) cost.read += bytes_of(tape, v);
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    if (!plan.gives_gradient(step, i)) continue;
    const Var v = op.inputs[i];
    (tape.value(v).role == Role::parameter ? weights : data) = true;
    if (!plan.writes_gradient(v)) continue;
    cost.written += bytes_of(tape, v);
    if (plan.adds_gradient(step, i)) cost.read += bytes_of(tape, v);
  }
  for (Var v : op.outputs)
    if (tape.value(v).role == Role::activation) cost.read += bytes_of(tape, v) * (1 + plan.factored(v));
  cost.flops = forward_flops * (int(weights) + int(data));
  return cost;
}

std::string op_shape(const Tape& tape, const Op& op) {
  std::string shape;
  if (!op.inputs.empty()) shape = text(tape.shape(op.inputs.front()));
  if (!op.outputs.empty()) {
    const std::string out = text(tape.shape(op.outputs.front()));
    if (out != shape) shape += ">" + out;
  }
  std::map<int, int> kernels;
  for (Var v : op.inputs)
    if (tape.value(v).role == Tape::Role::parameter && tape.shape(v).h > 1) ++kernels[tape.shape(v).h];
  for (const auto& [size, count] : kernels) {
    shape += join(" k", size);
    if (count > 1) shape += join(" x", count);
  }
  return shape;
}

}  // namespace lanas::bench
