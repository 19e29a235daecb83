// Matrix products in fp32 and fp64: OpenBLAS on the CPU, cuBLAS on CUDA.
#pragma once
#include <cblas.h>

#include <algorithm>

#include "memory.hpp"

namespace tcnca::models {

/// C[m, n] = op(A) op(B), added to C if `add`. Row-major and contiguous.
struct product {
  index_t m, n, k;
  bool a_transposed = false, b_transposed = false, add = false;
};

namespace detail {
/// OpenBLAS takes extents of type int.
template <class T>
void gemm(product p, T const* a, index_t lda, T const* b, index_t ldb, T* c, index_t ldc) {
  auto const i = [](index_t v) { return static_cast<blasint>(std::max(v, index_t(1))); };
  auto const ta = p.a_transposed ? CblasTrans : CblasNoTrans, tb = p.b_transposed ? CblasTrans : CblasNoTrans;
  T const beta = p.add ? T(1) : T(0);
  if constexpr (sizeof(T) == 4) {
    cblas_sgemm(CblasRowMajor, ta, tb, i(p.m), i(p.n), i(p.k), 1, a, i(lda), b, i(ldb), beta, c, i(ldc));
  } else {
    cblas_dgemm(CblasRowMajor, ta, tb, i(p.m), i(p.n), i(p.k), 1, a, i(lda), b, i(ldb), beta, c, i(ldc));
  }
}

/// The result is split among `threads` OpenMP threads, each of which calls a serial OpenBLAS (see one_blas_thread).
/// OpenBLAS's own threads would compete with the OpenMP threads of the library, which spin between calls.
template <class E, class T>
void multiply(device<E> const&, int threads, product p, T const* a, T const* b, T* c) {
  index_t const lda = p.a_transposed ? p.m : p.k, ldb = p.b_transposed ? p.k : p.n, ldc = p.n;
  bool const by_rows = p.m >= p.n;
  index_t const extent = by_rows ? p.m : p.n;
  // Blocks are multiples of a register tile. Small products run on one thread.
  bool const small = double(p.m) * double(p.n) * double(p.k) < 1e5;
  index_t const piece = small ? extent : ((extent + threads - 1) / threads + 15) / 16 * 16;
#pragma omp parallel for num_threads(threads) schedule(static) if (!small)
  for (index_t first = 0; first < extent; first += piece) {
    product part = p;
    (by_rows ? part.m : part.n) = std::min(piece, extent - first);
    if (by_rows) detail::gemm(part, a + first * (p.a_transposed ? 1 : lda), lda, b, ldb, c + first * ldc, ldc);
    else detail::gemm(part, a, lda, b + first * (p.b_transposed ? ldb : 1), ldb, c + first, ldc);
  }
}

#if defined(__CUDACC__)
/// cuBLAS is column-major: it computes the transposed product C' = op(B)' op(A)'.
template <class T>
void multiply(device<cuda> const& d, int /*threads*/, product p, T const* a, T const* b, T* c) {
  auto const i = [](index_t v) { return static_cast<int>(std::max(v, index_t(1))); };
  auto const ta = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, tb = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  index_t const lda = p.a_transposed ? p.m : p.k, ldb = p.b_transposed ? p.k : p.n, ldc = p.n;
  T const one = 1, beta = p.add ? T(1) : T(0);
  if (p.m == 0 || p.n == 0) return;
  if constexpr (sizeof(T) == 4) {
    d.check(cublasSgemm(d.blas(), tb, ta, i(p.n), i(p.m), int(p.k), &one, b, i(ldb), a, i(lda), &beta, c, i(ldc)),
            "multiply");
  } else {
    d.check(cublasDgemm(d.blas(), tb, ta, i(p.n), i(p.m), int(p.k), &one, b, i(ldb), a, i(lda), &beta, c, i(ldc)),
            "multiply");
  }
}
#endif
}  // namespace detail

/// The product on the context's executor.
template <class T, class E>
void multiply(context<T, E> const& c, product p, T const* a, T const* b, T* result) {
  detail::multiply(c.backend(), c.threads, p, a, b, result);
}

inline void one_blas_thread() { openblas_set_num_threads(1); }

}  // namespace tcnca::models
