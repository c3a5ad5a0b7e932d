#include "autograd/plan.h"

#include <algorithm>

#include "kernels/ops/elementwise.h"

namespace lanas {
namespace {

bool contains(const std::vector<Var>& vars, Var v) {
  return std::find(vars.begin(), vars.end(), v) != vars.end();
}

}  // namespace

char* Workspace::data() {
  if (memory_.bytes() < bytes_) memory_ = Memory(device_, bytes_);
  return static_cast<char*>(memory_.data());
}

Plan::Plan(const Tape& tape, PlanOptions options, std::shared_ptr<Workspace> workspace)
    : tape_(tape), options_(std::move(options)), workspace_(std::move(workspace)) {
  values_.resize(tape_.values());
  grads_.resize(tape_.values());
  factored_.resize(tape_.values());
  choose_forward();
  if (options_.loss) choose_backward();
  assign_memory();
  workspace_->require(bytes_);
}

// Walks the tape backwards from the outputs and keeps the ops that write what is needed.
void Plan::choose_forward() {
  std::vector<char> needed(tape_.values(), 0);
  for (Var v : options_.outputs) needed[tape_.value(v).base] = 1;
  if (options_.loss) needed[tape_.value(options_.loss).base] = 1;
  const std::vector<Op>& ops = tape_.ops();
  for (int i = int(ops.size()) - 1; i >= 0; --i) {
    const bool used = std::any_of(ops[i].outputs.begin(), ops[i].outputs.end(),
                                  [&](Var v) { return needed[tape_.value(v).base]; });
    if (!used) continue;
    for (Var v : ops[i].inputs) needed[tape_.value(v).base] = 1;
    Step step;
    step.op = i;
    steps_.push_back(std::move(step));
  }
  std::reverse(steps_.begin(), steps_.end());
  forward_steps_ = int(steps_.size());
}

// Notes that a range of gradient channels is written or read now, and returns whether its old content counts:
// false for the first writer. Channels that count but were never written are cleared first.
bool Plan::cover(std::vector<Range>& fills, Var v, bool writes) {
  const Tape::Value& value = tape_.value(v);
  std::vector<char>& columns = covered_[value.base];
  if (columns.empty()) columns.assign(tape_.value({value.base}).shape.c, 0);
  const int c0 = value.channel, c1 = c0 + value.shape.c;
  const bool first = std::count(columns.begin() + c0, columns.begin() + c1, 1) == 0;
  if (!(writes && first)) {
    for (int begin = c0; begin < c1; ++begin) {
      int end = begin;
      while (end < c1 && !columns[end]) ++end;
      if (end > begin) fills.push_back({{value.base}, begin, end});
      begin = end;
    }
  }
  std::fill(columns.begin() + c0, columns.begin() + c1, 1);
  return !(writes && first);
}

// A value depends on what is wanted if an op with a backward pass leads from a wanted leaf to it.
void Plan::mark_dependent() {
  depends_.assign(tape_.values(), 0);
  for (int id = 0; id < tape_.values(); ++id) {
    const Tape::Value& value = tape_.value({id});
    if (value.role == Tape::Role::parameter && value.base == id)
      depends_[id] = std::count(options_.wanted.begin(), options_.wanted.end(), value.store) > 0;
  }
  for (Var v : options_.wanted_inputs) depends_[tape_.value(v).base] = 1;
  for (int s = 0; s < forward_steps_; ++s) {
    const Op& op = tape_.ops()[steps_[s].op];
    if (!op.backward || std::none_of(op.inputs.begin(), op.inputs.end(), [&](Var v) { return depends(v); }))
      continue;
    for (Var v : op.outputs)
      if (tape_.value(v).role == Tape::Role::activation) depends_[tape_.value(v).base] = 1;
  }
}

// Of which values the gradient is left as factors: all that read a value leave them, the one that wrote it
// takes so many, and all know it whole.
void Plan::mark_factors() {
  std::vector<int> readers(size_t(tape_.values()), 0), takes(size_t(tape_.values()), 0);
  for (int s = 0; s < forward_steps_; ++s) {
    const Op& op = tape_.ops()[steps_[s].op];
    for (Var v : op.inputs)
      if (op.backward) ++readers[tape_.value(v).base];
    for (Var v : op.outputs) takes[v.id] = op.takes_factors;
  }
  for (int s = 0; s < forward_steps_; ++s) {
    const Op& op = tape_.ops()[steps_[s].op];
    for (Var v : op.leaves_factors)
      if (depends(v) && tape_.value(v).base == v.id && readers[v.id] <= takes[v.id] &&
          (op.factors_of_output || readers[v.id] == 1) && !contains(options_.wanted_inputs, v) &&
          std::count(op.inputs.begin(), op.inputs.end(), v) == 1)
        factored_[v.id].push_back({steps_[s].op, op.factors_of_output ? op.outputs[0] : v, {}});
  }
  for (size_t id = 0; id < factored_.size(); ++id)
    if (int(factored_[id].size()) != readers[id]) factored_[id].clear();
}

void Plan::choose_backward() {
  mark_dependent();
  mark_factors();
  CHECK(depends(options_.loss), "Plan: the loss does not depend on any wanted gradient");
  covered_.resize(tape_.values());
  covered_[tape_.value(options_.loss).base].assign(1, 1);
  for (int s = forward_steps_ - 1; s >= 0; --s) {
    const Op& op = tape_.ops()[steps_[s].op];
    auto flows = [&](Var v) {  // whether any gradient has reached this output
      const Tape::Value& value = tape_.value(v);
      const std::vector<char>& columns = covered_[value.base];
      if (value.role != Tape::Role::activation || columns.empty()) return false;
      auto begin = columns.begin() + value.channel;
      return std::count(begin, begin + value.shape.c, 1) > 0;
    };
    if (!op.backward || std::none_of(op.inputs.begin(), op.inputs.end(), [&](Var v) { return depends(v); }) ||
        std::none_of(op.outputs.begin(), op.outputs.end(), flows))
      continue;
    Step step;
    step.op = steps_[s].op;
    step.backward = true;
    for (Var v : op.outputs)
      if (tape_.value(v).role == Tape::Role::activation && depends(v)) cover(step.zero_fills, v, false);
    for (Var v : op.inputs) {
      step.wants.push_back(depends(v));
      step.beta.push_back(depends(v) && cover(step.zero_fills, v, true) ? 1 : 0);
    }
    steps_.push_back(std::move(step));
  }
  const auto runs = [&](const Factored& part) {  // or no gradient reaches its outputs
    return std::any_of(steps_.begin() + forward_steps_, steps_.end(),
                       [&](const Step& step) { return step.op == part.op; });
  };
  for (std::vector<Factored>& parts : factored_)
    std::erase_if(parts, [&](const Factored& p) { return !runs(p); });
}

void Plan::live(Slot& slot, Var v, int step) {
  const Tape::Value& base = tape_.value({tape_.value(v).base});
  slot.bytes = align_up(base.shape.size() * sizeof(float));
  slot.birth = slot.birth < 0 ? step : std::min(slot.birth, step);
  slot.death = std::max(slot.death, step);
}

void Plan::find_lifetimes() {
  const int end = int(steps_.size());
  auto in_workspace = [&](Var v) {
    return tape_.value(v).role == Tape::Role::activation || tape_.value(v).role == Tape::Role::statistic;
  };
  auto value_slot = [&](Var v, int s) {
    if (in_workspace(v)) live(values_[tape_.value(v).base], v, s);
  };
  auto grad_slot = [&](Var v, int s) {
    if (tape_.value(v).role == Tape::Role::parameter) return;
    if (!factored(v)) return live(grads_[tape_.value(v).base], v, s);
    value_slot(v, s);
    for (Factored& part : factored_[v.id]) {
      live(grads_[tape_.value(part.gradient).base], part.gradient, s), live(part.factors, v, s);
      part.factors.bytes = align_up(3 * sizeof(float) * size_t(tape_.shape(v).c));
    }
  };
  for (int s = 0; s < end; ++s) {
    Step& step = steps_[s];
    const Op& op = tape_.ops()[step.op];
    if (!step.backward) {
      for (Var v : op.inputs) value_slot(v, s);
      for (Var v : op.outputs) value_slot(v, s);
    } else {
      for (Var v : op.saved) value_slot(v, s);
      for (size_t i = 0; i < op.inputs.size(); ++i)
        if (step.wants[i]) grad_slot(op.inputs[i], s);
      for (Var v : op.outputs)
        if (tape_.value(v).role == Tape::Role::activation && depends(v)) grad_slot(v, s);
    }
    if (op.scratch_bytes > 0) step.scratch = {align_up(op.scratch_bytes), 0, s, s};
  }
  for (Var v : options_.outputs) value_slot(v, end);
  if (options_.loss) {
    value_slot(options_.loss, end);
    grad_slot(options_.loss, forward_steps_);
  }
  for (Var v : options_.wanted_inputs) grad_slot(v, end);
}

// Where an op reads a value last and writes its gradient first, the gradient takes over the value's memory:
// that is in the caches already, where other memory would have to be read before it is written.
void Plan::share_in_place() {
  for (int s = forward_steps_; s < int(steps_.size()); ++s) {
    const Op& op = tape_.ops()[steps_[s].op];
    for (size_t i = 0; op.in_place && i < op.inputs.size(); ++i) {
      const Var v = op.inputs[i];
      Slot &value = values_[v.id], &grad = grads_[v.id];
      const auto touches = [&](Var other) { return tape_.value(other).base == v.id; };
      if (!steps_[s].wants[i] || tape_.value(v).base != v.id || value.birth < 0 || value.death != s ||
          grad.birth != s || std::count_if(op.inputs.begin(), op.inputs.end(), touches) != 1)
        continue;
      value.death = grad.death;
      grad.in_place = true;
    }
  }
}

// First fit by decreasing size over the lifetimes: each slot goes to the lowest address that is free while it
// lives.
void Plan::assign_memory() {
  find_lifetimes();
  share_in_place();
  std::vector<Slot*> slots;
  for (std::vector<Slot>* group : {&values_, &grads_})
    for (Slot& slot : *group)
      if (slot.birth >= 0 && !slot.in_place) slots.push_back(&slot);
  for (std::vector<Factored>& parts : factored_)
    for (Factored& part : parts)
      if (part.factors.birth >= 0) slots.push_back(&part.factors);
  for (Step& step : steps_)
    if (step.scratch.birth >= 0) slots.push_back(&step.scratch);
  std::stable_sort(slots.begin(), slots.end(), [](Slot* a, Slot* b) { return a->bytes > b->bytes; });
  std::vector<Slot*> placed;  // by offset
  for (Slot* slot : slots) {
    size_t offset = 0;
    for (Slot* other : placed) {
      if (other->death < slot->birth || slot->death < other->birth) continue;
      if (offset + slot->bytes <= other->offset) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    slot->offset = offset;
    bytes_ = std::max(bytes_, offset + slot->bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), slot,
                                   [](Slot* a, Slot* b) { return a->offset < b->offset; }),
                  slot);
  }
  for (size_t id = 0; id < grads_.size(); ++id)
    if (grads_[id].in_place) grads_[id].offset = values_[id].offset;
}

std::vector<Tensor> Plan::resolve(const std::vector<Range>& ranges) const {
  std::vector<Tensor> tensors;
  for (const Range& range : ranges) tensors.push_back(resolve(range.base, true).slice(range.c0, range.c1));
  return tensors;
}

Tensor Plan::resolve(Var v, bool gradient) const {
  const Tape::Value& value = tape_.value(v);
  const int stride = tape_.value({value.base}).shape.c;
  float* base = nullptr;
  if (value.role == Tape::Role::parameter) {
    CHECK(value.store->allocated(), "Plan: parameter ", value.store->entries()[value.source].name,
          " is not allocated");
    base = gradient ? value.store->grad(value.source).data : value.store->value(value.source).data;
  } else if (value.role == Tape::Role::input && !gradient) {
    return tape_.data(v);
  } else {
    const Slot& slot = gradient ? grads_[value.base] : values_[value.base];
    if (slot.birth < 0) return Tensor(nullptr, value.shape, stride);
    base = reinterpret_cast<float*>(bound_ + slot.offset);
  }
  return Tensor(base + value.channel, value.shape, stride);
}

void Plan::bind() {
  char* data = workspace_->data();
  if (data == bound_ && !(steps_.size() && steps_[0].out.empty())) return;
  bound_ = data;
  for (Step& step : steps_) {
    const Op& op = tape_.ops()[step.op];
    step.in.clear(), step.out.clear(), step.grad_in.clear(), step.grad_out.clear(), step.factors_in.clear();
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      const Var v = op.inputs[i];
      const bool readable = !step.backward || contains(op.saved, v) ||
                            tape_.value(v).role == Tape::Role::parameter ||
                            tape_.value(v).role == Tape::Role::input;
      step.in.push_back(readable ? resolve(v, false) : Tensor(nullptr, tape_.shape(v)));
      const bool wanted = step.backward && step.wants[i];
      float* factors = nullptr;
      for (const Factored& part : factored_[v.id])
        if (wanted && part.op == step.op) factors = resolve(part);
      step.factors_in.push_back(factors);
      step.grad_in.push_back(wanted && writes_gradient(v) ? resolve(v, true) : Tensor{});
    }
    for (Var v : op.outputs) {
      step.out.push_back(!step.backward || contains(op.saved, v) ? resolve(v, false)
                                                                 : Tensor(nullptr, tape_.shape(v)));
      std::vector<GradientView<float>>& gradients = step.grad_out.emplace_back();
      for (const Factored& part : factored_[v.id])
        if (step.backward)
          gradients.emplace_back(resolve(part.gradient, true), resolve(v, false), resolve(part));
      if (gradients.empty()) gradients.push_back(step.backward ? resolve(v, true) : Tensor{});
    }
    step.fills = resolve(step.zero_fills);
  }
  find_unwritten();
}

// Wanted gradients that no step writes must still be zeros after backward, whatever another plan left there.
void Plan::find_unwritten() {
  unwritten_.clear();
  for (const ParameterStore* store : options_.wanted) {
    for (int index = 0; index < int(store->entries().size()); ++index) {
      const Tensor grad = store->grad(index);
      std::vector<char> columns(grad.c, 0);
      for (int id = 0; id < tape_.values(); ++id) {
        const Tape::Value& value = tape_.value({id});
        if (value.store == store && value.source == index && value.base == id && !covered_[id].empty())
          columns = covered_[id];
      }
      for (int begin = 0; begin < grad.c; ++begin) {
        int end = begin;
        while (end < grad.c && !columns[end]) ++end;
        if (end > begin) unwritten_.push_back(grad.slice(begin, end));
        begin = end;
      }
    }
  }
}

void Plan::run_step(Stream& stream, int index) {
  Step& step = steps_[index];
  const Op& op = tape_.ops()[step.op];
  for (const Tensor& t : step.fills) fill(stream, t, 0.f);
  Run run(stream, options_.training, update_statistics);
  run.name_ = &op.name;
  run.in_ = step.in.data();
  run.out_ = step.out.data();
  run.grad_in_ = step.grad_in.data();
  run.grad_out_ = step.grad_out.data();
  run.factors_in_ = step.factors_in.data();
  run.beta_ = step.beta.data();
  run.scratch_ = step.scratch.birth >= 0 ? reinterpret_cast<float*>(bound_ + step.scratch.offset) : nullptr;
  step.backward ? op.backward(run) : op.forward(run);
}

void Plan::forward(Stream& stream, const std::function<void()>& between) {
  stream.activate();
  bind();
  for (int s = 0; s < forward_steps_; ++s) {
    run_step(stream, s);
    if (between) between();
  }
}

void Plan::backward(Stream& stream) {
  CHECK(options_.loss, "Plan::backward: planned without a loss");
  stream.activate();
  bind();
  for (const Tensor& t : unwritten_) fill(stream, t, 0.f);
  fill(stream, resolve(options_.loss, true), 1.f);
  for (int s = forward_steps_; s < steps(); ++s) run_step(stream, s);
}

Tensor Plan::value(Var v) {
  bind();
  return resolve(v, false);
}

Tensor Plan::grad(Var v) {
  bind();
  return resolve(v, true);
}

int64_t Plan::macs() const {
  int64_t total = 0;
  for (int s = 0; s < forward_steps_; ++s) total += op(s).macs;
  return total;
}

}  // namespace lanas
