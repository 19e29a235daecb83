// Chunked attention on the CPU, composed of a library's matrix products: S = Q K', a pass over S, O = P V; backward
// five products and a pass. It is the baseline of tcnca::chunked_attention, so it is optimized:
// - rows are processed in blocks, so that the scores stay in a cache; with the causal mask a block reads keys up to
//   its own end only;
// - rows of scores are padded, so that powers of two do not alias in the caches;
// - threads execute blocks (forward) or chunks (backward) with single-threaded products, or the products are
//   threaded;
// - backward recomputes the scores, or reads those that the forward pass saved.
// Block size and both alternatives are autotuned per problem. T is the element type of the products: fp32, or bf16
// with fp32 scores and accumulation.
#pragma once
#if defined(_OPENMP)
#include <omp.h>
#endif

#include <cstdio>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "../support/attention_problem.hpp"
#include "../support/convert.hpp"
#include "../support/paired.hpp"
#include "attention_pass.hpp"
#include "ceilings.hpp"
#include "gemm.hpp"

namespace tcnca::bench {

template <class Gemm, class T = float>
class attention_by_products {
 public:
  /// Block size and alternatives.
  struct plan {
    index_t rows = 256;
    bool threaded_products = false, save_scores = false;
  };

  explicit attention_by_products(attention_problem const& p) : p_(p), row_(padded(p.chunk)) {
    states_.resize(static_cast<size_t>(p.threads));
    for (auto& h : states_) h = std::make_unique<thread_state>();
    set({std::min<index_t>(256, p.chunk), false, false});
  }

  /// Autotunes the plan for a direction, one parameter after the other.
  void choose(attention_tensors<T> const& t, bool backward) {
    bool const can_save = backward && saved_bytes() <= size_t{1} << 30;
    plan best = plan_;
    double least = 1e300;
    auto const consider = [&](plan candidate) {
      set(candidate);
      if (candidate.save_scores) forward(t);
      auto const call = [&] { backward ? this->backward(t) : forward(t); };
      call();  // creates the primitives and warms up
      for (int i = 0; i < 2; i++) {
        double const time = steady_seconds(p_.threads, call);
        if (time > 1.3 * least) break;
        if (time < (same_alternatives(candidate, best) ? 1.0 : 0.97) * least) least = time, best = candidate;
      }
    };
    for (index_t rows : {32, 64, 128, 256, 512, 1024, 2048})
      if (rows == 64 || (rows < 2 * p_.chunk && (rows > 64 || p_.causal)))
        consider({std::min(rows, p_.chunk), false, false});
    plan other = best;
    if (p_.threads > 1) other.threaded_products = true, consider(other);
    other = best;
    if (can_save) other.save_scores = true, consider(other);
    set(best);
    if (best.save_scores) forward(t);
  }
  std::string describe() const {
    char text[120];
    std::snprintf(text, sizeof text, "rows in blocks of %lld, %s%s", static_cast<long long>(plan_.rows),
                  p_.threads == 1           ? "one thread"
                  : plan_.threaded_products ? "threads in the products"
                                            : "products on threads",
                  plan_.save_scores ? ", scores saved" : "");
    return text;
  }

  void forward(attention_tensors<T> const& t) {
    index_t const blocks = divide_up(p_.chunk, plan_.rows), tasks = p_.sequences() * p_.chunks() * blocks;
    each(tasks,
         [&](thread_state& h, index_t task, int inside) { forward_block(t, h, task / blocks, task % blocks, inside); });
  }
  void backward(attention_tensors<T> const& t) {
    each(p_.sequences() * p_.chunks(),
         [&](thread_state& h, index_t item, int inside) { backward_chunk(t, h, item, inside); });
  }

 private:
  struct thread_state {
    Gemm multiply;
    buffer<float> scores, grad, sum_k, sum_v;
    buffer<T> weights, score_grad;  // scores and grad as operands of products, if T is not fp32
  };
  static constexpr bool is_fp32 = std::is_same_v<T, float>;
  /// A chunk: its first row among those of all sequences, and its rows.
  struct chunk_rows {
    index_t first, rows;
  };

  /// Another alternative must be clearly faster, because few calls are timed.
  static bool same_alternatives(plan const& a, plan const& b) {
    return a.threaded_products == b.threaded_products && a.save_scores == b.save_scores;
  }
  static index_t padded(index_t chunk) { return (chunk + lanes - 1) / lanes * lanes + lanes; }
  static size_t count(index_t n) { return static_cast<size_t>(n); }
  size_t saved_bytes() const { return count(p_.sequences() * p_.length * row_) * sizeof(float); }
  void set(plan next) {
    plan_ = next;
    for (auto& h : states_) {
      h->scores = buffer<float>(count(next.rows * row_)), h->grad = buffer<float>(count(next.rows * row_));
      if (is_fp32) continue;
      h->weights = buffer<T>(count(next.rows * row_)), h->score_grad = buffer<T>(count(next.rows * row_));
      h->sum_k = buffer<float>(count(p_.chunk * p_.key_dim)), h->sum_v = buffer<float>(count(p_.chunk * p_.value_dim));
    }
    if (next.save_scores && saved_.size() == 0) saved_ = buffer<float>(saved_bytes() / sizeof(float));
  }
  chunk_rows at(index_t item) const {
    index_t const sequence = item / p_.chunks(), chunk = item % p_.chunks();
    return {sequence * p_.length + chunk * p_.chunk, p_.rows(chunk)};
  }

  template <class Body>
  void each(index_t tasks, Body const& body) {
    if (plan_.threaded_products) {
      Gemm::threads(p_.threads);
      for (index_t i = 0; i < tasks; i++) body(*states_[0], i, p_.threads);
      return;
    }
    Gemm::threads(1);
#pragma omp parallel for schedule(dynamic, 1) num_threads(p_.threads)
    for (index_t i = 0; i < tasks; i++) {
      int thread = 0;
#if defined(_OPENMP)
      thread = omp_get_thread_num();
#endif
      body(*states_[static_cast<size_t>(thread)], i, 1);
    }
    Gemm::threads(p_.threads);
  }
  index_t valid(chunk_rows const& c, index_t row) const { return p_.causal ? row + 1 : c.rows; }
  /// Keys that rows before `end` attend to.
  index_t width(chunk_rows const& c, index_t end) const { return p_.causal ? end : c.rows; }

  /// Rows of scores as an operand of a product.
  T const* operand(buffer<T>& converted, float const* from, index_t m, index_t keys, int inside) const {
    if constexpr (is_fp32) {
      return from;
    } else {
#pragma omp parallel for schedule(static) num_threads(inside) if (inside > 1)
      for (index_t i = 0; i < m; i++) narrow(converted.data() + i * row_, from + i * row_, 1.f, keys);
      return converted.data();
    }
  }
  /// Accumulator of a gradient in fp32: the output itself if it is fp32.
  static float* sums(buffer<float>& scratch, T* output) {
    if constexpr (is_fp32) {
      return output;
    } else {
      return scratch.data();
    }
  }

  void forward_block(attention_tensors<T> const& t, thread_state& with, index_t item, index_t block, int inside) {
    chunk_rows const c = at(item);
    index_t const z = p_.key_dim, h = p_.value_dim, r = block * plan_.rows, m = std::min(plan_.rows, c.rows - r);
    if (m <= 0) return;
    index_t const keys = width(c, r + m);
    T const *q = t.q + (c.first + r) * z, *k = t.k + c.first * z, *v = t.v + c.first * h;
    // Saved are the probabilities of a softmax, and the scores of laplace, whose derivative is not a function of its
    // value.
    float* const local = with.scores.data();
    float* const saved = plan_.save_scores ? saved_.data() + (c.first + r) * row_ : local;
    float* const scores = p_.function == score_function::laplace ? saved : local;
    float* const a = p_.function == score_function::laplace ? local : saved;
    with.multiply({m, keys, z, false, true}, q, z, k, z, scores, row_);
#pragma omp parallel for schedule(dynamic, 8) num_threads(inside) if (inside > 1)
    for (index_t i = 0; i < m; i++) {
      index_t const keys_in_row = valid(c, r + i);
      if (p_.function == score_function::softmax)
        t.lse[c.first + r + i] = softmax_row(scores + i * row_, a + i * row_, keys_in_row, keys, p_.scale(keys_in_row));
      else laplace_row(scores + i * row_, a + i * row_, keys_in_row, keys, p_.scale(keys_in_row));
    }
    with.multiply({m, h, keys}, operand(with.weights, a, m, keys, inside), row_, v, h, t.o + (c.first + r) * h, h);
  }

  void backward_chunk(attention_tensors<T> const& t, thread_state& with, index_t item, int inside) {
    chunk_rows const c = at(item);
    index_t const z = p_.key_dim, h = p_.value_dim;
    T const *k = t.k + c.first * z, *v = t.v + c.first * h;
    float *const sum_k = sums(with.sum_k, t.grad_k + c.first * z), *const sum_v =
                                                                       sums(with.sum_v, t.grad_v + c.first * h);
    bool add = false;  // the last block has all keys, so it initializes the sums
    for (index_t r = (c.rows - 1) / plan_.rows * plan_.rows; r >= 0; r -= plan_.rows, add = true) {
      index_t const m = std::min(plan_.rows, c.rows - r), keys = width(c, r + m);
      T const *q = t.q + (c.first + r) * z, *grad_o = t.grad_o + (c.first + r) * h;
      float *local = with.scores.data(), *const grad = with.grad.data();
      float* const saved = plan_.save_scores ? saved_.data() + (c.first + r) * row_ : local;
      if (!plan_.save_scores) with.multiply({m, keys, z, false, true}, q, z, k, z, local, row_);
      with.multiply({m, keys, h, false, true}, grad_o, h, v, h, grad, row_);
#pragma omp parallel for schedule(dynamic, 8) num_threads(inside) if (inside > 1)
      for (index_t i = 0; i < m; i++) {
        index_t const keys_in_row = valid(c, r + i), at_row = i * row_;
        float const scale = p_.scale(keys_in_row);
        if (p_.function == score_function::laplace) {
          laplace_backward_row(saved + at_row, local + at_row, grad + at_row, keys_in_row, keys, scale);
          continue;
        }
        float const delta = dot(grad_o + i * h, t.o + (c.first + r + i) * h, h);
        if (plan_.save_scores)
          softmax_backward_saved_row(saved + at_row, grad + at_row, keys_in_row, keys, scale, delta);
        else
          softmax_backward_row(local + at_row, grad + at_row, keys_in_row, keys, scale, t.lse[c.first + r + i], delta);
      }
      T const* const a = operand(with.weights, p_.function == score_function::laplace ? local : saved, m, keys, inside);
      T const* const score_grad = operand(with.score_grad, grad, m, keys, inside);
      with.multiply({keys, h, m, true, false, add}, a, row_, grad_o, h, sum_v, h);
      with.multiply({m, z, keys}, score_grad, row_, k, z, t.grad_q + (c.first + r) * z, z);
      with.multiply({keys, z, m, true, false, add}, score_grad, row_, q, z, sum_k, z);
    }
    if constexpr (!is_fp32) {
#pragma omp parallel for schedule(static) num_threads(inside) if (inside > 1)
      for (index_t i = 0; i < c.rows; i++) {
        narrow(t.grad_k + (c.first + i) * z, sum_k + i * z, 1.f, z);
        narrow(t.grad_v + (c.first + i) * h, sum_v + i * h, 1.f, h);
      }
    }
  }

  attention_problem p_;
  index_t row_;  ///< stride between rows of scores
  plan plan_;
  std::vector<std::unique_ptr<thread_state>> states_;
  buffer<float> saved_;
};

}  // namespace tcnca::bench
