// elementwise_cases.cpp -- cases of relu, sums, copies, fills, add_bias and drop_path: all pack widths,
// packed and strided.
#include <cmath>

#include "kernels/ops/add_bias.h"
#include "kernels/ops/drop_path.h"
#include "kernels/ops/elementwise.h"
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

OpCase relu_case(Shape s, int stride) {
  return {join(s.n, "x", s.h, "x", s.w, "x", s.c, " stride ", stride), 1, [=](CaseBuilder& b) {
            b.output(relu(b.tape, stride > 0 ? b.sliced_input(s, stride) : b.input(s)));
          }};
}

const OpCases relu_cases("elementwise", {relu_case({1, 1, 1, 1}, 0), relu_case({2, 5, 7, 3}, 0),
                                         relu_case({1, 3, 3, 4}, 12), relu_case({2, 3, 5, 12}, 18),
                                         relu_case({2, 4, 4, 16}, 0), relu_case({1, 5, 3, 36}, 41)});

OpCase sum_case(Shape s, int terms, int stride) {
  return {join("sum of ", terms, " stride ", stride), double(terms), [=](CaseBuilder& b) {
            std::vector<Var> xs;
            for (int i = 0; i < terms; ++i)
              xs.push_back(stride > 0 && i % 2 == 0 ? b.sliced_input(s, stride) : b.input(s));
            b.output(sum(b.tape, xs, stride > 0 ? b.sliced_output(s, stride) : Var{}));
          }};
}

const OpCases sum_cases("elementwise", {sum_case({2, 3, 3, 4}, 1, 0), sum_case({2, 3, 5, 3}, 2, 0),
                                        sum_case({1, 5, 5, 16}, 8, 20), sum_case({2, 3, 3, 12}, 15, 17),
                                        sum_case({1, 3, 3, 36}, 9, 0)});

const OpCases scaled_cases(
    "elementwise",
    {{"weighted sum", 3,
      [](CaseBuilder& b) {
        const Shape s{2, 3, 3, 12};
        b.output(weighted_sum(b.tape, {b.input(s), b.sliced_input(s, 16), b.input(s)}, {0.5f, -2, 3}));
      }},
     {"add scaled, in place", 2,
      [](CaseBuilder& b) {
        float* y = b.buffer<float>("y", {1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1});
        const float* x = b.buffer<float>("x", {3, 1, 4, 1, 5, 9}, {2, 7, 1, 8, 2, 8}, false);
        b.call([=](Stream& stream) {
          const Shape s{1, 1, 2, 3};
          add_scaled(stream, {y, s}, {const_cast<float*>(x), s}, 0.25f);
        });
      }},
     {"scaled by a number in memory", 2,
      [](CaseBuilder& b) {
        float* y = b.buffer<float>("y", {1, 2, 3, 4, 5, 6, 7, 8}, {6, 5, 4, 3, 2, 1, 0, 9});
        float* z = b.buffer<float>("z", std::vector<float>(12, 5), std::vector<float>(12, 6));
        const float* x = b.buffer<float>("x", {3, 1, 4, 1, 5, 9, 2, 6}, {2, 7, 1, 8, 2, 8, 1, 8}, false);
        const float* factor = b.buffer<float>("factor", {0.5f}, {-3}, false);
        b.call([=](Stream& stream) {
          const Tensor from(const_cast<float*>(x), {1, 2, 2, 2});
          copy_scaled_by(stream, {y, {1, 2, 2, 2}}, from, factor, -0.25f, 1);
          copy_scaled_by(stream, Tensor(z, {1, 2, 2, 3}).slice(1, 3), from, factor, 2, 0);
        });
      }},
     {"scaled by zero in memory, at first", 1,
      [](CaseBuilder& b) {
        float* y = b.buffer<float>("y", {1, 2, 3, 4}, {4, 3, 2, 1});
        float* z = b.buffer<float>("z", {1, 2, 3, 4}, {4, 3, 2, 1});
        const float* x = b.buffer<float>("x", {NAN, INFINITY, 3, 4}, {1, 2, 3, 4}, false);
        const float* factor = b.buffer<float>("factor", {0}, {1.5f}, false);
        b.call([=](Stream& stream) {
          const Shape s{1, 1, 1, 4};
          copy_scaled_by(stream, {y, s}, {const_cast<float*>(x), s}, factor, 1, 1);
          copy_scaled_by(stream, {z, s}, {const_cast<float*>(x), s}, factor, -1, 0);
        });
      }},
     {"fill a strided view", 1, [](CaseBuilder& b) {
        float* y = b.buffer<float>("y", std::vector<float>(24, 7), std::vector<float>(24, 8));
        b.call([=](Stream& stream) { fill(stream, Tensor(y, {2, 2, 2, 3}).slice(1, 3), -3.5f); });
      }}});

OpCase bias_case(Shape s, int stride) {
  return {join(s.c, " channels, stride ", stride), 1, [=](CaseBuilder& b) {
            const Var x = copy(b.tape, b.input(s), b.sliced_output(s, stride));
            b.output_without_gradient(add_bias(b.tape, x, b.input({1, 1, 1, s.c})));
          }};
}
const OpCases bias_cases("add_bias", {bias_case({2, 3, 3, 1}, 4), bias_case({1, 5, 5, 16}, 24),
                                      bias_case({2, 3, 3, 36}, 41)});

OpCase drop_path_case(Shape s, bool training, int stride) {
  return {join(s.c, " channels, stride ", stride, training ? ", training" : ""), 1, [=](CaseBuilder& b) {
            b.training = training;
            std::vector<float> mask, other;
            for (int n = 0; n < s.n; ++n)
              mask.push_back(n % 2 ? 0 : 1.25f), other.push_back(n % 2 ? 1.25f : 0);
            const Var x = stride > 0 ? b.sliced_input(s, stride) : b.input(s);
            b.output(drop_path(b.tape, x, b.constant({s.n, 1, 1, 1}, mask, other)));
          }};
}
const OpCases drop_path_cases("drop_path", {drop_path_case({3, 5, 3, 3}, true, 0),
                                            drop_path_case({4, 3, 3, 16}, true, 22),
                                            drop_path_case({2, 3, 3, 12}, true, 0),
                                            drop_path_case({2, 3, 3, 4}, false, 0),
                                            {"mask", 1,
                                             [](CaseBuilder& b) {
                                               float* mask = b.buffer<float>("mask", std::vector<float>(300),
                                                                             std::vector<float>(300));
                                               const float* probability =
                                                   b.buffer<float>("probability", {0.3f}, {0.6f}, false);
                                               const uint64_t* step =
                                                   b.buffer<uint64_t>("step", {4}, {5}, false);
                                               b.call([=](Stream& stream) {
                                                 drop_path_mask(stream, mask, 300, probability, 9, 2, step);
                                               });
                                             },
                                             true}});

}  // namespace
}  // namespace lanas::test
