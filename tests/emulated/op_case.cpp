// op_case.cpp -- see tests/support/op_case.h: the builder of a case.
#include "tests/support/op_case.h"

#include <cmath>
#include <cstring>

#include "kernels/ops/elementwise.h"

namespace lanas::test {

std::vector<OpCase>& all_op_cases() {
  static std::vector<OpCase> cases;
  return cases;
}

OpCases::OpCases(const std::string& op, std::vector<OpCase> cases) {
  for (OpCase& one : cases) {
    one.op = op;
    all_op_cases().push_back(std::move(one));
  }
}

std::vector<float> normal_draws(int count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = random.normal();
  return values;
}

std::vector<float> positive_draws(int count, uint64_t seed, float least) {
  std::vector<float> values = normal_draws(count, seed);
  for (float& v : values) v = least + std::abs(v);
  return values;
}

std::vector<float> CaseBuilder::draws(int64_t count, float scale, float shift) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = shift + scale * random_.normal();
  return values;
}

Var CaseBuilder::add_input(Shape shape, std::vector<float> first, std::vector<float> second) {
  CHECK(first.size() == size_t(shape.size()) && second.size() == first.size(), "op case: ", first.size(),
        " values for ", shape);
  const Var v = tape.input(shape);
  const size_t bytes = first.size() * sizeof(float);
  Content content{nullptr, {std::vector<char>(bytes), std::vector<char>(bytes)}};
  std::memcpy(content.bytes[0].data(), first.data(), bytes);
  std::memcpy(content.bytes[1].data(), second.data(), bytes);
  inputs_.emplace_back(v, std::move(content));
  return v;
}

Var CaseBuilder::input(Shape shape, float scale, float shift) {
  const Var v = add_input(shape, draws(shape.size(), scale, shift), draws(shape.size(), scale, shift));
  wanted_.push_back(v);
  sources_.push_back(v);
  return v;
}

Var CaseBuilder::sliced_input(Shape shape, int stride) {
  const Shape wide{shape.n, shape.h, shape.w, stride};
  const Var base = add_input(wide, draws(wide.size(), 1, 0), draws(wide.size(), 1, 0));
  wanted_.push_back(base);
  sources_.push_back(tape.slice(base, 2, 2 + shape.c));
  return sources_.back();
}

Var CaseBuilder::constant(Shape shape, float scale, float shift) {
  const std::vector<float> values = draws(shape.size(), scale, shift);
  return add_input(shape, values, values);
}

Var CaseBuilder::constant(Shape shape, std::vector<float> first, std::vector<float> second) {
  return add_input(shape, std::move(first), std::move(second));
}

Var CaseBuilder::labels(int rows, int classes) {
  std::vector<float> bits[2];
  for (std::vector<float>& content : bits)
    for (int r = 0; r < rows; ++r) {
      const int label = int(random_.below(uint32_t(classes)));
      float value = 0;
      std::memcpy(&value, &label, sizeof value);
      content.push_back(value);
    }
  return add_input({rows, 1, 1, 1}, bits[0], bits[1]);
}

// A loss that is never computed, only its gradient: dy of every output is a given random tensor.
void CaseBuilder::record_loss() {
  Op op;
  op.name = "given_gradients";
  std::vector<Var> carriers = outputs_;
  if (add_) carriers.insert(carriers.end(), sources_.begin(), sources_.end());
  const int count = int(carriers.size());
  op.inputs = carriers;
  for (Var v : carriers) op.inputs.push_back(constant(tape.shape(v)));
  op.saved.assign(op.inputs.begin() + count, op.inputs.end());
  const Var loss = tape.activation({1, 1, 1, 1});
  op.outputs = {loss};
  op.forward = [](Run& run) { fill(run.stream, run.out(0), 0); };
  op.backward = [count](Run& run) {
    for (int i = 0; i < count; ++i)
      if (run.wants(i)) copy_scaled(run.stream, run.grad_in(i), run.in(count + i), 1, run.beta(i));
  };
  tape.record(std::move(op));
  PlanOptions options;
  options.outputs = outputs_;
  options.loss = loss;
  options.wanted_inputs = wanted_;
  options.training = training;
  plan_ = std::make_unique<Plan>(tape, options, std::make_shared<Workspace>(device_));
}

void CaseBuilder::finish() {
  if (direct_) return;
  if (differentiable_) {
    record_loss();
  } else {
    PlanOptions options;
    options.outputs = outputs_;
    options.training = training;
    plan_ = std::make_unique<Plan>(tape, options, std::make_shared<Workspace>(device_));
  }
  plan_->bind();
}

void CaseBuilder::reset(Stream& stream, int content) {
  for (const Content& c : contents_)
    upload(stream, c.device, c.bytes[content].data(), c.bytes[content].size());
  for (const auto& [v, c] : inputs_)
    upload(stream, tape.data(v).data, c.bytes[content].data(), c.bytes[content].size());
}

void CaseBuilder::run(Stream& stream) {
  if (direct_) return direct_(stream);
  plan_->forward(stream);
  if (differentiable_) plan_->backward(stream);
}

CaseResult CaseBuilder::read(Stream& stream, const std::string& name, Tensor t) {
  std::vector<float> span(size_t((t.pixels() - 1) * t.stride + t.c));
  download(stream, span.data(), t.data, span.size() * sizeof(float));
  CaseResult result{name, {}};
  for (int64_t p = 0; p < t.pixels(); ++p)
    for (int c = 0; c < t.c; ++c) result.values.push_back(double(span[size_t(p * t.stride + c)]));
  return result;
}

std::vector<CaseResult> CaseBuilder::results(Stream& stream) {
  std::vector<CaseResult> all;
  for (const auto& reader : readers_) all.push_back(reader(stream));
  for (size_t i = 0; i < outputs_.size(); ++i)
    all.push_back(read(stream, join("output ", i), plan_->value(outputs_[i])));
  if (plan_ && differentiable_)
    for (size_t i = 0; i < sources_.size(); ++i)
      all.push_back(read(stream, join("gradient ", i), plan_->grad(sources_[i])));
  return all;
}

}  // namespace lanas::test
