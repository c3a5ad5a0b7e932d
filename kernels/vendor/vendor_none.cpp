// vendor_none.cpp -- see cuda.h: what a build without CUDA has.
#include "kernels/vendor/cuda.h"

namespace lanas::cuda {
namespace {
[[noreturn]] void fail(const char* op) { throw Error(join(op, ": this build has no CUDA")); }
}  // namespace

void gemm(Stream&, bool, bool, int, int, int, float, const float*, int, const float*, int, float, float*,
          int) {
  fail("gemm");
}
size_t conv2d_scratch_bytes(Shape, Shape) { return 0; }
void conv2d_forward(Stream&, Tensor, Tensor, Tensor, ConvSettings, void*) { fail("conv2d_forward"); }
void conv2d_backward_data(Stream&, Tensor, Tensor, Tensor, ConvSettings, float, void*) {
  fail("conv2d_backward_data");
}
void conv2d_backward_weights(Stream&, Tensor, Tensor, Tensor, ConvSettings, float, void*) {
  fail("conv2d_backward_weights");
}
size_t sort_pairs_scratch_bytes(int) { return 0; }
void sort_pairs(Stream&, uint32_t*, const uint32_t*, int*, const int*, int, void*, size_t) {
  fail("sort_pairs");
}

}  // namespace lanas::cuda
