// convolution_cases.cpp -- cases of the plain depthwise and of the dense convolution.
#include "tests/support/op_case.h"

namespace lanas::test {
namespace {

struct Conv {
  Shape x;
  int kernel, stride, padding, dilation, pixel_stride, cout;
};

std::string name(const Conv& t) {
  return join(t.x.n, "x", t.x.h, "x", t.x.w, "x", t.x.c, " kernel ", t.kernel, " stride ", t.stride,
              " dilation ", t.dilation, " pixel stride ", t.pixel_stride);
}

Var input(CaseBuilder& b, const Conv& t) {
  return t.pixel_stride > 0 ? b.sliced_input(t.x, t.pixel_stride) : b.input(t.x);
}

OpCase depthwise_case(Conv t) {
  return {name(t), double(t.x.pixels()), [=](CaseBuilder& b) {
            const Var w = b.input({1, t.kernel, t.kernel, t.x.c});
            b.output(depthwise_conv(b.tape, input(b, t), w, {t.stride, t.padding, t.dilation}));
          }};
}
const OpCases depthwise_cases("depthwise_conv", {depthwise_case({{1, 5, 5, 1}, 3, 1, 1, 1, 0, 0}),
                                                 depthwise_case({{2, 7, 5, 3}, 3, 2, 1, 1, 0, 0}),
                                                 depthwise_case({{2, 6, 6, 4}, 5, 1, 4, 2, 10, 0}),
                                                 depthwise_case({{1, 8, 8, 16}, 3, 2, 2, 2, 0, 0}),
                                                 depthwise_case({{1, 5, 7, 12}, 5, 2, 2, 1, 18, 0}),
                                                 depthwise_case({{1, 3, 3, 70}, 3, 1, 1, 1, 0, 0}),
                                                 depthwise_case({{2, 4, 4, 36}, 3, 1, 2, 2, 41, 0})});

OpCase conv_case(Conv t) {
  return {name(t), double(t.x.pixels() + t.kernel * t.kernel * t.x.c), [=](CaseBuilder& b) {
            const Var w = b.input({t.cout, t.kernel, t.kernel, t.x.c});
            b.output(conv2d(b.tape, input(b, t), w, {t.stride, t.padding, t.dilation}));
          }};
}
const OpCases conv_cases(
    "conv2d", {conv_case({{2, 6, 6, 3}, 3, 1, 1, 1, 0, 12}), conv_case({{2, 7, 5, 4}, 3, 2, 1, 1, 9, 5}),
               conv_case({{1, 5, 5, 16}, 1, 1, 0, 1, 20, 12}), conv_case({{2, 5, 5, 1}, 3, 1, 1, 1, 0, 4}),
               conv_case({{1, 7, 7, 12}, 3, 1, 2, 2, 0, 36}), conv_case({{1, 5, 6, 36}, 3, 2, 2, 2, 40, 1})});

}  // namespace
}  // namespace lanas::test
