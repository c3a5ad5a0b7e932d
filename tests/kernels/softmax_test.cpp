// softmax_test.cpp -- fp64 finite differences, float against double, segments by hand, large logits.
#include "kernels/ops/softmax.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

struct SoftmaxCase {
  int rows, gap;
  std::vector<int> segments;
};
const SoftmaxCase kSoftmaxCases[] = {{1, 0, {1}},  {3, 0, {4}},        {2, 3, {2, 3, 4, 5}},
                                     {14, 0, {8}}, {1, 2, {1, 12, 3}}, {5, 1, {36}}};

void check_softmax(const SoftmaxCase& t, double beta) {
  int columns = 0;
  for (const int length : t.segments) columns += length;
  Random random(9);
  TestTensor<double> x({t.rows, 1, 1, columns}, columns + t.gap), y(x.shape(), x.stride()),
      dx(x.shape(), x.stride()), dy(x.shape(), x.stride());
  x.randomize(random, 2), dy.randomize(random);
  if (beta != 0) dx.randomize(random);
  const TestTensor<double> dx0 = dx;
  const TestTensor<float> fx = x.as<float>(), fy = y.as<float>(), fdy = dy.as<float>(), fdx = dx.as<float>();
  const auto loss = [&] {
    host::softmax_forward<double>(y, x, t.segments);
    return dot(y, dy);
  };
  loss();
  for (int r = 0; r < t.rows; ++r) {
    int i = r * columns;
    for (const int length : t.segments) {
      double sum = 0;
      for (int j = 0; j < length; ++j) sum += y[i++];
      EXPECT_NEAR(sum, 1, 1e-12);
    }
  }
  host::softmax_backward<double>(dx, dy, y, t.segments, beta);
  Stream stream(Device::cpu);
  softmax_forward(stream, fy, fx, t.segments);
  softmax_backward(stream, fdx, fdy, fy, t.segments, float(beta));
  EXPECT_TRUE(compare(fy, y, 2e-6));
  EXPECT_TRUE((columns == 1 && beta == 0) || compare(fdx, dx, 2e-6)) << columns;
  EXPECT_TRUE(fy.gaps_untouched() && fdx.gaps_untouched());
  if (columns > 1)
    EXPECT_TRUE(gradcheck(loss, {{"dx", x, dx, beta != 0 ? dx0.view() : View<double>()}}));
  else
    EXPECT_EQ(dx[0], beta == 0 ? 0 : dx0[0]);
}

TEST(Softmax, Gradcheck) {
  for (const SoftmaxCase& t : kSoftmaxCases)
    for (const double beta : {0.0, 1.0}) check_softmax(t, beta);
}

TEST(Softmax, ByHandAndLargeLogits) {
  float x[5] = {1000, 1000 + std::log(3.0f), -2000, -2000, -2000}, y[5];
  const int segments[] = {2, 3};
  Stream stream(Device::cpu);
  softmax_forward(stream, Tensor(y, {1, 1, 1, 5}), Tensor(x, {1, 1, 1, 5}), segments);
  EXPECT_NEAR(y[0], 0.25, 1e-4);
  EXPECT_NEAR(y[1], 0.75, 1e-4);
  for (int i = 2; i < 5; ++i) EXPECT_NEAR(y[i], 1.0 / 3, 1e-6);
}

TEST(Softmax, RefusesWrongSegments) {
  TestTensor<float> x({2, 1, 1, 4}), y({2, 1, 1, 4});
  Stream stream(Device::cpu);
  const int few[] = {3}, empty[] = {4, 0};
  EXPECT_THROW(softmax_forward(stream, y, x, few), Error);
  EXPECT_THROW(softmax_forward(stream, y, x, empty), Error);
}

}  // namespace
}  // namespace lanas::test
