// The extents of an attention benchmark, the work that counts for it, and the tensors that its contenders share.
#pragma once
#include <algorithm>
#include <string>

#include <tcnca/core/config.hpp>

namespace tcnca::bench {

/// The compared functions of the scores, a part of tcnca::attention_function.
enum class score_function { softmax, laplace };
inline char const* to_string(score_function f) { return f == score_function::softmax ? "softmax" : "laplace"; }

/// q, k [batch, heads, length, key_dim], v, o [batch, heads, length, value_dim], contiguous; chunks of `chunk` rows.
struct attention_problem {
  index_t batch = 1, heads = 1, length = 0, chunk = 0, key_dim = 0, value_dim = 0;
  score_function function = score_function::softmax;
  bool causal = false;
  int threads = 1;

  index_t sequences() const { return batch * heads; }
  index_t chunks() const { return (length + chunk - 1) / chunk; }
  /// Rows of chunk `c`; the last chunk may be short.
  index_t rows(index_t c) const { return std::min(chunk, length - c * chunk); }
  index_t key_elements() const { return sequences() * length * key_dim; }
  index_t value_elements() const { return sequences() * length * value_dim; }

  /// Scale of the scores in a row with `valid` keys.
  float scale(index_t valid) const;
};

inline float attention_problem::scale(index_t valid) const {
  return function == score_function::softmax ? 1 / __builtin_sqrtf(static_cast<float>(key_dim))
                                             : 1 / static_cast<float>(valid);
}

/// Pairs of a query and a key that is not masked.
inline double valid_pairs(attention_problem const& p) {
  double pairs = 0;
  for (index_t c = 0; c < p.chunks(); c++) {
    auto const n = static_cast<double>(p.rows(c));
    pairs += p.causal ? n * (n + 1) / 2 : n * n;
  }
  return pairs * static_cast<double>(p.sequences());
}

/// Operations of the matrix products for valid pairs, z the key and h the value dimension. Forward: 2 (z + h) per pair.
/// Backward: 2 (3 z + 2 h), for the recomputed scores, their gradient, and the gradients of q, k and v.
inline double useful_operations(attention_problem const& p, bool backward) {
  auto const z = static_cast<double>(p.key_dim), h = static_cast<double>(p.value_dim);
  return valid_pairs(p) * (backward ? 2 * (3 * z + 2 * h) : 2 * (z + h));
}

/// Tensors in memory of the device. The forward pass writes `o` and `lse` (two numbers per query); the backward pass
/// of the same contender reads them.
template <class T>
struct attention_tensors {
  T const *q, *k, *v, *grad_o;
  T* o;
  float* lse;
  T *grad_q, *grad_k, *grad_v;
};

}  // namespace tcnca::bench
