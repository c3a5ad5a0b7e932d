// conv2d.cpp -- see conv2d.h. The batch is cut into groups of images with some 1024 output pixels each, and
// the groups into a few chunks that threads take one at a time; every chunk has its own column buffer and its
// own partial weight gradient, added up in chunk order.
#include "kernels/vendor/conv2d.h"

#include <algorithm>

#include "kernels/core/parallel.h"
#include "kernels/vendor/conv2d_direct.h"
#include "kernels/vendor/cuda.h"
#include "kernels/vendor/gemm.h"

namespace lanas {

namespace {

constexpr int kGroupPixels = 1024;

struct Plan {
  int kh, kw, stride, padding, dilation;
  int images;      // in all
  int group;       // images in a group
  int chunks;      // that threads share out
  int pixels;      // output pixels of one image
  int patch;       // kh * kw * cin: one row of the column matrix
  bool pointwise;  // 1x1, stride 1, no padding: the input is its own column matrix

  int64_t column_size() const { return pointwise ? 0 : int64_t{group} * pixels * patch; }
  int groups() const { return (images + group - 1) / group; }
  int first_group(int chunk) const { return int(int64_t{groups()} * chunk / chunks); }
};

Plan make_plan(const char* name, Shape y, Shape x, Shape w, int stride, int padding, int dilation) {
  CHECK(stride >= 1 && dilation >= 1 && padding >= 0, name, ": stride ", stride, ", dilation ", dilation,
        ", padding ", padding);
  const Shape expected{x.n, conv_output_size(x.h, w.h, stride, padding, dilation),
                       conv_output_size(x.w, w.w, stride, padding, dilation), w.n};
  CHECK(w.c == x.c, name, ": weights ", w, " do not match the input ", x);
  CHECK(y == expected && y.size() > 0, name, ": output ", y, " is not the expected ", expected);
  Plan plan{w.h, w.w, stride, padding, dilation, x.n, 1, 1, y.h * y.w, w.h * w.w * w.c, false};
  plan.group = std::clamp(kGroupPixels / plan.pixels, 1, x.n);
  plan.chunks = std::min(plan.groups(), cpu::kMaxChunks);
  plan.pointwise = w.h == 1 && w.w == 1 && stride == 1 && padding == 0;
  return plan;
}

// Calls body(n, oy, ky, ...) -- the run of taps of one kernel row: taps [kx0, kx1) fall inside the image at
// iy.
struct TapRange {
  int begin, end;
};
inline TapRange inside(int start, int size, int kernel, int dilation) {
  const int begin = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
  const int end = start >= size ? 0 : (size - 1 - start) / dilation + 1;
  return {std::min(begin, kernel), std::max(std::min(begin, kernel), std::min(end, kernel))};
}

// One output row of the column matrix: columns [ow, kh*kw*cin].
inline void gather_row(float* column, const Tensor& x, int n, int oy, int ow, const Plan& plan) {
  const int iy0 = oy * plan.stride - plan.padding;
  for (int ox = 0; ox < ow; ++ox) {
    const int ix0 = ox * plan.stride - plan.padding;
    const TapRange taps = inside(ix0, x.w, plan.kw, plan.dilation);
    for (int ky = 0; ky < plan.kh; ++ky, column += plan.kw * x.c) {
      const int iy = iy0 + ky * plan.dilation;
      if (iy < 0 || iy >= x.h || taps.begin == taps.end) {
        for (int i = 0; i < plan.kw * x.c; ++i) column[i] = 0;
        continue;
      }
      for (int i = 0; i < taps.begin * x.c; ++i) column[i] = 0;
      const float* from = x.at(n, iy, ix0 + taps.begin * plan.dilation);
      if (plan.dilation == 1 && x.packed()) {
        const int length = (taps.end - taps.begin) * x.c;
        float* to = column + taps.begin * x.c;
        for (int i = 0; i < length; ++i) to[i] = from[i];
      } else {
        for (int kx = taps.begin; kx < taps.end; ++kx, from += int64_t{plan.dilation} * x.stride)
          for (int c = 0; c < x.c; ++c) column[kx * x.c + c] = from[c];
      }
      for (int i = taps.end * x.c; i < plan.kw * x.c; ++i) column[i] = 0;
    }
  }
}

// The transpose of gather_row: adds one row of column gradients to dx.
inline void scatter_row(const Tensor& dx, const float* column, int n, int oy, int ow, const Plan& plan) {
  for (int ox = 0; ox < ow; ++ox) {
    const int ix0 = ox * plan.stride - plan.padding;
    const TapRange taps = inside(ix0, dx.w, plan.kw, plan.dilation);
    for (int ky = 0; ky < plan.kh; ++ky, column += plan.kw * dx.c) {
      const int iy = oy * plan.stride - plan.padding + ky * plan.dilation;
      if (iy < 0 || iy >= dx.h) continue;
      for (int kx = taps.begin; kx < taps.end; ++kx) {
        float* __restrict to = dx.at(n, iy, ix0 + kx * plan.dilation);
        const float* __restrict from = column + kx * dx.c;
        for (int c = 0; c < dx.c; ++c) to[c] += from[c];
      }
    }
  }
}

inline void scale_image(const Tensor& x, int n, float beta) {
  const int64_t pixels = int64_t{x.h} * x.w;
  for (int64_t p = n * pixels; p < (n + 1) * pixels; ++p) {
    float* row = x.pixel(p);
    if (beta == 0)
      for (int c = 0; c < x.c; ++c) row[c] = 0;
    else
      for (int c = 0; c < x.c; ++c) row[c] *= beta;
  }
}

// body(chunk's column buffer, first image, images) for every group, chunks in parallel.
template <class Body>
void for_each_group(const Plan& plan, float* scratch, const Body& body) {
  parallel_for(plan.chunks, [&](int64_t chunk) {
    float* column = scratch + chunk * plan.column_size();
    for (int g = plan.first_group(int(chunk)); g < plan.first_group(int(chunk) + 1); ++g) {
      const int first = g * plan.group;
      body(int(chunk), column, first, std::min(plan.group, plan.images - first));
    }
  });
}

void check_scratch(const char* name, const Plan& plan, const void* scratch) {
  CHECK(plan.pointwise || scratch != nullptr, name, ": scratch is null");
}

}  // namespace

size_t conv2d_scratch_bytes(Shape y, Shape x, Shape w, int stride, int padding, int dilation, Device device) {
  const Plan plan = make_plan("conv2d_scratch_bytes", y, x, w, stride, padding, dilation);
  if (plan.pointwise) return 0;
  if (device == Device::cuda) return cuda::conv2d_scratch_bytes(y, x);
  const size_t columns = size_t(plan.chunks) * size_t(plan.column_size() + w.size()) * sizeof(float);
  if (!cpu::conv2d_is_direct(w, dilation)) return columns;
  return std::max(columns, cpu::conv2d_direct_scratch_bytes(y, x, w, stride, padding));
}

void conv2d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, int stride, int padding, int dilation,
                    void* scratch) {
  const Plan plan = make_plan("conv2d_forward", y.shape(), x.shape(), w.shape(), stride, padding, dilation);
  CHECK(w.packed(), "conv2d_forward: weights have pixel stride ", w.stride, ", not ", w.c);
  if (plan.pointwise)
    return gemm(stream, false, true, int(y.pixels()), y.c, x.c, 1, x.data, x.stride, w.data, w.c, 0, y.data,
                y.stride);
  if (stream.device() == Device::cuda)
    return cuda::conv2d_forward(stream, y, x, w, {stride, padding, dilation}, scratch);
  check_scratch("conv2d_forward", plan, scratch);
  if (cpu::conv2d_is_direct(w.shape(), dilation))
    return cpu::conv2d_direct_forward(y, x, w, stride, padding, scratch);
  for_each_group(plan, static_cast<float*>(scratch), [&](int, float* column, int first, int images) {
    for (int row = 0; row < images * y.h; ++row)
      gather_row(column + int64_t{row} * y.w * plan.patch, x, first + row / y.h, row % y.h, y.w, plan);
    // One image at a time: oneDNN adds up a row otherwise in other company, and an image's answer must not
    // depend on the images beside it.
    for (int i = 0; i < images; ++i, column += int64_t{plan.pixels} * plan.patch)
      gemm(stream, false, true, plan.pixels, y.c, plan.patch, 1, column, plan.patch, w.data, plan.patch, 0,
           y.at(first + i, 0, 0), y.stride);
  });
}

void conv2d_backward_data(Stream& stream, Tensor dx, Tensor dy, Tensor w, int stride, int padding,
                          int dilation, float beta, void* scratch) {
  const Plan plan =
      make_plan("conv2d_backward_data", dy.shape(), dx.shape(), w.shape(), stride, padding, dilation);
  CHECK(w.packed(), "conv2d_backward_data: weights have pixel stride ", w.stride, ", not ", w.c);
  if (plan.pointwise)
    return gemm(stream, false, false, int(dy.pixels()), dx.c, dy.c, 1, dy.data, dy.stride, w.data, w.c, beta,
                dx.data, dx.stride);
  if (stream.device() == Device::cuda)
    return cuda::conv2d_backward_data(stream, dx, dy, w, {stride, padding, dilation}, beta, scratch);
  check_scratch("conv2d_backward_data", plan, scratch);
  for_each_group(plan, static_cast<float*>(scratch), [&](int, float* column, int first, int images) {
    gemm(stream, false, false, images * plan.pixels, plan.patch, dy.c, 1, dy.at(first, 0, 0), dy.stride,
         w.data, plan.patch, 0, column, plan.patch);
    for (int i = 0; i < images; ++i) scale_image(dx, first + i, beta);
    for (int row = 0; row < images * dy.h; ++row)
      scatter_row(dx, column + int64_t{row} * dy.w * plan.patch, first + row / dy.h, row % dy.h, dy.w, plan);
  });
}

void conv2d_backward_weights(Stream& stream, Tensor dw, Tensor dy, Tensor x, int stride, int padding,
                             int dilation, float beta, void* scratch) {
  const Plan plan =
      make_plan("conv2d_backward_weights", dy.shape(), x.shape(), dw.shape(), stride, padding, dilation);
  CHECK(dw.packed(), "conv2d_backward_weights: dw has pixel stride ", dw.stride, ", not ", dw.c);
  if (plan.pointwise)
    return gemm(stream, true, false, dy.c, x.c, int(dy.pixels()), 1, dy.data, dy.stride, x.data, x.stride,
                beta, dw.data, dw.c);
  if (stream.device() == Device::cuda)
    return cuda::conv2d_backward_weights(stream, dw, dy, x, {stride, padding, dilation}, beta, scratch);
  check_scratch("conv2d_backward_weights", plan, scratch);
  if (cpu::conv2d_is_direct(dw.shape(), dilation))
    return cpu::conv2d_direct_backward_weights(dw, dy, x, stride, padding, beta, scratch);
  float* columns = static_cast<float*>(scratch);
  float* partials = columns + plan.chunks * plan.column_size();  // [chunks, cout, patch]
  const int64_t size = dw.size();
  for_each_group(plan, columns, [&](int chunk, float* column, int first, int images) {
    for (int row = 0; row < images * dy.h; ++row)
      gather_row(column + int64_t{row} * dy.w * plan.patch, x, first + row / dy.h, row % dy.h, dy.w, plan);
    const bool starts = first == plan.first_group(chunk) * plan.group;
    gemm(stream, true, false, dy.c, plan.patch, images * plan.pixels, 1, dy.at(first, 0, 0), dy.stride,
         column, plan.patch, starts ? 0.0f : 1.0f, partials + chunk * size, plan.patch);
  });
  parallel_for(size, [=](int64_t i) {
    double sum = 0;
    for (int chunk = 0; chunk < plan.chunks; ++chunk) sum += double(partials[chunk * size + i]);
    dw.data[i] = beta == 0 ? float(sum) : float(sum + double(beta) * double(dw.data[i]));
  });
}

namespace host {

namespace {
// visit(n, oy, ox, ky, kx, iy, ix) for every tap inside the image.
template <class Visit>
void for_each_tap(Shape y, Shape x, int kh, int kw, int stride, int padding, int dilation,
                  const Visit& visit) {
  for (int n = 0; n < y.n; ++n)
    for (int oy = 0; oy < y.h; ++oy)
      for (int ox = 0; ox < y.w; ++ox)
        for (int ky = 0; ky < kh; ++ky)
          for (int kx = 0; kx < kw; ++kx) {
            const int iy = oy * stride - padding + ky * dilation, ix = ox * stride - padding + kx * dilation;
            if (iy >= 0 && iy < x.h && ix >= 0 && ix < x.w) visit(n, oy, ox, ky, kx, iy, ix);
          }
}

template <class T>
void scale_all(View<T> x, T beta) {
  for (int64_t p = 0; p < x.pixels(); ++p)
    for (int c = 0; c < x.c; ++c) x.pixel(p)[c] = beta == 0 ? T(0) : beta * x.pixel(p)[c];
}
}  // namespace

template <class T>
void conv2d_forward(View<T> y, View<T> x, View<T> w, int stride, int padding, int dilation) {
  scale_all(y, T(0));
  for_each_tap(y.shape(), x.shape(), w.h, w.w, stride, padding, dilation,
               [&](int n, int oy, int ox, int ky, int kx, int iy, int ix) {
                 for (int o = 0; o < y.c; ++o) {
                   double sum = 0;
                   for (int i = 0; i < x.c; ++i)
                     sum += double(x.at(n, iy, ix)[i]) * double(w.at(o, ky, kx)[i]);
                   y.at(n, oy, ox)[o] += T(sum);
                 }
               });
}

template <class T>
void conv2d_backward_data(View<T> dx, View<T> dy, View<T> w, int stride, int padding, int dilation, T beta) {
  scale_all(dx, beta);
  for_each_tap(dy.shape(), dx.shape(), w.h, w.w, stride, padding, dilation,
               [&](int n, int oy, int ox, int ky, int kx, int iy, int ix) {
                 for (int o = 0; o < dy.c; ++o)
                   for (int i = 0; i < dx.c; ++i)
                     dx.at(n, iy, ix)[i] += dy.at(n, oy, ox)[o] * w.at(o, ky, kx)[i];
               });
}

template <class T>
void conv2d_backward_weights(View<T> dw, View<T> dy, View<T> x, int stride, int padding, int dilation,
                             T beta) {
  scale_all(dw, beta);
  for_each_tap(dy.shape(), x.shape(), dw.h, dw.w, stride, padding, dilation,
               [&](int n, int oy, int ox, int ky, int kx, int iy, int ix) {
                 for (int o = 0; o < dy.c; ++o)
                   for (int i = 0; i < x.c; ++i)
                     dw.at(o, ky, kx)[i] += dy.at(n, oy, ox)[o] * x.at(n, iy, ix)[i];
               });
}

#define INSTANTIATE(T)                                                             \
  template void conv2d_forward(View<T>, View<T>, View<T>, int, int, int);          \
  template void conv2d_backward_data(View<T>, View<T>, View<T>, int, int, int, T); \
  template void conv2d_backward_weights(View<T>, View<T>, View<T>, int, int, int, T);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace host

}  // namespace lanas
