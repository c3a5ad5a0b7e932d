// cuda.h -- the cuda side of gemm.h, conv2d.h and ops/shuffle.h, whose functions check the arguments and come
// here. Three twins: gemm_cublas.cpp, conv2d_cudnn.cpp and sort_cub.cu, vendor_emulated.cpp (the plain loops
// of namespace host, recorded and replayed like kernels), and vendor_none.cpp (a build without CUDA).
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas::cuda {

void gemm(Stream& stream, bool transpose_a, bool transpose_b, int m, int n, int k, float alpha,
          const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);

struct ConvSettings {
  int stride, padding, dilation;
};
size_t conv2d_scratch_bytes(Shape y, Shape x);
void conv2d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, ConvSettings s, void* scratch);
void conv2d_backward_data(Stream& stream, Tensor dx, Tensor dy, Tensor w, ConvSettings s, float beta,
                          void* scratch);
void conv2d_backward_weights(Stream& stream, Tensor dw, Tensor dy, Tensor x, ConvSettings s, float beta,
                             void* scratch);

// As host::sort_pairs; scratch: sort_pairs_scratch_bytes, 256-byte aligned.
size_t sort_pairs_scratch_bytes(int count);
void sort_pairs(Stream& stream, uint32_t* sorted_keys, const uint32_t* keys, int* sorted_values,
                const int* values, int count, void* scratch, size_t scratch_bytes);

}  // namespace lanas::cuda
