// gemm_cublas.cpp -- see cuda.h. A row-major matrix is the transpose of a column-major one, so the product is
// asked for as c^T = op(b)^T op(a)^T. Each stream has its own handle with a workspace of fixed size, as
// capturing in a graph and equal bits from run to run need.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdio>

#include "kernels/core/native.cuh"
#include "kernels/core/precision.h"
#include "kernels/vendor/cuda.h"

#define CUBLAS_CHECK(call)                                                                          \
  do {                                                                                              \
    if (const cublasStatus_t status_ = (call); status_ != CUBLAS_STATUS_SUCCESS) [[unlikely]]       \
      throw ::lanas::Error(                                                                         \
          ::lanas::join(__FILE__, ":", __LINE__, ": " #call ": ", cublasGetStatusString(status_))); \
  } while (false)

namespace lanas::cuda {
namespace {

constexpr size_t kWorkspace = size_t{32} << 20;  // bytes: what cuBLAS recommends for sm_90

struct Blas {
  cublasHandle_t handle = nullptr;
  Memory workspace;
  bool tf32 = false;

  explicit Blas(cudaStream_t stream) : workspace(Device::cuda, kWorkspace) {
    CUBLAS_CHECK(cublasCreate(&handle));
    CUBLAS_CHECK(cublasSetStream(handle, stream));
    CUBLAS_CHECK(
        cublasSetWorkspace(handle, workspace.data(), kWorkspace));  // after the stream, which resets it
    CUBLAS_CHECK(cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_HOST));
    CUBLAS_CHECK(cublasSetMathMode(handle, CUBLAS_DEFAULT_MATH));  // full fp32
  }
  ~Blas() {
    if (handle && cublasDestroy(handle) != CUBLAS_STATUS_SUCCESS)
      std::fprintf(stderr, "cublas: a handle could not be destroyed\n");
  }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
};

}  // namespace

void gemm(Stream& stream, bool transpose_a, bool transpose_b, int m, int n, int k, float alpha,
          const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  Stream::Native& native = *stream.native();
  if (!native.cublas) native.cublas = std::make_shared<Blas>(native.stream);
  Blas& blas = *static_cast<Blas*>(native.cublas.get());
  if (blas.tf32 != tf32()) {
    blas.tf32 = tf32();
    CUBLAS_CHECK(
        cublasSetMathMode(blas.handle, blas.tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
  }
  const auto op = [](bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; };
  CUBLAS_CHECK(cublasSgemm(blas.handle, op(transpose_b), op(transpose_a), n, m, k, &alpha, b,
                           std::max(1, ldb), a, std::max(1, lda), &beta, c, ldc));
}

}  // namespace lanas::cuda
