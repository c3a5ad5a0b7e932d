// gemm.h -- c = alpha op(a) op(b) + beta c, row-major single precision matrices.
// op(a) is [m,k]: a is stored [m,k], or [k,m] when transpose_a; op(b) is [k,n]: b is stored [k,n], or [n,k]
// when transpose_b; lda, ldb, ldc are the distances in elements between stored rows. On the cpu oneDNN's
// dnnl_sgemm where the build has it, else the plain loops of host::gemm_reference; on cuda cuBLAS.
#pragma once

#include "kernels/core/device.h"

namespace lanas {

// beta == 0 overwrites c without reading it. Empty m or n: nothing is done; k == 0: c = beta c. Throws Error
// for negative sizes and for a leading dimension shorter than its row. Called inside a parallel region it
// runs on the calling thread alone.
void gemm(Stream& stream, bool transpose_a, bool transpose_b, int m, int n, int k, float alpha,
          const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);

namespace host {
// The same in plain loops, for float and double.
template <class T>
void gemm_reference(bool transpose_a, bool transpose_b, int m, int n, int k, T alpha, const T* a, int lda,
                    const T* b, int ldb, T beta, T* c, int ldc);
}  // namespace host

}  // namespace lanas
