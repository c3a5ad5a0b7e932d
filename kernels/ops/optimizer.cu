// optimizer.cu -- see optimizer.h. Loops run over blocks of 1024 elements, so that the inner loop is a vector
// loop.
#include <algorithm>
#include <cmath>

#include "kernels/core/parallel.h"
#include "kernels/ops/optimizer.h"

namespace lanas {

namespace host {

namespace {
constexpr int64_t kBlock = 1024;  // elements
constexpr int kParts = 64;        // partial sums of sum_of_squares
constexpr int64_t blocks(int64_t count) { return (count + kBlock - 1) / kBlock; }
}  // namespace

template <class T>
void sgd_step(T* w, T* momentum_buffer, const T* g, int64_t count, const SgdState* state) {
  const T lr = T(state->lr), momentum = T(state->momentum), weight_decay = T(state->weight_decay),
          gradient_scale = T(state->gradient_scale);
  parallel_for(blocks(count), [=](int64_t block) {
    T* __restrict weight = w + block * kBlock;
    T* __restrict buffer = momentum_buffer + block * kBlock;
    const T* __restrict gradient = g + block * kBlock;
    const int64_t length = std::min(kBlock, count - block * kBlock);
    for (int64_t i = 0; i < length; ++i) {
      buffer[i] = momentum * buffer[i] + (gradient_scale * gradient[i] + weight_decay * weight[i]);
      weight[i] -= lr * buffer[i];
    }
  });
}

template <class T>
void adam_step(T* w, T* m, T* v, const T* g, int64_t count, const AdamState* state) {
  const T beta1 = T(state->beta1), beta2 = T(state->beta2), eps = T(state->eps),
          weight_decay = T(state->weight_decay);
  const T step_size = T(double(state->lr) / (1 - std::pow(double(state->beta1), double(state->step))));
  const T root_correction = T(1 / std::sqrt(1 - std::pow(double(state->beta2), double(state->step))));
  parallel_for(blocks(count), [=](int64_t block) {
    T* __restrict weight = w + block * kBlock;
    T* __restrict mean = m + block * kBlock;
    T* __restrict square = v + block * kBlock;
    const T* __restrict gradient = g + block * kBlock;
    const int64_t length = std::min(kBlock, count - block * kBlock);
    for (int64_t i = 0; i < length; ++i) {
      const T d = gradient[i] + weight_decay * weight[i];
      mean[i] = beta1 * mean[i] + (1 - beta1) * d;
      square[i] = beta2 * square[i] + (1 - beta2) * d * d;
      weight[i] -= step_size * mean[i] / (std::sqrt(square[i]) * root_correction + eps);
    }
  });
}

// 64 parts of 8 running sums each, whatever the thread count and vector width.
template <class T>
double sum_of_squares(const T* g, int64_t count) {
  double parts[kParts];
  double* sums = parts;
  parallel_for(kParts, [=](int64_t part) {
    const int64_t end = count * (part + 1) / kParts;
    int64_t i = count * part / kParts;
    double lanes[8] = {};
    for (; i + 8 <= end; i += 8)
      for (int lane = 0; lane < 8; ++lane) lanes[lane] += double(g[i + lane]) * double(g[i + lane]);
    for (int lane = 0; i < end; ++i, ++lane) lanes[lane] += double(g[i]) * double(g[i]);
    double sum = 0;
    for (const double lane : lanes) sum += lane;
    sums[part] = sum;
  });
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

template void sgd_step(float*, float*, const float*, int64_t, const SgdState*);
template void sgd_step(double*, double*, const double*, int64_t, const SgdState*);
template void adam_step(float*, float*, float*, const float*, int64_t, const AdamState*);
template void adam_step(double*, double*, double*, const double*, int64_t, const AdamState*);
template double sum_of_squares(const float*, int64_t);
template double sum_of_squares(const double*, int64_t);

}  // namespace host

void sgd_step(Stream& stream, float* w, float* momentum_buffer, const float* g, int64_t count,
              const SgdState* state) {
  CHECK(count >= 0, "sgd_step: count ", count);
  if (stream.device() == Device::cpu) return host::sgd_step(w, momentum_buffer, g, count, state);
  throw Error("sgd_step: no cuda kernel in this build");
}

void adam_step(Stream& stream, float* w, float* m, float* v, const float* g, int64_t count,
               const AdamState* state) {
  CHECK(count >= 0, "adam_step: count ", count);
  if (stream.device() == Device::cpu) {
    CHECK(state->step >= 1, "adam_step: step ", state->step, ", steps count from 1");
    return host::adam_step(w, m, v, g, count, state);
  }
  throw Error("adam_step: no cuda kernel in this build");
}

void sum_of_squares(Stream& stream, float* sum, const float* g, int64_t count) {
  CHECK(count >= 0, "sum_of_squares: count ", count);
  if (stream.device() == Device::cpu) {
    *sum = float(host::sum_of_squares(g, count));
    return;
  }
  throw Error("sum_of_squares: no cuda kernel in this build");
}

void clip_scale(Stream& stream, float* scale, const float* g, int64_t count, float max_norm) {
  CHECK(count >= 0 && max_norm > 0, "clip_scale: count ", count, ", max_norm ", max_norm);
  if (stream.device() == Device::cpu) {
    *scale = float(std::min(1.0, double(max_norm) / (std::sqrt(host::sum_of_squares(g, count)) + 1e-6)));
    return;
  }
  throw Error("clip_scale: no cuda kernel in this build");
}

}  // namespace lanas
