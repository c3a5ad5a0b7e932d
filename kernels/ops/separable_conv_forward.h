// separable_conv_forward.h -- a unit forward on the cpu, in training and inference alike: from a padded
// buffer four or eight rows at a time through the depthwise part, held in L1, and the pointwise part.
#pragma once

#include "kernels/ops/separable_conv_plan.h"

namespace lanas::cpu {

// What a unit needs beside buffers: its weights spread over lanes, and where results go.
struct Forward {
  Plan plan;
  Tensor y, added;         // added: to be added, may be y; or empty
  bool rectified = false;  // y is stored as relu(y); in inference
  bool past = false;       // y is written past the caches; in training
  NormTable norm;
  float *depthwise, *pointwise_table, *bias;
  const float* pointwise;  // the table, or op.pointwise where that lies as the product reads it

  Forward(const SeparableConv<float>& op, Shape x, const Common& common)
      : plan(op, x, lanes_of(cpu_isa()), common) {}
  // Takes the tables.
  Forward& carve(Carver& carver) {
    norm.carve(carver, plan);
    depthwise = carver.take<float>(depthwise_table_size(plan));
    pointwise = pointwise_table = carver.take<float>(pointwise_table_size(plan));
    bias = carver.take<float>(size_t(round_up(plan.y.c, kMaxLanes)));
    return *this;
  }
  // biases: [cout] or null.
  void fill(const float* biases);
};

// What a thread holds of one unit at a time, or of the largest of several.
struct ForwardBuffers {
  float *padded = nullptr, *d = nullptr, *out = nullptr, *sums = nullptr;
  struct Sizes {
    size_t padded = 0, d = 0, out = 0, sums = 0;
    void add(const Plan& plan, bool packs = true) {
      const size_t cout = size_t(round_up(plan.y.c, kMaxLanes));
      if (packs) padded = std::max(padded, plan.padded_size());
      d = std::max(d, kTileRows * size_t(plan.d_pitch));
      out = std::max(out, kTileRows * size_t(round_up(plan.y.w, kMaxLanes)) * cout);
      sums = std::max(sums, 2 * cout);
    }
  };
  ForwardBuffers() = default;
  // images: padded buffers, one behind the other.
  ForwardBuffers(const Sizes& sizes, int images, Carver& carver) {
    padded = carver.take<float>(size_t(images) * sizes.padded);
    d = carver.take<float>(sizes.d);
    out = carver.take<float>(sizes.out);
    sums = carver.take<float>(sizes.sums);
  }
};

// Where an image's results go: row o is at first + o * row, pixels are `pixel` floats apart.
struct Destination {
  float* first;
  ptrdiff_t row;
  int pixel;
  bool apart = false;  // a row does not end where the next one begins
  Destination(Tensor y, int n) : first(y.at(n, 0, 0)), row(ptrdiff_t(y.w) * y.stride), pixel(y.stride) {}
  // The padded input of the next unit.
  Destination(float* padded, const Plan& next)
      : first(padded + next.common.pad * ptrdiff_t(next.pitch) + next.column_of(next.common.pad)),
        row(next.pitch),
        pixel(next.x.c),
        apart(true) {}
};

// Rows o, o + step, ... of image n from the depthwise rows in d.
template <int W, Then THEN>
LANAS_INLINE void pointwise_rows(const Forward& f, const ForwardBuffers& t, const Destination& to,
                                 const Rows& d, int n, int o, Ahead* ahead) {
  constexpr bool kSums = THEN == Then::sums, kRelu = THEN == Then::relu;
  const Plan& plan = f.plan;
  const int width = plan.y.w, cout = plan.y.c;
  // Of single pixels left in each row the product would be slow: rows of t.out follow each other.
  const bool whole = !to.apart || width % kRowPixels == 0;
  const bool direct = plan.flat ? !kRelu && !f.added && to.pixel == cout && width * cout % W == 0
                                : cout == plan.cout_pad && whole;
  const Rows y{to.first + o * to.row, plan.step * to.row, d.count, to.pixel};
  const int padded = plan.flat ? cout : plan.cout_pad;
  Rows out = direct ? y : Rows{t.out, round_up(width * padded, W), d.count, padded};
  out.past = direct && f.past;
  const Rows added = f.added ? rows_of(f.added, n, o, plan.step, d.count) : Rows{};
  float *sum = t.sums, *square = t.sums + plan.cout_pad;
  if (ahead && plan.flat) ahead->some(d.count * plan.row_work);
  if constexpr (W > 4)
    if (plan.flat && cout == 4)
      flat_product<W, 4, kSums>(out, d, plan.d_vectors, f.pointwise, f.bias, sum, square);
  if constexpr (W > 8)
    if (plan.flat && cout == 8)
      flat_product<W, 8, kSums>(out, d, plan.d_vectors, f.pointwise, f.bias, sum, square);
  const auto multiply = [&](auto then) LANAS_LAMBDA {
    product<W, then.value>(out, d, width, plan.x.c, f.pointwise, plan.cout_pad, f.bias, sum, square,
                           direct ? added : Rows{}, ahead);
  };
  if (!plan.flat && kRelu && !direct)
    multiply(std::integral_constant<Then, Then::nothing>());
  else if (!plan.flat)
    multiply(std::integral_constant<Then, THEN>());
  for (int r = 0; !direct && r < d.count; ++r) {
    if constexpr (kRelu) {
      if (f.added) copy_pixels<W>(out.row(r), out.stride, added.row(r), added.stride, width, cout, 1);
      activate_flat<W, true, false>(out.part(r, 1), out.part(r, 1), width * out.stride, nullptr, nullptr, 1);
      copy_pixels<W>(y.row(r), y.stride, out.row(r), out.stride, width, cout);
      continue;
    }
    if (f.added && f.added.data != f.y.data)
      copy_pixels<W>(y.row(r), y.stride, added.row(r), added.stride, width, cout);
    copy_pixels<W>(y.row(r), y.stride, out.row(r), out.stride, width, cout, f.added ? 1 : 0);
  }
}

// Output rows [begin, end) of image n of x. padded: the packed input, from padded row begin * stride on; a
// unit without depthwise part reads x itself. ahead: null, or what is asked for meanwhile; in training it
// goes with everything, else with the product.
template <int W, Then THEN>
LANAS_INLINE void forward_rows(const Forward& f, const ForwardBuffers& t, const float* padded, Tensor x,
                               const Destination& to, int n, int begin, int end, Ahead* ahead) {
  const Plan& plan = f.plan;
  const int tail = plan.d_vectors * W - plan.y.w * plan.x.c;
  Ahead* const throughout = THEN == Then::sums ? ahead : nullptr;
  const bool in_place =
      !plan.op.has_depthwise() && !plan.flat && plan.op.stride == 1 && !plan.op.relu && !f.norm.scale;
  for_tiles(begin, end, plan.step, plan.tile, [&](int o, int rows) LANAS_LAMBDA {
    Rows d{t.d, plan.d_pitch, rows, plan.x.c};
    if (plan.op.has_depthwise()) {
      const StencilShape shape = plan.stencil_shape(o);
      const float* in = padded + ptrdiff_t((o - begin) * plan.op.stride + plan.inset) * plan.pitch;
      const bool asked = throughout && throughout->at_once(plan.k * plan.k * rows * plan.d_vectors);
      Ahead* const paced = asked ? nullptr : throughout;
      with_constants<W>(plan.k, plan.jump, rows, [&](auto k, auto jump, auto count) LANAS_LAMBDA {
        stencil<W, k, jump, count>({t.d, plan.d_pitch}, in, f.depthwise, shape, false, paced);
      });
    } else if (in_place) {
      d = rows_of(x, n, o, plan.step, rows);
    } else {
      for (int r = 0; r < rows; ++r) {
        if (throughout) throughout->some(plan.x_copy_work);
        gather_row<W>(d.row(r), plan, x, n, o + r * plan.step, f.norm);
      }
    }
    for (int r = 0; !in_place && tail && r < rows; ++r)
      std::fill_n(d.row(r) + plan.y.w * plan.x.c, tail, 0.0f);
    pointwise_rows<W, THEN>(f, t, to, d, n, o, ahead);
  });
}

}  // namespace lanas::cpu
