#include "autograd/tape.h"

#include <algorithm>

namespace lanas {

Var Tape::add(Value value) {
  const int id = int(values_.size());
  if (value.base < 0) value.base = id;
  values_.push_back(value);
  return {id};
}

Var Tape::activation(Shape shape) {
  CHECK(shape.size() > 0, "activation: empty shape ", shape);
  return add({shape});
}

Var Tape::statistic(Shape shape) { return add({shape, Role::statistic}); }

Var Tape::input(Shape shape) {
  inputs_.emplace_back(device_, shape.size() * sizeof(float));
  return add({shape, Role::input, -1, 0, int(inputs_.size()) - 1});
}

Var Tape::parameter(const ParameterStore& store, int index) {
  for (int id = 0; id < values(); ++id)
    if (values_[id].store == &store && values_[id].source == index && values_[id].base == id) return {id};
  return add({store.entries()[index].shape, Role::parameter, -1, 0, index, &store});
}

Var Tape::slice(Var x, int c0, int c1) {
  Value value = values_[x.id];
  CHECK(0 <= c0 && c0 < c1 && c1 <= value.shape.c, "slice: channels [", c0, ",", c1, ") of ", value.shape);
  value.channel += c0;
  value.shape.c = c1 - c0;
  return add(value);
}

void Tape::record(Op op) {
  for (const std::vector<Var>* vars : {&op.inputs, &op.outputs})
    for (Var v : *vars) CHECK(v.id >= 0 && v.id < values(), op.name, ": a tensor that is not on this tape");
  for (Var v : op.saved) {
    const bool own = std::find(op.inputs.begin(), op.inputs.end(), v) != op.inputs.end() ||
                     std::find(op.outputs.begin(), op.outputs.end(), v) != op.outputs.end();
    CHECK(own, op.name, ": saves a tensor that is neither its input nor its output");
  }
  ops_.push_back(std::move(op));
}

Tensor Tape::data(Var v) const {
  const Value& value = values_[v.id];
  CHECK(value.role == Role::input, "Tape::data: not an input");
  const Shape base = values_[value.base].shape;
  return Tensor(inputs_[value.source].floats() + value.channel, value.shape, base.c);
}

}  // namespace lanas
