#include "kernels/ops/mean_rows.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

TEST(MeanRows, MatchesCentralDifferences) {
  for (int stride : {3, 5}) {
    for (double beta : {0., 1.}) {
      Random random(7);
      const Shape shape{4, 1, 1, 3};
      TestTensor<double> x(shape, stride), dx(shape, stride), start(shape), y({1, 1, 1, 3}), dy({1, 1, 1, 3});
      x.randomize(random);
      dy.randomize(random);
      start.randomize(random);
      if (beta == 1)
        for (int64_t i = 0; i < shape.size(); ++i) dx[i] = start[i];
      host::mean_rows_backward<double>(dx, dy, beta);
      auto loss = [&] {
        host::mean_rows_forward<double>(y, x);
        return dot(y, dy);
      };
      EXPECT_TRUE(gradcheck(loss, {{"dx", x, dx, beta == 1 ? start.view() : View<double>{}}}));
      EXPECT_TRUE(dx.gaps_untouched());
    }
  }
}

TEST(MeanRows, IsTheMeanInFloat) {
  Stream stream;
  TestTensor<float> x({3, 1, 1, 2}), y({1, 1, 1, 2});
  for (int i = 0; i < 6; ++i) x[i] = float(i * i);  // columns 0 4 16 and 1 9 25
  mean_rows_forward(stream, y, x);
  EXPECT_FLOAT_EQ(y[0], 20.f / 3);
  EXPECT_FLOAT_EQ(y[1], 35.f / 3);
  TestTensor<float> wide({1, 1, 1, 3});
  EXPECT_THROW(mean_rows_forward(stream, wide, x), Error);
}

}  // namespace
}  // namespace lanas::test
