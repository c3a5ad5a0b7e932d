// augment_test.cpp -- the evaluation transform by formula; every augmented image is one of the possible crops
// and flips of its source; cutout squares; repeatable draws and their frequencies.
#include "kernels/ops/augment.h"

#include <array>
#include <map>
#include <set>

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

constexpr int kSide = 8;

// No two pixels of the first image are equal.
std::vector<uint8_t> make_images(int count) {
  std::vector<uint8_t> images(size_t(count * kSide * kSide * 3));
  for (size_t i = 0; i < images.size(); ++i) images[i] = uint8_t(1 + i / 3 + i % 3);
  return images;
}

AugmentConfig plain() {
  AugmentConfig config;
  config.mean[0] = 0.5f, config.mean[1] = 0.25f, config.mean[2] = 0;
  config.std[0] = 0.25f, config.std[1] = 0.5f, config.std[2] = 2;
  config.seed = 5;
  return config;
}

float normalise(const AugmentConfig& config, int value, int c) {
  return (float(value) / 255 - config.mean[c]) / config.std[c];
}

TEST(Augment, EvaluationTransform) {
  const std::vector<uint8_t> images = make_images(3);
  const int indices[4] = {2, 0, 0, 1};
  const uint64_t step = 9;
  for (const int stride : {3, 8}) {
    TestTensor<float> y({4, kSide, kSide, 3}, stride);
    Stream stream(Device::cpu);
    augment_forward(stream, y, images.data(), indices, plain(), &step);
    for (int n = 0; n < 4; ++n)
      for (int p = 0; p < kSide * kSide; ++p)
        for (int c = 0; c < 3; ++c)
          ASSERT_NEAR(y[(n * kSide * kSide + p) * 3 + c],
                      normalise(plain(), images[size_t((indices[n] * kSide * kSide + p) * 3 + c)], c), 1e-5);
    EXPECT_TRUE(y.gaps_untouched());
  }
}

// Whether y[n] is images[0] shifted and perhaps flipped, black outside.
bool matches(const AugmentConfig& config, const std::vector<uint8_t>& images, Tensor y, int n, int dy, int dx,
             bool flip) {
  for (int oy = 0; oy < kSide; ++oy)
    for (int ox = 0; ox < kSide; ++ox) {
      const int iy = oy + dy, ix = (flip ? kSide - 1 - ox : ox) + dx;
      const bool inside = iy >= 0 && iy < kSide && ix >= 0 && ix < kSide;
      for (int c = 0; c < 3; ++c) {
        const int value = inside ? images[size_t((iy * kSide + ix) * 3 + c)] : 0;
        if (std::abs(y.at(n, oy, ox)[c] - normalise(config, value, c)) > 1e-5f) return false;
      }
    }
  return true;
}

TEST(Augment, CropsAndFlipsOccurEquallyOften) {
  const std::vector<uint8_t> images = make_images(1);
  AugmentConfig config = plain();
  config.padding = 2, config.flip = true;
  constexpr int kBatch = 1000;
  const std::vector<int> indices(kBatch, 0);
  const uint64_t step = 3;
  TestTensor<float> y({kBatch, kSide, kSide, 3});
  Stream stream(Device::cpu);
  augment_forward(stream, y, images.data(), indices.data(), config, &step);
  std::map<std::array<int, 3>, int> seen;
  for (int n = 0; n < kBatch; ++n) {
    int found = 0;
    for (int dy = -2; dy <= 2; ++dy)
      for (int dx = -2; dx <= 2; ++dx)
        for (const bool flip : {false, true})
          if (matches(config, images, y, n, dy, dx, flip)) ++found, ++seen[{dy, dx, flip}];
    ASSERT_EQ(found, 1) << n;
  }
  EXPECT_EQ(seen.size(), 50u);  // 20 expected of each
  for (const auto& [key, count] : seen) EXPECT_LT(count, 45);
}

TEST(Augment, CutoutIsAClippedSquareOfZeros) {
  const std::vector<uint8_t> images(kSide * kSide * 3, 255);
  AugmentConfig config = plain();
  config.cutout = 4;
  constexpr int kBatch = 400;
  const std::vector<int> indices(kBatch, 0);
  const uint64_t step = 0;
  TestTensor<float> y({kBatch, kSide, kSide, 3});
  Stream stream(Device::cpu);
  augment_forward(stream, y, images.data(), indices.data(), config, &step);
  std::set<std::array<int, 4>> squares;
  for (int n = 0; n < kBatch; ++n) {
    int y0 = kSide, y1 = 0, x0 = kSide, x1 = 0, zeros = 0;
    for (int oy = 0; oy < kSide; ++oy)
      for (int ox = 0; ox < kSide; ++ox) {
        const float* pixel = y.view().at(n, oy, ox);
        if (pixel[0] != 0) continue;
        EXPECT_TRUE(pixel[1] == 0 && pixel[2] == 0);
        y0 = std::min(y0, oy), y1 = std::max(y1, oy + 1), x0 = std::min(x0, ox), x1 = std::max(x1, ox + 1),
        ++zeros;
      }
    EXPECT_EQ(zeros, (y1 - y0) * (x1 - x0)) << n;
    EXPECT_TRUE(y1 - y0 >= 2 && y1 - y0 <= 4 && (y1 - y0 == 4 || y0 == 0 || y1 == kSide)) << n;
    squares.insert({y0, y1, x0, x1});
  }
  EXPECT_EQ(squares.size(), 64u);  // one for each centre
}

TEST(Augment, DrawsDependOnSeedAndStepOnly) {
  const std::vector<uint8_t> images = make_images(1);
  const std::vector<int> indices(64, 0);
  Stream stream(Device::cpu);
  const auto run = [&](uint64_t seed, uint64_t step) {
    AugmentConfig config = plain();
    config.padding = 4, config.flip = true, config.cutout = 3, config.seed = seed;
    std::vector<float> y(64 * kSide * kSide * 3);
    augment_forward(stream, Tensor(y.data(), {64, kSide, kSide, 3}), images.data(), indices.data(), config,
                    &step);
    return y;
  };
  EXPECT_EQ(run(1, 2), run(1, 2));
  EXPECT_NE(run(1, 2), run(1, 3));
  EXPECT_NE(run(1, 2), run(2, 2));
}

TEST(Augment, RefusesWrongArguments) {
  const std::vector<uint8_t> images = make_images(1);
  const int zero = 0, negative = -1;
  const uint64_t step = 0;
  TestTensor<float> y({1, kSide, kSide, 3}), grey({1, kSide, kSide, 1});
  Stream stream(Device::cpu);
  EXPECT_THROW(augment_forward(stream, grey, images.data(), &zero, plain(), &step), Error);
  EXPECT_THROW(augment_forward(stream, y, images.data(), &negative, plain(), &step), Error);
  AugmentConfig config = plain();
  config.std[1] = 0;
  EXPECT_THROW(augment_forward(stream, y, images.data(), &zero, config, &step), Error);
}

}  // namespace
}  // namespace lanas::test
