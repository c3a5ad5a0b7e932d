// gradient_sum.h -- a gradient that several ops have left in factors, or one, put together on the host.
#pragma once

#include <span>

#include "kernels/ops/blocks.h"
#include "kernels/ops/gradient_view.h"

namespace lanas::host {

// to = a g + b x + d + beta to for one block; b and d null: without them.
template <class T>
LANAS_INLINE void apply_gradient(T* to, const T* g, const T* x, const T* a, const T* b, const T* d, T beta,
                                 int count, int period, const NextBlocks<T>& next) {
  if (b && beta == 0)
    for_lanes(count, period, next, [=](int i, int j) { to[i] = a[j] * g[i] + (b[j] * x[i] + d[j]); });
  else if (b)
    for_lanes(count, period, next,
              [=](int i, int j) { to[i] = beta * to[i] + (a[j] * g[i] + (b[j] * x[i] + d[j])); });
  else if (beta == 0)
    for_lanes(count, period, next, [=](int i, int j) { to[i] = a[j] * g[i]; });
  else
    for_lanes(count, period, next, [=](int i, int j) { to[i] = beta * to[i] + a[j] * g[i]; });
}

// The sum of views of one shape [n,h,w,c], at least one, image by image; the views must outlive it. For use
// on several threads, each with a buffer of its own.
template <class T>
class GradientSum {
 public:
  explicit GradientSum(std::span<const GradientView<T>> views)
      : views_(views),
        blocks_(views[0].g.c, int64_t{views[0].g.h} * views[0].g.w),
        lanes_(plain() ? 0 : int64_t(views.size()) * 3 * blocks_.period) {
    for (size_t k = 0; k < views.size() && !plain(); ++k)
      for (int i = 0; i < 3; ++i)
        fill_lanes(lanes(k) + i * blocks_.period, blocks_.period, blocks_.c,
                   [&](int j) { return views[k].factors ? views[k].factors[i * blocks_.c + j] : T(i == 0); });
  }
  // One view without factors: nothing is to be put together.
  bool plain() const { return views_.size() == 1 && !views_[0].factors; }
  // Numbers that `buffer` must hold for an image.
  int64_t size() const { return plain() ? 0 : blocks_.total * blocks_.c + 2 * blocks_.elements(); }

  // Image n as a tensor [1,h,w,c]: where it stands, or put together in buffer. Of v, which is the same tensor
  // in all views, only the first asks for lines ahead.
  LANAS_INLINE View<T> image(int n, T* buffer) const {
    const View<T>& shape = views_[0].g;
    if (plain()) return View<T>(shape.at(n, 0, 0), {1, shape.h, shape.w, shape.c}, shape.stride);
    T* const spare = buffer + blocks_.total * blocks_.c;
    for (int64_t block = 0; block < blocks_.blocks; ++block)
      for (size_t k = 0; k < views_.size(); ++k) {
        const GradientView<T>& view = views_[k];
        const int64_t p = n * blocks_.total + blocks_.first(block);
        const int pixels = blocks_.count(block);
        NextBlocks<T> next;
        next.add(view.g, p, pixels);
        if (view.factors && k == 0) next.add(view.v, p, pixels);
        const T *g = read_block(view.g, p, pixels, spare), *a = lanes(k), *b = a + blocks_.period;
        const T* v = view.factors ? read_block(view.v, p, pixels, spare + blocks_.elements()) : nullptr;
        apply_gradient(buffer + blocks_.first(block) * blocks_.c, g, v, a, v ? b : nullptr,
                       b + blocks_.period, T(k > 0), pixels * blocks_.c, blocks_.period, next);
      }
    return View<T>(buffer, {1, shape.h, shape.w, shape.c});
  }

 private:
  T* lanes(size_t k) const { return lanes_.get() + int64_t(k) * 3 * blocks_.period; }

  std::span<const GradientView<T>> views_;
  Blocks blocks_;
  Scratch<T> lanes_;  // a, b, d of each view, repeated to a period
};

}  // namespace lanas::host
