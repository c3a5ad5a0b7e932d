// separable_conv_backward.h -- what the cpu path of separable_conv's backward pass keeps: tables and sums of
// a unit, buffers of a thread. Units that read one x share the buffers, and the sum of their gradients of x
// stays in the caches until the last of them has added its own.
#pragma once

#include <vector>

#include "kernels/ops/separable_conv_plan.h"

namespace lanas::cpu {

struct Backward {
  Plan plan;
  Lattice lattice;
  SeparableConvGradient<float> gradient;
  GradientView<float> dy;
  Tensor x;
  int unit;  // of those that read x
  bool want_dp, want_dw, want_dz;
  Tensor dz;  // behind a norm: where dz waits for its sums; dx itself where that may be overwritten
  NormTable norm, xhat, dx_table;  // dx_table: scale and shift of x; a: factor of dz
  float *dx_factor, *depthwise, *pointwise, *zeros;
  float* dy_factors[3];  // a, b, d of dy, repeated to whole vectors
  float* flipped[2][2];  // of the parities of rows and columns
  float* norm_sums;      // [n][2][lanes repeating the channels]: of dz and dz xhat
  int lanes_c;           // floats after which channels repeat, for whole vectors
  int dy_period;         // the same for those of dy
  int wide_pitch, wide_rows, x_pitch;
  int sum_pitch, sum_rows;  // of the sum of the units' dz: rows and columns of one parity of x together
  // Rows or columns of x of one parity: the first, their number, where their stencils begin in the padded dd
  // and how many of its rows or columns they take.
  struct Parity {
    int first, count, begin, taps;
  } rows[2], columns[2];
  int dd_column[kMaxKernel];  // floats from there to what tap kx reads
  int64_t work = 0;           // of an image, by which lines are asked for ahead
  int strip;                  // rows of an image after which the next ones are asked for

  // shared: what all threads have together is taken from it.
  Backward(const SeparableConv<float>& op, Shape x_shape, int unit_index, const Common& common,
           Carver& shared)
      : plan(op, x_shape, lanes_of(cpu_isa()), common), lattice(op), unit(unit_index) {
    const size_t most = size_t(std::lcm(x_shape.c, kMaxLanes));
    lattice.margin = common.margin;
    lanes_c = plan.period * plan.lanes, dy_period = plan.y.c / std::gcd(plan.y.c, plan.lanes) * plan.lanes;
    const auto wide = [&](int size) { return lattice.margin + (size - 1 + common.pad) / op.stride + 1; };
    wide_pitch = round_up(wide(x_shape.w) * x_shape.c, kMaxLanes) + kMaxLanes;
    wide_rows = wide(x_shape.h);
    x_pitch = round_up(x_shape.w * x_shape.c, kMaxLanes);
    sum_pitch = round_up(plan.divide(x_shape.w + op.stride - 1) * x_shape.c, kMaxLanes);
    sum_rows = plan.divide(x_shape.h + op.stride - 1);
    for (int i = 0; i < lattice.phases; ++i) {
      const int first = plan.first_of(i), taps = lattice.taps_of(i, plan.k);
      const int begin = (first + plan.pad - i * lattice.spacing) / op.stride - (taps - 1) * lattice.spacing +
                        lattice.margin;
      rows[i] = {first, plan.count_of(i, x_shape.h), begin, taps};
      columns[i] = {first, plan.count_of(i, x_shape.w), begin, taps};
    }
    for (int kx = 0; kx < lattice.taps; ++kx) dd_column[kx] = kx * lattice.spacing * x_shape.c;
    norm_sums = shared.take<float>(size_t(x_shape.n) * 2 * most);
    if (common.units == 1) dz = Tensor(shared.take<float>(size_t(x_shape.size())), x_shape);
  }
  // Takes the tables.
  void carve(Carver& carver) {
    norm.carve(carver, plan), xhat.carve(carver, plan), dx_table.carve(carver, plan);
    dx_factor = carver.take<float>(size_t(std::lcm(plan.x.c, kMaxLanes)));
    for (float*& factor : dy_factors) factor = carver.take<float>(size_t(std::lcm(plan.y.c, kMaxLanes)));
    depthwise = carver.take<float>(depthwise_table_size(plan));
    for (auto& row : flipped)
      for (float*& table : row) table = carver.take<float>(depthwise_table_size(plan));
    pointwise = carver.take<float>(pointwise_table_size(plan));
    zeros = carver.take<float>(size_t(round_up(plan.x.c, kMaxLanes)));
  }

  // Of the sum of dz, where several units read x.
  size_t sum_size() const {
    return plan.common.units == 1 ? 0
                                  : size_t(plan.op.stride * plan.op.stride * sum_rows) * size_t(sum_pitch);
  }
  // The first unit overwrites the sum, where it has a gradient for every pixel of x; the others add theirs.
  bool writes_sum() const { return unit == 0 && lattice.phases == plan.op.stride; }
  // Does the product of a unit without depthwise part write dx itself, where the ReLU let x through?
  bool writes_dx() const {
    const float beta = gradient.beta_dx;
    return want_dz && !plan.op.has_depthwise() && plan.op.relu && !plan.op.norm && gradient.dx &&
           !plan.flat && plan.x.c == plan.cin_pad && (beta == 0 || beta == 1);
  }
  // Is dx, or dz, written past the caches?
  bool past() const {
    const bool overwrites = plan.op.norm || gradient.beta_dx == 0;
    const Tensor& out = plan.op.norm ? dz : gradient.dx;
    return overwrites && plan.op.stride == 1 && writes_past_caches(out, out.w * out.c, plan.lanes);
  }
  // Does a unit without depthwise part copy the pixels of x that it reads, before it multiplies?
  bool gathers_x() const { return !plan.op.has_depthwise() && (want_dp || !writes_dx()); }
  // Are rows of dy put together or copied before they are multiplied?
  bool copies_dy() const {
    if (dy.factors) return true;
    return plan.flat ? !dy.g.packed() || plan.y.w * plan.y.c % plan.lanes != 0 : plan.y.c != plan.cout_pad;
  }
  size_t dp_size() const { return size_t(plan.x.c) * round_up(plan.y.c, kMaxLanes); }

  // Buffers of one thread: this unit's sums, and what one unit after the other works in.
  struct Thread {
    double *dp_sum, *dw_sum;                            // of this thread's images
    float *dp, *dw, *norm_sums;                         // of some images, of one
    float *padded, *wide, *d, *dd, *dy, *rows, *z, *x;  // wide: dd with zeros around
    float *g, *v;                                       // a row of dy's parts
    float* dz_sum;
    Thread(const Backward& b, Carver& carver) {
      const Plan& plan = b.plan;
      const size_t cout = size_t(round_up(plan.y.c, kMaxLanes)), cin = size_t(round_up(plan.x.c, kMaxLanes));
      const size_t row = size_t(round_up(plan.y.w, kMaxLanes)), most = size_t(std::lcm(plan.x.c, kMaxLanes));
      const size_t dw_size = size_t(plan.common.kernel * plan.common.kernel) * most;
      norm_sums = carver.take<float>(2 * most);
      padded = carver.take<float>(size_t(plan.padded_rows()) * plan.pitch);
      wide = carver.take<float>(size_t(b.wide_rows) * b.wide_pitch);
      d = carver.take<float>(kTileRows * size_t(plan.d_pitch)),
      dd = carver.take<float>(kTileRows * size_t(plan.d_pitch));
      dy = carver.take<float>(kTileRows * row * cout);
      g = carver.take<float>(row * cout), v = carver.take<float>(row * cout);
      rows = carver.take<float>(kTileRows * std::max({row * cin, size_t(b.wide_pitch), size_t(b.x_pitch)}));
      z = carver.take<float>(size_t(b.x_pitch)), x = carver.take<float>(size_t(b.x_pitch));
      dz_sum = carver.take<float>(b.sum_size());
      for (int u = 0; u < plan.common.units; ++u) {
        double* const doubles[2] = {carver.take<double>(b.dp_size()), carver.take<double>(dw_size)};
        float* const floats[2] = {carver.take<float>(b.dp_size()), carver.take<float>(dw_size)};
        if (u == b.unit) dp_sum = doubles[0], dw_sum = doubles[1], dp = floats[0], dw = floats[1];
      }
    }
    // Zeros wherever there are none before they are read: all but pixels of the padded input, of the wide dd
    // and of the sum of dz. size: bytes of all that these buffers stand in, from norm_sums on.
    void clear(const Backward& b, size_t size) const {
      const Plan& plan = b.plan;
      const auto zero = [](void* from, void* to) {
        std::memset(from, 0, size_t(static_cast<char*>(to) - static_cast<char*>(from)));
      };
      zero(norm_sums, padded);
      if (plan.common.planes < plan.op.stride)  // some of its rows are never packed
        zero(padded, wide);
      else
        clear_borders(padded, plan);
      float* const first = wide + b.lattice.margin * b.wide_pitch + b.lattice.margin * plan.x.c;
      float *row = wide, *pixels = first;
      for (int y = 0; y < plan.y.h; ++y, pixels += b.wide_pitch) {
        std::fill(row, pixels, 0.0f);
        row = pixels + plan.y.w * plan.x.c;
      }
      zero(row, d);
      zero(d, dz_sum);
      const auto sums = reinterpret_cast<char*>(dz_sum) + b.sum_size() * sizeof(float);
      zero(sums, reinterpret_cast<char*>(norm_sums) + size);
    }
  };
};

// All units that read one x. Every thread has them with tables of its own: tables that one fills and all read
// take longer to come from its caches.
struct Backwards {
  std::vector<Backward> units;
  ThreadMemory memory;   // a thread's buffers, then its tables
  size_t buffers_bytes;  // of these the former
  int threads_used = 1;
  Backwards(std::span<const SeparableConv<float>> ops, Shape x, int thread, int threads, Carver& carver) {
    const Common common(ops);
    units.reserve(ops.size());
    for (const SeparableConv<float>& op : ops) units.emplace_back(op, x, int(units.size()), common, carver);
    const auto carve = [&](Carver& own) {
      Backward::Thread(units[0], own);
      buffers_bytes = own.used();
      for (Backward& unit : units) unit.carve(own);
    };
    memory = ThreadMemory(carve, threads, carver);
    Carver own = memory.of(thread);
    carve(own);
  }
  Backward::Thread buffers(const Backward& unit, int thread) const {
    Carver carver = memory.of(thread);
    return Backward::Thread(unit, carver);
  }
};

// After all images: what the threads added up goes to d_pointwise and d_depthwise.
void weight_gradients(const Backwards& all, const Backward& unit);
// dgamma and dbeta, and the factors of dx = gamma inv_std (dz - mean(dz) - xhat mean(dz xhat)).
void norm_gradients(const Backward& unit);

}  // namespace lanas::cpu
