// Chunked attention as one builds it on a CUDA device: batched products by cuBLAS and a pass over the scores, all in the element type with
// sums in fp32. Chunks go in groups: all at once, or as many as keep their scores in the L2 cache. Under the causal mask rows go in blocks
// that see keys up to their own end only. Group and block are chosen by trying. Backward recomputes the scores: that is 5% more work than
// to keep them, and less than to fetch them from memory.
#pragma once
#include <cublas_v2.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <type_traits>

#include "attention_pass.cuh"

namespace tcnca::bench {

inline void require(cublasStatus_t s) {
  if (s != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string("A call of cuBLAS failed: ") + cublasGetStatusString(s) + ".");
}

/// A matrix of a batch, row-major.
template <class T>
struct batched {
  T* data;
  index_t stride, batch_stride;
};

class cublas_products {
 public:
  cublas_products() { require(cublasCreate(&handle_)); }
  cublas_products(cublas_products const&) = delete;
  cublas_products& operator=(cublas_products const&) = delete;
  ~cublas_products() { cublasDestroy(handle_); }

  struct shape {
    index_t m, n, k;
    bool a_transposed = false, b_transposed = false;
  };
  /// c[m, n] = op(a) op(b) for each of a batch.
  template <class T>
  void operator()(shape s, batched<T const> a, batched<T const> b, batched<T> c, index_t batch) const {
    auto const type = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;
    float const one = 1, zero = 0;
    auto const i = [](index_t v) { return static_cast<int>(v); };
    require(cublasGemmStridedBatchedEx(
        handle_, s.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, s.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, i(s.n), i(s.m),
        i(s.k), &one, b.data, type, i(b.stride), b.batch_stride, a.data, type, i(a.stride), a.batch_stride, &zero,
        c.data, type, i(c.stride), c.batch_stride, i(batch), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  }
  /// Operations a second of a large product.
  template <class T>
  double rate() const {
    constexpr index_t n = 8192;
    device_memory<T> a(n * n), b(n * n), c(n * n);
    double best = 1e300;
    for (int i = 0; i < 10; i++)
      best = std::min(best, device_seconds([&] {
                        this->template operator()<T>({n, n, n, false, true}, {a.data(), n, 0}, {b.data(), n, 0},
                                                     {c.data(), n, 0}, 1);
                      }));
    return 2.0 * n * n * n / best;
  }

 private:
  cublasHandle_t handle_ = nullptr;
};

template <class T>
class attention_by_cublas {
 public:
  struct plan {
    index_t group, rows;  ///< chunks at once, rows of a block
  };

  explicit attention_by_cublas(attention_problem const& p)
      : p_(p), row_((p.chunk + 7) / 8 * 8), delta_(static_cast<size_t>(p.sequences() * p.length)) {
    set({1, p.chunk});
  }

  void choose(attention_tensors<T> const& t, bool backward) {
    constexpr index_t cache = index_t{32} << 20, memory = index_t{8} << 30;
    index_t const chunk_bytes = 2 * p_.chunk * row_ * static_cast<index_t>(sizeof(T));
    auto const fits = [&](index_t bytes) {
      return std::clamp<index_t>(bytes / chunk_bytes, 1, p_.sequences() * p_.chunks());
    };
    plan best = plan_;
    double least = 1e300;
    for (index_t const together : {fits(memory), fits(memory / 4), fits(cache), fits(cache / 2)})
      for (index_t rows = p_.chunk; rows == p_.chunk || (p_.causal && rows >= 128); rows /= 2) {
        set({together, rows});
        for (int i = 0; i < 3; i++) {
          double const time = device_seconds([&] { backward ? this->backward(t) : forward(t); });
          if (i > 0 && time < least) least = time, best = {together, rows};
        }
      }
    set(best);
  }
  std::string describe() const {
    char text[120];
    std::snprintf(text, sizeof text, "%lld chunks at once, rows in blocks of %lld", static_cast<long long>(plan_.group),
                  static_cast<long long>(plan_.rows));
    return text;
  }

  void forward(attention_tensors<T> const& t) {
    index_t const z = p_.key_dim, h = p_.value_dim;
    each_group([&](group g) {
      for (index_t r = 0; r < g.rows; r += plan_.rows) {
        auto const [m, keys] = block(g, r);
        multiply_({m, keys, z, false, true}, rows_of(t.q, g, r, z), rows_of(t.k, g, 0, z), scores(scores_, r),
                  g.chunks);
        score_pass<T, false>(p_.function, pass_rows(t, g, r, m, keys), g.chunks);
        multiply_({m, h, keys}, read(scores(scores_, r)), rows_of(t.v, g, 0, h), rows_of(t.o, g, r, h), g.chunks);
      }
    });
  }
  void backward(attention_tensors<T> const& t) {
    index_t const z = p_.key_dim, h = p_.value_dim, all = p_.sequences() * p_.length;
    if (p_.function == score_function::softmax)
      detail::row_products<<<static_cast<unsigned>((all + 3) / 4), detail::pass_threads>>>(
          delta_.data(), t.grad_o, static_cast<T const*>(t.o), all, h);
    each_group([&](group g) {
      for (index_t r = 0; r < g.rows; r += plan_.rows) {
        auto const [m, keys] = block(g, r);
        multiply_({m, keys, z, false, true}, rows_of(t.q, g, r, z), rows_of(t.k, g, 0, z), scores(scores_, r),
                  g.chunks);
        multiply_({m, keys, h, false, true}, rows_of(t.grad_o, g, r, h), rows_of(t.v, g, 0, h), scores(grad_, r),
                  g.chunks);
        score_pass<T, true>(p_.function, pass_rows(t, g, r, m, keys), g.chunks);
        multiply_({m, z, keys}, read(scores(grad_, r)), rows_of(t.k, g, 0, z), rows_of(t.grad_q, g, r, z), g.chunks);
      }
      // Keys in blocks: they are seen from the block's first row on.
      for (index_t r = 0; r < g.rows; r += plan_.rows) {
        index_t const m = std::min(plan_.rows, g.rows - r), from = p_.causal ? r : 0, k = g.rows - from;
        multiply_({m, h, k, true, false}, read(scores(scores_, from, r)), rows_of(t.grad_o, g, from, h),
                  rows_of(t.grad_v, g, r, h), g.chunks);
        multiply_({m, z, k, true, false}, read(scores(grad_, from, r)), rows_of(t.q, g, from, z),
                  rows_of(t.grad_k, g, r, z), g.chunks);
      }
    });
  }

 private:
  /// Chunks of equal length, one after another: the first row of all and the rows of each.
  struct group {
    index_t first, chunks, rows;
  };
  struct extent {
    index_t rows, keys;
  };

  void set(plan next) {
    if (next.group != plan_.group) {
      scores_ = {}, grad_ = {};
      auto const count = static_cast<size_t>(next.group * p_.chunk * row_);
      scores_ = device_memory<T>(count), grad_ = device_memory<T>(count);
    }
    plan_ = next;
  }
  /// Full chunks follow one another through all sequences where no sequence ends in a short one.
  template <class Body>
  void each_group(Body const& body) {
    index_t const tail = p_.length % p_.chunk, whole = p_.length / p_.chunk;
    index_t const runs = tail == 0 ? 1 : p_.sequences(), chunks = tail == 0 ? p_.sequences() * whole : whole;
    for (index_t run = 0; run < runs; run++) {
      index_t const first = run * p_.length;
      for (index_t c = 0; c < chunks; c += plan_.group)
        body(group{first + c * p_.chunk, std::min(plan_.group, chunks - c), p_.chunk});
      if (tail != 0) body(group{first + whole * p_.chunk, 1, tail});
    }
  }
  extent block(group g, index_t r) const {
    index_t const m = std::min(plan_.rows, g.rows - r);
    return {m, p_.causal ? r + m : g.rows};
  }
  template <class U>
  batched<U> rows_of(U* data, group g, index_t row, index_t dim) const {
    return {data + (g.first + row) * dim, dim, p_.chunk * dim};
  }
  batched<T> scores(device_memory<T>& m, index_t row, index_t column = 0) const {
    return {m.data() + row * row_ + column, row_, p_.chunk * row_};
  }
  static batched<T const> read(batched<T> m) { return {m.data, m.stride, m.batch_stride}; }
  score_rows<T> pass_rows(attention_tensors<T> const& t, group g, index_t r, index_t m, index_t keys) {
    return {scores_.data(), grad_.data(), t.lse + g.first, delta_.data() + g.first, p_.chunk, row_, r, m,
            keys,           p_.scale(1),  p_.causal};
  }

  attention_problem p_;
  index_t row_;  ///< room of a row of scores
  plan plan_{0, 0};
  cublas_products multiply_;
  device_memory<T> scores_, grad_;
  device_memory<float> delta_;
};

}  // namespace tcnca::bench
