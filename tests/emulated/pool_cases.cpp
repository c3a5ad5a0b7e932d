// pool_cases.cpp -- cases of max, average and global pooling. Inputs are normal draws: no ties but those of
// the case that is made of them.
#include "kernels/ops/pool_pair.h"
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

struct Pool {
  Shape x;
  int kernel, stride, padding, pixel_stride;
};

std::string name(const char* kind, const Pool& t) {
  return join(kind, " ", t.x.n, "x", t.x.h, "x", t.x.w, "x", t.x.c, " kernel ", t.kernel, " stride ",
              t.stride, " pixel stride ", t.pixel_stride);
}

Var pooled_input(CaseBuilder& b, const Pool& t) {
  return t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x);
}

OpCase pool_case(bool max, Pool t) {
  return {name(max ? "max" : "avg", t), double(t.kernel * t.kernel), [=](CaseBuilder& b) {
            const Var x = pooled_input(b, t);
            const auto pool = max ? max_pool : avg_pool;
            Var y = pool(b.tape, x, t.kernel, t.stride, t.padding, {});
            if (t.pixel_stride > 0) {
              const Shape s = b.tape.shape(y);
              y = pool(b.tape, x, t.kernel, t.stride, t.padding, b.sliced_output(s, s.c + 4));
            }
            b.output(y);
          }};
}

std::vector<OpCase> pool_cases_of_both() {
  std::vector<OpCase> cases;
  for (const bool max : {true, false})
    for (const Pool& t :
         {Pool{{1, 5, 7, 1}, 3, 1, 1, 0}, Pool{{2, 7, 6, 3}, 3, 2, 1, 0}, Pool{{3, 8, 8, 4}, 3, 1, 1, 10},
          Pool{{1, 9, 5, 12}, 3, 2, 1, 0}, Pool{{2, 6, 6, 36}, 3, 1, 1, 40}, Pool{{2, 6, 4, 16}, 2, 2, 0, 0},
          Pool{{1, 11, 13, 2}, 5, 3, 2, 0}, Pool{{2, 3, 3, 20}, 3, 1, 1, 0}})
      cases.push_back(pool_case(max, t));
  cases.push_back({"max with ties", 9, [](CaseBuilder& b) {
                     std::vector<float> values[2];
                     Random random(9);
                     for (std::vector<float>& content : values)
                       for (int i = 0; i < 2 * 8 * 8 * 4; ++i) content.push_back(float(random.below(3)));
                     // The input of the pool carries a gradient: ties plus a tensor of zeros that wants one.
                     const Shape s{2, 8, 8, 4};
                     const Var x = sum(b.tape, {b.constant(s, values[0], values[1]), b.input(s, 0)});
                     b.output(max_pool(b.tape, x, 3, 2, 1));
                   }});
  return cases;
}
const OpCases pool_cases("pool2d", pool_cases_of_both());

// Both pools, each normalised by its moments; in inference by the running ones.
OpCase pair_case(Shape x, int stride, int pixel_stride, bool training = true) {
  const Pool t{x, 3, stride, 1, pixel_stride};
  return {join(name(training ? "pair" : "pair in inference", t)), double(x.pixels()), [=](CaseBuilder& b) {
            b.training = training;
            const PoolPair pair = pool_pair(b.tape, pooled_input(b, t), stride, running_moments(b, x.c),
                                            running_moments(b, x.c));
            for (const Normalised& y : {pair.max, pair.avg}) {
              const Var out = normalise(b.tape, y.x, y.norm);
              training ? b.output(out) : b.output_without_gradient(out);
            }
          }};
}

// How the moments and the running moments of both results move.
OpCase pair_moments_case(Shape s) {
  return {join("pair's moments ", s.n, "x", s.h, "x", s.w, "x", s.c), double(s.pixels()),
          [=](CaseBuilder& b) {
            Random random(23);
            const auto buffer = [&](const std::string& name, int64_t count, float shift) {
              std::vector<float> values[2];
              for (std::vector<float>& content : values)
                for (int64_t i = 0; i < count; ++i) content.push_back(shift + std::abs(random.normal()));
              return b.buffer(name, values[0], values[1]);
            };
            PooledOutput outputs[2];
            for (PooledOutput& out : outputs) {
              out.y = {buffer("y", s.size(), 0), s};
              for (float** moment : {&out.mean, &out.inv_std, &out.running_mean, &out.running_var})
                *moment = buffer("moments", s.c, 0);
            }
            const Tensor x(buffer("x", s.size(), 50), s);
            b.call([=](Stream& stream) { pool_pair_forward(stream, outputs[0], outputs[1], x, 1, 1e-5f); });
          }};
}
const OpCases pair_cases("pool_pair", {pair_case({1, 5, 7, 1}, 1, 0), pair_case({2, 7, 6, 3}, 2, 0),
                                       pair_case({3, 8, 8, 4}, 1, 10), pair_case({1, 9, 5, 12}, 2, 0),
                                       pair_case({2, 6, 6, 36}, 1, 40), pair_case({2, 8, 6, 16}, 2, 20),
                                       pair_case({2, 1, 4, 8}, 1, 0), pair_case({2, 16, 17, 4}, 1, 0),
                                       pair_case({2, 5, 5, 4}, 1, 0, false), pair_moments_case({2, 6, 5, 8}),
                                       pair_moments_case({3, 9, 9, 2})});

OpCase global_case(Shape s, int pixel_stride) {
  return {join(s.n, "x", s.h, "x", s.w, "x", s.c, " pixel stride ", pixel_stride), double(s.h * s.w),
          [=](CaseBuilder& b) {
            b.output(global_average_pool(b.tape, pooled_input(b, {s, 0, 0, 0, pixel_stride})));
          }};
}
const OpCases global_cases("global_pool", {global_case({1, 5, 5, 1}, 0), global_case({3, 4, 7, 12}, 18),
                                           global_case({2, 8, 8, 36}, 0), global_case({2, 9, 3, 16}, 21)});

}  // namespace
}  // namespace lanas::test
