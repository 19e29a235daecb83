// A common interface to the matrix products of CPU libraries: C[m, n] = op(A) op(B) + beta C, row-major, beta 0 or 1,
// fp32.
//   static char const* name
//   static void threads(int n)     sets the number of threads of the following calls
//   void operator()(product, A, lda, B, ldb, C, ldc)
// An object is used by one thread. oneDNN also multiplies bf16, with fp32 accumulation and C in fp32 or bf16.
#pragma once
#include <map>
#include <memory>
#include <tuple>

#include <tcnca/core/config.hpp>
#include "../support/buffer.hpp"

#if defined(TCNCA_BENCH_OPENBLAS)
#include <cblas.h>
#endif
#if defined(TCNCA_BENCH_DNNL)
#include <algorithm>
#include <dnnl.hpp>
#include <type_traits>

#include <tcnca/core/numeric.hpp>
#include "ceilings.hpp"
#if defined(_OPENMP)
#include <omp.h>
#endif
#endif

namespace tcnca::bench {

struct product {
  index_t m, n, k;
  bool a_transposed = false, b_transposed = false, add = false;
};

#if defined(TCNCA_BENCH_OPENBLAS)
class openblas_gemm {
 public:
  static constexpr char const* name = "OpenBLAS";
  static void threads(int n) { openblas_set_num_threads(n); }
  void operator()(product p, float const* a, index_t lda, float const* b, index_t ldb, float* c, index_t ldc) const {
    auto const i = [](index_t v) { return static_cast<blasint>(v); };
    cblas_sgemm(CblasRowMajor, p.a_transposed ? CblasTrans : CblasNoTrans, p.b_transposed ? CblasTrans : CblasNoTrans,
                i(p.m), i(p.n), i(p.k), 1, a, i(lda), b, i(ldb), p.add ? 1.f : 0.f, c, i(ldc));
  }
};
#endif

#if defined(TCNCA_BENCH_DNNL)
/// oneDNN has two products, the matmul primitive and sgemm. Which one is faster depends on the shape; the first call
/// with a new shape measures both.
class dnnl_gemm {
 public:
  static constexpr char const* name = "oneDNN";
  static void threads([[maybe_unused]] int n) {
#if defined(_OPENMP)
    omp_set_num_threads(n);
#endif
  }
  template <class T, class C>
  void operator()(product p, T const* a, index_t lda, T const* b, index_t ldb, C* c, index_t ldc) {
    auto& chosen =
        methods_[{p.m, p.n, p.k, lda, ldb, ldc, p.a_transposed, p.b_transposed, p.add, sizeof(T), sizeof(C)}];
    if (!chosen) chosen = std::make_unique<method>(choose<T, C>(p, lda, ldb, ldc));
    if constexpr (std::is_same_v<T, float>) {
      if (chosen->use_sgemm) return sgemm(p, a, lda, b, ldb, c, ldc);
    }
    chosen->run(a, b, c, stream_);
  }

 private:
  using memory = dnnl::memory;
  struct method {
    bool use_sgemm = false;
    dnnl::matmul primitive;
    memory a, b, c, scratch;
    template <class T, class C>
    void run(T const* pa, T const* pb, C* pc, dnnl::stream& stream) {
      a.set_data_handle(const_cast<T*>(pa)), b.set_data_handle(const_cast<T*>(pb)), c.set_data_handle(pc);
      primitive.execute(stream,
                        {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}, {DNNL_ARG_SCRATCHPAD, scratch}});
      stream.wait();
    }
  };
  static void sgemm(product p, float const* a, index_t lda, float const* b, index_t ldb, float* c, index_t ldc) {
    dnnl::sgemm(p.a_transposed ? 'T' : 'N', p.b_transposed ? 'T' : 'N', p.m, p.n, p.k, 1, a, lda, b, ldb,
                p.add ? 1.f : 0.f, c, ldc);
  }
  template <class T>
  static constexpr memory::data_type type = std::is_same_v<T, float> ? memory::data_type::f32 : memory::data_type::bf16;

  template <class T, class C>
  method choose(product p, index_t lda, index_t ldb, index_t ldc) {
    auto const desc = [](index_t rows, index_t columns, memory::data_type element, index_t ld, bool transposed) {
      return memory::desc({rows, columns}, element, transposed ? memory::dims{1, ld} : memory::dims{ld, 1});
    };
    auto const da = desc(p.m, p.k, type<T>, lda, p.a_transposed), db = desc(p.k, p.n, type<T>, ldb, p.b_transposed),
               dc = desc(p.m, p.n, type<C>, ldc, false);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (p.add) {
      dnnl::post_ops after;
      after.append_sum();
      attributes.set_post_ops(after);
    }
    dnnl::matmul::primitive_desc const made({da, db, dc}, attributes, engine_);
    method w{false,
             dnnl::matmul(made),
             {da, engine_, nullptr},
             {db, engine_, nullptr},
             {dc, engine_, nullptr},
             {made.scratchpad_desc(), engine_}};
    if constexpr (!std::is_same_v<T, float>) { return w; }
    auto const matrix = [](index_t rows, index_t ld) { return buffer<float>(static_cast<size_t>(rows * ld)); };
    auto const a = matrix(p.a_transposed ? p.k : p.m, lda), b = matrix(p.b_transposed ? p.n : p.k, ldb);
    auto c = matrix(p.m, ldc);
    double best[2] = {1e300, 1e300};
    for (int i = 0; i < 3; i++) {
      double const start = detail::seconds();
      w.run(a.data(), b.data(), c.data(), stream_);
      double const middle = detail::seconds();
      sgemm(p, a.data(), lda, b.data(), ldb, c.data(), ldc);
      best[0] = std::min(best[0], middle - start), best[1] = std::min(best[1], detail::seconds() - middle);
    }
    w.use_sgemm = best[1] < best[0];
    return w;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::map<std::tuple<index_t, index_t, index_t, index_t, index_t, index_t, bool, bool, bool, size_t, size_t>,
           std::unique_ptr<method>>
      methods_;
};
#endif

}  // namespace tcnca::bench
