// Chunked attention composed of cuBLAS batched products and one kernel over the scores, in the element type with fp32
// accumulation. Chunks are processed in groups: all at once, or as many as keep their scores in the L2 cache. With
// the causal mask, rows are processed in blocks that read keys up to the block's end only. Group and block sizes are
// autotuned. Backward recomputes the scores: this is 5% more arithmetic than saving them, and cheaper than reading
// them from memory.
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
    throw std::runtime_error(std::string("A cuBLAS call failed: ") + cublasGetStatusString(s) + ".");
}

/// A batch of row-major matrices.
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
  /// c[m, n] = op(a) op(b) for each matrix of the batch.
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
  /// Operations per second of a large product.
  template <class T>
  double rate() const {
    constexpr index_t n = 8192;
    thrust::device_vector<T> a(n * n), b(n * n), c(n * n);
    double best = 1e300;
    for (int i = 0; i < 10; i++)
      best = std::min(
          best, device_seconds([&] {
            this->template operator()<T>({n, n, n, false, true}, {raw(a), n, 0}, {raw(b), n, 0}, {raw(c), n, 0}, 1);
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
    index_t group, rows;  ///< chunks per group, rows per block
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
          raw(delta_), t.grad_o, static_cast<T const*>(t.o), all, h);
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
      // Blocks of keys: with the causal mask, rows from the block's first key on contribute.
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
  /// Consecutive chunks of equal length: the first row of the first chunk, the number of chunks, the rows of each.
  struct group {
    index_t first, chunks, rows;
  };
  struct extent {
    index_t rows, keys;
  };

  void set(plan next) {
    if (next.group != plan_.group) {
      scores_ = thrust::device_vector<T>(), grad_ = thrust::device_vector<T>();  // frees the old memory first
      auto const count = static_cast<size_t>(next.group * p_.chunk * row_);
      scores_.resize(count), grad_.resize(count);
    }
    plan_ = next;
  }
  /// Calls body for each group. Groups span sequences unless sequences end in a short chunk.
  template <class Body>
  void each_group(Body const& body) {
    index_t const tail = p_.length % p_.chunk, full = p_.length / p_.chunk;
    index_t const spans = tail == 0 ? 1 : p_.sequences(), chunks = tail == 0 ? p_.sequences() * full : full;
    for (index_t span = 0; span < spans; span++) {
      index_t const first = span * p_.length;
      for (index_t c = 0; c < chunks; c += plan_.group)
        body(group{first + c * p_.chunk, std::min(plan_.group, chunks - c), p_.chunk});
      if (tail != 0) body(group{first + full * p_.chunk, 1, tail});
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
  batched<T> scores(thrust::device_vector<T>& m, index_t row, index_t column = 0) const {
    return {raw(m) + row * row_ + column, row_, p_.chunk * row_};
  }
  static batched<T const> read(batched<T> m) { return {m.data, m.stride, m.batch_stride}; }
  score_rows<T> pass_rows(attention_tensors<T> const& t, group g, index_t r, index_t m, index_t keys) {
    return {raw(scores_), raw(grad_),  t.lse + g.first, raw(delta_) + g.first, p_.chunk, row_, r, m,
            keys,         p_.scale(1), p_.causal};
  }

  attention_problem p_;
  index_t row_;  ///< stride between rows of scores
  plan plan_{0, 0};
  cublas_products multiply_;
  thrust::device_vector<T> scores_, grad_;
  thrust::device_vector<float> delta_;
};

}  // namespace tcnca::bench
