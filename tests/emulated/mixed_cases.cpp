// mixed_cases.cpp -- cases of the mixed sum and of the channel shuffle: terms with and without normalisation,
// many terms, terms that share a weight or an input, views with a pixel stride.
#include "kernels/ops/mixed_sum.h"
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

// Term k: normalised where `plain` does not divide k, weight (3 k) % weights, every `again`-th input used
// twice.
struct Mixed {
  Shape x;
  int terms, weights, plain, again, pixel_stride;
};

OpCase mixed_case(Mixed t) {
  return {join(t.x.n, "x", t.x.h, "x", t.x.w, "x", t.x.c, " of ", t.terms, " with ", t.weights,
               " weights, pixel stride ", t.pixel_stride),
          double(t.x.pixels() * t.x.c), [=](CaseBuilder& b) {
            std::vector<MixedTerm> terms;
            for (int k = 0; k < t.terms; ++k) {
              Var x;
              if (t.again > 0 && k % t.again == 1)
                x = terms.back().x.x;
              else
                x = t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x, 1, 0.3f);
              Norm norm;
              if (k % t.plain != 0) norm = batch_statistics(b.tape, x, running_moments(b, t.x.c));
              terms.push_back({{x, norm}, 3 * k % t.weights});
            }
            const Var out = t.pixel_stride > 0 ? b.sliced_output(t.x, t.pixel_stride) : Var{};
            b.output(mixed_sum(b.tape, terms, b.input({1, 1, 1, t.weights}), out));
          }};
}

// Constant statistics; some gradients not wanted; no gradient of the weights.
OpCase direct_case(Shape s, bool batch_statistics) {
  return {
      join("direct ", s.pixels(), " pixels of ", s.c, batch_statistics ? "" : ", constant moments"),
      double(s.size()), [=](CaseBuilder& b) {
        const int size = int(s.size());
        const auto buffer = [&](const std::string& name, int count, uint64_t seed) {
          return b.buffer(name, positive_draws(count, seed, 0.1f), positive_draws(count, seed + 1, 0.1f));
        };
        float *x0 = buffer("x0", size, 1), *x1 = buffer("x1", size, 3), *dy = buffer("dy", size, 5);
        float *mean = buffer("mean", s.c, 7), *inv_std = buffer("inv_std", s.c, 9);
        float *weights = buffer("weights", 2, 11), *dx = buffer("dx", size, 13), *y = buffer("y", size, 15);
        float* dweights = buffer("dweights", 2, 17);
        float* scratch = b.buffer("scratch", std::vector<float>(size_t(mixed_sum_scratch_floats(s, 3))),
                                  std::vector<float>(size_t(mixed_sum_scratch_floats(s, 3))), false);
        b.call([=](Stream& stream) {
          const MixedSumTerm<float> terms[] = {
              {{x0, s}, mean, inv_std, 1}, {{x1, s}, nullptr, nullptr, 0}, {{x1, s}, mean, inv_std, 0}};
          const MixedSumGradient<float> gradients[] = {{{}, 0, 1}, {{dx, s}, 1, 0}, {{dx, s}, 1, 1}};
          mixed_sum_forward(stream, {y, s}, terms, weights);
          mixed_sum_backward(stream, terms, gradients, dweights, {dy, s}, weights, scratch, batch_statistics);
          mixed_sum_backward(stream, terms, gradients, nullptr, {dy, s}, weights,
                             batch_statistics ? scratch : nullptr, batch_statistics);
        });
      }};
}

const OpCases mixed_cases(
    "mixed_sum", {mixed_case({{1, 5, 3, 1}, 2, 2, 2, 0, 0}), mixed_case({{2, 4, 4, 3}, 5, 7, 9, 0, 8}),
                  mixed_case({{3, 8, 8, 4}, 14, 14, 7, 0, 0}), mixed_case({{2, 3, 5, 12}, 9, 4, 3, 4, 0}),
                  mixed_case({{1, 4, 7, 16}, 35, 40, 8, 0, 20}), mixed_case({{1, 3, 3, 36}, 8, 8, 99, 0, 0}),
                  mixed_case({{1, 2, 2, 4}, 70, 70, 5, 0, 0}), direct_case({3, 5, 5, 6}, true),
                  direct_case({2, 4, 4, 16}, false)});

// terms: weighted tensors that bypass; 0: one without a weight.
OpCase shuffle_case(Shape s, int groups, int pixel_stride, int terms = 0) {
  return {join(s.n, "x", s.h, "x", s.w, "x", s.c, " in ", groups, " groups, pixel stride ", pixel_stride,
               ", ", terms, " weights"),
          terms > 0 ? double(s.pixels() * (s.c - s.c / groups)) : 1,
          [=](CaseBuilder& b) {
            const auto part = [&](int channels) {
              const Shape shape{s.n, s.h, s.w, channels};
              return pixel_stride > 0 ? b.sliced_input(shape, pixel_stride) : b.input(shape);
            };
            const Var first = part(s.c / groups);
            std::vector<Var> rest;
            for (int k = 0; groups > 1 && k < std::max(terms, 1); ++k)
              rest.push_back(part(s.c - s.c / groups));
            const Var weights = terms > 0 ? b.input({1, 1, 1, terms}) : Var{};
            const Var out = pixel_stride > 0 ? b.sliced_output(s, pixel_stride + 1) : Var{};
            b.output(channel_shuffle(b.tape, first, rest, weights, out));
          },
          terms == 0};
}
const OpCases shuffle_cases("channel_shuffle",
                            {shuffle_case({1, 3, 3, 1}, 1, 0), shuffle_case({2, 3, 5, 12}, 4, 0),
                             shuffle_case({1, 4, 4, 16}, 4, 20), shuffle_case({3, 2, 3, 36}, 3, 0),
                             shuffle_case({1, 5, 5, 6}, 2, 9), shuffle_case({2, 4, 4, 16}, 4, 0, 5),
                             shuffle_case({3, 9, 11, 32}, 4, 40, 3), shuffle_case({1, 3, 5, 8}, 2, 0, 1),
                             shuffle_case({2, 3, 3, 12}, 4, 13, 2)});

}  // namespace
}  // namespace lanas::test
