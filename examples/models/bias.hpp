// Biases of relative positions that attention adds to its scores: a table, or MEGA's rotary form.
#pragma once
#include <tcnca/chunked_attention.hpp>

#include "memory.hpp"
#include "model.hpp"

namespace tcnca::models {

/// simple: a learned table of 2 chunk - 1 biases. rotary: two learned vectors of key_dim, from which the table is
/// computed.
template <class T, class E, class Attention>
class relative_bias {
 public:
  relative_bias(context<T, E>& c, bias_kind kind, index_t chunk, index_t key_dim)
      : kind_(kind), chunk_(chunk), key_dim_(key_dim) {
    if (kind == bias_kind::simple) {
      table_ = c.parameter(2 * chunk - 1, {.deviation = 0.02});
    } else {
      a_ = c.parameter(key_dim, {.deviation = 0.02}), b_ = c.parameter(key_dim, {.deviation = 0.02});
      table_ = c.kept.take(2 * chunk - 1), grad_table_ = c.kept.take(2 * chunk - 1);
    }
  }
  /// Computes the table from the parameters. Call before attention reads it.
  void forward(context<T, E> const& c) const {
    if (kind_ == bias_kind::simple) return;
    typename Attention::rotary_args r;
    r.a = vector(c.values[a_]), r.b = vector(c.values[b_]), r.bias = table(c), r.chunk = chunk_;
    require(Attention::rotary(c.executor(), r));
  }
  tensor_view<T, 2> table(context<T, E> const& c) const {
    return contiguous(kind_ == bias_kind::simple ? c.values[table_] : c.kept[table_], 1, 2 * chunk_ - 1);
  }
  tensor_view<T, 2> grad_table(context<T, E> const& c) const {
    return contiguous(kind_ == bias_kind::simple ? c.gradients[table_] : c.kept[grad_table_], 1, 2 * chunk_ - 1);
  }
  /// Call after the gradient of the table has been written.
  void backward(context<T, E> const& c) const {
    if (kind_ == bias_kind::simple) return;
    typename Attention::rotary_backward_args r;
    r.a = vector(c.values[a_]), r.b = vector(c.values[b_]), r.grad_bias = grad_table(c), r.chunk = chunk_;
    r.grad_a = vector(c.gradients[a_]), r.grad_b = vector(c.gradients[b_]);
    require(Attention::rotary_backward(c.executor(), r));
  }

 private:
  tensor_view<T, 2> vector(T* p) const { return contiguous(p, 1, key_dim_); }

  bias_kind kind_;
  index_t chunk_, key_dim_;
  region table_, grad_table_, a_, b_;
};

}  // namespace tcnca::models
