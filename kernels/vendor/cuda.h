// cuda.h -- the cuda side of gemm.h and conv2d.h, whose functions check the arguments and come here. Three
// twins: gemm_cublas.cpp and conv2d_cudnn.cpp, vendor_emulated.cpp (the plain loops of namespace host,
// recorded and replayed like kernels), and vendor_none.cpp (a build without CUDA).
#pragma once

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace lanas::cuda {

void gemm(Stream& stream, bool transpose_a, bool transpose_b, int m, int n, int k, float alpha,
          const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);

struct ConvSettings {
  int stride, padding, dilation;
};
size_t conv2d_scratch_bytes();
void conv2d_forward(Stream& stream, Tensor y, Tensor x, Tensor w, ConvSettings s, void* scratch);
void conv2d_backward_data(Stream& stream, Tensor dx, Tensor dy, Tensor w, ConvSettings s, float beta,
                          void* scratch);
void conv2d_backward_weights(Stream& stream, Tensor dw, Tensor dy, Tensor x, ConvSettings s, float beta,
                             void* scratch);

}  // namespace lanas::cuda
