// What the generic backward pass does with the scores of a block: weights, gradients, sums along diagonals.
#pragma once
#include "../block/online_softmax.hpp"
#include "backward_params.hpp"
#include "products.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_backward : attention_products<Group, T, Shape, Policy> {
  using base = attention_products<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::operand;
  using base::group, base::in, base::W, base::softmax, base::shared_products, base::in_pairs, base::key_row,
      base::value_row, base::key_pair_row, base::value_pair_row;
  using params_type = chunked_attention_backward_params<T>;
  static constexpr int M = Policy.tile_rows, Br = Policy.query_block, Bc = Policy.key_block;
  // One thread reads a pack of zeros where a diagonal leaves the block: there is one on both sides of a row.
  static constexpr int margin = shared_products ? 0 : W, weight_row = Bc + 2 * margin;
  static constexpr int pair_row = Bc + W;  // of weights and derivatives in pairs of neighbouring queries

  params_type const& params;
  A* shared_memory;
  A* global_scratch;

  TCNCA_HOST_DEVICE A* at(memory_place const& m) const {
    if constexpr (shared_products) { return shared_memory + m.offset; }
    return (m.global_scratch ? global_scratch : shared_memory) + m.offset;
  }
  /// The same for the sums of gradients, which are in global scratch if there are many threads.
  TCNCA_HOST_DEVICE A* sums_at(memory_place const& m) const {
    if constexpr (shared_products) { return global_scratch + m.offset; }
    return at(m);
  }
  TCNCA_HOST_DEVICE operand* operands(memory_place const& m) const { return reinterpret_cast<operand*>(at(m)); }
  // Per query of the block: maximum and logarithm of the sum (softmax), and delta; with in_pairs also the scale.
  TCNCA_HOST_DEVICE A* row_maximum() const { return at(params.plan.statistics); }
  TCNCA_HOST_DEVICE A* row_delta() const { return row_maximum() + Br; }
  TCNCA_HOST_DEVICE A* row_log_sum() const { return row_maximum() + 2 * Br; }
  TCNCA_HOST_DEVICE A* row_scale() const { return row_maximum() + 3 * Br; }

  /// The blocks that only products of bf16 need: the second forms of queries and gradients of outputs, weights and dS.
  static void place_pairs(chunked_attention_backward_plan& plan, memory_planner<A>& memory) {
    plan.query_pairs = memory.place(size_t(divide_up(Br, 2)) * key_pair_row);
    plan.grad_output_pairs = memory.place(size_t(divide_up(Br, 2)) * value_pair_row);
    plan.weight_pairs = memory.place(size_t(divide_up(Br, 2)) * pair_row);
    plan.derivative_pairs = memory.place(size_t(divide_up(Br, 2)) * pair_row);
    plan.derivative_rows = memory.place(size_t(Br) * (pair_row / 2));
  }

  // The loads of one thread.
  TCNCA_HOST_DEVICE void load_key_block(attention_chunk const& chunk, int from, int count) const {
    auto const& plan = params.plan;
    auto const key = [&](int r) TCNCA_INLINE { return this->key(chunk, from + r); };
    auto const values = [&](int r) TCNCA_INLINE { return this->values(chunk, from + r); };
    operand *const key_columns = operands(plan.key_columns), *const value_columns = operands(plan.value_columns);
    if constexpr (in_pairs) {
      this->load_row_pairs(operands(plan.key), key_pair_row, count, in.key_dim(), key);
      this->load_transposed(key_columns, Bc, count, in.key_dim(), key);
      this->load_transposed(value_columns, Bc, count, in.value_dim(), values);
    } else {
      auto const one = [](int) TCNCA_INLINE { return A(1); };
      this->load_rows(at(plan.key), key_row, count, M, in.key_dim(), key);
      this->load_transposed(key_columns, Bc, count, in.key_dim(), key, one);
      this->load_transposed(value_columns, Bc, count, in.value_dim(), values, one);
    }
  }
  TCNCA_HOST_DEVICE void load_query_block(attention_chunk const& chunk, int first, int rows, int missing) const {
    auto const& plan = params.plan;
    auto const query = [&](int r) TCNCA_INLINE { return r >= missing ? this->query(chunk, first + r) : nullptr; };
    auto const scale = [&](int r) TCNCA_INLINE { return this->scale(chunk, first + r); };
    auto const grad_output = [&](int r) TCNCA_INLINE {
      return r >= missing ? params.grad_o.at(chunk.batch, chunk.head, this->sequence_index(chunk, first + r), 0)
                          : nullptr;
    };
    if constexpr (in_pairs) {
      this->load_rows(operands(plan.query), key_row, rows, M, in.key_dim(), query);
      this->load_row_pairs(operands(plan.query_pairs), key_pair_row, rows, in.key_dim(), query);
      this->load_row_pairs(operands(plan.grad_output_pairs), value_pair_row, rows, in.value_dim(), grad_output);
      this->load_factors(row_scale(), Br, rows, scale);
    } else {
      this->load_rows(at(plan.query), key_row, rows, M, in.key_dim(), query, scale);
    }
    this->load_rows(operands(plan.grad_output), value_row, rows, M, in.value_dim(), grad_output);
  }

  // The rows that products by many threads load; an existing one in place of one that does not exist.
  TCNCA_HOST_DEVICE auto query_rows(attention_chunk const& chunk, int first, int rows, int missing) const {
    return [=, this, &chunk](int r)
               TCNCA_INLINE { return this->query(chunk, first + max_of(missing, min_of(r, rows - 1))); };
  }
  TCNCA_HOST_DEVICE auto gradient_rows(attention_chunk const& chunk, int first, int rows, int missing) const {
    return [=, this, &chunk](int r) TCNCA_INLINE {
      index_t const t = this->sequence_index(chunk, first + max_of(missing, min_of(r, rows - 1)));
      return params.grad_o.at(chunk.batch, chunk.head, t, 0);
    };
  }
  TCNCA_HOST_DEVICE auto scales(attention_chunk const& chunk, int first) const {
    return [=, this, &chunk](int r) TCNCA_INLINE { return this->scale(chunk, first + r); };
  }

  /// The biases of the block's diagonals, and the statistics of its queries.
  TCNCA_HOST_DEVICE void load_statistics(attention_chunk const& chunk, int from, int first, int rows,
                                         int missing) const {
    if constexpr (Shape.bias) {
      for (int x = group.rank(); x < Bc + Br + W; x += group.size()) {
        index_t const d = in.chunk - 1 + from - first + x - (Br - 1);
        at(params.plan.bias)[x] = d >= 0 && d < in.bias.extent[1] ? *in.bias.at(chunk.head, d) : A(0);
      }
    }
    if constexpr (softmax) {
      for (int r = group.rank(); r < rows; r += group.size()) {
        index_t const t = this->sequence_index(chunk, first + r);
        bool const exists = r >= missing;
        row_maximum()[r] = exists ? detail::finite_maximum(*params.lse.at(chunk.batch, chunk.head, t, 0)) : A(0);
        row_delta()[r] = exists ? params.delta[params.delta_index(chunk, first + r)] : A(0);
        row_log_sum()[r] = exists ? *params.lse.at(chunk.batch, chunk.head, t, 1) : A(0);
      }
    }
  }

  /// Replaces the products Q K^T by weights and dO V^T by the gradients of scores.
  TCNCA_HOST_DEVICE void compute_derivatives(attention_chunk const& chunk, int from, int count, int first, int rows,
                                             int missing) const {
    auto const& plan = params.plan;
    // One more of zeros, for the diagonals. Tiles of many threads read whole blocks.
    int const packs = shared_products ? Bc / W : min_of(divide_up(count, W) + 1, Bc / W + 1);
    value const zero = broadcast<W>(A(0));
    [[maybe_unused]] A const distance_factor = this->distance_factor(chunk);
    auto const weight_and_derivative = [&](int i, int n) TCNCA_INLINE {
      int const hidden = max_of(0, this->hidden(first + i) - from);
      int const j = n * W,
                visible = i < missing || i >= rows ? 0 : min_of(this->visible(chunk, first + i) - from, count);
      A const* const weight = at(plan.weight) + i * weight_row + margin + j;
      A const* const derivative = at(plan.derivative) + i * weight_row + margin + j;
      value p = zero, ds = zero;
      if (j < visible && (!Shape.window || j + W > hidden)) {
        value s = tcnca::load<W>(weight);
        if constexpr (Shape.bias) {
          s = materialize(s + load_anywhere<W>(const_cast<A const*>(at(plan.bias)) + Br - 1 - i + j));
        }
        if constexpr (Shape.alibi) {
          value distance = broadcast<W>(A(first + i - from - j));
          TCNCA_UNROLL
          for (int w = 0; w < W; w++) distance.set_lane(w, distance.lane(w) - A(w));
          s = materialize(base::add_alibi(s, distance_factor, distance));
        }
        value dp = tcnca::load<W>(derivative), factors = broadcast<W>(A(1));
        if constexpr (Shape.dropout) {
          factors = this->dropout_factors(chunk, first + i, from + j);
          dp = dp * factors;
        }
        if constexpr (softmax) {
          // Two subtractions, kept apart: -ffast-math would add the logarithm to a large maximum first, which rounds it
          // away.
          p = detail::exp_or_zero(materialize(s - broadcast<W>(row_maximum()[i])) - broadcast<W>(row_log_sum()[i]));
          ds = p * (dp - broadcast<W>(row_delta()[i]));
        } else {
          auto const a = detail::attention_weight<Shape.function>(s);
          p = a.value, ds = a.derivative * dp;
        }
        if constexpr (Shape.dropout) { p = p * factors; }
        if (visible - j < W) {  // the other lanes are masked
          value remaining = broadcast<W>(A(visible - j) - A(0.5));
          TCNCA_UNROLL
          for (int w = 0; w < W; w++) remaining.set_lane(w, remaining.lane(w) - A(w));
          p = select_positive(remaining, p, zero), ds = select_positive(remaining, ds, zero);
        }
        if constexpr (Shape.window) {
          TCNCA_UNROLL
          for (int w = 0; w < W; w++)
            if (j + w < hidden) p.set_lane(w, A(0)), ds.set_lane(w, A(0));
        }
      }
      return value_and_derivative<A, W>{p, ds};
    };
    if constexpr (in_pairs) {
      for_each_pair(group, divide_up(rows, 2), packs, [&](int r, int n) TCNCA_INLINE {
        value p[2] = {zero, zero}, ds[2] = {zero, zero}, scaled[2] = {zero, zero};
        for (int h = 0; h < 2 && 2 * r + h < rows; h++) {
          int const i = 2 * r + h;
          auto const x = weight_and_derivative(i, n);
          p[h] = x.value, ds[h] = x.derivative, scaled[h] = ds[h] * broadcast<W>(row_scale()[i]);
          if constexpr (Shape.bias) { tcnca::store<W>(at(plan.derivative) + i * weight_row + margin + n * W, ds[h]); }
          tcnca::store<W>(reinterpret_cast<T*>(operands(plan.derivative_rows) + i * (pair_row / 2)) + n * W, ds[h]);
        }
        tcnca::store<W>(operands(plan.weight_pairs) + r * pair_row + n * W, make_pairs(p[0], p[1]));
        tcnca::store<W>(operands(plan.derivative_pairs) + r * pair_row + n * W, make_pairs(scaled[0], scaled[1]));
      });
    } else {
      for_each_pair(group, shared_products ? round_up(rows, M) : rows, packs, [&](int i, int n) TCNCA_INLINE {
        auto const x = weight_and_derivative(i, n);
        int const at_pack = i * weight_row + margin + n * W;
        tcnca::store<W>(at(plan.weight) + at_pack, x.value);
        tcnca::store<W>(at(plan.derivative) + at_pack, x.derivative);
      });
    }
  }

  /// The gradients of the biases: sums of dS along the diagonals of the block, a pack of neighbouring diagonals at a
  /// time.
  TCNCA_HOST_DEVICE void add_diagonals(A* sums, int count, int rows, int diagonal) const {
    A const* const derivative = at(params.plan.derivative) + margin;
    index_t const length = 2 * in.rows() - 1, origin = in.rows() - 1 + diagonal - (Br - 1);
    if constexpr (shared_products) {
      for (int x = group.rank(); x < count + Br - 1; x += group.size()) {
        int const column = x - (Br - 1);  // of row 0
        A sum = 0;
        for (int i = max_of(0, -column); i < min_of(rows, count - column); i++)
          sum += derivative[i * weight_row + column + i];
        if (origin + x >= 0 && origin + x < length) sums[origin + x] += sum;
      }
    } else {
      for (int x = group.rank() * W; x < count + Br; x += group.size() * W) {
        value sum = broadcast<W>(A(0));
        int const column = x - (Br - 1);  // of row 0
        for (int i = max_of(0, 1 - W - column); i < min_of(rows, count - column); i++)
          sum = sum + load_anywhere<W>(derivative + i * weight_row + column + i);
        A* const to = sums + origin + x;
        if (origin + x >= 0 && origin + x + W <= length) {
          tcnca::store<W>(to, load<W>(const_cast<A const*>(to)) + sum);
        } else {
          TCNCA_UNROLL
          for (int w = 0; w < W; w++)
            if (origin + x + w >= 0 && origin + x + w < length) to[w] += sum.lane(w);
        }
      }
    }
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
