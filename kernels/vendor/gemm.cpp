// gemm.cpp -- see gemm.h.
#include "kernels/vendor/gemm.h"

#include "kernels/core/parallel.h"
#include "kernels/vendor/cuda.h"

#ifdef LANAS_WITH_DNNL
#include <dnnl.h>
#endif

namespace lanas {

namespace host {

template <class T>
void gemm_reference(bool transpose_a, bool transpose_b, int m, int n, int k, T alpha, const T* a, int lda,
                    const T* b, int ldb, T beta, T* c, int ldc) {
  parallel_for(m, [=](int64_t i) {
    T* __restrict row = c + i * ldc;
    if (beta == 0)
      for (int j = 0; j < n; ++j) row[j] = 0;
    else
      for (int j = 0; j < n; ++j) row[j] *= beta;
    const T* a_row = transpose_a ? a + i : a + i * lda;
    const int64_t a_step = transpose_a ? lda : 1;
    if (transpose_b) {
      for (int j = 0; j < n; ++j) {
        const T* b_row = b + int64_t{j} * ldb;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int p = 0; p < k; ++p) sum += a_row[p * a_step] * b_row[p];
        row[j] += alpha * sum;
      }
    } else {
      for (int p = 0; p < k; ++p) {
        const T scale = alpha * a_row[p * a_step];
        const T* __restrict b_row = b + int64_t{p} * ldb;
        for (int j = 0; j < n; ++j) row[j] += scale * b_row[j];
      }
    }
  });
}

template void gemm_reference(bool, bool, int, int, int, float, const float*, int, const float*, int, float,
                             float*, int);
template void gemm_reference(bool, bool, int, int, int, double, const double*, int, const double*, int,
                             double, double*, int);

}  // namespace host

namespace {

void gemm_cpu(bool transpose_a, bool transpose_b, int m, int n, int k, float alpha, const float* a, int lda,
              const float* b, int ldb, float beta, float* c, int ldc) {
#ifdef LANAS_WITH_DNNL
  if (k > 0) {
    const dnnl_status_t status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, alpha,
                                            a, lda, b, ldb, beta, c, ldc);
    CHECK(status == dnnl_success, "gemm: dnnl_sgemm returned status ", int(status), " for m ", m, ", n ", n,
          ", k ", k);
    return;
  }
#endif
  host::gemm_reference(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace

void gemm(Stream& stream, bool transpose_a, bool transpose_b, int m, int n, int k, float alpha,
          const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  CHECK(m >= 0 && n >= 0 && k >= 0, "gemm: negative size m ", m, ", n ", n, ", k ", k);
  if (m == 0 || n == 0) return;
  CHECK(k == 0 || lda >= (transpose_a ? m : k), "gemm: lda ", lda, " is less than a's row ",
        transpose_a ? m : k);
  CHECK(k == 0 || ldb >= (transpose_b ? k : n), "gemm: ldb ", ldb, " is less than b's row ",
        transpose_b ? k : n);
  CHECK(ldc >= n, "gemm: ldc ", ldc, " is less than c's row ", n);
  if (stream.device() == Device::cpu)
    return gemm_cpu(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  cuda::gemm(stream, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace lanas
