// Tests of pool2d: a naive window loop, gradients, ties, strides, padding.
#include "kernels/ops/pool2d.h"

#include "tests/support/gradcheck.h"

namespace lanas {
namespace {
using namespace lanas::test;

struct PoolCase {
  Shape x;
  int kernel, stride, padding, gap;
};
const PoolCase kPoolCases[] = {
    {{2, 6, 6, 4}, 3, 1, 1, 0},  {{2, 6, 5, 4}, 3, 2, 1, 0},  {{1, 7, 7, 3}, 3, 2, 1, 4},
    {{2, 8, 8, 16}, 3, 1, 1, 3}, {{1, 4, 6, 12}, 2, 2, 0, 0}, {{1, 5, 7, 1}, 2, 2, 0, 2},
    {{2, 8, 8, 5}, 5, 3, 0, 0},  {{1, 9, 9, 2}, 5, 2, 2, 1},  {{1, 6, 6, 36}, 3, 1, 1, 0},
    {{1, 2, 2, 4}, 3, 1, 1, 0},  {{1, 1, 1, 4}, 3, 1, 1, 0},  {{1, 9, 8, 3}, 4, 3, 1, 0},
    {{1, 5, 5, 2}, 1, 2, 0, 0},
};

Shape pooled(const PoolCase& k) {
  return {k.x.n, pooled_size(k.x.h, k.kernel, k.stride, k.padding),
          pooled_size(k.x.w, k.kernel, k.stride, k.padding), k.x.c};
}

// window(y element, x elements of the window in row-major order) for every output element.
template <class Window>
void for_windows(const PoolCase& k, Window window) {
  const Shape out = pooled(k);
  for (int64_t i = 0; i < out.size(); ++i) {
    const int c = int(i % out.c), ox = int(i / out.c % out.w), oy = int(i / out.c / out.w % out.h);
    const int64_t n = i / out.c / out.w / out.h;
    std::vector<int64_t> taps;
    for (int r = 0; r < k.kernel; ++r)
      for (int s = 0; s < k.kernel; ++s) {
        const int iy = oy * k.stride - k.padding + r, ix = ox * k.stride - k.padding + s;
        if (iy >= 0 && iy < k.x.h && ix >= 0 && ix < k.x.w)
          taps.push_back(((n * k.x.h + iy) * k.x.w + ix) * k.x.c + c);
      }
    window(i, taps);
  }
}

TEST(Pool2d, ForwardMatchesTheWindows) {
  for (const PoolCase& k : kPoolCases) {
    Random random(1);
    TestTensor<double> x(k.x, k.x.c + k.gap), max(pooled(k), k.x.c + k.gap),
        avg(pooled(k), k.x.c + 2 * k.gap);
    x.randomize(random);
    host::max_pool_forward<double>(max, x, k.kernel, k.stride, k.padding);
    host::avg_pool_forward<double>(avg, x, k.kernel, k.stride, k.padding);
    for_windows(k, [&](int64_t i, const std::vector<int64_t>& taps) {
      double largest = x[taps[0]], sum = 0;
      for (int64_t tap : taps) {
        largest = std::max(largest, x[tap]);
        sum += x[tap];
      }
      EXPECT_EQ(max[i], largest);
      EXPECT_NEAR(avg[i], sum / double(taps.size()), 1e-12);
    });
    EXPECT_TRUE(max.gaps_untouched() && avg.gaps_untouched());
  }
}

// A gradient as it is, in a list of one.
template <class T>
std::vector<GradientView<T>> alone(const TestTensor<T>& dy) {
  return {GradientView<T>(dy.view())};
}

TEST(Pool2d, Gradients) {
  for (const PoolCase& k : kPoolCases)
    for (double beta : {0.0, 1.0}) {
      Random random(2);
      const int stride = k.x.c + k.gap;
      TestTensor<double> x(k.x, stride), y(pooled(k), stride), dy(pooled(k), stride), dx(k.x, stride);
      x.randomize_distinct(random);
      dy.randomize(random);
      if (beta == 1) dx.randomize(random);
      const TestTensor<double> dx0 = dx;
      const View<double> before = beta == 1 ? dx0.view() : View<double>();
      TestTensor<double> dx_avg = dx;
      host::max_pool_backward<double>(dx, alone(dy), x, k.kernel, k.stride, k.padding, beta);
      EXPECT_TRUE(gradcheck(
          [&] {
            host::max_pool_forward<double>(y, x, k.kernel, k.stride, k.padding);
            return dot(y, dy);
          },
          {{"max dx", x, dx, before}}))
          << k.x << " kernel " << k.kernel;
      host::avg_pool_backward<double>(dx_avg, alone(dy), k.kernel, k.stride, k.padding, beta);
      EXPECT_TRUE(gradcheck(
          [&] {
            host::avg_pool_forward<double>(y, x, k.kernel, k.stride, k.padding);
            return dot(y, dy);
          },
          {{"avg dx", x, dx_avg, before}}))
          << k.x << " kernel " << k.kernel;
      EXPECT_TRUE(dx.gaps_untouched() && dx_avg.gaps_untouched());
    }
}

TEST(Pool2d, TiesGoToTheFirstMaximumInRowMajorOrder) {
  for (const PoolCase& k : kPoolCases) {
    Random random(3);
    TestTensor<double> x(k.x), dy(pooled(k)), dx(k.x), expected(k.x);
    for (int64_t i = 0; i < k.x.size(); ++i) x[i] = random.below(3);  // many ties, like relu's zeros
    dy.randomize(random);
    expected.fill(0);
    for_windows(k, [&](int64_t i, const std::vector<int64_t>& taps) {
      int64_t first = taps[0];
      for (int64_t tap : taps)
        if (x[tap] > x[first]) first = tap;
      expected[first] += dy[i];
    });
    host::max_pool_backward<double>(dx, alone(dy), x, k.kernel, k.stride, k.padding, 0);
    EXPECT_TRUE(compare(dx, expected, 1e-14)) << k.x << " kernel " << k.kernel;
  }
}

TEST(Pool2d, GradientsInFactorsAreAdded) {
  constexpr int kParts = 6;  // with the value, more than are read side by side
  for (const PoolCase& k : kPoolCases) {
    Random random(5);
    Stream stream(Device::cpu, 2);
    TestTensor<double> x(k.x), y(pooled(k)), dy(pooled(k)), max(k.x), avg(k.x), factored_max(k.x),
        factored_avg(k.x);
    x.randomize_distinct(random);
    y.randomize(random);
    std::vector<TestTensor<double>> g;
    std::vector<std::vector<double>> factors;
    std::vector<GradientView<double>> views;
    for (int part = 0; part < kParts; ++part) {  // the second as it is
      g.emplace_back(pooled(k), k.x.c + part * k.gap).randomize(random);
      factors.push_back(random_vector<double>(3 * k.x.c, random));
    }
    for (int part = 0; part < kParts; ++part)
      views.emplace_back(g[size_t(part)], y, part == 1 ? nullptr : factors[size_t(part)].data());
    for (int64_t i = 0; i < dy.view().size(); ++i) {
      dy[i] = 0;
      for (const GradientView<double>& view : views) dy[i] += view.at(i / k.x.c, int(i % k.x.c));
    }
    host::max_pool_backward<double>(max, alone(dy), x, k.kernel, k.stride, k.padding, 0);
    host::max_pool_backward<double>(factored_max, views, x, k.kernel, k.stride, k.padding, 0);
    EXPECT_TRUE(compare(factored_max, max, 1e-13)) << k.x << " kernel " << k.kernel;
    host::avg_pool_backward<double>(avg, alone(dy), k.kernel, k.stride, k.padding, 0);
    host::avg_pool_backward<double>(factored_avg, views, k.kernel, k.stride, k.padding, 0);
    EXPECT_TRUE(compare(factored_avg, avg, 1e-13)) << k.x << " kernel " << k.kernel;

    const TestTensor<float> fx = x.as<float>(), fy = y.as<float>();
    TestTensor<float> fdx(k.x);
    std::vector<TestTensor<float>> fg;
    std::vector<std::vector<float>> float_factors;
    std::vector<GradientView<float>> float_views;
    for (size_t part = 0; part < kParts; ++part) {
      fg.push_back(g[part].as<float>(k.x.c + int(part) * k.gap));
      float_factors.push_back(convert<float>(factors[part]));
    }
    for (size_t part = 0; part < kParts; ++part)
      float_views.emplace_back(fg[part], fy, part == 1 ? nullptr : float_factors[part].data());
    max_pool_backward(stream, fdx, float_views, fx, k.kernel, k.stride, k.padding, 0);
    EXPECT_TRUE(compare(fdx, max, 2e-6)) << k.x << " kernel " << k.kernel;
    avg_pool_backward(stream, fdx, float_views, k.kernel, k.stride, k.padding, 0);
    EXPECT_TRUE(compare(fdx, avg, 2e-6)) << k.x << " kernel " << k.kernel;
  }
}

TEST(Pool2d, FloatLaunchersAgreeWithDouble) {
  for (const PoolCase& k : kPoolCases) {
    Random random(4);
    Stream stream(Device::cpu, 2);
    const int stride = k.x.c + k.gap;
    TestTensor<double> x(k.x), y(pooled(k)), dy(pooled(k)), dx(k.x);
    x.randomize_distinct(random);
    dy.randomize(random);
    TestTensor<float> fx = x.as<float>(stride), fdy = dy.as<float>(), fy(pooled(k), stride), fdx(k.x, stride);
    host::max_pool_forward<double>(y, x, k.kernel, k.stride, k.padding);
    max_pool_forward(stream, fy, fx, k.kernel, k.stride, k.padding);
    EXPECT_TRUE(compare(fy, y, 1e-6));
    host::max_pool_backward<double>(dx, alone(dy), x, k.kernel, k.stride, k.padding, 0);
    max_pool_backward(stream, fdx, alone(fdy), fx, k.kernel, k.stride, k.padding, 0);
    EXPECT_TRUE(compare(fdx, dx, 1e-6));
    host::avg_pool_forward<double>(y, x, k.kernel, k.stride, k.padding);
    avg_pool_forward(stream, fy, fx, k.kernel, k.stride, k.padding);
    EXPECT_TRUE(compare(fy, y, 1e-6));
    host::avg_pool_backward<double>(dx, alone(dy), k.kernel, k.stride, k.padding, 0);
    avg_pool_backward(stream, fdx, alone(fdy), k.kernel, k.stride, k.padding, 0);
    EXPECT_TRUE(compare(fdx, dx, 1e-6));
  }
}

TEST(Pool2d, Errors) {
  Stream stream;
  TestTensor<float> x({1, 4, 4, 4}), y({1, 3, 2, 4});
  EXPECT_THROW(max_pool_forward(stream, y, x, 3, 2, 1), Error);
  EXPECT_THROW(avg_pool_forward(stream, x, x, 3, 1, 2), Error);
  EXPECT_THROW(max_pool_backward(stream, y, alone(x), x, 3, 1, 1, 0), Error);
  EXPECT_THROW(max_pool_backward(stream, x, {}, x, 3, 1, 1, 0), Error);
  EXPECT_THROW(avg_pool_backward(stream, x, alone(y), 2, 2, 0, 0), Error);
  EXPECT_THROW(avg_pool_forward(stream, y, x, 5, 3, 0), Error);
}

}  // namespace
}  // namespace lanas
