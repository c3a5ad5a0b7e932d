// depthwise_conv_test.cpp -- fp64 finite differences, float against double, and against the dense convolution
// with diagonal weights.
#include "kernels/ops/depthwise_conv.h"

#include "kernels/vendor/conv2d.h"
#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

struct DepthwiseCase {
  Shape x;
  int kernel, stride, padding, dilation, gap;

  Shape w() const { return {1, kernel, kernel, x.c}; }
  Shape y() const {
    return {x.n, conv_output_size(x.h, kernel, stride, padding, dilation),
            conv_output_size(x.w, kernel, stride, padding, dilation), x.c};
  }
  std::string name() const {
    return join("x ", x, " kernel ", kernel, " stride ", stride, " dilation ", dilation, " gap ", gap);
  }
};

const DepthwiseCase kDepthwiseCases[] = {
    {{2, 5, 5, 1}, 3, 1, 1, 1, 0},  {{1, 7, 4, 3}, 3, 2, 1, 1, 0},  {{2, 5, 6, 4}, 5, 1, 2, 1, 3},
    {{1, 8, 8, 4}, 5, 2, 2, 1, 1},  {{1, 5, 7, 12}, 3, 1, 2, 2, 0}, {{2, 6, 5, 3}, 5, 2, 4, 2, 2},
    {{1, 4, 4, 16}, 3, 2, 2, 2, 0}, {{1, 3, 3, 36}, 3, 1, 1, 1, 4}, {{1, 1, 1, 2}, 5, 1, 4, 2, 0},
};

void check_depthwise(const DepthwiseCase& t, double beta) {
  Random random(7);
  TestTensor<double> x(t.x, t.x.c + t.gap), w(t.w()), y(t.y(), t.x.c + t.gap), dy(t.y(), t.x.c + t.gap);
  TestTensor<double> dx(t.x, t.x.c + t.gap), dw(t.w());
  x.randomize(random), w.randomize(random), dy.randomize(random);
  if (beta != 0) dx.randomize(random), dw.randomize(random);
  const TestTensor<double> dx0 = dx, dw0 = dw;
  const TestTensor<float> fx = x.as<float>(), fw = w.as<float>(), fy = y.as<float>(), fdy = dy.as<float>(),
                          fdx = dx.as<float>(), fdw = dw.as<float>();
  host::depthwise_conv_backward<double>(dx, dw, dy, x, w, t.stride, t.padding, t.dilation, beta, beta);
  const auto loss = [&] {
    host::depthwise_conv_forward<double>(y, x, w, t.stride, t.padding, t.dilation);
    return dot(y, dy);
  };
  const View<double> none;
  EXPECT_TRUE(gradcheck(
      loss, {{"dx", x, dx, beta != 0 ? dx0.view() : none}, {"dw", w, dw, beta != 0 ? dw0.view() : none}}))
      << t.name();
  loss();
  Stream stream(Device::cpu);
  depthwise_conv_forward(stream, fy, fx, fw, t.stride, t.padding, t.dilation);
  depthwise_conv_backward(stream, fdx, fdw, fdy, fx, fw, t.stride, t.padding, t.dilation, float(beta),
                          float(beta));
  EXPECT_TRUE(compare(fy, y, 2e-6)) << t.name();
  EXPECT_TRUE(compare(fdx, dx, 2e-6)) << t.name();
  EXPECT_TRUE(compare(fdw, dw, 2e-6)) << t.name();
  EXPECT_TRUE(fy.gaps_untouched() && fdx.gaps_untouched() && y.gaps_untouched() && dx.gaps_untouched());
}

TEST(DepthwiseConv, Gradcheck) {
  for (const DepthwiseCase& t : kDepthwiseCases)
    for (const double beta : {0.0, 1.0}) check_depthwise(t, beta);
}

TEST(DepthwiseConv, IsADiagonalConvolution) {
  for (const DepthwiseCase& t : kDepthwiseCases) {
    Random random(8);
    TestTensor<double> x(t.x), w(t.w()), y(t.y()), expected(t.y()), dense({t.x.c, t.kernel, t.kernel, t.x.c});
    x.randomize(random), w.randomize(random), dense.fill(0);
    for (int ky = 0; ky < t.kernel; ++ky)
      for (int kx = 0; kx < t.kernel; ++kx)
        for (int c = 0; c < t.x.c; ++c) dense.view().at(c, ky, kx)[c] = w.view().at(0, ky, kx)[c];
    host::depthwise_conv_forward<double>(y, x, w, t.stride, t.padding, t.dilation);
    host::conv2d_forward<double>(expected, x, dense, t.stride, t.padding, t.dilation);
    EXPECT_TRUE(compare(y, expected, 1e-12)) << t.name();
  }
}

TEST(DepthwiseConv, RefusesWrongShapes) {
  TestTensor<float> x({1, 5, 5, 4}), w({1, 3, 3, 4}), y({1, 5, 5, 4}), narrow({1, 3, 3, 3});
  Stream stream(Device::cpu);
  EXPECT_THROW(depthwise_conv_forward(stream, y, x, w, 2, 1, 1), Error);
  EXPECT_THROW(depthwise_conv_forward(stream, y, x, narrow, 1, 1, 1), Error);
  EXPECT_THROW(depthwise_conv_backward(stream, x, {}, x, x, w, 2, 1, 1, 0, 0), Error);
}

}  // namespace
}  // namespace lanas::test
