// separable_conv_plan.h -- what the cpu path of separable_conv works out before its loops: how rows lie in
// buffers, and the weights and norms spread over the lanes of vectors.
// The padded input holds relu(normalise(x)) with zeros around it. At stride 2 each of its rows is two planes,
// even columns then odd ones, so that neighbouring outputs read neighbouring inputs.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/core/parallel.h"
#include "kernels/ops/separable_conv.h"
#include "kernels/ops/separable_conv_pixels.h"
#include "kernels/ops/separable_conv_product.h"
#include "kernels/ops/separable_conv_stencil.h"

namespace lanas::cpu {

constexpr int kMaxLanes = 16;
constexpr int kMaxKernel = 15;
constexpr int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

inline int lanes_of(CpuIsa isa) { return isa == CpuIsa::avx512 ? 16 : isa == CpuIsa::avx2 ? 8 : 4; }

// At stride 2 and an even dilation only even rows and columns of the padded input are read.
inline int planes_of(const SeparableConv<float>& op) {
  return op.dilation % 2 == 0 || op.kernel() == 1 ? 1 : op.stride;
}

// The gradient of x over that of the depthwise result, dd, with zeros around: pixel i of x takes those of dd
// at (i + pad - dilation*t) / stride for taps t where that is whole. At stride 2 and an odd dilation these
// are every second t, beginning with the parity of i + pad; at an even one only even i + pad have any.
struct Lattice {
  int phases;         // parities of i + pad that have a gradient
  int taps, spacing;  // of the pixels of dd for one of x along an axis; the most of any parity
  int margin;         // zeros before dd
  explicit Lattice(const SeparableConv<float>& op)
      : phases(planes_of(op)), taps(op.kernel()), spacing(op.dilation) {
    if (phases == 2) taps = (taps + 1) / 2;
    if (phases < op.stride) spacing = (spacing + 1) / 2;
    margin = (taps - 1) * spacing - (op.padding() - (phases - 1) * spacing) / op.stride;
  }
  int taps_of(int parity, int kernel) const { return phases == 2 ? (kernel - parity + 1) / 2 : taps; }
};

// What units have in common that read one x of one stride: buffers wide enough for each of them.
struct Common {
  int units = 0;
  int pad = 0;     // zeros around x
  int planes = 1;  // of a padded row that any of them reads
  int kernel = 1, margin = 0;
  explicit Common(std::span<const SeparableConv<float>> ops) : units(int(ops.size())) {
    for (const SeparableConv<float>& op : ops) {
      pad = std::max(pad, op.padding()), planes = std::max(planes, planes_of(op));
      kernel = std::max(kernel, op.kernel()), margin = std::max(margin, Lattice(op).margin);
    }
  }
};

// A vector read from beyond L1, changed and written takes as long as so many multiply-adds.
constexpr int kCopyWork = 8;

// Of a 1x1 convolution's input, rows of at most so many floats go through the product at a time: they fit
// into half of an L1 of 32 KB, beside the weights and the result.
constexpr int kInputFloats = 4096;

struct Plan {
  SeparableConv<float> op;
  Common common;
  Shape x, y;
  int lanes;               // W: floats in a vector
  int k, pad;              // kernel size (1 without depthwise part) and padding
  int inset;               // zeros of the padded input that this unit does not reach
  int step, jump;          // rows of a tile are `step` apart; each reads `jump` kernel rows further
  int period;              // vectors after which the channels of x repeat
  int plane, pitch;        // padded input: floats from one plane, one row to the next
  int column[kMaxKernel];  // floats from a padded row's start to the inputs of kernel column kx
  int d_pitch, d_vectors;  // of the depthwise result: floats from one row to the next, vectors of a row
  int tile;                // rows of most tiles
  bool flat;               // cin == cout, less than a vector: pixels share vectors
  int cin_pad, cout_pad;   // channels rounded up to what vectors take
  // Vectors multiplied and added, by which lines are asked for ahead: of a row's product, and of a row of x
  // or y that is copied before one, as if that were multiplied too.
  int row_work, x_copy_work, y_copy_work;

  Plan(const SeparableConv<float>& conv, Shape x_shape, int lane_count, const Common& with)
      : op(conv),
        common(with),
        x(x_shape),
        y(conv.output_shape(x_shape)),
        lanes(lane_count),
        k(conv.kernel()),
        pad(conv.padding()),
        inset(with.pad - pad) {
    CHECK(k <= kMaxKernel, "separable_conv: kernel size ", k, " is above ", kMaxKernel);
    const int divisor = std::gcd(op.stride, op.dilation);
    step = op.has_depthwise() ? op.dilation / divisor : 1, jump = op.stride / divisor;
    period = x.c / std::gcd(x.c, lanes);
    plane = round_up((x.w + 2 * common.pad + op.stride - 1) / op.stride * x.c, kMaxLanes);
    pitch = op.stride * plane + kMaxLanes;
    for (int kx = 0; kx < k; ++kx) column[kx] = column_of(inset + kx * op.dilation);
    d_pitch = round_up(y.w * x.c, kMaxLanes), d_vectors = round_up(y.w * x.c, lanes) / lanes;
    tile = op.has_depthwise() ? tile_rows(lanes, k, d_pitch) : std::clamp(kInputFloats / d_pitch, 1, 4);
    flat = x.c == y.c && x.c < lanes && (x.c == 4 || x.c == 8);
    cin_pad = flat ? lanes : round_up(x.c, kChannelMultiple);
    cout_pad = flat ? lanes : round_up(y.c, kChannelMultiple);
    row_work = y.w * x.c * y.c / lanes;
    x_copy_work = flat ? 0 : kCopyWork * y.w * x.c / lanes,
    y_copy_work = flat ? 0 : kCopyWork * y.w * y.c / lanes;
  }

  // Remainder and quotient by the stride, which is 1 or 2, cheap enough for every row of an image.
  int parity_of(int i) const { return i & (op.stride - 1); }
  int divide(int i) const { return i >> (op.stride - 1); }
  // Floats from a padded row's start to its column i.
  int column_of(int i) const { return parity_of(i) * plane + divide(i) * x.c; }
  // Of `size` rows or columns of x those where i + pad has this parity (of one: all): the first, their
  // number.
  int first_of(int parity) const { return parity_of(parity + pad); }
  int count_of(int parity, int size) const { return divide(size - first_of(parity) + op.stride - 1); }
  // Rows and columns of x that are read: every spread()-th from op.offset on.
  int spread() const { return common.planes < op.stride ? op.stride : 1; }
  int padded_rows() const { return op.has_depthwise() ? x.h + 2 * common.pad + op.stride : 0; }
  size_t padded_size() const { return size_t(padded_rows()) * size_t(pitch); }
  // As row_work, of an image.
  int64_t stencil_work(int taps) const { return int64_t{taps} * taps * y.h * d_vectors; }
  int64_t product_work() const { return int64_t{y.h} * row_work; }
  // o: first row of a tile of the result.
  StencilShape stencil_shape(int o) const {
    return {k,           k,  d_vectors, period, ptrdiff_t(op.dilation) * pitch, column, o * op.stride - pad,
            op.dilation, x.h};
  }
};

// Hands out 64-byte aligned pieces of a block; from null it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(size_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// What each thread works in, as carve(Carver) takes it. Between two threads' a page is left: processors fetch
// lines behind those that are read, within a page, and would take them from the thread that writes them.
struct ThreadMemory {
  static constexpr size_t kPage = 4096;
  char* base = nullptr;
  size_t bytes = 0;  // of one thread
  ThreadMemory() = default;
  template <class Carve>
  ThreadMemory(Carve&& carve, int threads, Carver& carver) {
    Carver one(nullptr);
    carve(one);
    bytes = one.used();
    base = carver.take<char>((bytes + kPage) * size_t(threads));
  }
  Carver of(int thread) const { return Carver(base + (bytes + kPage) * size_t(thread)); }
};

// z = scale x + shift, channels repeated over repeat() floats; null pointers: z = x.
struct NormTable {
  float *scale = nullptr, *shift = nullptr;
  void carve(Carver& carver, const Plan& plan) {
    const size_t size = size_t(std::lcm(plan.x.c, kMaxLanes));
    scale = carver.take<float>(size), shift = carver.take<float>(size);
  }
  // affine: with gamma and beta. Without norm the table becomes null.
  void fill(const Plan& plan, bool affine);
};

// What the images' sums, [n][size], add up to.
inline std::vector<double> sum_of_images(const float* sums, int n, int size) {
  std::vector<double> total(sums, sums + size);
  for (int i = 1; i < n; ++i)
    for (int j = 0; j < size; ++j) total[size_t(j)] += sums[int64_t{i} * size + j];
  return total;
}

// Weights spread over lanes: sizes do not depend on the instruction set.
size_t depthwise_table_size(const Plan& plan);
void fill_depthwise_table(float* table, const Plan& plan);
// The kernel in reverse order, of it what x's rows and columns of these parities need.
void fill_flipped_table(float* table, const Plan& plan, const Lattice& lattice, int parity_y, int parity_x);
// [depth][width]: w[i][j] is the weight from channel i of the input to channel j of the output, where that is
// not flat (flat_row says how it lies there); backward: from y's channels to x's.
size_t pointwise_table_size(const Plan& plan);
void fill_pointwise_table(float* table, const Plan& plan, bool backward);

// Rows iy, iy + step, ... of image n of x, normalised and rectified, into their places in rows of the padded
// input, which begin at those of `rows`.
template <int W>
LANAS_INLINE void pack_pixels(const Rows& rows, const Plan& plan, Tensor x, int n, int iy, int step,
                              const NormTable& norm) {
  const int stride = plan.op.stride;
  if (plan.common.planes == 2 && x.packed() && !norm.scale) {
    Rows to[2] = {rows, rows};
    for (int i = 0; i < 2; ++i) to[i].first += plan.column_of(plan.common.pad + i);
    return split_pixels<W>(to, rows_of(x, n, iy, step, rows.count), x.w, x.c, plan.op.relu);
  }
  for (int parity = 0; parity < plan.common.planes; ++parity) {
    const int first = plan.parity_of(parity + plan.common.pad);  // first column of x in this plane
    Rows z = rows;
    z.first += plan.column_of(first + plan.common.pad);
    activate_rows<W>(z, rows_of(x, n, iy, step, rows.count, first, stride),
                     plan.divide(x.w - first + stride - 1), x.c, norm.scale, norm.shift, plan.period,
                     plan.op.relu);
  }
}

// Zeros around the pixels that pack_pixels writes of a whole image.
LANAS_INLINE void clear_borders(float* padded, const Plan& plan) {
  const int stride = plan.op.stride, c = plan.x.c, pad = plan.common.pad;
  for (int row = 0; row < plan.padded_rows(); ++row, padded += plan.pitch) {
    int from = 0;  // written up to here
    for (int parity = 0; parity < stride && row >= pad && row < pad + plan.x.h; ++parity) {
      const int first = (parity + pad) % stride;
      const int begin = parity * plan.plane + (first + pad) / stride * c;
      std::fill(padded + from, padded + begin, 0.0f);
      from = begin + (plan.x.w - first + stride - 1) / stride * c;
    }
    std::fill(padded + from, padded + plan.pitch, 0.0f);
  }
}

// Without depthwise part: the pixels of x that output row oy reads.
template <int W>
LANAS_INLINE void gather_row(float* row, const Plan& plan, Tensor x, int n, int oy, const NormTable& norm) {
  const int stride = plan.op.stride, offset = plan.op.offset;
  activate_rows<W>({row, 0, 1, x.c}, rows_of(x, n, oy * stride + offset, 1, 1, offset, stride), plan.y.w, x.c,
                   norm.scale, norm.shift, plan.period, plan.op.relu);
}

// The pixels of x among the padded rows that output rows [begin, end) of any unit read; the buffer's first
// row is padded row begin * stride. clear: the rows without pixels become zeros; those of a whole image are,
// after clear_borders().
template <int W>
LANAS_INLINE void pack_rows(float* padded, const Plan& plan, Tensor x, int n, int begin, int end,
                            const NormTable& norm, bool clear = false) {
  const int stride = plan.op.stride, pad = plan.common.pad, first = begin * stride - pad;  // a row of x
  const int last = (end - 1) * stride + pad + 1, spread = plan.spread();
  const auto row = [&](int iy) LANAS_LAMBDA { return padded + ptrdiff_t(iy - first) * plan.pitch; };
  const int from = std::max(first, 0), to = std::min(last, x.h);
  if (clear) std::fill(padded, row(from), 0.0f), std::fill(row(to), row(last), 0.0f);
  const int iy = from + (spread > 1 ? plan.parity_of(from + pad) : 0);
  const int count = (to - iy + spread - 1) / spread;
  if (count > 0)
    pack_pixels<W>({row(iy), ptrdiff_t(spread) * plan.pitch, count, 0}, plan, x, n, iy, spread, norm);
}

// Can t be written past the caches, `floats` of it, a pixel or a row, in one piece? In whole lines, that is,
// by vectors of a line.
inline bool writes_past_caches(const Tensor& t, int floats, int lanes) {
  return kWritePastCaches && lanes == kMaxLanes && t.packed() && floats % kMaxLanes == 0 &&
         reinterpret_cast<uintptr_t>(t.data) % (kMaxLanes * sizeof(float)) == 0;
}

// Of a function compiled for each instruction set, the one for vectors of so many lanes.
template <class Function>
Function of_lanes(int lanes, Function avx512, Function avx2, Function base) {
  return lanes == 16 ? avx512 : lanes == 8 ? avx2 : base;
}

// Runs body(thread, threads) on every OpenMP thread, or once inside a parallel region.
template <class Body>
void on_threads(Body&& body) {
  if (omp_in_parallel() || omp_get_max_threads() == 1) {
    body(0, 1);
    return;
  }
#pragma omp parallel
  body(omp_get_thread_num(), omp_get_num_threads());
}

}  // namespace lanas::cpu
