// Chunked attention as one builds it of a library's matrix product on the CPU: S = Q K', a pass over S, O = P V; backward five products
// and a pass. The opponent of tcnca::chunked_attention, so it does what a careful author would:
// - rows in blocks, so that the scores stay in a cache, and under the causal mask each block sees keys up to its own end only;
// - rows of scores are padded, so that a power of two does not alias in the caches;
// - blocks (forward) or chunks (backward) on threads with one-threaded products, or one after another with threaded products;
// - backward recomputes the scores, or finds them kept by the forward pass.
// The size of the block and both choices are made by trying, for the problem at hand. T is the element type of the products: fp32, or
// bf16 with scores, the pass over them and sums in fp32.
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
  /// How the work is cut.
  struct plan {
    index_t rows = 256;
    bool threads_inside = false, keep = false;
  };

  explicit attention_by_products(attention_problem const& p) : p_(p), row_(padded(p.chunk)) {
    helpers_.resize(static_cast<size_t>(p.threads));
    for (auto& h : helpers_) h = std::make_unique<helper>();
    set({std::min<index_t>(256, p.chunk), false, false});
  }

  /// Finds the best plan for a direction, by trying each choice after the other.
  void choose(attention_tensors<T> const& t, bool backward) {
    bool const could_keep = backward && kept_bytes() <= size_t{1} << 30;
    plan best = plan_;
    double least = 1e300;
    auto const consider = [&](plan candidate) {
      set(candidate);
      if (candidate.keep) forward(t);
      auto const call = [&] { backward ? this->backward(t) : forward(t); };
      call();  // makes the products, and warms the memory
      for (int i = 0; i < 2; i++) {
        double const time = steady_seconds(p_.threads, call);
        if (time > 1.3 * least) break;
        if (time < (same_kind(candidate, best) ? 1.0 : 0.97) * least) least = time, best = candidate;
      }
    };
    for (index_t rows : {32, 64, 128, 256, 512, 1024, 2048})
      if (rows == 64 || (rows < 2 * p_.chunk && (rows > 64 || p_.causal)))
        consider({std::min(rows, p_.chunk), false, false});
    plan other = best;
    if (p_.threads > 1) other.threads_inside = true, consider(other);
    other = best;
    if (could_keep) other.keep = true, consider(other);
    set(best);
    if (best.keep) forward(t);
  }
  std::string describe() const {
    char text[120];
    std::snprintf(text, sizeof text, "rows in blocks of %lld, %s%s", static_cast<long long>(plan_.rows),
                  p_.threads == 1        ? "one thread"
                  : plan_.threads_inside ? "threads in the products"
                                         : "products on threads",
                  plan_.keep ? ", scores kept" : "");
    return text;
  }

  void forward(attention_tensors<T> const& t) {
    index_t const blocks = divide_up(p_.chunk, plan_.rows), tasks = p_.sequences() * p_.chunks() * blocks;
    each(tasks,
         [&](helper& h, index_t task, int inside) { forward_block(t, h, task / blocks, task % blocks, inside); });
  }
  void backward(attention_tensors<T> const& t) {
    each(p_.sequences() * p_.chunks(),
         [&](helper& h, index_t item, int inside) { backward_chunk(t, h, item, inside); });
  }

 private:
  struct helper {
    Gemm multiply;
    buffer<float> scores, grad, sum_k, sum_v;
    buffer<T> weights, slopes;  // scores and grad as operands, where that is another type
  };
  static constexpr bool plain = std::is_same_v<T, float>;
  /// Where a chunk lies: its rows, and its first row among those of all sequences.
  struct place {
    index_t first, rows;
  };

  /// A change of kind must be worth it: the choice is made on few calls.
  static bool same_kind(plan const& a, plan const& b) {
    return a.threads_inside == b.threads_inside && a.keep == b.keep;
  }
  static index_t padded(index_t chunk) { return (chunk + lanes - 1) / lanes * lanes + lanes; }
  static size_t count(index_t n) { return static_cast<size_t>(n); }
  size_t kept_bytes() const { return count(p_.sequences() * p_.length * row_) * sizeof(float); }
  void set(plan next) {
    plan_ = next;
    for (auto& h : helpers_) {
      h->scores = buffer<float>(count(next.rows * row_)), h->grad = buffer<float>(count(next.rows * row_));
      if (plain) continue;
      h->weights = buffer<T>(count(next.rows * row_)), h->slopes = buffer<T>(count(next.rows * row_));
      h->sum_k = buffer<float>(count(p_.chunk * p_.key_dim)), h->sum_v = buffer<float>(count(p_.chunk * p_.value_dim));
    }
    if (next.keep && kept_.size() == 0) kept_ = buffer<float>(kept_bytes() / sizeof(float));
  }
  place at(index_t item) const {
    index_t const sequence = item / p_.chunks(), chunk = item % p_.chunks();
    return {sequence * p_.length + chunk * p_.chunk, p_.rows(chunk)};
  }

  template <class Body>
  void each(index_t tasks, Body const& body) {
    if (plan_.threads_inside) {
      Gemm::threads(p_.threads);
      for (index_t i = 0; i < tasks; i++) body(*helpers_[0], i, p_.threads);
      return;
    }
    Gemm::threads(1);
#pragma omp parallel for schedule(dynamic, 1) num_threads(p_.threads)
    for (index_t i = 0; i < tasks; i++) {
      int thread = 0;
#if defined(_OPENMP)
      thread = omp_get_thread_num();
#endif
      body(*helpers_[static_cast<size_t>(thread)], i, 1);
    }
    Gemm::threads(p_.threads);
  }
  index_t valid(place const& c, index_t row) const { return p_.causal ? row + 1 : c.rows; }
  /// Keys that rows below `end` see.
  index_t width(place const& c, index_t end) const { return p_.causal ? end : c.rows; }

  /// Rows as an operand of a product.
  T const* operand(buffer<T>& room, float const* from, index_t m, index_t keys, int inside) const {
    if constexpr (plain) {
      return from;
    } else {
#pragma omp parallel for schedule(static) num_threads(inside) if (inside > 1)
      for (index_t i = 0; i < m; i++) narrow(room.data() + i * row_, from + i * row_, 1.f, keys);
      return room.data();
    }
  }
  /// Where the sums of a chunk are made: at their place if they are fp32.
  static float* sums(buffer<float>& room, T* place) {
    if constexpr (plain) {
      return place;
    } else {
      return room.data();
    }
  }

  void forward_block(attention_tensors<T> const& t, helper& with, index_t item, index_t block, int inside) {
    place const c = at(item);
    index_t const z = p_.key_dim, h = p_.value_dim, r = block * plan_.rows, m = std::min(plan_.rows, c.rows - r);
    if (m <= 0) return;
    index_t const keys = width(c, r + m);
    T const *q = t.q + (c.first + r) * z, *k = t.k + c.first * z, *v = t.v + c.first * h;
    // Kept are the probabilities of a softmax, and the scores of laplace: its slope is no function of its value.
    float* const own = with.scores.data();
    float* const kept = plan_.keep ? kept_.data() + (c.first + r) * row_ : own;
    float* const scores = p_.function == score_function::laplace ? kept : own;
    float* const a = p_.function == score_function::laplace ? own : kept;
    with.multiply({m, keys, z, false, true}, q, z, k, z, scores, row_);
#pragma omp parallel for schedule(dynamic, 8) num_threads(inside) if (inside > 1)
    for (index_t i = 0; i < m; i++) {
      index_t const seen = valid(c, r + i);
      if (p_.function == score_function::softmax)
        t.lse[c.first + r + i] = softmax_row(scores + i * row_, a + i * row_, seen, keys, p_.scale(seen));
      else laplace_row(scores + i * row_, a + i * row_, seen, keys, p_.scale(seen));
    }
    with.multiply({m, h, keys}, operand(with.weights, a, m, keys, inside), row_, v, h, t.o + (c.first + r) * h, h);
  }

  void backward_chunk(attention_tensors<T> const& t, helper& with, index_t item, int inside) {
    place const c = at(item);
    index_t const z = p_.key_dim, h = p_.value_dim;
    T const *k = t.k + c.first * z, *v = t.v + c.first * h;
    float *const sum_k = sums(with.sum_k, t.grad_k + c.first * z), *const sum_v =
                                                                       sums(with.sum_v, t.grad_v + c.first * h);
    bool add = false;  // the last block sees all keys: it begins the sums
    for (index_t r = (c.rows - 1) / plan_.rows * plan_.rows; r >= 0; r -= plan_.rows, add = true) {
      index_t const m = std::min(plan_.rows, c.rows - r), keys = width(c, r + m);
      T const *q = t.q + (c.first + r) * z, *grad_o = t.grad_o + (c.first + r) * h;
      float *own = with.scores.data(), *const grad = with.grad.data();
      float* const kept = plan_.keep ? kept_.data() + (c.first + r) * row_ : own;
      if (!plan_.keep) with.multiply({m, keys, z, false, true}, q, z, k, z, own, row_);
      with.multiply({m, keys, h, false, true}, grad_o, h, v, h, grad, row_);
#pragma omp parallel for schedule(dynamic, 8) num_threads(inside) if (inside > 1)
      for (index_t i = 0; i < m; i++) {
        index_t const seen = valid(c, r + i), at_row = i * row_;
        float const scale = p_.scale(seen);
        if (p_.function == score_function::laplace) {
          laplace_backward_row(kept + at_row, own + at_row, grad + at_row, seen, keys, scale);
          continue;
        }
        float const delta = dot(grad_o + i * h, t.o + (c.first + r + i) * h, h);
        if (plan_.keep) softmax_backward_kept_row(kept + at_row, grad + at_row, seen, keys, scale, delta);
        else softmax_backward_row(own + at_row, grad + at_row, seen, keys, scale, t.lse[c.first + r + i], delta);
      }
      T const* const a = operand(with.weights, p_.function == score_function::laplace ? own : kept, m, keys, inside);
      T const* const slopes = operand(with.slopes, grad, m, keys, inside);
      with.multiply({keys, h, m, true, false, add}, a, row_, grad_o, h, sum_v, h);
      with.multiply({m, z, keys}, slopes, row_, k, z, t.grad_q + (c.first + r) * z, z);
      with.multiply({keys, z, m, true, false, add}, slopes, row_, q, z, sum_k, z);
    }
    if constexpr (!plain) {
#pragma omp parallel for schedule(static) num_threads(inside) if (inside > 1)
      for (index_t i = 0; i < c.rows; i++) {
        narrow(t.grad_k + (c.first + i) * z, sum_k + i * z, 1.f, z);
        narrow(t.grad_v + (c.first + i) * h, sum_v + i * h, 1.f, h);
      }
    }
  }

  attention_problem p_;
  index_t row_;  ///< room of a row of scores
  plan plan_;
  std::vector<std::unique_ptr<helper>> helpers_;
  buffer<float> kept_;
};

}  // namespace tcnca::bench
