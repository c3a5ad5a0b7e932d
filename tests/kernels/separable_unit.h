// separable_unit.h -- everything that one call of separable_conv touches, for its tests: in float and in
// double, on every instruction set of this processor.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/ops/separable_conv.h"
#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

enum class Norm { none, plain, affine };

struct Case {
  int n, size, cin, cout, k, stride, dilation;
  Norm norm = Norm::none;
  double beta = 0;
  int gap = 0;  // strided views
  int offset = 0;
  bool relu = true;

  friend std::ostream& operator<<(std::ostream& out, const Case& c) {
    return out << "n " << c.n << " size " << c.size << " channels " << c.cin << "->" << c.cout << " k " << c.k
               << " stride " << c.stride << " dilation " << c.dilation << " norm " << int(c.norm) << " beta "
               << c.beta << " gap " << c.gap << " offset " << c.offset << " relu " << c.relu;
  }
};

constexpr double kEps = 1e-5;

// Everything one call of the unit touches, in one scalar.
template <class T>
struct Unit {
  Case c;
  Shape out;
  TestTensor<T> x, dx, y, dy, depthwise, d_depthwise, pointwise, d_pointwise;
  std::vector<T> mean, inv_std, gamma, shift, dgamma, dshift, y_mean, y_inv_std;

  explicit Unit(const Case& wanted)
      : c(wanted),
        out{c.n, (c.size - c.offset + c.stride - 1) / c.stride,
            (c.size + 1 - c.offset + c.stride - 1) / c.stride, c.cout},
        x({c.n, c.size, c.size + 1, c.cin}, c.cin + c.gap),
        dx(x.shape(), x.stride()),
        y(out, c.cout + c.gap),
        dy(out, c.cout + c.gap),
        depthwise({1, std::max(c.k, 1), std::max(c.k, 1), c.cin}),
        d_depthwise(depthwise.shape()),
        pointwise({c.cout, 1, 1, c.cin}),
        d_pointwise(pointwise.shape()),
        mean(size_t(c.cin)),
        inv_std(mean),
        dgamma(mean),
        dshift(mean),
        y_mean(size_t(c.cout)),
        y_inv_std(y_mean) {}

  Unit(const Case& wanted, Random& random) : Unit(wanted) {
    x.randomize(random, 1, 0.3);
    dy.randomize(random);
    depthwise.randomize(random, 0.5);
    pointwise.randomize(random, 0.5);
    gamma = random_vector<T>(c.cin, random, 0.3, 1);
    shift = random_vector<T>(c.cin, random, 0.5);
    statistics();
    if (c.beta != 0) {
      for (const TestTensor<T>* t : {&dx, &d_depthwise, &d_pointwise, &y}) t->randomize(random);
      dgamma = random_vector<T>(c.cin, random);
      dshift = random_vector<T>(c.cin, random);
    }
  }

  template <class U>
  Unit<U> as() const {
    Unit<U> u(c);
    u.x = x.template as<U>(), u.dx = dx.template as<U>(), u.y = y.template as<U>(),
    u.dy = dy.template as<U>();
    u.depthwise = depthwise.template as<U>(), u.d_depthwise = d_depthwise.template as<U>();
    u.pointwise = pointwise.template as<U>(), u.d_pointwise = d_pointwise.template as<U>();
    u.mean = convert<U>(mean), u.inv_std = convert<U>(inv_std), u.gamma = convert<U>(gamma);
    u.shift = convert<U>(shift), u.dgamma = convert<U>(dgamma), u.dshift = convert<U>(dshift);
    return u;
  }

  void statistics() {
    const double pixels = double(x.view().pixels());
    for (int ch = 0; ch < c.cin; ++ch) {
      double sum = 0, square = 0;
      for (int64_t p = 0; p < x.view().pixels(); ++p) sum += double(x[p * c.cin + ch]);
      for (int64_t p = 0; p < x.view().pixels(); ++p)
        square += std::pow(double(x[p * c.cin + ch]) - sum / pixels, 2);
      mean[size_t(ch)] = T(sum / pixels);
      inv_std[size_t(ch)] = T(1 / std::sqrt(square / pixels + kEps));
    }
  }

  SeparableConv<T> op() {
    SeparableConv<T> op;
    if (c.k > 0) op.depthwise = depthwise.view();
    op.pointwise = pointwise.view();
    if (c.norm != Norm::none) op.norm.mean = mean.data(), op.norm.inv_std = inv_std.data();
    if (c.norm == Norm::affine) op.norm.gamma = gamma.data(), op.norm.beta = shift.data();
    op.stride = c.stride, op.dilation = c.dilation, op.offset = c.offset, op.relu = c.relu;
    return op;
  }

  SeparableConvGradient<T> gradient() {
    SeparableConvGradient<T> g;
    g.dx = dx.view(), g.d_pointwise = d_pointwise.view();
    if (c.k > 0) g.d_depthwise = d_depthwise.view();
    if (c.norm == Norm::affine) g.norm.dgamma = dgamma.data(), g.norm.dbeta = dshift.data();
    g.beta_dx = g.beta_d_depthwise = g.beta_d_pointwise = g.norm.beta_dgamma = g.norm.beta_dbeta = T(c.beta);
    return g;
  }

  void forward() {
    host::separable_conv_forward(op(), y.view(), x.view(), y_mean.data(), y_inv_std.data(), T(kEps));
  }
  void backward() { host::separable_conv_backward(op(), gradient(), GradientView<T>(dy.view()), x.view()); }
};

class EveryIsa : public testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    saved_ = cpu_isa();
    set_cpu_isa(GetParam());
  }
  void TearDown() override { set_cpu_isa(saved_); }
  CpuIsa saved_ = CpuIsa::base;
};

float* scratch_of(std::unique_ptr<Memory>& memory, size_t bytes) {
  memory = std::make_unique<Memory>(Device::cpu, bytes + kAlignment);
  std::fill_n(memory->floats(), memory->bytes() / sizeof(float), NAN);  // what is read must have been written
  return memory->floats();
}

std::vector<CpuIsa> isas_of_this_processor() {
  std::vector<CpuIsa> isas;
  for (const CpuIsa isa : {CpuIsa::base, CpuIsa::avx2, CpuIsa::avx512})
    if (isa <= cpu_isa()) isas.push_back(isa);
  return isas;
}
}  // namespace
}  // namespace lanas::test
