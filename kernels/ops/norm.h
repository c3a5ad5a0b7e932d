// norm.h -- how a tensor is normalised on its way into an op: z = gamma (x - mean) inv_std + beta.
// All are per channel. mean null: z = x. gamma null: no affine part (then beta is null too).
// An op that normalises its input by *batch* statistics of that input owns the whole batch-norm backward: its
// dx includes the way through mean and inv_std, so statistics carry no gradient of their own.
#pragma once

namespace lanas {

template <class T>
struct NormView {
  const T* mean = nullptr;
  const T* inv_std = nullptr;
  const T* gamma = nullptr;
  const T* beta = nullptr;
  explicit operator bool() const { return mean != nullptr; }
};

// Where the gradients of the affine part go; null pointers are skipped. BLAS beta: 0 overwrites, 1 adds.
template <class T>
struct NormGradient {
  T* dgamma = nullptr;
  T* dbeta = nullptr;
  T beta_dgamma = 0;
  T beta_dbeta = 0;
};

}  // namespace lanas
