// row_cases.cpp -- cases of the ops on matrices: softmax, scale_segments, cross_entropy, mean_rows, linear,
// gemm and architecture_code.
#include "kernels/ops/architecture_code.h"
#include "kernels/ops/cross_entropy.h"
#include "kernels/vendor/gemm.h"
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

int total(const std::vector<int>& segments) {
  int columns = 0;
  for (const int length : segments) columns += length;
  return columns;
}

OpCase softmax_case(int rows, std::vector<int> segments, int gap) {
  return {join(rows, " rows, ", segments.size(), " segments of ", segments[0], " gap ", gap), 8,
          [=](CaseBuilder& b) {
            const Shape s{rows, 1, 1, total(segments)};
            b.output(softmax(b.tape, gap > 0 ? b.sliced_input(s, s.c + gap) : b.input(s, 2), segments));
          }};
}
const OpCases softmax_cases("softmax", {softmax_case(1, {1}, 0), softmax_case(14, {8}, 0),
                                        softmax_case(3, {2, 3, 4, 5}, 3), softmax_case(5, {100}, 0),
                                        softmax_case(33, {36, 1, 12}, 4)});

OpCase scale_case(int rows, std::vector<int> segments) {
  return {join(rows, " rows, ", segments.size(), " segments"), double(rows * segments[0]),
          [=](CaseBuilder& b) {
            const Var s = b.input({1, 1, 1, int(segments.size())});
            b.output(scale_segments(b.tape, b.input({rows, 1, 1, total(segments)}), s, segments));
          }};
}
const OpCases scale_cases("scale_segments",
                          {scale_case(1, {1}), scale_case(14, {3, 5}), scale_case(40, {12, 1, 7, 30})});

OpCase cross_entropy_case(int rows, int classes, float smoothing) {
  return {join(rows, " rows of ", classes, smoothing > 0 ? " smoothed" : ""), double(classes),
          [=](CaseBuilder& b) {
            const Var logits = b.input({rows, 1, 1, classes}, 3);
            b.output(cross_entropy(b.tape, logits, b.labels(rows, classes), smoothing));
          }};
}
const OpCases cross_entropy_cases("cross_entropy",
                                  {cross_entropy_case(1, 2, 0),
                                   cross_entropy_case(37, 10, 0),
                                   cross_entropy_case(16, 100, 0.1f),
                                   {"count correct", 1,
                                    [](CaseBuilder& b) {
                                      std::vector<float> logits[2];
                                      std::vector<int> labels[2];
                                      Random random(3);
                                      for (int content = 0; content < 2; ++content) {
                                        for (int i = 0; i < 300 * 4; ++i)
                                          logits[content].push_back(float(random.below(3)));  // ties
                                        for (int r = 0; r < 300; ++r)
                                          labels[content].push_back(int(random.below(4)));
                                      }
                                      float* x = b.buffer<float>("logits", logits[0], logits[1], false);
                                      const int* label = b.buffer<int>("labels", labels[0], labels[1], false);
                                      int* correct = b.buffer<int>("correct", {-1}, {-1});
                                      b.call([=](Stream& stream) {
                                        count_correct(stream, correct, {x, {300, 1, 1, 4}}, label, 290);
                                      });
                                    },
                                    true}});

OpCase mean_case(int rows, int columns) {
  return {join(rows, " rows of ", columns), double(rows), [=](CaseBuilder& b) {
            b.output(mean_rows(b.tape, b.input({rows, 1, 1, columns})));
          }};
}
const OpCases mean_cases("mean_rows", {mean_case(1, 1), mean_case(4, 1), mean_case(7, 130)});

OpCase linear_case(int rows, int in, int out, bool bias, int gap) {
  return {join(rows, " rows, ", in, " to ", out, bias ? " with bias" : "", " gap ", gap), double(in + rows),
          [=](CaseBuilder& b) {
            const Shape xs{rows, 1, 1, in}, ys{rows, 1, 1, out};
            const Var x = gap > 0 ? b.sliced_input(xs, in + gap) : b.input(xs);
            b.output(linear(b.tape, x, b.input({out, 1, 1, in}), bias ? b.input({1, 1, 1, out}) : Var{},
                            gap > 0 ? b.sliced_output(ys, out + gap) : Var{}));
          }};
}
const OpCases linear_cases("linear", {linear_case(1, 1, 1, true, 0), linear_case(33, 36, 10, true, 0),
                                      linear_case(8, 12, 40, true, 5), linear_case(5, 3, 16, false, 0)});

OpCase gemm_case(bool transpose_a, bool transpose_b, float beta) {
  return {join(transpose_a ? "T" : "N", transpose_b ? "T" : "N", " beta ", beta), 16, [=](CaseBuilder& b) {
            const int m = 9, n = 12, k = 16;
            Random random(5);
            std::vector<float> content[6];
            for (int i = 0; i < 6; ++i)
              for (int j = 0; j < (i < 2 ? m * k : i < 4 ? k * n : m * n); ++j)
                content[i].push_back(random.normal());
            const float* a = b.buffer<float>("a", content[0], content[1], false);
            const float* other = b.buffer<float>("b", content[2], content[3], false);
            float* c = b.buffer<float>("c", content[4], content[5]);
            b.call([=](Stream& stream) {
              gemm(stream, transpose_a, transpose_b, m, n, k, 0.5f, a, transpose_a ? m : k, other,
                   transpose_b ? k : n, beta, c, n);
            });
          }};
}
const OpCases gemm_cases("gemm",
                         {gemm_case(false, false, 0), gemm_case(false, true, 1), gemm_case(true, false, 1)});

OpCase code_case(int samples, bool hard, bool weights, bool noise) {
  return {join(samples, hard ? " hard" : " relaxed", weights ? ", edge weights" : "", noise ? ", noise" : ""),
          64, [=](CaseBuilder& b) {
            const CellLayout layout;
            const Var alpha = b.input({1, 1, 1, layout.code_size()});
            const Var beta = weights ? b.input({1, 1, 1, layout.edges()}) : Var{};
            const Var drawn = noise ? b.constant({samples, 1, 1, layout.noise_size()}) : Var{};
            b.output(architecture_code(b.tape, alpha, beta, drawn, b.constant({1, 1, 1, 1}, {0.7f}, {1.5f}),
                                       samples, hard));
          }};
}
const OpCases code_cases("architecture_code",
                         {code_case(1, false, false, false),
                          code_case(3, false, true, true),
                          code_case(4, true, true, true),
                          {"gumbel noise", 1, [](CaseBuilder& b) {
                             float* noise =
                                 b.buffer<float>("noise", std::vector<float>(301), std::vector<float>(301));
                             const uint64_t* step = b.buffer<uint64_t>("step", {8}, {9}, false);
                             b.call([=](Stream& stream) { gumbel_noise(stream, noise, 301, 77, step); });
                           }}});

}  // namespace
}  // namespace lanas::test
