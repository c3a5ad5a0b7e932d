// cross_entropy.cu -- see cross_entropy.h. Row losses are added in double, rows in order.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/packs.cuh"
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

constexpr unsigned kThreads = 256;

// One block; a warp takes every eighth row. The batch is at most some hundred rows. A label out of range
// gives a NaN loss.
__global__ void cross_entropy_forward_kernel(float* loss, Tensor probabilities, Tensor logits,
                                             const int* labels, float smoothing) {
  const int lane = int(threadIdx.x % 32), classes = logits.c;
  double total = 0;  // of this warp's rows, in lane 0
  for (int64_t r = threadIdx.x / 32; r < logits.pixels(); r += kThreads / 32) {
    const float* x = logits.pixel(r);
    float* p = probabilities.pixel(r);
    float largest = -INFINITY, sum = 0, shifted = 0;
    for (int i = lane; i < classes; i += 32) largest = fmaxf(largest, x[i]);
    largest = warp_max(largest);
    for (int i = lane; i < classes; i += 32) {
      p[i] = expf(x[i] - largest);
      sum += p[i];
      shifted += x[i] - largest;
    }
    sum = warp_sum(sum);
    shifted = warp_sum(shifted);
    for (int i = lane; i < classes; i += 32) p[i] /= sum;
    if (lane == 0) {
      const bool known = labels[r] >= 0 && labels[r] < classes;
      const double log_sum = log(double(sum)), label_shifted = known ? double(x[labels[r]] - largest) : NAN;
      total += (1 - double(smoothing)) * (log_sum - label_shifted) +
               double(smoothing) * (log_sum - double(shifted) / classes);
    }
  }
  total = block_sum(total);
  if (threadIdx.x == 0) *loss = float(total / double(logits.pixels()));
}

__global__ void cross_entropy_backward_kernel(Tensor dlogits, Tensor probabilities, const int* labels,
                                              float smoothing, const float* dloss, float beta) {
  const float scale = *dloss / float(probabilities.pixels()), other = smoothing / float(probabilities.c);
  for_packs<1>(probabilities, [=](int64_t r, int i) {
    const float target = other + (i == labels[r] ? 1 - smoothing : 0.0f);
    accumulate<1>(dlogits.pixel(r) + i, {scale * (probabilities.pixel(r)[i] - target)}, beta);
  });
}

__global__ void count_correct_kernel(int* correct, Tensor logits, const int* labels, int rows_used) {
  int count = 0;
  for (int r = int(threadIdx.x); r < rows_used; r += int(kThreads)) {
    const float* x = logits.pixel(r);
    int best = 0;
    for (int i = 1; i < logits.c; ++i)
      if (x[i] > x[best]) best = i;
    count += best == labels[r];
  }
  count = block_sum(count);
  if (threadIdx.x == 0) *correct = count;
}

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
  launch(cross_entropy_forward_kernel, 1, kThreads, 0, stream, loss, probabilities, logits, labels,
         smoothing);
}

void cross_entropy_backward(Stream& stream, Tensor dlogits, Tensor probabilities, const int* labels,
                            float smoothing, const float* dloss, float beta) {
  CHECK(dlogits.shape() == probabilities.shape(), "cross_entropy_backward: dlogits ", dlogits.shape(),
        " do not match probabilities ", probabilities.shape());
  if (stream.device() == Device::cpu)
    return host::cross_entropy_backward(dlogits, probabilities, labels, smoothing, dloss, beta);
  launch(cross_entropy_backward_kernel, pack_blocks(dlogits, 1), kPackThreads, 0, stream, dlogits,
         probabilities, labels, smoothing, dloss, beta);
}

void count_correct(Stream& stream, int* correct, Tensor logits, const int* labels, int rows_used) {
  CHECK(rows_used >= 0 && rows_used <= logits.pixels(), "count_correct: ", rows_used, " rows of logits ",
        logits.shape());
  if (stream.device() == Device::cpu) {
    *correct = host::count_correct(logits, labels, rows_used);
    return;
  }
  launch(count_correct_kernel, 1, kThreads, 0, stream, correct, logits, labels, rows_used);
}

}  // namespace lanas
