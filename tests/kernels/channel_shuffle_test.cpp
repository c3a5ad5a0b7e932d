// Tests of channel_shuffle: the permutation, its inverse, gradients, errors.
#include "kernels/ops/channel_shuffle.h"

#include "tests/support/gradcheck.h"

namespace lanas {
namespace {
using namespace lanas::test;

struct Case {
  Shape shape;
  int groups, gap;
};
const Case kCases[] = {{{1, 1, 1, 1}, 1, 0},  {{2, 3, 3, 16}, 4, 0}, {{1, 5, 3, 12}, 4, 3},
                       {{2, 2, 2, 36}, 2, 4}, {{1, 3, 3, 9}, 3, 0},  {{1, 10, 10, 64}, 4, 0},
                       {{2, 3, 4, 8}, 2, 0},  {{1, 4, 4, 24}, 2, 8}};

TEST(ChannelShuffle, PermutationGradientAndInverse) {
  for (const Case& k : kCases)
    for (double beta : {0.0, 1.0}) {
      Random random(21);
      const int stride = k.shape.c + k.gap, members = k.shape.c / k.groups;
      TestTensor<double> x(k.shape, stride), y(k.shape, stride), dy(k.shape), dx(k.shape, stride);
      x.randomize(random);
      dy.randomize(random);
      if (beta == 1) dx.randomize(random);
      const TestTensor<double> dx0 = dx;
      host::channel_shuffle_forward<double>(y, x, k.groups);
      for (int64_t p = 0; p < k.shape.pixels(); ++p)
        for (int g = 0; g < k.groups; ++g)
          for (int m = 0; m < members; ++m)
            ASSERT_EQ(y[p * k.shape.c + m * k.groups + g], x[p * k.shape.c + g * members + m]);
      host::channel_shuffle_backward<double>(dx, dy, k.groups, beta);
      if (k.shape.size() < 200) {
        EXPECT_TRUE(gradcheck(
            [&] {
              host::channel_shuffle_forward<double>(y, x, k.groups);
              return dot(y, dy);
            },
            {{"dx", x, dx, beta == 1 ? dx0.view() : View<double>()}}));
      }
      EXPECT_TRUE(y.gaps_untouched() && dx.gaps_untouched());
      // Backward of forward is the identity.
      Stream stream(Device::cpu, 2);
      const auto fx = x.as<float>();
      TestTensor<float> fy(k.shape), back(k.shape, stride);
      channel_shuffle_forward(stream, fy, fx, k.groups);
      host::channel_shuffle_forward<double>(y, x, k.groups);  // again: gradcheck has moved x
      EXPECT_TRUE(compare(fy, y, 1e-7));
      channel_shuffle_backward(stream, back, fy, k.groups, 0);
      EXPECT_TRUE(compare(back, fx, 0));
      auto added = dx0.as<float>();
      channel_shuffle_backward(stream, added, dy.as<float>(), k.groups, float(beta));
      EXPECT_TRUE(compare(added, dx, 1e-6) && added.gaps_untouched());
    }
}

TEST(ChannelShuffle, Errors) {
  Stream stream;
  TestTensor<float> x({1, 2, 2, 6}), y({1, 2, 2, 6}), z({1, 2, 2, 4});
  EXPECT_THROW(channel_shuffle_forward(stream, y, x, 4), Error);
  EXPECT_THROW(channel_shuffle_forward(stream, z, x, 2), Error);
  EXPECT_THROW(channel_shuffle_backward(stream, y, z, 2, 0), Error);
}

}  // namespace
}  // namespace lanas
