// conv2d_test.cpp -- the defining loops by fp64 finite differences, the direct products and im2col + gemm
// against the loops, one case by hand.
#include "kernels/vendor/conv2d.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/parallel.h"
#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

struct ConvCase {
  Shape x;
  int cout, kernel, stride, padding, dilation, gap;

  Shape w() const { return {cout, kernel, kernel, x.c}; }
  Shape y() const {
    return {x.n, conv_output_size(x.h, kernel, stride, padding, dilation),
            conv_output_size(x.w, kernel, stride, padding, dilation), cout};
  }
  std::string name() const {
    return join("x ", x, " cout ", cout, " kernel ", kernel, " stride ", stride, " padding ", padding,
                " dilation ", dilation, " gap ", gap);
  }
};

const ConvCase kConvCases[] = {
    {{2, 5, 5, 3}, 4, 3, 1, 1, 1, 0}, {{1, 7, 5, 1}, 1, 3, 2, 1, 1, 0}, {{3, 4, 6, 4}, 3, 1, 1, 0, 1, 2},
    {{2, 5, 6, 3}, 5, 1, 2, 0, 1, 3}, {{2, 7, 7, 2}, 3, 3, 1, 2, 2, 1}, {{1, 2, 2, 12}, 16, 2, 1, 0, 1, 0},
    {{1, 3, 3, 2}, 2, 5, 1, 2, 1, 0}, {{1, 1, 1, 3}, 2, 3, 1, 4, 3, 0}, {{1, 9, 4, 2}, 2, 3, 2, 3, 2, 1},
    {{1, 9, 4, 3}, 8, 3, 2, 1, 1, 1}, {{1, 2, 3, 1}, 4, 5, 1, 2, 1, 0},
};

TEST(Conv2d, LoopsPassGradcheck) {
  for (const ConvCase& t : kConvCases)
    for (const double beta : {0.0, 1.0}) {
      Random random(3);
      TestTensor<double> x(t.x, t.x.c + t.gap), w(t.w()), y(t.y(), t.cout + t.gap), dy(t.y(), t.cout + t.gap);
      TestTensor<double> dx(t.x, t.x.c + t.gap), dw(t.w());
      x.randomize(random), w.randomize(random), dy.randomize(random);
      if (beta != 0) dx.randomize(random), dw.randomize(random);
      const TestTensor<double> dx_start = dx, dw_start = dw;
      host::conv2d_backward_data<double>(dx, dy, w, t.stride, t.padding, t.dilation, beta);
      host::conv2d_backward_weights<double>(dw, dy, x, t.stride, t.padding, t.dilation, beta);
      const auto loss = [&] {
        host::conv2d_forward<double>(y, x, w, t.stride, t.padding, t.dilation);
        return dot(y, dy);
      };
      const View<double> none;
      EXPECT_TRUE(gradcheck(loss, {{"dx", x, dx, beta != 0 ? dx_start.view() : none},
                                   {"dw", w, dw, beta != 0 ? dw_start.view() : none}}))
          << t.name();
      EXPECT_TRUE(dx.gaps_untouched() && y.gaps_untouched()) << t.name();
    }
}

void check_float(const ConvCase& t, double beta) {
  Random random(4);
  TestTensor<double> x(t.x, t.x.c + t.gap), w(t.w()), y(t.y(), t.cout + t.gap), dy(t.y(), t.cout + t.gap);
  TestTensor<double> dx(t.x, t.x.c + t.gap), dw(t.w());
  x.randomize(random), w.randomize(random), dy.randomize(random);
  if (beta != 0) dx.randomize(random), dw.randomize(random);
  const TestTensor<float> fx = x.as<float>(), fw = w.as<float>(), fy = y.as<float>(), fdy = dy.as<float>(),
                          fdx = dx.as<float>(), fdw = dw.as<float>();
  host::conv2d_forward<double>(y, x, w, t.stride, t.padding, t.dilation);
  host::conv2d_backward_data<double>(dx, dy, w, t.stride, t.padding, t.dilation, beta);
  host::conv2d_backward_weights<double>(dw, dy, x, t.stride, t.padding, t.dilation, beta);

  Stream stream(Device::cpu);
  Memory scratch(Device::cpu, conv2d_scratch_bytes(t.y(), t.x, t.w(), t.stride, t.padding, t.dilation));
  std::fill_n(scratch.floats(), scratch.bytes() / sizeof(float), NAN);  // what is read must have been written
  conv2d_forward(stream, fy, fx, fw, t.stride, t.padding, t.dilation, scratch.data());
  conv2d_backward_data(stream, fdx, fdy, fw, t.stride, t.padding, t.dilation, float(beta), scratch.data());
  conv2d_backward_weights(stream, fdw, fdy, fx, t.stride, t.padding, t.dilation, float(beta), scratch.data());
  EXPECT_TRUE(compare(fy, y, 3e-6)) << t.name();
  EXPECT_TRUE(compare(fdx, dx, 3e-6)) << t.name();
  EXPECT_TRUE(compare(fdw, dw, 3e-6)) << t.name();
  EXPECT_TRUE(fy.gaps_untouched() && fdx.gaps_untouched()) << t.name();
}

TEST(Conv2d, FloatMatchesLoops) {
  const CpuIsa best = cpu_isa();
  for (const CpuIsa isa : {CpuIsa::base, CpuIsa::avx2, CpuIsa::avx512}) {
    if (isa > best) continue;
    set_cpu_isa(isa);
    SCOPED_TRACE(cpu_isa_name(isa));
    for (const double beta : {0.0, 1.0}) {
      check_float({{3, 19, 18, 3}, 48, 3, 1, 1, 1, 0}, beta);  // direct: tiles of eight rows and of the rest
      check_float({{2, 18, 17, 3}, 36, 3, 2, 1, 1, 3}, beta);
      check_float({{2, 9, 9, 12}, 20, 3, 1, 2, 1, 0}, beta);
    }
  }
  set_cpu_isa(best);
  for (const double beta : {0.0, 1.0}) {
    for (const ConvCase& t : kConvCases) check_float(t, beta);
    check_float({{5, 32, 32, 3}, 24, 3, 1, 1, 1, 0}, beta);  // stem: groups of one image
    check_float({{37, 8, 8, 16}, 36, 1, 2, 0, 1, 4}, beta);  // groups of many images, the last one short
    check_float({{9, 2, 2, 32}, 48, 2, 1, 0, 1, 0}, beta);   // auxiliary head
    check_float({{40, 16, 16, 2}, 3, 3, 1, 1, 1, 0}, beta);
    check_float({{150, 10, 10, 1}, 2, 3, 1, 1, 1, 0}, beta);  // more groups than one chunk holds
  }
}

TEST(Conv2d, SameBitsForAnyThreadCount) {
  for (const int cout : {24, 27}) {  // direct, im2col
    const ConvCase t{{20, 32, 32, 3}, cout, 3, 1, 1, 1, 0};
    Random random(5);
    TestTensor<float> x(t.x), dy(t.y()), one(t.w()), two(t.w());
    x.randomize(random), dy.randomize(random);
    Memory scratch(Device::cpu, conv2d_scratch_bytes(t.y(), t.x, t.w(), 1, 1, 1));
    for (const int threads : {1, 2}) {
      Stream stream(Device::cpu, threads);
      stream.activate();
      conv2d_backward_weights(stream, threads == 1 ? one : two, dy, x, 1, 1, 1, 0, scratch.data());
    }
    Stream(Device::cpu).activate();
    for (int64_t i = 0; i < t.w().size(); ++i) ASSERT_EQ(one[i], two[i]);
  }
}

TEST(Conv2d, ByHand) {
  // 1x3 image [1 2 3] and kernel row [10 20 30] in the middle of a 3x3 kernel, padding 1.
  float x[3] = {1, 2, 3}, w[9] = {7, 7, 7, 10, 20, 30, 7, 7, 7}, y[3];
  const Tensor tx(x, {1, 1, 3, 1}), tw(w, {1, 3, 3, 1}), ty(y, {1, 1, 3, 1});
  Stream stream(Device::cpu);
  Memory scratch(Device::cpu, conv2d_scratch_bytes(ty.shape(), tx.shape(), tw.shape(), 1, 1, 1));
  conv2d_forward(stream, ty, tx, tw, 1, 1, 1, scratch.data());
  EXPECT_EQ(y[0], 20 * 1 + 30 * 2);
  EXPECT_EQ(y[1], 10 * 1 + 20 * 2 + 30 * 3);
  EXPECT_EQ(y[2], 10 * 2 + 20 * 3);
}

TEST(Conv2d, RefusesWrongShapes) {
  EXPECT_THROW(conv2d_scratch_bytes({1, 5, 5, 4}, {1, 5, 5, 3}, {4, 3, 3, 2}, 1, 1, 1), Error);
  EXPECT_THROW(conv2d_scratch_bytes({1, 4, 5, 4}, {1, 5, 5, 3}, {4, 3, 3, 3}, 1, 1, 1), Error);
  EXPECT_THROW(conv2d_scratch_bytes({1, 0, 0, 4}, {1, 2, 2, 3}, {4, 3, 3, 3}, 1, 0, 1), Error);
  EXPECT_EQ(conv2d_scratch_bytes({1, 5, 5, 4}, {1, 5, 5, 3}, {4, 1, 1, 3}, 1, 0, 1), 0u);
}

}  // namespace
}  // namespace lanas::test
