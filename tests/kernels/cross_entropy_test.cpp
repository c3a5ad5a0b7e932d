// cross_entropy_test.cpp -- fp64 finite differences, float against double, the formula stated naively,
// counts.
#include "kernels/ops/cross_entropy.h"

#include "tests/support/gradcheck.h"

namespace lanas::test {
namespace {

double naive_loss(View<double> logits, const std::vector<int>& labels, double smoothing) {
  double total = 0;
  for (int r = 0; r < logits.n; ++r) {
    double sum = 0, mean = 0;
    for (int i = 0; i < logits.c; ++i) sum += std::exp(logits.pixel(r)[i]);
    for (int i = 0; i < logits.c; ++i) mean -= std::log(std::exp(logits.pixel(r)[i]) / sum) / logits.c;
    total +=
        (1 - smoothing) * -std::log(std::exp(logits.pixel(r)[labels[size_t(r)]]) / sum) + smoothing * mean;
  }
  return total / logits.n;
}

void check_cross_entropy(int rows, int classes, int gap, double smoothing, double beta) {
  Random random(11);
  TestTensor<double> x({rows, 1, 1, classes}, classes + gap), p(x.shape()), dx(x.shape(), x.stride());
  x.randomize(random, 2);
  if (beta != 0) dx.randomize(random);
  const TestTensor<double> dx0 = dx;
  std::vector<int> labels;
  for (int r = 0; r < rows; ++r) labels.push_back(int(random.below(uint32_t(classes))));
  const TestTensor<float> fx = x.as<float>(), fp = p.as<float>(), fdx = dx.as<float>();
  const double dloss = 0.7;
  double value = NAN;
  const auto loss = [&] {
    host::cross_entropy_forward<double>(&value, p, x, labels.data(), smoothing);
    return value * dloss;
  };
  loss();
  EXPECT_NEAR(value, naive_loss(x, labels, smoothing), 1e-12);
  host::cross_entropy_backward<double>(dx, p, labels.data(), smoothing, &dloss, beta);
  Stream stream(Device::cpu);
  float float_value = NAN;
  const float float_dloss = float(dloss);
  cross_entropy_forward(stream, &float_value, fp, fx, labels.data(), float(smoothing));
  cross_entropy_backward(stream, fdx, fp, labels.data(), float(smoothing), &float_dloss, float(beta));
  EXPECT_NEAR(float_value, value, 2e-6 * (1 + value));
  EXPECT_TRUE(compare(fp, p, 2e-6));
  EXPECT_TRUE(compare(fdx, dx, 3e-6));
  EXPECT_TRUE(fdx.gaps_untouched());
  EXPECT_TRUE(gradcheck(loss, {{"dlogits", x, dx, beta != 0 ? dx0.view() : View<double>()}}));
}

TEST(CrossEntropy, Gradcheck) {
  for (const double smoothing : {0.0, 0.1})
    for (const double beta : {0.0, 1.0}) {
      check_cross_entropy(1, 3, 0, smoothing, beta);
      check_cross_entropy(7, 10, 2, smoothing, beta);
      check_cross_entropy(4, 36, 1, smoothing, beta);
    }
}

TEST(CrossEntropy, FarLogitsStayFinite) {
  float x[3] = {1000, -1000, 0}, p[3], loss;
  const int label = 1;
  Stream stream(Device::cpu);
  cross_entropy_forward(stream, &loss, Tensor(p, {1, 1, 1, 3}), Tensor(x, {1, 1, 1, 3}), &label, 0);
  EXPECT_FLOAT_EQ(loss, 2000);
}

TEST(CrossEntropy, RefusesALabelOutOfRange) {
  float x[3] = {1, 2, 3}, p[3], loss;
  Stream stream(Device::cpu);
  for (const int label : {-1, 3})
    EXPECT_THROW(
        cross_entropy_forward(stream, &loss, Tensor(p, {1, 1, 1, 3}), Tensor(x, {1, 1, 1, 3}), &label, 0),
        Error);
}

TEST(CountCorrect, FirstOfEqualsAndRowsUsed) {
  float x[12] = {1, 2, 2, 5, 0, 1, 0, 0, 9, 3, 2, 1};
  const int labels[4] = {1, 0, 2, 0};
  int correct = -1;
  Stream stream(Device::cpu);
  const Tensor logits(x, {4, 1, 1, 3});
  count_correct(stream, &correct, logits, labels, 4);
  EXPECT_EQ(correct, 4);
  const int others[4] = {2, 0, 1, 0};
  count_correct(stream, &correct, logits, others, 4);
  EXPECT_EQ(correct, 2);
  count_correct(stream, &correct, logits, others, 1);
  EXPECT_EQ(correct, 0);
  EXPECT_THROW(count_correct(stream, &correct, logits, labels, 5), Error);
}

}  // namespace
}  // namespace lanas::test
