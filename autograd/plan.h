// plan.h -- what runs, in which order, and where each tensor lives.
// A plan keeps the ops that its outputs need, and of their backward passes those that reach a wanted
// gradient: the alpha step computes no weight gradients, the weight step none for alpha, inference none at
// all. Each tensor lives from its first writer to its last reader; tensors that never live together share
// memory, and a gradient takes over its value's where an op can work in place. The first writer of a gradient
// range overwrites it (beta 0), later ones add (beta 1); a range that is read but never written is filled
// with zeros where it is needed. The gradient of a value behind batch statistics that one op alone reads is
// left as factors (kernels/ops/gradient_view.h). A run allocates nothing and reads nothing back.
#pragma once

#include <memory>
#include <vector>

#include "autograd/tape.h"

namespace lanas {

// Memory shared by plans that never run at the same time: as large as the largest of them.
class Workspace {
 public:
  explicit Workspace(Device device = Device::cpu) : device_(device) {}
  void require(size_t bytes) { bytes_ = std::max(bytes_, bytes); }
  char* data();  // allocates on first use and after a larger require(); addresses then move
  size_t bytes() const { return bytes_; }

 private:
  Device device_;
  size_t bytes_ = 0;
  Memory memory_;
};

struct PlanOptions {
  std::vector<Var> outputs = {};                   // values that can be read after forward()
  Var loss = {};                                   // scalar whose gradient is taken; none: forward only
  std::vector<const ParameterStore*> wanted = {};  // gradients go to their slabs
  std::vector<Var> wanted_inputs = {};             // gradients can be read after backward()
  bool training = false;
};

class Plan {
 public:
  Plan(const Tape& tape, PlanOptions options, std::shared_ptr<Workspace> workspace);

  // between, where given, is called after every step.
  void forward(Stream& stream, const std::function<void()>& between = {});
  void backward(Stream& stream);
  bool update_statistics = false;

  Tensor value(Var v);                     // an output, an input or a parameter
  Tensor grad(Var v);                      // a wanted input's or parameter's gradient
  size_t bytes() const { return bytes_; }  // of the workspace, without parameters and inputs
  int64_t macs() const;                    // of one forward pass
  // Every step on its own, for benchmarks; forward steps come first.
  int steps() const { return int(steps_.size()); }
  int forward_steps() const { return forward_steps_; }
  const Op& op(int step) const { return tape_.ops()[steps_[step].op]; }
  int factored(Var v) const { return int(factored_[v.id].size()); }  // by how many ops as factors
  bool writes_gradient(Var v) const { return !factored(v) || factored_[v.id][0].gradient == v; }
  // Of a backward step: does it give the gradient of its op's i-th input, and add to what others gave?
  bool gives_gradient(int step, size_t i) const { return steps_[step].wants[i]; }
  bool adds_gradient(int step, size_t i) const { return steps_[step].beta[i] != 0; }
  void run_step(Stream& stream, int step);
  void bind();  // resolves addresses; called by forward and backward when the workspace has moved

 private:
  struct Slot {  // where a base value or its gradient lives
    size_t bytes = 0, offset = 0;
    int birth = -1, death = -1;  // steps, inclusive; birth -1: not in the workspace
    bool in_place = false;       // a gradient in the memory of its value
  };
  struct Factored {  // one op's part of a gradient
    int op;
    Var gradient;  // g of a g + b v + d
    Slot factors;  // a, b, d
  };
  struct Range {  // channels [c0, c1) of a base's gradient
    Var base;
    int c0, c1;
  };
  struct Step {
    int op = 0;
    bool backward = false;
    std::vector<uint8_t> wants;     // per input
    std::vector<float> beta;        // per input
    std::vector<Range> zero_fills;  // gradient ranges to clear first
    Slot scratch;
    std::vector<Tensor> in, out, grad_in, fills;  // bound, as are the next two
    std::vector<std::vector<GradientView<float>>> grad_out;
    std::vector<float*> factors_in;
  };

  void choose_forward();
  void choose_backward();
  void mark_dependent();
  void mark_factors();
  void find_unwritten();
  bool cover(std::vector<Range>& fills, Var v, bool writes);
  void live(Slot& slot, Var v, int step);
  void assign_memory();
  void find_lifetimes();
  void share_in_place();
  Tensor resolve(Var v, bool gradient) const;
  float* resolve(const Factored& part) const {
    return reinterpret_cast<float*>(bound_ + part.factors.offset);
  }
  std::vector<Tensor> resolve(const std::vector<Range>& ranges) const;
  bool depends(Var v) const { return depends_[tape_.value(v).base]; }

  const Tape& tape_;
  PlanOptions options_;
  std::shared_ptr<Workspace> workspace_;
  char* bound_ = nullptr;
  std::vector<Step> steps_;
  int forward_steps_ = 0;
  size_t bytes_ = 0;
  std::vector<char> depends_;  // per value: whether its base depends on a wanted leaf
  std::vector<std::vector<char>>
      covered_;                       // per base: which gradient channels have been written (while planning)
  std::vector<Tensor> unwritten_;     // gradients of wanted parameters that no step writes
  std::vector<Slot> values_, grads_;  // per base
  std::vector<std::vector<Factored>> factored_;  // per base: its gradient, where it is left as factors
};

}  // namespace lanas
