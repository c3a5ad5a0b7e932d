// cross_entropy.cu -- see cross_entropy.h. Row losses are added in double, rows in order.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/ops/cross_entropy.h"

namespace lanas {

namespace host {

template <class T>
void cross_entropy_forward(T* loss, View<T> probabilities, View<T> logits, const int* labels, T smoothing) {
  std::vector<double> row_losses(size_t(logits.pixels()));
  double* losses = row_losses.data();
  parallel_for(logits.pixels(), [=](int64_t r) {
    const T* x = logits.pixel(r);
    T* p = probabilities.pixel(r);
    const int classes = logits.c;
    T largest = x[0], sum = 0;
    for (int i = 1; i < classes; ++i) largest = std::max(largest, x[i]);
    double shifted = 0;  // sum over classes of x - largest
    for (int i = 0; i < classes; ++i) shifted += double(x[i] - largest);
    const T label_shifted = x[labels[r]] - largest;
    for (int i = 0; i < classes; ++i) sum += p[i] = std::exp(x[i] - largest);
    for (int i = 0; i < classes; ++i) p[i] /= sum;
    const double log_sum = std::log(double(sum));
    losses[r] = (1 - double(smoothing)) * (log_sum - double(label_shifted)) +
                double(smoothing) * (log_sum - shifted / classes);
  });
  double total = 0;
  for (const double row_loss : row_losses) total += row_loss;
  *loss = T(total / double(logits.pixels()));
}

template <class T>
void cross_entropy_backward(View<T> dlogits, View<T> probabilities, const int* labels, T smoothing,
                            const T* dloss, T beta) {
  const T scale = *dloss / T(probabilities.pixels());
  parallel_for(probabilities.pixels(), [=](int64_t r) {
    const T* p = probabilities.pixel(r);
    T* dx = dlogits.pixel(r);
    for (int i = 0; i < probabilities.c; ++i) {
      const T target = smoothing / T(probabilities.c) + (i == labels[r] ? 1 - smoothing : T(0));
      const T d = scale * (p[i] - target);
      dx[i] = beta == 0 ? d : beta * dx[i] + d;
    }
  });
}

template void cross_entropy_forward(float*, View<float>, View<float>, const int*, float);
template void cross_entropy_forward(double*, View<double>, View<double>, const int*, double);
template void cross_entropy_backward(View<float>, View<float>, const int*, float, const float*, float);
template void cross_entropy_backward(View<double>, View<double>, const int*, double, const double*, double);

namespace {

int count_correct(Tensor logits, const int* labels, int rows_used) {
  int correct = 0;
  for (int r = 0; r < rows_used; ++r) {
    const float* x = logits.pixel(r);
    correct += std::max_element(x, x + logits.c) - x == labels[r];
  }
  return correct;
}

}  // namespace

}  // namespace host

namespace {

void check_labels(const char* name, const int* labels, int64_t rows, int classes) {
  for (int64_t r = 0; r < rows; ++r)
    CHECK(labels[r] >= 0 && labels[r] < classes, name, ": label ", labels[r], " of row ", r,
          " is not one of ", classes, " classes");
}

}  // namespace

void cross_entropy_forward(Stream& stream, float* loss, Tensor probabilities, Tensor logits,
                           const int* labels, float smoothing) {
  CHECK(logits.pixels() > 0 && logits.c > 0, "cross_entropy_forward: logits ", logits.shape(), " are empty");
  CHECK(probabilities.shape() == logits.shape(), "cross_entropy_forward: probabilities ",
        probabilities.shape(), " do not match logits ", logits.shape());
  CHECK(smoothing >= 0 && smoothing <= 1, "cross_entropy_forward: smoothing ", smoothing,
        " is not in [0, 1]");
  if (stream.device() == Device::cpu) {
    check_labels("cross_entropy_forward", labels, logits.pixels(), logits.c);
    return host::cross_entropy_forward(loss, probabilities, logits, labels, smoothing);
  }
  throw Error("cross_entropy_forward: no cuda kernel in this build");
}

void cross_entropy_backward(Stream& stream, Tensor dlogits, Tensor probabilities, const int* labels,
                            float smoothing, const float* dloss, float beta) {
  CHECK(dlogits.shape() == probabilities.shape(), "cross_entropy_backward: dlogits ", dlogits.shape(),
        " do not match probabilities ", probabilities.shape());
  if (stream.device() == Device::cpu)
    return host::cross_entropy_backward(dlogits, probabilities, labels, smoothing, dloss, beta);
  throw Error("cross_entropy_backward: no cuda kernel in this build");
}

void count_correct(Stream& stream, int* correct, Tensor logits, const int* labels, int rows_used) {
  CHECK(rows_used >= 0 && rows_used <= logits.pixels(), "count_correct: ", rows_used, " rows of logits ",
        logits.shape());
  if (stream.device() == Device::cpu) {
    *correct = host::count_correct(logits, labels, rows_used);
    return;
  }
  throw Error("count_correct: no cuda kernel in this build");
}

}  // namespace lanas
