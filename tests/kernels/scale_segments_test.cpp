// scale_segments_test.cpp -- fp64 finite differences, float against double, one case by hand.
#include "kernels/ops/scale_segments.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

void check_segments(int rows, int gap, const std::vector<int>& segments, double beta) {
  int columns = 0;
  for (const int length : segments) columns += length;
  Random random(10);
  TestTensor<double> x({rows, 1, 1, columns}, columns + gap), y(x.shape(), x.stride()),
      dx(x.shape(), x.stride()), dy(x.shape(), x.stride()), s({1, 1, 1, int(segments.size())}), ds(s.shape());
  x.randomize(random), dy.randomize(random), s.randomize(random);
  if (beta != 0) dx.randomize(random), ds.randomize(random);
  const TestTensor<double> dx0 = dx, ds0 = ds;
  const TestTensor<float> fx = x.as<float>(), fy = y.as<float>(), fdy = dy.as<float>(), fdx = dx.as<float>(),
                          fs = s.as<float>(), fds = ds.as<float>();
  const auto loss = [&] {
    host::scale_segments_forward<double>(y, x, s, segments);
    return dot(y, dy);
  };
  host::scale_segments_backward<double>(dx, ds, dy, x, s, segments, beta, beta);
  const View<double> none;
  EXPECT_TRUE(gradcheck(
      loss, {{"dx", x, dx, beta != 0 ? dx0.view() : none}, {"ds", s, ds, beta != 0 ? ds0.view() : none}}));
  loss();
  Stream stream(Device::cpu);
  scale_segments_forward(stream, fy, fx, fs, segments);
  scale_segments_backward(stream, fdx, fds, fdy, fx, fs, segments, float(beta), float(beta));
  EXPECT_TRUE(compare(fy, y, 2e-6));
  EXPECT_TRUE(compare(fdx, dx, 2e-6));
  EXPECT_TRUE(compare(fds, ds, 2e-6));
  EXPECT_TRUE(fy.gaps_untouched() && fdx.gaps_untouched());
}

TEST(ScaleSegments, Gradcheck) {
  for (const double beta : {0.0, 1.0}) {
    check_segments(1, 0, {1}, beta);
    check_segments(3, 2, {8, 8, 8}, beta);
    check_segments(2, 0, {2, 3, 4, 5}, beta);
    check_segments(5, 1, {12, 1, 36}, beta);
  }
}

TEST(ScaleSegments, ByHand) {
  float x[4] = {1, 2, 3, 4}, s[2] = {10, -1}, y[4];
  const int segments[] = {3, 1};
  Stream stream(Device::cpu);
  scale_segments_forward(stream, Tensor(y, {1, 1, 1, 4}), Tensor(x, {1, 1, 1, 4}), Tensor(s, {1, 1, 1, 2}),
                         segments);
  EXPECT_EQ(y[0], 10);
  EXPECT_EQ(y[2], 30);
  EXPECT_EQ(y[3], -4);
  const int wrong[] = {2, 1};
  EXPECT_THROW(scale_segments_forward(stream, Tensor(y, {1, 1, 1, 4}), Tensor(x, {1, 1, 1, 4}),
                                      Tensor(s, {1, 1, 1, 2}), wrong),
               Error);
}

}  // namespace
}  // namespace lanas::test
