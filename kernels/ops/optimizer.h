// optimizer.h -- optimiser steps on flat slabs of parameters, with the semantics of PyTorch 1.x.
// sgd:  d = gradient_scale g + weight_decay w;  buf = momentum buf + d;  w -= lr buf   (buf starts as zeros).
// adam (Kingma and Ba, ICLR 2015): d = g + weight_decay w;  m = beta1 m + (1-beta1) d;  v = beta2 v +
// (1-beta2) d^2;
//       w -= lr m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps)   (m and v start as zeros).
// sgd_lookahead: w -= lr (momentum buf + g + weight_decay w), and buf stays: one step ahead, to return from.
// difference_radius: R = 0.01 / ||v|| of the central difference [f(w + R v) - f(w - R v)] / (2 R).
// multiplier_ascent: lambda = max(0, lambda + rate (cost / bound - 1)), for the constraint cost <= bound.
// What changes from step to step stands in memory, so a captured step can be replayed.
#pragma once

#include <cstdint>

#include "kernels/core/device.h"

namespace lanas {

struct SgdState {
  float lr = 0.025f;
  float momentum = 0.9f;
  float weight_decay = 3e-4f;
  float gradient_scale = 1;  // clip_scale may write here
};

struct AdamState {
  float lr = 3e-4f;
  float beta1 = 0.5f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 1e-3f;  // added to the gradient, not decoupled
  int64_t step = 1;            // the number of this update, from 1; see advance_step
};

// All arrays hold `count` floats and do not overlap.
void sgd_step(Stream& stream, float* w, float* momentum_buffer, const float* g, int64_t count,
              const SgdState* state);
void sgd_lookahead(Stream& stream, float* w, const float* momentum_buffer, const float* g, int64_t count,
                   const SgdState* state);
void adam_step(Stream& stream, float* w, float* m, float* v, const float* g, int64_t count,
               const AdamState* state);

// ++state->step, on the stream, so that a replayed step counts too.
void advance_step(Stream& stream, AdamState* state);

// One step of gradient ascent on the Lagrange multiplier of *cost <= bound; it stays at least 0. cost and
// bound (positive) have one unit; rate is in the multiplier's own. Both pointers are to memory of the
// stream's device.
void multiplier_ascent(Stream& stream, float* multiplier, const float* cost, float rate, float bound);

// *sum = sum of g^2, added in double in an order that does not depend on threads or instruction set.
void sum_of_squares(Stream& stream, float* sum, const float* g, int64_t count);
// *radius = R and *factor = 1 / (2 R) from *sum = ||v||^2, on the stream's device; both 0 where ||v|| is.
void difference_radius(Stream& stream, float* radius, float* factor, const float* sum);
// *scale = min(1, max_norm / (||g|| + 1e-6)): clipping by the norm of the whole slab.
void clip_scale(Stream& stream, float* scale, const float* g, int64_t count, float max_norm);

namespace host {
template <class T>
void sgd_step(T* w, T* momentum_buffer, const T* g, int64_t count, const SgdState* state);
template <class T>
void sgd_lookahead(T* w, const T* momentum_buffer, const T* g, int64_t count, const SgdState* state);
template <class T>
void adam_step(T* w, T* m, T* v, const T* g, int64_t count, const AdamState* state);
template <class T>
double sum_of_squares(const T* g, int64_t count);
}  // namespace host

}  // namespace lanas
