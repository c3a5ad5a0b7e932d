// tensor.h -- shapes and views. A view does not own memory, is trivially copyable and goes to kernels by
// value. Layout is NHWC with a pixel stride: element (n, y, x, c) stands at data[((n*h + y)*w + x)*stride +
// c], so a slice of channels is a view. A matrix [rows, cols] is a view with h = w = 1, n = rows, c = cols.
#pragma once

#include <cstdint>
#include <ostream>
#include <type_traits>

#include "kernels/core/check.h"

namespace lanas {

struct Shape {
  int n = 1, h = 1, w = 1, c = 1;

  constexpr int64_t pixels() const { return int64_t{n} * h * w; }
  constexpr int64_t size() const { return pixels() * c; }
  friend constexpr bool operator==(const Shape&, const Shape&) = default;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << '[' << s.n << ',' << s.h << ',' << s.w << ',' << s.c << ']';
}

template <class T>
struct View {
  T* data = nullptr;
  int n = 0, h = 0, w = 0, c = 0;
  int stride = 0;  // elements from one pixel to the next; stride == c when packed

  View() = default;
  View(T* first, Shape s) : data(first), n(s.n), h(s.h), w(s.w), c(s.c), stride(s.c) {}
  View(T* first, Shape s, int pixel_stride)
      : data(first), n(s.n), h(s.h), w(s.w), c(s.c), stride(pixel_stride) {}

  constexpr Shape shape() const { return {n, h, w, c}; }
  constexpr int64_t pixels() const { return int64_t{n} * h * w; }
  constexpr int64_t size() const { return pixels() * c; }
  constexpr bool packed() const { return stride == c; }
  constexpr explicit operator bool() const { return data != nullptr; }

  constexpr T* pixel(int64_t p) const { return data + p * stride; }
  constexpr T* at(int in, int iy, int ix) const { return data + ((int64_t{in} * h + iy) * w + ix) * stride; }

  View slice(int c0, int c1) const {
    CHECK(0 <= c0 && c0 < c1 && c1 <= c, "slice: channels [", c0, ",", c1, ") of ", shape());
    return View(data + c0, {n, h, w, c1 - c0}, stride);
  }
};

using Tensor = View<float>;
static_assert(std::is_trivially_copyable_v<Tensor>);

}  // namespace lanas
