// gradcheck.h -- what the tests of ops share: tensors with poisoned gaps, relative errors, and fp64 central
// differences: dL/dx_i ~ (L(x + h e_i) - L(x - h e_i)) / 2h, compared per tensor as ||a - b|| / ||b|| <=
// 1e-6.
//   TestTensor<double> x({2, 5, 5, 4}, 7);  x.randomize(random);  // pixel stride 7; the 3 gap channels are
//   NaN EXPECT_TRUE(gradcheck([&] { forward(y, x); return dot(y, dy); }, {{"dx", x, dx}}));
//   EXPECT_TRUE(dx.gaps_untouched());
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "kernels/core/random.cuh"
#include "kernels/core/tensor.h"

namespace lanas::test {

// Owns a tensor with any pixel stride >= c. Everything starts as NaN, so a read before a write shows; the gap
// channels (before and after the c channels of each pixel) must still be NaN at the end of the test.
template <class T>
class TestTensor {
 public:
  explicit TestTensor(Shape shape, int stride = 0)
      : shape_(shape),
        stride_(stride > 0 ? stride : shape.c),
        buffer_(size_t(shape.pixels() * stride_), std::numeric_limits<T>::quiet_NaN()) {
    CHECK(stride_ >= shape.c, "TestTensor: stride ", stride_, " for ", shape);
  }

  View<T> view() const { return View<T>(const_cast<T*>(buffer_.data()) + offset(), shape_, stride_); }
  operator View<T>() const { return view(); }
  T* data() const { return view().data; }
  T& operator[](int64_t i) const { return view().pixel(i / shape_.c)[i % shape_.c]; }  // i < shape.size()
  const Shape& shape() const { return shape_; }
  int stride() const { return stride_; }

  const TestTensor& fill(T value) const {
    for (int64_t i = 0; i < shape_.size(); ++i) (*this)[i] = value;
    return *this;
  }
  // Normal draws times scale plus shift.
  const TestTensor& randomize(Random& random, double scale = 1, double shift = 0) const {
    for (int64_t i = 0; i < shape_.size(); ++i) (*this)[i] = T(shift + scale * double(random.normal()));
    return *this;
  }
  // A shuffled grid of multiples of `step` around 0 (never 0 itself): no two elements tie, none is near the
  // kink of relu. For max pooling and relu.
  const TestTensor& randomize_distinct(Random& random, double step = 0.01) const {
    std::vector<int64_t> order(size_t(shape_.size()));
    for (size_t i = 0; i < order.size(); ++i) order[i] = int64_t(i) - shape_.size() / 2;
    random.shuffle(order);
    for (size_t i = 0; i < order.size(); ++i) (*this)[int64_t(i)] = T(step * (double(order[i]) + 0.5));
    return *this;
  }
  // The same values in another scalar and with another stride.
  template <class U>
  TestTensor<U> as(int stride = 0) const {
    TestTensor<U> other(shape_, stride > 0 ? stride : stride_);
    for (int64_t i = 0; i < shape_.size(); ++i) other[i] = U((*this)[i]);
    return other;
  }
  bool gaps_untouched() const {
    for (int64_t i = 0; i < int64_t(buffer_.size()); ++i) {
      const int64_t channel = i % stride_ - offset();
      if ((channel < 0 || channel >= shape_.c) && !std::isnan(buffer_[size_t(i)])) return false;
    }
    return true;
  }

 private:
  int64_t offset() const { return (stride_ - shape_.c) / 2; }

  Shape shape_;
  int stride_;
  std::vector<T> buffer_;
};

// A plain array as a [1, n] matrix.
template <class T>
View<T> row(std::vector<T>& v) {
  return View<T>(v.data(), {1, 1, 1, int(v.size())});
}
template <class T>
std::vector<T> random_vector(int size, Random& random, double scale = 1, double shift = 0) {
  std::vector<T> v(static_cast<size_t>(size));
  for (T& e : v) e = T(shift + scale * double(random.normal()));
  return v;
}
template <class U, class T>
std::vector<U> convert(const std::vector<T>& v) {
  return std::vector<U>(v.begin(), v.end());
}

// sum of a * b in double.
template <class A, class B>
double dot(View<A> a, View<B> b) {
  CHECK(a.shape() == b.shape(), "dot: ", a.shape(), " does not match ", b.shape());
  double sum = 0;
  for (int64_t p = 0; p < a.pixels(); ++p)
    for (int c = 0; c < a.c; ++c) sum += double(a.pixel(p)[c]) * double(b.pixel(p)[c]);
  return sum;
}
template <class T>
double dot(const TestTensor<T>& a, const TestTensor<T>& b) {
  return dot(a.view(), b.view());
}

// ||a - b|| / max(||b||, tiny); NaN when an element is NaN, infinite when the shapes differ.
template <class A, class B>
double relative_error(View<A> a, View<B> b) {
  if (!(a.shape() == b.shape())) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (int64_t p = 0; p < a.pixels(); ++p)
    for (int c = 0; c < a.c; ++c) {
      const double x = double(a.pixel(p)[c]), y = double(b.pixel(p)[c]);
      difference += (x - y) * (x - y);
      norm += y * y;
    }
  return std::sqrt(difference) / std::max(std::sqrt(norm), 1e-30);
}

template <class A, class B>
testing::AssertionResult compare(View<A> a, View<B> b, double rtol) {
  const double error = relative_error(a, b);
  if (error <= rtol) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "relative error " << error << " > " << rtol << ", shapes "
                                     << join(a.shape()) << " and " << join(b.shape());
}
template <class A, class B>
testing::AssertionResult compare(const TestTensor<A>& a, const TestTensor<B>& b, double rtol) {
  return compare(a.view(), b.view(), rtol);
}
template <class A, class B>
testing::AssertionResult compare(std::vector<A>& a, std::vector<B>& b, double rtol) {
  return compare(row(a), row(b), rtol);
}

// One tensor whose gradient is checked: its values x (perturbed and put back) and the analytic gradient.
// With beta = 1, `start` is what the gradient held before the backward call.
struct GradInput {
  std::string name;
  View<double> x, gradient, start;

  GradInput(std::string label, View<double> value, View<double> analytic, View<double> before = {})
      : name(std::move(label)), x(value), gradient(analytic), start(before) {}
  GradInput(std::string label, std::vector<double>& value, std::vector<double>& analytic)
      : name(std::move(label)), x(row(value)), gradient(row(analytic)), start() {}
};

// Runs on one thread: thousands of tiny passes on a busy machine would spend their time waiting for threads.
inline testing::AssertionResult gradcheck(const std::function<double()>& loss,
                                          const std::vector<GradInput>& inputs, double rtol = 1e-6,
                                          double h = 1e-5) {
  struct OneThread {
    int before = omp_get_max_threads();
    OneThread() { omp_set_num_threads(1); }
    ~OneThread() { omp_set_num_threads(before); }
  } one_thread;
  for (const GradInput& input : inputs) {
    CHECK(input.x.shape() == input.gradient.shape(), "gradcheck: ", input.name, " ", input.gradient.shape(),
          " does not match x ", input.x.shape());
    TestTensor<double> analytic(input.x.shape()), numeric(input.x.shape());
    for (int64_t p = 0; p < input.x.pixels(); ++p)
      for (int c = 0; c < input.x.c; ++c) {
        double& x = input.x.pixel(p)[c];
        const double saved = x;
        x = saved + h;
        const double above = loss();
        x = saved - h;
        const double below = loss();
        x = saved;
        numeric[p * input.x.c + c] = (above - below) / (2 * h);
        analytic[p * input.x.c + c] =
            input.gradient.pixel(p)[c] - (input.start ? input.start.pixel(p)[c] : 0);
      }
    if (auto result = compare(analytic, numeric, rtol); !result) return result << " (" << input.name << ")";
  }
  return testing::AssertionSuccess();
}

}  // namespace lanas::test
