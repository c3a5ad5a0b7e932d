// pool2d_cpu.cpp -- the host loops of max and average pooling, separably: first along each row of x (kernel
// taps at every column of stride 1), then down the rows of a window; the columns that the stride keeps are
// picked at the end. All loops run along flat rows of pixels x channels, and the few rows at work stand in
// rings that stay in L1. Max forward goes down the rows first, which needs no ring of maxima; max backward
// looks at whole windows.
#include <limits>
#include <type_traits>

#include "kernels/core/parallel.h"
#include "kernels/ops/gradient_sum.h"
#include "kernels/ops/pool2d.h"

namespace lanas {
namespace host {
namespace {

struct Geometry {
  int kernel, stride, padding;
  int h, w, oh, ow, c;
  // Flat sizes: of a row with its padding; of the window positions of a row at stride 1; of those positions
  // with kernel - 1 pixels of room on both sides of the image, and where position 0 stands among them.
  int padded() const { return (w + 2 * padding) * c; }
  int columns() const { return padded() - (kernel - 1) * c; }
  int spread() const { return (w + kernel - 1) * c; }
  int origin() const { return (kernel - 1 - padding) * c; }
  // Rows [0, rows_needed) of x lie in the windows of output rows [0, oy].
  int rows_needed(int oy) const { return std::min(h, oy * stride - padding + kernel); }
};

template <class T>
Geometry geometry(const View<T>& x, const View<T>& y, int kernel, int stride, int padding) {
  return {kernel, stride, padding, x.h, x.w, y.h, y.w, x.c};
}

// body(i, k) for i in [0, count). Kernels of kLeast to 3, the usual ones, are compile-time constants, so that
// the taps unroll, in vectors. Others, and doubles, which only check gradients, do without: each form takes
// seconds to compile.
template <class T, int kLeast, class Body>
void for_images(int64_t count, int kernel, const Body& body) {
  const auto vectors = [&](auto constant) {
    parallel_for(count, [&body, constant](int64_t i) { body(i, constant); });
  };
  if constexpr (std::is_same_v<T, float>) {
    if (kernel == 3) return vectors(std::integral_constant<int, 3>{});
    if constexpr (kLeast == 2)
      if (kernel == 2) return vectors(std::integral_constant<int, 2>{});
  }
#pragma omp parallel for
  for (int64_t i = 0; i < count; ++i) body(i, kernel);
}

template <class T>
struct Rows {
  const T* at[kMaxPoolKernel];
};

// Asks for the row after next: the hardware does not follow a stream that stops at every row.
template <bool kWrite, class T>
LANAS_INLINE void prefetch_row(const View<T>& x, int64_t n, int iy) {
  if (iy + 2 >= x.h && n + 1 >= x.n) return;
  prefetch_pixels<kWrite>(x, (n * x.h + iy + 2) * x.w, x.w);
}

// Row iy of image n with `around` on both sides.
template <class T>
LANAS_INLINE void pad_row(T* row, const View<T>& x, int64_t n, int iy, const Geometry& g, T around) {
  const int side = g.padding * g.c;
  prefetch_row<false>(x, n, iy);
  std::fill_n(row, side, around);
  copy_pixels<T>(row + side, g.c, x.at(int(n), iy, 0), x.stride, g.w, g.c);
  std::fill_n(row + side + g.w * g.c, side, around);
}

// The rows of the windows of output row oy, from a ring of rows; `outside` for those beyond the image.
template <class T>
LANAS_INLINE Rows<T> window_rows(const T* ring, int width, const T* outside, const Geometry& g, int oy) {
  Rows<T> rows;
  for (int r = 0; r < g.kernel; ++r) {
    const int iy = oy * g.stride - g.padding + r;
    rows.at[r] = iy < 0 || iy >= g.h ? outside : ring + (iy % g.kernel) * width;
  }
  return rows;
}
// The output rows whose windows hold row iy of x as their row r; `none` where there is no such row.
template <class T>
LANAS_INLINE Rows<T> holding_rows(const T* ring, int width, const T* none, const Geometry& g, int iy) {
  Rows<T> rows;
  for (int r = 0; r < g.kernel; ++r) {
    const int u = iy + g.padding - r;
    const bool holds = u >= 0 && u % g.stride == 0 && u / g.stride < g.oh;
    rows.at[r] = holds ? ring + (u / g.stride % g.kernel) * width : none;
  }
  return rows;
}

// Where to write a row of y that may have to be picked from `row` by put_row.
template <class T>
LANAS_INLINE T* open_row(const View<T>& y, int64_t n, int oy, T* row, int stride) {
  prefetch_row<true>(y, n, oy);
  return stride == 1 && y.packed() ? y.at(int(n), oy, 0) : row;
}
template <class T>
LANAS_INLINE void put_row(const View<T>& y, int64_t n, int oy, const T* row, int stride) {
  if (stride == 1 && y.packed()) return;
  copy_pixels<T>(y.at(int(n), oy, 0), y.stride, row, int64_t{stride} * y.c, y.w, y.c);
}

// factor[flat column] = 1 / (taps inside the image) of the windows of output row oy.
template <class T>
LANAS_INLINE void tap_factors(T* factor, const Geometry& g, int oy) {
  const int top = oy * g.stride - g.padding;
  const int rows = std::min(g.h, top + g.kernel) - std::max(0, top);
  for (int u = 0; u * g.c < g.columns(); ++u) {
    const int left = u - g.padding;
    const int columns = std::min(g.w, left + g.kernel) - std::max(0, left);
    std::fill_n(factor + u * g.c, g.c, T(1) / T(rows * columns));
  }
}
LANAS_INLINE bool same_factors(const Geometry& g, int oy) {  // as row oy - 1
  return oy > 0 && (oy - 1) * g.stride >= g.padding && oy * g.stride - g.padding + g.kernel <= g.h;
}

// code[i] = the first tap of the window at i, in row-major order, that has its maximum.
template <class T, class Kernel>
LANAS_INLINE void first_maxima(T* code, const Rows<T>& rows, int count, int c, Kernel kernel) {
  for_flat(count, [=](int i) {
    T best = rows.at[0][i], where = 0;
    for (int tap = 1; tap < kernel * kernel; ++tap) {
      const T value = rows.at[tap / kernel][tap % kernel * c + i];
      where = value > best ? T(tap) : where;
      best = value > best ? value : best;
    }
    code[i] = where;
  });
}

// dx[row iy] = value(flat column) + beta dx.
template <class T, class Value>
LANAS_INLINE void add_row(const View<T>& dx, int64_t n, int iy, T* row, T beta, Value value) {
  T* out = open_row(dx, n, iy, row, 1);
  if (beta != 0 && !dx.packed()) copy_pixels<T>(out, dx.c, dx.at(int(n), iy, 0), dx.stride, dx.w, dx.c);
  if (beta == 0)
    for_flat(dx.w * dx.c, [=](int i) { out[i] = value(i); });
  else
    for_flat(dx.w * dx.c, [=](int i) { out[i] = beta * out[i] + value(i); });
  put_row(dx, n, iy, out, 1);
}

// Output rows [begin, end) of image n: first down the rows of the windows, then along the columns that count.
// A row beyond the image is one inside again, which changes no maximum.
template <class T, class Kernel>
LANAS_INLINE void max_forward_rows(const View<T>& y, const View<T>& x, int64_t n, int begin, int end,
                                   const Geometry& g, Kernel kernel) {
  const int side = g.padding * g.c, width = g.w * g.c, c = g.c;
  const bool packed = x.packed();
  Scratch<T> column(g.padded()), buffer(g.columns()), ring(packed ? 0 : kernel * width);
  std::fill_n(column.get(), g.padded(), -std::numeric_limits<T>::infinity());
  for (int oy = begin, next = std::max(0, begin * g.stride - g.padding); oy < end; ++oy) {
    for (; next < g.rows_needed(oy); ++next) {
      prefetch_row<false>(x, n, next);
      if (!packed)
        copy_pixels<T>(ring.get() + next % kernel * width, c, x.at(int(n), next, 0), x.stride, g.w, c);
    }
    Rows<T> rows;
    for (int r = 0; r < kernel; ++r) {
      const int iy = std::clamp(oy * g.stride - g.padding + r, 0, g.h - 1);
      rows.at[r] = packed ? x.at(int(n), iy, 0) : ring.get() + iy % kernel * width;
    }
    T* tall = column.get() + side;
    for_flat(width, [=](int i) {
      T best = rows.at[0][i];
      for (int r = 1; r < kernel; ++r) best = rows.at[r][i] > best ? rows.at[r][i] : best;
      tall[i] = best;
    });
    const auto widest = [=](const T* from) {
      T best = from[0];
      for (int s = 1; s < kernel; ++s) best = from[s * c] > best ? from[s * c] : best;
      return best;
    };
    if (g.stride > 1 && c >= 16) {
      prefetch_row<true>(y, n, oy);
      for (int ox = 0; ox < g.ow; ++ox) {
        const T* from = column.get() + ox * g.stride * c;
        T* to = y.at(int(n), oy, ox);
        for_flat(c, [=](int i) { to[i] = widest(from + i); });
      }
      continue;
    }
    const T* from = column.get();
    T* out = open_row(y, n, oy, buffer.get(), g.stride);
    for_flat(g.columns(), [=](int i) { out[i] = widest(from + i); });
    put_row(y, n, oy, out, g.stride);
  }
}

// A pixel gets the gradients of those windows around it whose first maximum it is. dy: of this image alone.
template <class T, class Kernel>
LANAS_INLINE void max_backward_image(const View<T>& dx, const View<T>& dy, const View<T>& x, int64_t n,
                                     T beta, const Geometry& g, Kernel kernel) {
  const int padded = g.padded(), spread = g.spread(), c = g.c;
  Scratch<T> ring(g.kernel * padded), outside(padded), buffer(g.w * c);
  Scratch<T> codes(g.kernel * spread), gradients(g.kernel * spread), none(spread);
  std::fill_n(outside.get(), padded, -std::numeric_limits<T>::infinity());
  std::fill_n(codes.get(), g.kernel * spread, T(0));      // also the room around the positions
  std::fill_n(gradients.get(), g.kernel * spread, T(0));  // zero where the stride has no window
  std::fill_n(none.get(), spread, T(0));
  int next = 0, oy = 0;
  for (int iy = 0; iy < g.h; ++iy) {
    for (; oy < g.oh && oy * g.stride <= iy + g.padding; ++oy) {
      for (; next < g.rows_needed(oy); ++next)
        pad_row(ring.get() + next % g.kernel * padded, x, n, next, g, -std::numeric_limits<T>::infinity());
      Rows<T> rows = window_rows<T>(ring.get(), padded, outside.get(), g, oy);
      const int slot = oy % g.kernel * spread + g.origin();
      if (g.stride == 1 || c < 16) {
        first_maxima(codes.get() + slot, rows, g.columns(), c, kernel);
      } else {
        for (int i = 0; i < g.ow * g.stride * c; i += g.stride * c) {
          first_maxima(codes.get() + slot + i, rows, c, c, kernel);
          for (int r = 0; r < kernel; ++r) rows.at[r] += g.stride * c;
        }
      }
      copy_pixels<T>(gradients.get() + slot, int64_t{g.stride} * c, dy.at(0, oy, 0), dy.stride, g.ow, c);
    }
    const Rows<T> code = holding_rows<T>(codes.get(), spread, none.get(), g, iy);
    const Rows<T> taken = holding_rows<T>(gradients.get(), spread, none.get(), g, iy);
    add_row(dx, n, iy, buffer.get(), beta, [=](int i) {
      T sum = 0;
      for (int tap = 0; tap < kernel * kernel; ++tap) {
        const int r = tap / kernel, at = (kernel - 1 - tap % kernel) * c + i;
        sum += code.at[r][at] == T(tap) ? taken.at[r][at] : T(0);
      }
      return sum;
    });
  }
}

template <class T, class Kernel>
LANAS_INLINE void avg_forward_image(const View<T>& y, const View<T>& x, int64_t n, const Geometry& g,
                                    Kernel kernel) {
  const int width = g.columns();
  Scratch<T> padded(g.padded()), ring(g.kernel * width), outside(width), buffer(width), factors(width);
  std::fill_n(outside.get(), width, T(0));
  for (int oy = 0, next = 0; oy < g.oh; ++oy) {
    for (; next < g.rows_needed(oy); ++next) {
      pad_row(padded.get(), x, n, next, g, T(0));
      const T* row = padded.get();
      T* sums = ring.get() + (next % g.kernel) * width;
      for_flat(width, [=](int i) {
        T sum = row[i];
        for (int s = 1; s < kernel; ++s) sum += row[s * g.c + i];
        sums[i] = sum;
      });
    }
    if (!same_factors(g, oy)) tap_factors(factors.get(), g, oy);
    const T* factor = factors.get();
    const Rows<T> rows = window_rows<T>(ring.get(), width, outside.get(), g, oy);
    T* out = open_row(y, n, oy, buffer.get(), g.stride);
    for_flat(width, [=](int i) {
      T sum = rows.at[0][i];
      for (int r = 1; r < kernel; ++r) sum += rows.at[r][i];
      out[i] = sum * factor[i];
    });
    put_row(y, n, oy, out, g.stride);
  }
}

template <class T, class Kernel>
LANAS_INLINE void avg_backward_image(const View<T>& dx, const View<T>& dy, int64_t n, T beta,
                                     const Geometry& g, Kernel kernel) {
  const int width = g.columns(), spread = g.spread(), c = g.c;
  Scratch<T> gradients(g.kernel * width), none(width), row_gradient(spread), buffer(g.w * c), factors(width);
  std::fill_n(gradients.get(), g.kernel * width, T(0));
  std::fill_n(none.get(), width, T(0));
  std::fill_n(row_gradient.get(), spread, T(0));
  for (int iy = 0, oy = 0; iy < g.h; ++iy) {
    for (; oy < g.oh && oy * g.stride <= iy + g.padding; ++oy) {
      if (!same_factors(g, oy)) tap_factors(factors.get(), g, oy);
      const T* factor = factors.get();
      T* gradient = gradients.get() + (oy % g.kernel) * width;
      copy_pixels<T>(gradient, int64_t{g.stride} * c, dy.at(0, oy, 0), dy.stride, g.ow, c);
      for_flat(width, [=](int i) { gradient[i] *= factor[i]; });
    }
    const Rows<T> rows = holding_rows<T>(gradients.get(), width, none.get(), g, iy);
    T* gradient = row_gradient.get() + g.origin();
    for_flat(width, [=](int i) {
      T sum = rows.at[0][i];
      for (int r = 1; r < kernel; ++r) sum += rows.at[r][i];
      gradient[i] = sum;
    });
    const T* from = row_gradient.get();
    add_row(dx, n, iy, buffer.get(), beta, [=](int i) {
      T sum = from[i];
      for (int s = 1; s < kernel; ++s) sum += from[s * c + i];
      return sum;
    });
  }
}

}  // namespace

template <class T>
void max_pool_forward(View<T> y, View<T> x, int kernel_size, int stride, int padding) {
  const Geometry g = geometry(x, y, kernel_size, stride, padding);
  const int threads = omp_in_parallel() ? 1 : omp_get_max_threads(),
            strips = std::clamp(threads / x.n, 1, y.h);
  for_images<T, 2>(int64_t{x.n} * strips, kernel_size, [=](int64_t i, auto kernel) {
    const int strip = int(i % strips);
    max_forward_rows(y, x, i / strips, y.h * strip / strips, y.h * (strip + 1) / strips, g, kernel);
  });
}

template <class T>
void max_pool_backward(View<T> dx, std::span<const GradientView<T>> dys, View<T> x, int kernel_size,
                       int stride, int padding, T beta) {
  const Geometry g = geometry(x, dys[0].g, kernel_size, stride, padding);
  const GradientSum<T> sum(dys);
  for_images<T, 2>(x.n, kernel_size, [=, &sum](int64_t n, auto kernel) {
    Scratch<T> buffer(sum.size());
    max_backward_image(dx, sum.image(int(n), buffer.get()), x, n, beta, g, kernel);
  });
}

template <class T>
void avg_pool_forward(View<T> y, View<T> x, int kernel_size, int stride, int padding) {
  const Geometry g = geometry(x, y, kernel_size, stride, padding);
  for_images<T, 3>(x.n, kernel_size, [=](int64_t n, auto kernel) { avg_forward_image(y, x, n, g, kernel); });
}

template <class T>
void avg_pool_backward(View<T> dx, std::span<const GradientView<T>> dys, int kernel_size, int stride,
                       int padding, T beta) {
  const Geometry g = geometry(dx, dys[0].g, kernel_size, stride, padding);
  const GradientSum<T> sum(dys);
  for_images<T, 3>(dx.n, kernel_size, [=, &sum](int64_t n, auto kernel) {
    Scratch<T> buffer(sum.size());
    avg_backward_image(dx, sum.image(int(n), buffer.get()), n, beta, g, kernel);
  });
}

#define INSTANTIATE(T)                                                                                   \
  template void max_pool_forward(View<T>, View<T>, int, int, int);                                       \
  template void max_pool_backward(View<T>, std::span<const GradientView<T>>, View<T>, int, int, int, T); \
  template void avg_pool_forward(View<T>, View<T>, int, int, int);                                       \
  template void avg_pool_backward(View<T>, std::span<const GradientView<T>>, int, int, int, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host
}  // namespace lanas
