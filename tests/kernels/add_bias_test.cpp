#include "kernels/ops/add_bias.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

TEST(AddBias, AddsToEveryPixelAndNothingElse) {
  Stream stream;
  for (int stride : {3, 8}) {
    Random random(1);
    TestTensor<float> x({2, 3, 5, 3}, stride);
    x.randomize(random);
    const TestTensor<float> before = x;
    const std::vector<float> bias = random_vector<float>(3, random);
    add_bias(stream, x, bias.data());
    for (int64_t i = 0; i < x.shape().size(); ++i) EXPECT_EQ(x[i], before[i] + bias[size_t(i % 3)]);
    EXPECT_TRUE(x.gaps_untouched());
  }
}

}  // namespace
}  // namespace lanas::test
