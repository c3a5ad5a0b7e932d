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

// Group 0, and the others; none where there are no others.
template <class T>
View<T> first_of(View<T> x, int groups) {
  return x.slice(0, x.c / groups);
}
template <class T>
View<T> rest_of(View<T> x, int groups) {
  return groups > 1 ? x.slice(x.c / groups, x.c) : View<T>{};
}

TEST(ChannelShuffle, PermutationGradientAndInverse) {
  for (const Case& k : kCases)
    for (double beta : {0.0, 1.0}) {
      Random random(21);
      const int stride = k.shape.c + k.gap, members = k.shape.c / k.groups, groups = k.groups;
      TestTensor<double> x(k.shape, stride), y(k.shape, stride), dy(k.shape), dx(k.shape, stride);
      x.randomize(random);
      dy.randomize(random);
      if (beta == 1) dx.randomize(random);
      const TestTensor<double> dx0 = dx;
      const auto forward = [&] {
        host::channel_shuffle_forward<double>(y, first_of(x.view(), groups), rest_of(x.view(), groups));
      };
      forward();
      for (int64_t p = 0; p < k.shape.pixels(); ++p)
        for (int g = 0; g < groups; ++g)
          for (int m = 0; m < members; ++m)
            ASSERT_EQ(y[p * k.shape.c + m * groups + g], x[p * k.shape.c + g * members + m]);
      host::channel_shuffle_backward<double>(first_of(dx.view(), groups), rest_of(dx.view(), groups), dy,
                                             beta, beta);
      if (k.shape.size() < 200) {
        EXPECT_TRUE(gradcheck(
            [&] {
              forward();
              return dot(y, dy);
            },
            {{"dx", x, dx, beta == 1 ? dx0.view() : View<double>()}}));
      }
      EXPECT_TRUE(y.gaps_untouched() && dx.gaps_untouched());
      // Backward of forward is the identity.
      Stream stream(Device::cpu, 2);
      auto fx = x.as<float>();
      TestTensor<float> fy(k.shape), back(k.shape, stride);
      channel_shuffle_forward(stream, fy, first_of(fx.view(), groups), rest_of(fx.view(), groups));
      forward();  // again: gradcheck has moved x
      EXPECT_TRUE(compare(fy, y, 1e-7));
      channel_shuffle_backward(stream, first_of(back.view(), groups), rest_of(back.view(), groups), fy, 0, 0);
      EXPECT_TRUE(compare(back, fx, 0));
      auto added = dx0.as<float>();
      channel_shuffle_backward(stream, first_of(added.view(), groups), rest_of(added.view(), groups),
                               dy.as<float>(), float(beta), float(beta));
      EXPECT_TRUE(compare(added, dx, 1e-6) && added.gaps_untouched());
    }
}

// A part that is not wanted is left alone, and the other does not change with it.
TEST(ChannelShuffle, EitherPartMayBeNull) {
  Random random(3);
  Stream stream(Device::cpu, 2);
  for (const Shape s : {Shape{2, 3, 3, 16}, Shape{1, 2, 5, 12}, Shape{1, 3, 3, 8}}) {
    const int groups = s.c == 8 ? 2 : 4;
    TestTensor<float> dy(s), both(s);
    dy.randomize(random);
    const Tensor first = first_of(both.view(), groups), rest = rest_of(both.view(), groups);
    channel_shuffle_backward(stream, first, rest, dy, 0, 0);
    TestTensor<float> one(first.shape()), others(rest.shape());
    channel_shuffle_backward(stream, one, {nullptr, rest.shape()}, dy, 0, 0);
    channel_shuffle_backward(stream, {nullptr, first.shape()}, others, dy, 0, 0);
    for (int64_t p = 0; p < s.pixels(); ++p) {
      for (int c = 0; c < first.c; ++c) ASSERT_EQ(one[p * first.c + c], first.pixel(p)[c]);
      for (int c = 0; c < rest.c; ++c) ASSERT_EQ(others[p * rest.c + c], rest.pixel(p)[c]);
    }
  }
}

TEST(ChannelShuffle, Errors) {
  Stream stream;
  TestTensor<float> x({1, 2, 2, 4}), y({1, 2, 2, 6}), z({1, 2, 2, 2}), small({1, 1, 2, 4});
  EXPECT_THROW(channel_shuffle_forward(stream, y, x, z), Error);
  EXPECT_THROW(channel_shuffle_forward(stream, y, z, z), Error);
  EXPECT_THROW(channel_shuffle_forward(stream, y, z, small), Error);
  EXPECT_THROW(channel_shuffle_backward(stream, x, z, y, 0, 0), Error);
}

}  // namespace
}  // namespace lanas
