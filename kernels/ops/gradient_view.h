// gradient_view.h -- a gradient as an op finds it. Behind batch statistics it is a g + b v + d per channel, v
// being the tensor itself and a, b, d known only when all of g is: an op that would need another pass over
// memory to write that leaves the factors instead, and the op that made v puts it together row by row.
#pragma once

#include "kernels/core/check.h"
#include "kernels/core/tensor.h"

namespace lanas {

template <class T>
struct GradientView {
  View<T> g;                   // [n,h,w,c], may be strided
  View<T> v;                   // as g; read only with factors
  const T* factors = nullptr;  // [3][c]: a, b, d; null: the gradient is g

  GradientView() = default;
  GradientView(View<T> gradient) : g(gradient) {}
  GradientView(View<T> gradient, View<T> value, const T* abd) : g(gradient), v(value), factors(abd) {}

  Shape shape() const { return g.shape(); }
  T at(int64_t pixel, int c) const {
    const T from = g.pixel(pixel)[c];
    return factors ? factors[c] * from + (factors[g.c + c] * v.pixel(pixel)[c] + factors[2 * g.c + c]) : from;
  }
};

// Throws Error, where the gradient is put together from tensors of different shapes.
template <class T>
void check_gradient_view(const char* name, const GradientView<T>& dy) {
  CHECK(!dy.factors || dy.v.shape() == dy.g.shape(), name, ": value ", dy.v.shape(),
        " does not match its gradient ", dy.g.shape());
}

}  // namespace lanas
