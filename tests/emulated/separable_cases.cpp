// separable_cases.cpp -- cases of the fused unit: with and without a depthwise part, a normalised input and
// an affine part, strides, dilations, offsets, slices; the folded form of inference; chains, as sep_conv is
// one.
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

struct Case {
  Shape x;
  int cout, kernel, stride, dilation;
  bool norm, affine;
  int offset, pixel_stride;
};

std::string name(const Case& t) {
  return join(t.x.n, "x", t.x.h, "x", t.x.w, "x", t.x.c, " to ", t.cout, " kernel ", t.kernel, " stride ",
              t.stride, " dilation ", t.dilation, t.norm ? " norm" : "", t.affine ? " affine" : "",
              " offset ", t.offset, " pixel stride ", t.pixel_stride);
}

Separable unit(CaseBuilder& b, const Case& t) {
  Separable u;
  if (t.kernel > 1) u.depthwise = b.input({1, t.kernel, t.kernel, t.x.c}, 0.5f);
  u.pointwise = b.input({t.cout, 1, 1, t.x.c}, 0.5f);
  u.stride = t.stride;
  u.dilation = t.dilation;
  u.offset = t.offset;
  return u;
}

// The length of the longest sum: of a weight over pixels, of a statistic, of a pixel over taps and channels.
double reduction(const Case& t) {
  return double(t.x.pixels() + t.kernel * t.kernel * t.x.c * (t.norm ? t.x.pixels() : 1));
}

OpCase unit_case(Case t) {
  return {name(t), reduction(t), [=](CaseBuilder& b) {
            const Var x = t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x, 1, 0.2f);
            Norm norm;
            if (t.norm) norm = batch_statistics(b.tape, x, running_moments(b, t.x.c));
            if (t.affine) norm.gamma = b.input({1, 1, 1, t.x.c}), norm.beta = b.input({1, 1, 1, t.x.c});
            const Normalised y = separable_conv(b.tape, {x, norm}, unit(b, t), running_moments(b, t.cout));
            b.output(y.x);
          }};
}

// Units that read one input.
OpCase shared_case(Case t) {
  return {join("shared ", name(t)), 4 * reduction(t), [=](CaseBuilder& b) {
            const Var x = t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x, 1, 0.2f);
            std::vector<SeparableUnit> units;
            for (const int kernel : {t.kernel, 3})
              for (const int dilation : {1, 2}) {
                Case one = t;
                one.kernel = kernel, one.dilation = dilation;
                units.push_back({{x, {}}, unit(b, one), running_moments(b, t.cout)});
              }
            for (const Normalised& y : separable_convs(b.tape, units)) b.output(y.x);
          }};
}

// The skip connections of a reduction cell: both halves of two inputs, each half a slice of its result.
OpCase skips_case(Shape x) {
  return {join("skips ", x.n, "x", x.h, "x", x.w, "x", x.c), double(x.pixels() * x.c), [=](CaseBuilder& b) {
            std::vector<SeparableUnit> units;
            std::vector<Var> results;
            for (int input = 0; input < 2; ++input) {
              const Var from = b.input(x);
              results.push_back(b.tape.activation({x.n, x.h / 2, x.w / 2, x.c}));
              for (int half = 0; half < 2; ++half) {
                const int c0 = half * x.c / 2, c1 = c0 + x.c / 2;
                Separable u;
                u.pointwise = b.input({x.c / 2, 1, 1, x.c}, 0.5f);
                u.stride = 2, u.offset = half;
                const Norm moments = {
                    b.tape.statistic({1, 1, 1, x.c / 2}), b.tape.statistic({1, 1, 1, x.c / 2}), {}, {}};
                units.push_back({{from, {}},
                                 u,
                                 running_moments(b, x.c / 2),
                                 {b.tape.slice(results.back(), c0, c1), moments}});
              }
            }
            separable_convs(b.tape, units);
            for (const Var y : results) b.output(y);
          }};
}

// As many like units of one input. Three of 1024 channels are more than the partial sums of one launch have
// room for.
OpCase like_case(Case t, int each) {
  return {join(each, " units ", name(t)), each * reduction(t), [=](CaseBuilder& b) {
            const Var x = b.input(t.x, 1, 0.2f);
            Norm norm;
            if (t.norm) norm = batch_statistics(b.tape, x, running_moments(b, t.x.c));
            std::vector<SeparableUnit> units;
            for (int u = 0; u < each; ++u)
              units.push_back({{x, norm}, unit(b, t), running_moments(b, t.cout)});
            for (const Normalised& y : separable_convs(b.tape, units)) b.output(y.x);
          }};
}

// The same with TF32: the products of a tile on the tensor cores. Many units have large tiles.
OpCase tf32_case(Case t, int each = 1) {
  OpCase one = like_case(t, each);
  one.name = "TF32 " + one.name;
  one.tf32 = true;
  return one;
}

// Through the statistics of the result as well: what follows normalises by them.
OpCase chain_case(Case t) {
  return {join("chain ", name(t)), 4 * reduction(t), [=](CaseBuilder& b) {
            const Normalised x{t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x), {}};
            Normalised y = separable_conv(b.tape, x, unit(b, t), running_moments(b, t.cout));
            y.norm.gamma = b.input({1, 1, 1, t.cout}), y.norm.beta = b.input({1, 1, 1, t.cout});
            Case second = t;
            second.x = b.tape.shape(y.x), second.stride = 1, second.offset = 0;
            y = separable_conv(b.tape, y, unit(b, second), running_moments(b, t.cout));
            b.output(normalise(b.tape, y.x, y.norm));
          }};
}

// An edge of a supernet: two units of one input, one of them followed by another, in a mixed sum.
OpCase edge_case(Case t) {
  return {join("edge ", name(t)), 4 * reduction(t), [=](CaseBuilder& b) {
            Case second = t;
            second.stride = 1, second.norm = true;
            std::vector<SeparableUnit> units;
            const Var x = b.input(t.x);
            for (int i = 0; i < 2; ++i) units.push_back({{x, {}}, unit(b, t), running_moments(b, t.cout)});
            std::vector<Normalised> y = separable_convs(b.tape, units);
            y[0] = separable_conv(b.tape, y[0], unit(b, second), running_moments(b, t.cout));
            const Shape s = b.tape.shape(y[0].x);
            const Var out = t.pixel_stride > 0 ? b.sliced_output(s, t.pixel_stride) : Var{};
            b.output(mixed_sum(b.tape, {{y[0], 0}, {y[1], 1}}, b.input({1, 1, 1, 2}), out));
          }};
}

// The convolutions of a node: `each` units of a large state at stride 2, as many of a small one, and every
// second one followed by another unit, all in a mixed sum.
OpCase node_case(int c, int each) {
  return {join("node ", c, " channels ", each, " units each"), 8.0 * each * 128 * c, [=](CaseBuilder& b) {
            const Case large{{2, 8, 8, c}, c, 3, 2, 1, false, false, 0, 0},
                small{{2, 4, 4, c}, c, 3, 1, 1, false, false, 0, 0};
            std::vector<SeparableUnit> units, second;
            for (Case t : {large, small}) {
              const Var x = b.input(t.x);
              for (int u = 0; u < each; ++u) {
                t.kernel = u % 2 ? 5 : 3, t.dilation = u / 2 % 2 + 1;
                units.push_back({{x, {}}, unit(b, t), running_moments(b, c)});
              }
            }
            std::vector<Normalised> y = separable_convs(b.tape, units);
            for (size_t u = 0; u < y.size(); u += 2)
              second.push_back({y[u], unit(b, small), running_moments(b, c)});
            const std::vector<Normalised> more = separable_convs(b.tape, second);
            std::vector<MixedTerm> terms;
            for (size_t u = 0; u < y.size(); ++u) terms.push_back({u % 2 ? y[u] : more[u / 2], int(u)});
            b.output(mixed_sum(b.tape, terms, b.input({1, 1, 1, int(y.size())})));
          }};
}

enum class Adds { nothing, itself, another };

// Adding: of two units the second adds the first one's result, in place or from there.
OpCase inference_case(Case t, Adds adds, bool relu) {
  return {join("inference ", name(t),
               adds == Adds::nothing  ? ""
               : adds == Adds::itself ? " transposed adding"
                                      : " transposed adding another",
               relu ? "" : " linear"),
          double(t.kernel * t.kernel * t.x.c), [=](CaseBuilder& b) {
            b.training = false;
            const Var x = t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x);
            Separable u = unit(b, t);
            u.transposed = adds != Adds::nothing;
            const Var bias = b.input({1, 1, 1, t.cout});
            const Var y = separable_conv_inference(b.tape, x, {.first = {u, bias}, .relu = relu});
            InferencePath adding{.first = {u, {}}, .added = y, .relu = relu};
            if (adds == Adds::itself) adding.out = y;
            const Var more = adds == Adds::nothing ? y : separable_conv_inference(b.tape, x, adding);
            b.output_without_gradient(more);
          }};
}

// What a cell has from one state: separable convolutions and a dilated one, two of them into one node.
OpCase paths_case(Case t) {
  return {
      join("paths ", name(t)), 2.0 * t.kernel * t.kernel * t.x.c, [=](CaseBuilder& b) {
        b.training = false;
        const Var x = t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x);
        const auto one = [&](Shape from, int kernel, int stride, int dilation) {
          Case c = t;
          c.x = from, c.kernel = kernel, c.stride = stride, c.dilation = dilation;
          Separable u = unit(b, c);
          u.transposed = true;
          return InferenceUnit{u, b.input({1, 1, 1, t.cout})};
        };
        const Shape half{t.x.n, (t.x.h + t.stride - 1) / t.stride, (t.x.w + t.stride - 1) / t.stride, t.cout};
        const Var node = b.tape.activation(half);
        std::vector<InferencePath> paths(3);
        paths[0] = {one(t.x, t.kernel, t.stride, 1), one(half, t.kernel, 1, 1), node};
        paths[1] = {one(t.x, 3, t.stride, 1), one(half, 3, 1, 1)};
        paths[1].rectified = t.kernel == 3;
        paths[2] = {one(t.x, 3, t.stride, 2), {}, node, node};
        const std::vector<Var> y = separable_convs_inference(b.tape, x, paths);
        b.output_without_gradient(y[1]);
        b.output_without_gradient(y[2]);
      }};
}

const OpCases separable_cases(
    "separable_conv", {unit_case({{1, 5, 7, 1}, 1, 3, 1, 1, false, false, 0, 0}),
                       unit_case({{2, 6, 5, 3}, 5, 3, 2, 1, true, false, 0, 0}),
                       unit_case({{2, 8, 8, 4}, 4, 5, 1, 2, true, true, 0, 0}),
                       unit_case({{3, 7, 7, 4}, 16, 3, 1, 2, false, false, 0, 10}),
                       unit_case({{1, 9, 5, 12}, 12, 5, 2, 1, true, true, 0, 18}),
                       unit_case({{2, 6, 6, 16}, 16, 3, 1, 1, true, false, 0, 0}),
                       unit_case({{1, 5, 5, 36}, 36, 3, 2, 2, true, false, 0, 0}),
                       unit_case({{1, 6, 4, 16}, 70, 1, 1, 1, true, false, 0, 0}),
                       unit_case({{2, 7, 5, 20}, 24, 1, 2, 1, false, false, 1, 0}),
                       unit_case({{2, 8, 6, 8}, 4, 1, 2, 1, true, true, 0, 0}),
                       unit_case({{1, 9, 9, 6}, 2, 7, 1, 1, false, false, 0, 0}),
                       unit_case({{6, 32, 32, 4}, 4, 3, 1, 1, true, false, 0, 0}),
                       unit_case({{1, 12, 5, 8}, 8, 5, 1, 1, true, false, 0, 0}),
                       unit_case({{2, 4, 6, 4}, 36, 3, 1, 2, true, true, 0, 8}),
                       shared_case({{2, 8, 6, 8}, 8, 5, 1, 1, false, false, 0, 12}),
                       shared_case({{2, 16, 10, 4}, 4, 5, 2, 1, false, false, 0, 0}),
                       shared_case({{1, 16, 7, 36}, 12, 5, 2, 1, false, false, 0, 0}),
                       shared_case({{2, 6, 6, 8}, 8, 5, 1, 1, false, false, 0, 0}),
                       shared_case({{2, 8, 7, 4}, 4, 5, 2, 1, false, false, 0, 9}),
                       chain_case({{2, 7, 7, 12}, 12, 3, 2, 1, false, false, 0, 0}),
                       chain_case({{3, 5, 5, 4}, 4, 5, 1, 1, false, false, 0, 9}),
                       edge_case({{2, 6, 6, 4}, 4, 3, 1, 1, false, false, 0, 16}),
                       edge_case({{2, 6, 5, 16}, 16, 5, 2, 1, false, false, 0, 64}),
                       edge_case({{1, 7, 5, 3}, 3, 3, 1, 2, false, false, 0, 0}),
                       edge_case({{1, 5, 5, 36}, 36, 3, 1, 1, false, false, 0, 40}),
                       tf32_case({{1, 6, 6, 12}, 16, 3, 1, 1, false, false, 0, 0}),
                       tf32_case({{2, 8, 5, 16}, 16, 5, 1, 2, true, false, 0, 0}),
                       tf32_case({{1, 5, 7, 36}, 24, 3, 1, 1, true, false, 0, 0}),
                       tf32_case({{1, 9, 7, 32}, 32, 5, 1, 2, true, false, 0, 0}),
                       tf32_case({{1, 29, 31, 32}, 32, 1, 1, 1, false, false, 0, 0}, 20),
                       tf32_case({{2, 6, 6, 64}, 72, 3, 2, 1, false, false, 0, 0}),
                       tf32_case({{1, 40, 43, 8}, 16, 1, 1, 1, false, false, 0, 0}, 20),
                       tf32_case({{1, 21, 21, 8}, 64, 1, 1, 1, false, false, 0, 0}, 20),
                       like_case({{1, 2, 2, 4}, 1024, 3, 1, 1, false, false, 0, 0}, 3),
                       skips_case({2, 8, 6, 8}),
                       skips_case({1, 4, 6, 6}),
                       node_case(4, 2),
                       node_case(3, 2),
                       node_case(4, 11),
                       inference_case({{1, 6, 6, 16}, 16, 3, 1, 1, false, false, 0, 0}, Adds::nothing, true),
                       inference_case({{2, 5, 5, 12}, 36, 5, 1, 2, false, false, 0, 17}, Adds::itself, true),
                       inference_case({{2, 5, 6, 8}, 8, 3, 1, 1, false, false, 0, 0}, Adds::another, true),
                       inference_case({{1, 7, 5, 3}, 6, 3, 1, 1, false, false, 0, 0}, Adds::itself, false),
                       inference_case({{2, 4, 8, 6}, 36, 1, 1, 1, false, false, 0, 9}, Adds::itself, false),
                       paths_case({{2, 8, 8, 16}, 16, 5, 1, 1, false, false, 0, 0}),
                       paths_case({{3, 7, 6, 12}, 12, 3, 2, 1, false, false, 0, 20}),
                       paths_case({{1, 9, 8, 36}, 36, 3, 1, 1, false, false, 0, 0})});

}  // namespace
}  // namespace lanas::test
