// vendor_emulated.cpp -- see cuda.h: the plain loops of namespace host on emulated device memory, in the
// place of cuBLAS, cuDNN and CUB.
#include "kernels/core/simt_memory.h"
#include "kernels/vendor/conv2d.h"
#include "kernels/vendor/cuda.h"
#include "kernels/vendor/gemm.h"
#include "kernels/vendor/sort.h"

namespace lanas::cuda {

void gemm(Stream&, bool transpose_a, bool transpose_b, int m, int n, int k, float alpha, const float* a,
          int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  simt::run_or_record(
      [=] { host::gemm_reference(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); });
}

size_t conv2d_scratch_bytes(Shape, Shape) { return 0; }

void conv2d_forward(Stream&, Tensor y, Tensor x, Tensor w, ConvSettings s, void*) {
  simt::run_or_record([=] { host::conv2d_forward(y, x, w, s.stride, s.padding, s.dilation); });
}

void conv2d_backward_data(Stream&, Tensor dx, Tensor dy, Tensor w, ConvSettings s, float beta, void*) {
  simt::run_or_record([=] { host::conv2d_backward_data(dx, dy, w, s.stride, s.padding, s.dilation, beta); });
}

void conv2d_backward_weights(Stream&, Tensor dw, Tensor dy, Tensor x, ConvSettings s, float beta, void*) {
  simt::run_or_record(
      [=] { host::conv2d_backward_weights(dw, dy, x, s.stride, s.padding, s.dilation, beta); });
}

size_t sort_pairs_scratch_bytes(int) { return 0; }

void sort_pairs(Stream&, uint32_t* sorted_keys, const uint32_t* keys, int* sorted_values, const int* values,
                int count, void*, size_t) {
  simt::run_or_record([=] { host::sort_pairs(sorted_keys, keys, sorted_values, values, count); });
}

}  // namespace lanas::cuda
