// batch_norm_cases.cpp -- cases of batch norm: through the tape (statistics of the input, with and without an
// affine part; with one, x without it is added to the same output) and as direct calls (running moments,
// constant statistics).
#include "kernels/ops/batch_norm.h"
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

OpCase norm_case(Shape s, bool affine, int pixel_stride, float shift = 0.5f) {
  return {join(s.n, "x", s.h, "x", s.w, "x", s.c, affine ? " affine" : "", " pixel stride ", pixel_stride),
          double(s.pixels()), [=](CaseBuilder& b) {
            const Var x = pixel_stride > 0 ? b.sliced_input(s, pixel_stride) : b.input(s, 2, shift);
            const RunningMoments running = running_moments(b, s.c);
            Norm norm = batch_statistics(b.tape, x, running);
            if (affine) norm.gamma = b.input({1, 1, 1, s.c}), norm.beta = b.input({1, 1, 1, s.c});
            const Var out = pixel_stride > 0 ? b.sliced_output(s, pixel_stride) : Var{};
            const Var y = normalise(b.tape, x, norm, out);
            b.output(affine ? normalise(b.tape, x, {norm.mean, norm.inv_std, {}, {}}, y, true) : y);
          }};
}

// Every public function on buffers: statistics, running moments, both kinds of gradient.
OpCase direct_case(Shape s) {
  return {join("direct ", s.pixels(), " pixels of ", s.c), double(s.pixels()), [=](CaseBuilder& b) {
            const int c = s.c, size = int(s.size());
            const auto buffer = [&](const char* name, int count, uint64_t seed, float shift = 0) {
              return b.buffer(name, positive_draws(count, seed, shift),
                              positive_draws(count, seed + 1, shift));
            };
            float *x = buffer("x", size, 1, 50), *dy = buffer("dy", size, 3), *dx = buffer("dx", size, 5);
            float *mean = buffer("mean", c, 7), *inv_std = buffer("inv_std", c, 9);
            float *running_mean = buffer("running_mean", c, 11), *running_var = buffer("running_var", c, 13);
            float *fixed_mean = buffer("fixed_mean", c, 15), *fixed_std = buffer("fixed_std", c, 17);
            float *gamma = buffer("gamma", c, 19), *beta = buffer("beta", c, 21), *y = buffer("y", size, 27);
            float *dgamma = buffer("dgamma", c, 23), *dbeta = buffer("dbeta", c, 25);
            b.call([=](Stream& stream) {
              batch_norm_statistics(stream, mean, inv_std, {x, s}, 1e-5f, running_mean, running_var);
              batch_norm_statistics_from_running(stream, fixed_mean, fixed_std, running_mean, running_var, c,
                                                 1e-5f);
              const NormView<float> norm{fixed_mean, fixed_std, gamma, beta};
              batch_norm_forward(stream, {y, s}, {x, s}, norm);
              batch_norm_forward(stream, {y, s}, {x, s}, {mean, inv_std}, true);
              batch_norm_backward(stream, {dx, s}, {dgamma, dbeta, 1, 0}, {dy, s}, {x, s}, norm, 1, false);
              batch_norm_backward(stream, {}, {nullptr, dbeta, 0, 1}, {dy, s}, {x, s}, norm, 0);
            });
          }};
}

const OpCases batch_norm_cases("batch_norm",
                               {norm_case({1, 5, 7, 1}, true, 0), norm_case({3, 4, 5, 3}, false, 8),
                                norm_case({2, 8, 8, 4}, true, 0), norm_case({5, 3, 3, 12}, true, 17),
                                norm_case({2, 7, 5, 16}, false, 20), norm_case({1, 3, 3, 36}, true, 0),
                                norm_case({2, 2, 2, 140}, false, 0), direct_case({4, 9, 9, 2}),
                                direct_case({1, 3, 5, 16})});

}  // namespace
}  // namespace lanas::test
