// gradient_sum.h -- a gradient that several ops have left in factors, or one, put together on the host.
#pragma once

#include <span>

#include "kernels/ops/blocks.h"
#include "kernels/ops/gradient_view.h"

namespace lanas::host {

// The sum of views of one shape [n,h,w,c], at least one, image by image: sum_k a_k g_k + (sum_k b_k) v +
// sum_k d_k, as v is the same tensor in all of them. The views must outlive it. For use on several threads,
// each with a buffer of its own.
template <class T>
class GradientSum {
 public:
  explicit GradientSum(std::span<const GradientView<T>> views)
      : views_(views),
        blocks_(views[0].g.c, int64_t{views[0].g.h} * views[0].g.w),
        lanes_(plain() ? 0 : int64_t(views.size() + 2) * blocks_.period) {
    if (plain()) return;
    const int period = blocks_.period, c = blocks_.c;
    const auto sum_of = [&](int row) {
      return [this, row, c](int j) {
        double sum = 0;
        for (const GradientView<T>& view : views_)
          sum += view.factors ? double(view.factors[row * c + j]) : 0;
        return sum;
      };
    };
    fill_lanes(lanes_.get(), period, c, sum_of(2));
    fill_lanes(lanes_.get() + period, period, c, sum_of(1));
    for (size_t k = 0; k < views.size(); ++k) {
      if (views[k].factors) {
        CHECK(!v_ || v_.data == views[k].v.data, "gradient_sum: gradients of two tensors, ", v_.shape());
        v_ = views[k].v;
      }
      fill_lanes(lanes_.get() + int64_t(k + 2) * period, period, c,
                 [&](int j) { return views[k].factors ? views[k].factors[j] : T(1); });
    }
  }
  // One view without factors: nothing is to be put together.
  bool plain() const { return views_.size() == 1 && !views_[0].factors; }
  // Numbers that `buffer` must hold for an image.
  int64_t size() const { return plain() ? 0 : blocks_.total * blocks_.c + kGroup * blocks_.elements(); }

  // Image n as a tensor [1,h,w,c]: where it stands, or put together in buffer.
  LANAS_INLINE View<T> image(int n, T* buffer) const {
    const View<T>& shape = views_[0].g;
    if (plain()) return View<T>(shape.at(n, 0, 0), {1, shape.h, shape.w, shape.c}, shape.stride);
    T* const spare = buffer + blocks_.total * blocks_.c;
    const int period = blocks_.period, all = int(views_.size()), first = v_ ? -1 : 0;  // -1: v itself
    for (int64_t block = 0; block < blocks_.blocks; ++block)
      for (int k = first; k < all; k += kGroup) {
        const int group = std::min(kGroup, all - k), pixels = blocks_.count(block);
        const T* x[kGroup] = {};
        for (int i = 0; i < group; ++i)
          x[i] = read_block(k + i < 0 ? v_ : views_[size_t(k + i)].g,
                            n * blocks_.total + blocks_.first(block), pixels, spare + i * blocks_.elements());
        add_terms(group, buffer + blocks_.first(block) * blocks_.c, x, lanes_.get() + int64_t(k + 2) * period,
                  k == first ? lanes_.get() : nullptr, pixels * blocks_.c, period);
      }
    return View<T>(buffer, {1, shape.h, shape.w, shape.c});
  }

 private:
  std::span<const GradientView<T>> views_;
  Blocks blocks_;
  View<T> v_;         // of the views with factors; null without one
  Scratch<T> lanes_;  // the sum of all d, the sum of all b, a of each view, each repeated to a period
};

}  // namespace lanas::host
