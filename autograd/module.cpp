#include "autograd/module.h"

#include <cmath>

namespace lanas {
namespace {

Init by_fan_in(int64_t fan_in) { return Init::uniform(1.f / std::sqrt(float(fan_in))); }

Var add(Tape& tape, ParameterStore& store, const std::string& name, Shape shape, Init init) {
  return tape.parameter(store, store.add(name, shape, init));
}

}  // namespace

Var Builder::conv_weight(const std::string& name, int cout, int kernel, int cin) {
  return add(tape, weights, name, {cout, kernel, kernel, cin}, by_fan_in(int64_t{kernel} * kernel * cin));
}

Var Builder::depthwise_weight(const std::string& name, int kernel, int c) {
  return add(tape, weights, name, {1, kernel, kernel, c}, by_fan_in(int64_t{kernel} * kernel));
}

Var Builder::linear_weight(const std::string& name, int out, int in) {
  return add(tape, weights, name, {out, 1, 1, in}, by_fan_in(in));
}

Var Builder::linear_bias(const std::string& name, int out, int in) {
  return add(tape, weights, name, {1, 1, 1, out}, by_fan_in(in));
}

RunningMoments Builder::running(const std::string& name, int c) {
  return {add(tape, buffers, name + ".running_mean", {1, 1, 1, c}, Init::constant(0)),
          add(tape, buffers, name + ".running_var", {1, 1, 1, c}, Init::constant(1))};
}

Norm Builder::affine(const std::string& name, int c) {
  Norm norm;
  norm.gamma = add(tape, weights, name + ".gamma", {1, 1, 1, c}, Init::constant(1));
  norm.beta = add(tape, weights, name + ".beta", {1, 1, 1, c}, Init::constant(0));
  return norm;
}

Var batch_norm(Builder& b, const std::string& name, Var x, Var out) {
  const int c = b.tape.shape(x).c;
  Norm norm = batch_statistics(b.tape, x, b.running(name, c));
  const Norm affine = b.affine(name, c);
  norm.gamma = affine.gamma;
  norm.beta = affine.beta;
  return normalise(b.tape, x, norm, out);
}

SeparableUnit unit_parameters(Builder& b, const UnitNames& names, int cin, UnitGeometry g) {
  Separable unit;
  if (g.kernel > 1) unit.depthwise = b.depthwise_weight(names.depthwise, g.kernel, cin);
  unit.pointwise = b.conv_weight(names.pointwise, g.cout, 1, cin);
  unit.stride = g.stride;
  unit.dilation = g.dilation;
  return {{}, unit, b.running(names.batch_norm, g.cout)};
}

Normalised conv_unit(Builder& b, const UnitNames& names, Normalised x, UnitGeometry g, bool affine) {
  SeparableUnit unit = unit_parameters(b, names, b.tape.shape(x.x).c, g);
  unit.x = x;
  Normalised y = separable_convs(b.tape, {unit})[0];
  if (affine) {
    const Norm scale = b.affine(names.batch_norm, g.cout);
    y.norm.gamma = scale.gamma;
    y.norm.beta = scale.beta;
  }
  return y;
}

FactorizedReduce factorized_units(Builder& b, const std::string& name, Var x, int cout) {
  Tape& tape = b.tape;
  const Shape s = tape.shape(x);
  CHECK(cout % 2 == 0 && s.h % 2 == 0 && s.w % 2 == 0, "factorized_reduce ", name,
        ": needs even channels and sides, has ", cout, " channels from ", s);
  const RunningMoments running = b.running(name + ".bn", cout);
  FactorizedReduce both;
  Normalised& y = both.y;
  y.x = tape.activation({s.n, s.h / 2, s.w / 2, cout});
  y.norm = {tape.statistic({1, 1, 1, cout}), tape.statistic({1, 1, 1, cout}), {}, {}};
  for (int half = 0; half < 2; ++half) {
    auto part = [&](Var v) { return tape.slice(v, half * cout / 2, (half + 1) * cout / 2); };
    Separable unit;
    unit.pointwise = b.conv_weight(name + (half ? ".conv2" : ".conv1"), cout / 2, 1, s.c);
    unit.stride = 2;
    unit.offset = half;
    both.units.push_back({{x, {}},
                          unit,
                          {part(running.mean), part(running.var)},
                          {part(y.x), {part(y.norm.mean), part(y.norm.inv_std), {}, {}}}});
  }
  return both;
}

Normalised factorized_reduce(Builder& b, const std::string& name, Var x, int cout, bool affine) {
  FactorizedReduce both = factorized_units(b, name, x, cout);
  separable_convs(b.tape, both.units);
  if (affine) {
    const Norm parameters = b.affine(name + ".bn", cout);
    both.y.norm.gamma = parameters.gamma;
    both.y.norm.beta = parameters.beta;
  }
  return both.y;
}

Var classifier(Builder& b, const std::string& name, Var x, int classes) {
  const Var pooled = global_average_pool(b.tape, x);
  const int c = b.tape.shape(pooled).c;
  return linear(b.tape, pooled, b.linear_weight(name + ".weight", classes, c),
                b.linear_bias(name + ".bias", classes, c));
}

}  // namespace lanas
