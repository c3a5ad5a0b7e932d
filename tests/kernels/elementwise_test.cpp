// Tests of elementwise: formulas, gradients, strides, in place, beta.
#include "kernels/ops/elementwise.h"

#include <array>

#include "tests/support/gradcheck.h"

namespace lanas {
namespace {
using namespace lanas::test;

const Shape kElementwiseShapes[] = {{1, 1, 1, 1},  {2, 5, 3, 3},  {1, 7, 7, 4},
                                    {3, 4, 4, 12}, {2, 3, 3, 36}, {2, 1, 1, 1030}};

TEST(Elementwise, ReluForwardAndGradient) {
  for (Shape shape : kElementwiseShapes)
    for (int gap : {0, 3})
      for (double beta : {0.0, 1.0}) {
        Random random(7);
        const int stride = shape.c + gap;
        TestTensor<double> x(shape, stride), y(shape, gap ? stride + 1 : 0), dy(shape, stride),
            dx(shape, stride);
        x.randomize_distinct(random);
        dy.randomize(random);
        if (beta == 1) dx.randomize(random);
        const TestTensor<double> start = dx;
        host::relu_forward<double>(y, x);
        for (int64_t i = 0; i < shape.size(); ++i) ASSERT_EQ(y[i], std::max(x[i], 0.0));
        host::relu_backward<double>(dx, dy, x, beta);
        const auto loss = [&] {
          host::relu_forward<double>(y, x);
          return dot(y, dy);
        };
        EXPECT_TRUE(gradcheck(loss, {{"dx", x, dx, beta == 1 ? start.view() : View<double>()}}));
        EXPECT_TRUE(y.gaps_untouched() && dx.gaps_untouched());
      }
}

TEST(Elementwise, ReluKeepsNaN) {
  TestTensor<float> x({1, 1, 1, 20});
  host::relu_forward<float>(x, x);  // starts as NaN
  EXPECT_TRUE(std::isnan(x[0]) && std::isnan(x[19]));
}

TEST(Elementwise, FloatLaunchersAgreeWithDouble) {
  Stream stream(Device::cpu, 2);
  Random random(8);
  const Shape shape{5, 33, 31, 4};
  TestTensor<double> a(shape, 16), b(shape), y(shape);
  a.randomize(random);
  b.randomize(random);
  const auto fa = a.as<float>(), fb = b.as<float>();
  TestTensor<float> fy(shape, 6);
  relu_forward(stream, fy, fa);
  host::relu_forward<double>(y, a);
  EXPECT_TRUE(compare(fy, y, 1e-6));
  relu_backward(stream, fy, fb, fa, 1);
  host::relu_backward<double>(y, b, a, 1);
  EXPECT_TRUE(compare(fy, y, 1e-6));
  add_scaled(stream, fy, fb, -0.7f);
  for (int64_t i = 0; i < shape.size(); ++i) y[i] += -0.7 * b[i];
  EXPECT_TRUE(compare(fy, y, 1e-6));
  const std::array<Tensor, 3> xs = {fa, fb, fa};
  sum_forward(stream, fy, xs);
  for (int64_t i = 0; i < shape.size(); ++i) y[i] = a[i] + b[i] + a[i];
  EXPECT_TRUE(compare(fy, y, 1e-6));
  sum_forward(stream, fy, std::span(xs).first(1));
  EXPECT_TRUE(compare(fy, a, 1e-6));
  EXPECT_TRUE(fy.gaps_untouched());
}

TEST(Elementwise, CopyScaledAndFill) {
  for (Shape shape : kElementwiseShapes)
    for (double scale : {1.0, 0.25})
      for (double beta : {0.0, 1.0}) {
        Random random(9);
        TestTensor<double> x(shape, shape.c + 2), y(shape, shape.c + 1);
        x.randomize(random);
        if (beta == 1) y.fill(3);
        host::copy_scaled<double>(y, x, scale, beta);
        for (int64_t i = 0; i < shape.size(); ++i) ASSERT_EQ(y[i], beta * 3 + scale * x[i]);
        host::fill<double>(y, -2);
        for (int64_t i = 0; i < shape.size(); ++i) ASSERT_EQ(y[i], -2);
        EXPECT_TRUE(y.gaps_untouched());
      }
}

TEST(Elementwise, CopyScaledByANumberInMemory) {
  Stream stream;
  for (Shape shape : kElementwiseShapes)
    for (float factor : {0.5f, 0.0f})
      for (float beta : {0.0f, 1.0f}) {
        Random random(10);
        TestTensor<float> x(shape, shape.c + 2), y(shape, shape.c + 1);
        x.randomize(random);
        if (factor == 0) x[0] = NAN;  // must not be seen
        if (beta == 1) y.fill(3);
        copy_scaled_by(stream, y, x, &factor, -2, beta);
        for (int64_t i = 0; i < shape.size(); ++i)
          ASSERT_EQ(y[i], (beta == 0 ? 0 : 3) + (factor == 0 ? 0 : -2 * factor * x[i]));
        EXPECT_TRUE(y.gaps_untouched());
      }
}

TEST(Elementwise, ShapeErrorsGiveBothSides) {
  Stream stream;
  TestTensor<float> x({1, 2, 2, 4}), y({1, 2, 2, 3});
  try {
    relu_forward(stream, y, x);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "relu_forward: y [1,2,2,3] does not match [1,2,2,4]");
  }
  EXPECT_THROW(relu_backward(stream, x, y, x, 0), Error);
  EXPECT_THROW(copy_scaled(stream, x, y, 1, 0), Error);
  const float factor = 1;
  EXPECT_THROW(copy_scaled_by(stream, x, y, &factor, 1, 0), Error);
  EXPECT_THROW(sum_forward(stream, x, {}), Error);
}

}  // namespace
}  // namespace lanas
