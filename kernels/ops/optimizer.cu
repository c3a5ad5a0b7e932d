// optimizer.cu -- see optimizer.h. Loops run over blocks of 1024 elements, so that the inner loop is a vector
// loop.
#include <algorithm>
#include <cmath>

#include "kernels/core/packs.cuh"
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
void sgd_lookahead(T* w, const T* momentum_buffer, const T* g, int64_t count, const SgdState* state) {
  const T lr = T(state->lr), momentum = T(state->momentum), weight_decay = T(state->weight_decay);
  parallel_for(blocks(count), [=](int64_t block) {
    T* __restrict weight = w + block * kBlock;
    const T* __restrict buffer = momentum_buffer + block * kBlock;
    const T* __restrict gradient = g + block * kBlock;
    const int64_t length = std::min(kBlock, count - block * kBlock);
    for (int64_t i = 0; i < length; ++i)
      weight[i] -= lr * (momentum * buffer[i] + (gradient[i] + weight_decay * weight[i]));
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
template void sgd_lookahead(float*, const float*, const float*, int64_t, const SgdState*);
template void sgd_lookahead(double*, const double*, const double*, int64_t, const SgdState*);
template void adam_step(float*, float*, float*, const float*, int64_t, const AdamState*);
template void adam_step(double*, double*, double*, const double*, int64_t, const AdamState*);
template double sum_of_squares(const float*, int64_t);
template double sum_of_squares(const double*, int64_t);

}  // namespace host

namespace {

template <int kPack>
__global__ void sgd_kernel(Tensor w, Tensor momentum_buffer, Tensor g, const SgdState* state) {
  const SgdState s = *state;
  for_packs<kPack>(w, [=](int64_t, int i) {
    Pack<kPack> weight = load<kPack>(w.data + i), buffer = load<kPack>(momentum_buffer.data + i);
    const Pack<kPack> gradient = load<kPack>(g.data + i);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      buffer.v[k] =
          s.momentum * buffer.v[k] + (s.gradient_scale * gradient.v[k] + s.weight_decay * weight.v[k]);
      weight.v[k] -= s.lr * buffer.v[k];
    }
    store<kPack>(momentum_buffer.data + i, buffer);
    store<kPack>(w.data + i, weight);
  });
}

template <int kPack>
__global__ void sgd_lookahead_kernel(Tensor w, Tensor momentum_buffer, Tensor g, const SgdState* state) {
  const SgdState s = *state;
  for_packs<kPack>(w, [=](int64_t, int i) {
    Pack<kPack> weight = load<kPack>(w.data + i);
    const Pack<kPack> buffer = load<kPack>(momentum_buffer.data + i), gradient = load<kPack>(g.data + i);
#pragma unroll
    for (int k = 0; k < kPack; ++k)
      weight.v[k] -= s.lr * (s.momentum * buffer.v[k] + (gradient.v[k] + s.weight_decay * weight.v[k]));
    store<kPack>(w.data + i, weight);
  });
}

template <int kPack>
__global__ void adam_kernel(Tensor w, Tensor m, Tensor v, Tensor g, const AdamState* state) {
  const AdamState s = *state;
  float* shared = static_shared<float, 2>();  // the corrections of this step, in double once per block
  if (threadIdx.x == 0) {
    shared[0] = float(double(s.lr) / (1 - pow(double(s.beta1), double(s.step))));
    shared[1] = float(1 / sqrt(1 - pow(double(s.beta2), double(s.step))));
  }
  __syncthreads();
  const float step_size = shared[0], root_correction = shared[1];
  for_packs<kPack>(w, [=](int64_t, int i) {
    Pack<kPack> weight = load<kPack>(w.data + i), mean = load<kPack>(m.data + i),
                square = load<kPack>(v.data + i);
    const Pack<kPack> gradient = load<kPack>(g.data + i);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float d = gradient.v[k] + s.weight_decay * weight.v[k];
      mean.v[k] = s.beta1 * mean.v[k] + (1 - s.beta1) * d;
      square.v[k] = s.beta2 * square.v[k] + (1 - s.beta2) * d * d;
      weight.v[k] -= step_size * mean.v[k] / (sqrtf(square.v[k]) * root_correction + s.eps);
    }
    store<kPack>(m.data + i, mean);
    store<kPack>(v.data + i, square);
    store<kPack>(w.data + i, weight);
  });
}

__global__ void advance_step_kernel(AdamState* state) { ++state->step; }

__global__ void multiplier_ascent_kernel(float* multiplier, const float* cost, float rate, float bound) {
  *multiplier = fmaxf(0, *multiplier + rate * (*cost / bound - 1));
}

// One body for both devices: a NaN or an infinity in the sum reaches the results.
__host__ __device__ inline void difference_radius_of(float* radius, float* factor, float sum) {
  *radius = sum == 0 ? 0 : 0.01f / sqrtf(sum);
  *factor = sum == 0 ? 0 : 1 / (2 * *radius);
}

__global__ void difference_radius_kernel(float* radius, float* factor, const float* sum) {
  difference_radius_of(radius, factor, *sum);
}

constexpr unsigned kThreads = 256;
constexpr unsigned kPartials = 512;  // blocks of the first stage, at most

template <int kPack>
__global__ void sum_of_squares_kernel(double* partial, Tensor g) {
  double sum = 0;
  for_packs<kPack>(g, [&](int64_t, int i) {
    const Pack<kPack> gradient = load<kPack>(g.data + i);
#pragma unroll
    for (const float value : gradient.v) sum += double(value) * double(value);
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: *out = the sum, or with max_norm > 0 the scale that clips to it.
__global__ void finish_squares_kernel(float* out, const double* partial, int count, float max_norm) {
  double sum = 0;
  for (int i = int(threadIdx.x); i < count; i += int(kThreads)) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = float(max_norm > 0 ? fmin(1.0, double(max_norm) / (sqrt(sum) + 1e-6)) : sum);
}

Tensor slab(const char* op, const float* data, int64_t count) {
  CHECK(count <= std::numeric_limits<int>::max(), op, ": ", count, " numbers, at most 2^31 - 1 on cuda");
  return row_view(data, int(count));
}

void launch_squares(const char* op, Stream& stream, float* out, const float* g, int64_t count,
                    float max_norm) {
  const Tensor gradient = slab(op, g, count);
  const unsigned blocks = grid_blocks(count, 4 * kThreads, kPartials);
  auto* partial = static_cast<double*>(stream_scratch(stream, kPartials * sizeof(double)));
  with_pack(pack_width(gradient), [&](auto pack) {
    launch(sum_of_squares_kernel<pack()>, blocks, kThreads, 0, stream, partial, gradient);
  });
  launch(finish_squares_kernel, 1, kThreads, 0, stream, out, partial, int(blocks), max_norm);
}

}  // namespace

void sgd_step(Stream& stream, float* w, float* momentum_buffer, const float* g, int64_t count,
              const SgdState* state) {
  CHECK(count >= 0, "sgd_step: count ", count);
  if (stream.device() == Device::cpu) return host::sgd_step(w, momentum_buffer, g, count, state);
  const Tensor tw = slab("sgd_step", w, count), tm = slab("sgd_step", momentum_buffer, count),
               tg = slab("sgd_step", g, count);
  with_pack(pack_width(tw, tm, tg), [&](auto pack) {
    launch(sgd_kernel<pack()>, pack_blocks(tw, pack), kPackThreads, 0, stream, tw, tm, tg, state);
  });
}

void sgd_lookahead(Stream& stream, float* w, const float* momentum_buffer, const float* g, int64_t count,
                   const SgdState* state) {
  CHECK(count >= 0, "sgd_lookahead: count ", count);
  if (stream.device() == Device::cpu) return host::sgd_lookahead(w, momentum_buffer, g, count, state);
  const Tensor tw = slab("sgd_lookahead", w, count), tm = slab("sgd_lookahead", momentum_buffer, count),
               tg = slab("sgd_lookahead", g, count);
  with_pack(pack_width(tw, tm, tg), [&](auto pack) {
    launch(sgd_lookahead_kernel<pack()>, pack_blocks(tw, pack), kPackThreads, 0, stream, tw, tm, tg, state);
  });
}

void adam_step(Stream& stream, float* w, float* m, float* v, const float* g, int64_t count,
               const AdamState* state) {
  CHECK(count >= 0, "adam_step: count ", count);
  if (stream.device() == Device::cpu) {
    CHECK(state->step >= 1, "adam_step: step ", state->step, ", steps count from 1");
    return host::adam_step(w, m, v, g, count, state);
  }
  const Tensor tw = slab("adam_step", w, count), tm = slab("adam_step", m, count),
               tv = slab("adam_step", v, count), tg = slab("adam_step", g, count);
  with_pack(pack_width(tw, tm, tv, tg), [&](auto pack) {
    launch(adam_kernel<pack()>, pack_blocks(tw, pack), kPackThreads, 0, stream, tw, tm, tv, tg, state);
  });
}

void advance_step(Stream& stream, AdamState* state) {
  if (stream.device() == Device::cuda) {
    launch(advance_step_kernel, 1, 1, 0, stream, state);
    return;
  }
  ++state->step;
}

void multiplier_ascent(Stream& stream, float* multiplier, const float* cost, float rate, float bound) {
  CHECK(rate >= 0 && bound > 0, "multiplier_ascent: rate ", rate, ", bound ", bound);
  if (stream.device() == Device::cuda) {
    launch(multiplier_ascent_kernel, 1, 1, 0, stream, multiplier, cost, rate, bound);
    return;
  }
  *multiplier = std::max(0.0f, *multiplier + rate * (*cost / bound - 1));
}

void sum_of_squares(Stream& stream, float* sum, const float* g, int64_t count) {
  CHECK(count >= 0, "sum_of_squares: count ", count);
  if (stream.device() == Device::cpu) {
    *sum = float(host::sum_of_squares(g, count));
    return;
  }
  launch_squares("sum_of_squares", stream, sum, g, count, 0);
}

void difference_radius(Stream& stream, float* radius, float* factor, const float* sum) {
  if (stream.device() == Device::cuda) {
    launch(difference_radius_kernel, 1, 1, 0, stream, radius, factor, sum);
    return;
  }
  difference_radius_of(radius, factor, *sum);
}

void clip_scale(Stream& stream, float* scale, const float* g, int64_t count, float max_norm) {
  CHECK(count >= 0 && max_norm > 0, "clip_scale: count ", count, ", max_norm ", max_norm);
  if (stream.device() == Device::cpu) {
    *scale = float(std::min(1.0, double(max_norm) / (std::sqrt(host::sum_of_squares(g, count)) + 1e-6)));
    return;
  }
  launch_squares("clip_scale", stream, scale, g, count, max_norm);
}

}  // namespace lanas
