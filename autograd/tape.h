// tape.h -- a static tape: ops with static shapes, recorded once. A Plan (plan.h) decides which of them run
// for the outputs and gradients wanted, and where every tensor lives; then it is replayed for ever.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/parameters.h"
#include "kernels/core/device.h"
#include "kernels/core/tensor.h"
#include "kernels/ops/gradient_view.h"

namespace lanas {

// A tensor on a tape, by number.
struct Var {
  int id = -1;
  explicit operator bool() const { return id >= 0; }
  friend bool operator==(Var, Var) = default;
};

// What an op's closures see while they run: its tensors by position, and what the plan wants of it.
class Run {
 public:
  Stream& stream;
  bool training;           // false: batch norm uses running statistics
  bool update_statistics;  // whether batch norm moves its running statistics

  Tensor in(int i) const { return checked(in_[i], "input", i); }  // in backward only what the op has saved
  Tensor out(int i) const { return checked(out_[i], "output", i); }
  Tensor grad_in(int i) const { return wants(i) ? grad_in_[i] : Tensor{}; }  // null data when not wanted
  Tensor grad_out(int i) const { return gradient(i).g; }
  const GradientView<float>& gradient(int i) const { return grad_out_[i][0]; }  // of an op that takes factors
  std::span<const GradientView<float>> gradients(int i) const { return grad_out_[i]; }  // of several ops
  float* factors(int i) const { return factors_in_[i]; }  // where not null: leave those of input i's gradient
  bool wants(int i) const { return grad_in_[i].data != nullptr; }
  float beta(int i) const { return beta_[i]; }  // 0: overwrite grad_in(i); 1: add to it
  float* scratch() const { return scratch_; }

 private:
  friend class Plan;
  Run(Stream& s, bool t, bool u) : stream(s), training(t), update_statistics(u) {}
  Tensor checked(const Tensor& t, const char* what, int i) const {
    CHECK(t.data, *name_, ": reads ", what, " ", i, " in backward without having saved it");
    return t;
  }

  const std::string* name_ = nullptr;
  const Tensor *in_ = nullptr, *out_ = nullptr, *grad_in_ = nullptr;
  const std::vector<GradientView<float>>* grad_out_ = nullptr;
  float* const* factors_in_ = nullptr;
  const float* beta_ = nullptr;
  float* scratch_ = nullptr;
};

struct Op {
  std::string name;          // the kernel's name; groups rows in benchmarks
  std::vector<Var> inputs;   // in the order of Run::in; gradients are written in this order
  std::vector<Var> outputs;  // in the order of Run::out
  std::vector<Var> saved;    // the inputs and outputs whose values backward reads
  std::function<void(Run&)> forward;
  std::function<void(Run&)> backward;  // empty: no gradient flows through this op
  size_t scratch_bytes = 0;            // for each of forward and backward
  bool in_place =
      false;  // backward reads each element of an input before it writes the gradient's element there
  // Gradients left as factors (kernels/ops/gradient_view.h), where the op that wrote an input takes those of
  // as many as read it: of which inputs backward can leave them, and whether g is then the gradient of output
  // 0 or what it writes to grad_in(i), which it must be alone for.
  std::vector<Var> leaves_factors = {};
  bool factors_of_output = false;
  // Of how many readers of an output backward takes factors: it then reads gradients(i), or where that is one
  // gradient(i), and not grad_out(i).
  int takes_factors = 0;
  int64_t macs = 0;  // multiply-accumulates of convolutions and linear layers, forward
};

class Tape {
 public:
  enum class Role { activation, statistic, input, parameter };
  struct Value {
    Shape shape;
    Role role = Role::activation;
    int base = -1;    // the value whose memory this one is part of; itself unless a slice
    int channel = 0;  // first channel within the base
    int source = -1;  // parameter: index in `store`; input: index in the tape's inputs
    const ParameterStore* store = nullptr;
  };

  explicit Tape(Device device = Device::cpu) : device_(device) {}

  Var activation(Shape shape);  // written by an op
  Var statistic(Shape shape);   // written by an op; carries no gradient (batch-norm moments, ...)
  Var input(Shape shape);       // filled by the caller through data(); its memory never moves
  Var parameter(const ParameterStore& store, int index);
  Var slice(Var x, int c0, int c1);  // channels [c0, c1) of x: a view, not a copy
  void record(Op op);                // ops run in the order recorded

  Tensor data(Var input) const;  // the memory of an input
  const Value& value(Var v) const { return values_[v.id]; }
  Shape shape(Var v) const { return values_[v.id].shape; }
  const std::vector<Op>& ops() const { return ops_; }
  int values() const { return int(values_.size()); }
  Device device() const { return device_; }

 private:
  Var add(Value value);

  Device device_;
  std::vector<Value> values_;
  std::vector<Op> ops_;
  std::vector<Memory> inputs_;
};

}  // namespace lanas
