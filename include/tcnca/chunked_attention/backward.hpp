// The generic backward pass: any element type, CPU and GPU. Scores and weights are computed again from lse; no two
// groups add to one number.
//
//   item      a chunk of one head, or one of `splits` shares of its keys (blocks of Bc keys, taken in turn)
//   loop      over the blocks of Bc keys, and for each over the blocks of Br queries that see it:
//               S = Q K^T, dP = dO V^T    register tiles, one thread each
//               P, dS                     a thread per pack of keys
//               dV += P^T dO, dK += dS^T Q, dQ += dS K, and the sums of dS along diagonals (biases)
//   memory    the blocks of the plan. Many threads: P, dS and the panel of products.hpp are in shared memory, the sums
//             in the group's scratch. dK, dV are complete after a block of keys. dQ of the chunk stays with the group,
//             or, with splits, goes to query_sums; the reduce agent adds the shares
//   threads   each has a register tile of S, of dP, and of each panel of dV, dK and dQ
//   barriers  two for each panel of an operand; after S and dP, after P and dS, and after the products; one after a
//             block of keys
//
// With Policy.bf16_products, operands of products are pairs of bf16, neighbouring terms of the sums. Weights and dS are
// rounded; the scale multiplies S, and dS where it is multiplied by the queries.
#pragma once
#include "../block/agent.hpp"
#include "backward_scores.hpp"

namespace tcnca::inline TCNCA_TARGET {

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_backward_agent : detail::attention_backward<Group, T, Shape, Policy> {
  using base = detail::attention_backward<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tile, typename base::operand;
  using base::group, base::in, base::W, base::softmax, base::key_row, base::value_row, base::shared_products;
  using base::key_pair_row, base::value_pair_row, base::in_pairs, base::terms, base::operands, base::pair_row;
  using base::params, base::at, base::sums_at, base::M, base::Br, base::Bc, base::weight_row, base::margin;
  using params_type = chunked_attention_backward_params<T>;
  static_assert(Policy.valid_backward(), "tcnca::chunked_attention: a backward policy's blocks must be whole tiles");
  static_assert(!shared_products || base::fits(Br * (2 * Bc + 4) + Bc),
                "tcnca::chunked_attention: a backward policy's blocks must fit in its shared memory");

  TCNCA_HOST_DEVICE chunked_attention_backward_agent(Group g, params_type const& p, A* shared, A* scratch)
      : base{{{g, p.in}}, p, shared, scratch} {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) { return p.in.key_chunks() * p.plan.splits; }
  static group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = p.plan.shared_memory * sizeof(A),
            .global_scratch_bytes = p.plan.global_scratch * sizeof(A)};
  }

  /// `rows`: of the longest part of a chunk; `chunks`: of all heads of keys and sequences; `heads`: that share a head
  /// of keys.
  static chunked_attention_backward_plan plan_for(int key_dim, int value_dim, index_t rows, index_t chunks,
                                                  index_t heads) {
    chunked_attention_backward_plan plan;
    memory_planner<A> memory{Policy.shared_memory_bytes};
    plan.query_row = round_up(key_dim, tile::columns);
    plan.value_row = round_up(value_dim, tile::columns) + W;
    plan.splits = int(min_of(divide_up(index_t(Policy.splits), max_of(index_t(1), chunks)), max_splits(key_dim, rows)));
    plan.statistics = memory.place(size_t((in_pairs ? 4 : 3) * Br));
    plan.weight = memory.place(size_t(Br) * weight_row);
    plan.derivative = memory.place(size_t(Br) * weight_row);
    if (Shape.bias) plan.bias = memory.place(size_t(Bc + Br + W));
    if constexpr (shared_products) {
      plan.panel = memory.place(memory_space::shared, size_t(base::panel_elements));
      plan.grad_key = memory.place(memory_space::global, size_t(Bc) * size_t(plan.query_row));
      plan.grad_value = memory.place(memory_space::global, size_t(Bc) * size_t(plan.value_row));
      if (plan.splits == 1)
        plan.grad_query = memory.place(memory_space::global, size_t(heads * rows) * size_t(plan.query_row));
      plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
      return plan;
    }
    plan.query = memory.place(size_t(Br) * key_row);
    plan.key_columns = memory.place(size_t(divide_up(key_dim, terms)) * Bc);
    plan.key = memory.place(size_t(Bc / terms) * key_pair_row);
    plan.grad_key = memory.place(size_t(Bc) * size_t(plan.query_row));
    plan.grad_output = memory.place(size_t(Br) * value_row);
    plan.value_columns = memory.place(size_t(divide_up(value_dim, terms)) * Bc);
    if constexpr (in_pairs) { base::place_pairs(plan, memory); }
    plan.grad_value = memory.place(size_t(Bc) * size_t(plan.value_row));
    if (plan.splits == 1) plan.grad_query = memory.place(size_t(heads * rows) * size_t(plan.query_row));
    plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
    return plan;
  }

  /// Most items per chunk: each has at least one block of keys, and query_sums stay smaller than the scores of the
  /// chunk would be.
  static index_t max_splits(int key_dim, index_t rows) {
    return max_of(index_t(1), min_of(divide_up(rows, index_t(Bc)), rows / key_dim));
  }
  /// Items that bias_sums and query_sums have room for. Upper bounds, so that a larger call never needs less workspace.
  static index_t max_bias_items(int key_dim, index_t rows, index_t chunks) {
    return max_of(chunks, max_query_items(key_dim, rows, chunks));
  }
  static index_t max_query_items(int key_dim, index_t rows, index_t chunks) {
    index_t const splits = max_splits(key_dim, rows);
    return splits > 1 ? min_of(index_t(2 * Policy.splits), chunks * splits) : 0;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    int const splits = params.plan.splits;
    number_ = this->first_of_group(item / splits);
    chunk_ = this->chunk_of(number_);
    bias_sums_ = params.bias_sums + item * this->heads_per_key() * (2 * in.rows() - 1);
    grad_query_ = splits == 1 ? sums_at(params.plan.grad_query)
                              : params.query_sums + item * this->heads_per_key() * in.rows() * params.plan.query_row;
    for_each_head([&]() TCNCA_INLINE { clear_sums(); });
    for (int from = int(item % splits) * Bc; from < chunk_.last; from += splits * Bc)
      process_key_block(from, min_of(Bc, chunk_.last - from));
    if (splits == 1 && params.wants_queries()) for_each_head([&]() TCNCA_INLINE { store_query_gradients(); });
    group.sync();  // the next item reuses the memory
  }

 private:
  index_t number_;  // of the chunk of the first head
  detail::attention_chunk chunk_;
  A* bias_sums_;   // of the head of chunk_
  A* grad_query_;  // the same

  /// Calls f for each head of queries that shares the keys.
  template <class F>
  TCNCA_HOST_DEVICE void for_each_head(F f) {
    if constexpr (Shape.grouped) {
      A *const bias_sums = bias_sums_, *const grad_query = grad_query_;
      for (index_t g = 0; g < this->heads_per_key(); g++) {
        chunk_ = this->chunk_of(number_ + g * in.chunks());
        bias_sums_ = bias_sums + g * (2 * in.rows() - 1);
        grad_query_ = grad_query + g * in.rows() * params.plan.query_row;
        f();
      }
      bias_sums_ = bias_sums, grad_query_ = grad_query;
    } else {
      f();
    }
  }

  /// No barrier: what it writes is first read after the barriers of the first block.
  TCNCA_HOST_DEVICE void clear_sums() const {
    if constexpr (Shape.bias) {
      for (index_t i = group.rank(); i < 2 * in.rows() - 1; i += group.size()) bias_sums_[i] = A(0);
    }
    int const row = params.plan.query_row;
    for (index_t i = index_t(chunk_.first / Br * Br) * row + group.rank() * W; i < index_t(chunk_.last) * row;
         i += group.size() * W)
      tcnca::store<W>(grad_query_ + i, broadcast<W>(A(0)));
    if constexpr (!shared_products) {
      for (int i = 0; i < Br; i++) tcnca::store<W>(at(params.plan.derivative) + i * weight_row, broadcast<W>(A(0)));
    }
  }

  /// The gradients of the keys [from, from + count) and their values, and what they add to those of the queries.
  TCNCA_HOST_DEVICE void process_key_block(int from, int count) {
    if constexpr (!shared_products) { this->load_key_block(chunk_, from, count); }
    int const begin = Shape.causal ? max_of(from, chunk_.first) : chunk_.first;
    int some_valid = 0;
    for_each_head([&]() TCNCA_INLINE {
      int const valid = min_of(count, chunk_.keys - from);
      int const end =
          Shape.window ? min_of(this->query_end(chunk_), from + count - 1 + in.window) : this->query_end(chunk_);
      for (int query = begin / Br * Br; query < end && begin < end && valid > 0; query += Br) {
        process_query_block(from, valid, query, min_of(Br, end - query), some_valid);
        some_valid = max_of(some_valid, valid);
      }
    });
    store_gradients(from, count, some_valid);
    group.sync();
  }

  /// The part of the queries [first, first + rows), of which those before chunk_.first do not exist. have: keys whose
  /// gradients have been begun.
  TCNCA_HOST_DEVICE void process_query_block(int from, int count, int first, int rows, int have) const {
    int const missing = max_of(0, chunk_.first - first),
              diagonal = from - first;  // key j of the block is seen by the queries from diagonal + j on
    if constexpr (shared_products) {
      this->load_statistics(chunk_, from, first, rows, missing);
      multiply_together(from, count, first, rows, missing);
    } else {
      this->load_query_block(chunk_, first, rows, missing);
      this->load_statistics(chunk_, from, first, rows, missing);
      compute_products(count, rows, diagonal);
    }
    group.sync();
    this->compute_derivatives(chunk_, from, count, first, rows, missing);
    group.sync();
    if constexpr (shared_products) {
      add_products_together(from, count, first, rows, missing, have);
    } else {
      add_products(count, rows, diagonal, first, have);
    }
    if constexpr (Shape.bias) {
      if (params.wants_biases()) this->add_diagonals(bias_sums_, count, rows, diagonal);
    }
    group.sync();
  }

  /// weight = Q K^T, derivative = dO V^T.
  TCNCA_HOST_DEVICE void compute_products(int count, int rows, int diagonal) const {
    auto const& plan = params.plan;
    A *const weight = at(plan.weight) + margin, *const derivative = at(plan.derivative) + margin;
    for_each_tile<tile>(group, rows, count, [&](int i, int j) TCNCA_INLINE {
      if (Shape.causal && i + M <= diagonal + j) return;                              // fully masked
      if (Shape.window && i >= diagonal + j + tile::columns - 1 + in.window) return;  // fully masked
      tile t;
      t.clear();
      t.template add<key_row, 1, Bc>(operands(plan.query) + i * key_row, operands(plan.key_columns) + j, 0,
                                     in.key_dim());
      if constexpr (in_pairs) { t.scale_rows(this->row_scale() + i); }
      t.store(weight + i * weight_row + j, weight_row);
      t.clear();
      t.template add<value_row, 1, Bc>(operands(plan.grad_output) + i * value_row, operands(plan.value_columns) + j, 0,
                                       in.value_dim());
      t.store(derivative + i * weight_row + j, weight_row);
    });
  }

  /// dV += P^T dO, dK += dS^T Q, dQ += dS K.
  TCNCA_HOST_DEVICE void add_products(int count, int rows, int diagonal, int first, int have) const {
    auto const& plan = params.plan;
    // Operands of sums over queries and, derivative_rows, keys.
    constexpr int sum_row = in_pairs ? pair_row : weight_row, derivative_row = in_pairs ? pair_row / 2 : weight_row;
    operand const *const weight = in_pairs ? operands(plan.weight_pairs) : operands(plan.weight) + margin,
                         *const derivative =
                             in_pairs ? operands(plan.derivative_pairs) : operands(plan.derivative) + margin,
                         *const derivative_rows = in_pairs ? operands(plan.derivative_rows) : derivative,
                         *const query = operands(in_pairs ? plan.query_pairs : plan.query),
                         *const grad_output = operands(in_pairs ? plan.grad_output_pairs : plan.grad_output),
                         *const key = operands(plan.key);
    auto const begin = [&](tile& t, A const* sums, int row, [[maybe_unused]] int j) TCNCA_INLINE {
      if (have <= j) t.clear();
      else t.load(sums, row, [](int, value v) TCNCA_INLINE { return v; });
    };
    A *const grad_value = sums_at(plan.grad_value), *const grad_key = sums_at(plan.grad_key);
    for_each_tile<tile>(group, params.wants_values() ? count : 0, in.value_dim(), [&](int j, int c) TCNCA_INLINE {
      tile t;
      A* const to = grad_value + j * plan.value_row + c;
      begin(t, to, plan.value_row, j);
      if constexpr (Shape.window) {
        t.template add_band<1, sum_row, value_pair_row>(weight + j, grad_output + c, rows, diagonal + j,
                                                        diagonal + j + in.window - 1);
      } else if constexpr (Shape.causal) {
        t.template add_above<1, sum_row, value_pair_row>(weight + j, grad_output + c, rows, diagonal + j);
      } else {
        t.template add<1, sum_row, value_pair_row>(weight + j, grad_output + c, 0, rows);
      }
      t.store(to, plan.value_row);
    });
    for_each_tile<tile>(group, params.wants_keys() ? count : 0, in.key_dim(), [&](int j, int c) TCNCA_INLINE {
      tile t;
      A* const to = grad_key + j * plan.query_row + c;
      begin(t, to, plan.query_row, j);
      if constexpr (Shape.window) {
        t.template add_band<1, sum_row, key_pair_row>(derivative + j, query + c, rows, diagonal + j,
                                                      diagonal + j + in.window - 1);
      } else if constexpr (Shape.causal) {
        t.template add_above<1, sum_row, key_pair_row>(derivative + j, query + c, rows, diagonal + j);
      } else {
        t.template add<1, sum_row, key_pair_row>(derivative + j, query + c, 0, rows);
      }
      t.store(to, plan.query_row);
    });
    for_each_tile<tile>(group, params.wants_queries() ? rows : 0, in.key_dim(), [&](int i, int c) TCNCA_INLINE {
      tile t;
      A* const to = grad_query_ + index_t(first + i) * plan.query_row + c;
      int const present = min_of(M, rows - i);
      t.load_some(to, plan.query_row, present);
      if constexpr (Shape.window) {
        t.template add_band<derivative_row, 1, key_pair_row>(derivative_rows + i * derivative_row, key + c, count,
                                                             i - diagonal + 1 - in.window, i - diagonal);
      } else if constexpr (Shape.causal) {
        t.template add_below<derivative_row, 1, key_pair_row>(derivative_rows + i * derivative_row, key + c, count,
                                                              i - diagonal);
      } else {
        t.template add<derivative_row, 1, key_pair_row>(derivative_rows + i * derivative_row, key + c, 0, count);
      }
      t.store_some(to, plan.query_row, present);
    });
  }

  /// compute_products() by many threads, with loads.
  TCNCA_HOST_DEVICE void multiply_together(int from, int count, int first, int rows, int missing) const {
    auto const& plan = params.plan;
    tile_place const p = place_of_tile<tile, Br, Bc>(group);
    bool const active = p.row < rows && p.column < count && !(Shape.causal && first + p.row + M <= from + p.column) &&
                        !(Shape.window && first + p.row >= from + p.column + tile::extent - 1 + in.window);
    tile t;
    t.clear();
    this->template multiply_rows<Br, Bc, false>(
        t, p, active, at(plan.panel), in.key_dim(), this->query_rows(chunk_, first, rows, missing),
        [&](int r) TCNCA_INLINE { return this->key(chunk_, from + min_of(r, count - 1)); },
        this->scales(chunk_, first));
    if (active) t.store(at(plan.weight) + p.row * weight_row + p.column, weight_row);
    t.clear();
    this->template multiply_rows<Br, Bc, false>(
        t, p, active, at(plan.panel), in.value_dim(), this->gradient_rows(chunk_, first, rows, missing),
        [&](int r) TCNCA_INLINE { return this->values(chunk_, from + min_of(r, count - 1)); }, detail::unscaled_rows{});
    if (active) t.store(at(plan.derivative) + p.row * weight_row + p.column, weight_row);
  }

  /// add_products() by many threads, with loads.
  TCNCA_HOST_DEVICE void add_products_together(int from, int count, int first, int rows, int missing, int have) const {
    auto const& plan = params.plan;
    int const value_columns = params.wants_values() ? in.value_dim() : 0,
              key_columns = params.wants_keys() ? in.key_dim() : 0,
              query_columns = params.wants_queries() ? in.key_dim() : 0;
    add_key_sums(at(plan.weight), sums_at(plan.grad_value), plan.value_row, value_columns, count, missing, rows,
                 from - first, have, this->gradient_rows(chunk_, first, rows, missing), detail::unscaled_rows{});
    add_key_sums(at(plan.derivative), sums_at(plan.grad_key), plan.query_row, key_columns, count, missing, rows,
                 from - first, have, this->query_rows(chunk_, first, rows, missing), this->scales(chunk_, first));
    tile_place const p = place_of_tile<tile, Br, Bc>(group);
    int const present = min_of(M, rows - p.row);
    for (int c = 0; c < query_columns; c += Bc) {
      int const width = in.key_dim() - c - p.column;
      A* const to = grad_query_ + index_t(first + p.row) * plan.query_row + c + p.column;
      tile t;
      t.load_some(to, plan.query_row, present, width);
      this->template multiply_columns<Bc>(
          at(plan.panel), 0, count, c, in.key_dim(), [&](int r) TCNCA_INLINE { return this->key(chunk_, from + r); },
          detail::unscaled_rows{},
          [&](A const* keys, int k, int n) TCNCA_INLINE {
            if (present <= 0 || width <= 0) return;
            A const* const derivative = at(plan.derivative) + p.row * weight_row + k;
            int const last = first + p.row - from - k;  // of the keys that the first row sees
            if constexpr (Shape.window) {
              t.template add_band<weight_row, 1, Bc>(derivative, keys + p.column, n, last + 1 - in.window, last);
            } else if constexpr (Shape.causal) {
              t.template add_below<weight_row, 1, Bc>(derivative, keys + p.column, n, last);
            } else {
              t.template add<weight_row, 1, Bc>(derivative, keys + p.column, 0, n);
            }
          });
      t.store_some(to, plan.query_row, present, width);
    }
  }
  /// Adds to the sums of the keys the products of the transposed weights with the rows of the queries.
  template <class Row, class Factor>
  TCNCA_HOST_DEVICE void add_key_sums(A const* weight, A* sums, int sums_row, int dim, int count, int missing, int rows,
                                      int diagonal, int have, Row row, Factor factor) const {
    tile_place const p = place_of_tile<tile, Bc, Br>(group);
    // Whole tiles are stored: another head may see more of the keys.
    int const present = p.row < count ? M : 0;
    for (int c = 0; c < dim; c += Br) {
      int const width = dim - c - p.column;
      A* const to = sums + index_t(p.row) * sums_row + c + p.column;
      tile t;
      if (have <= p.row) t.clear();
      else t.load_some(to, sums_row, present, width);
      this->template multiply_columns<Br>(
          at(params.plan.panel), missing, rows, c, dim, row, factor, [&](A const* queries, int k, int n) TCNCA_INLINE {
            if (present <= 0 || width <= 0) return;
            A const *const a = weight + k * weight_row + p.row, *const b = queries + p.column;
            int const begin = diagonal + p.row - k;  // of the queries that see the first row
            if constexpr (Shape.window) {
              t.template add_band<1, weight_row, Br>(a, b, n, begin, begin + in.window - 1);
            } else if constexpr (Shape.causal) {
              t.template add_above<1, weight_row, Br>(a, b, n, begin);
            } else {
              t.template add<1, weight_row, Br>(a, b, 0, n);
            }
          });
      t.store_some(to, sums_row, present, width);
    }
  }

  /// Stores the gradients of the keys [from, from + count) and their values; zeros from `valid` on, where no query sees
  /// them.
  TCNCA_HOST_DEVICE void store_gradients(int from, int count, int valid) const {
    auto const& plan = params.plan;
    store_rows(from, count, valid, sums_at(plan.grad_key), plan.query_row, in.key_dim(), params.grad_keys_out,
               params.grad_keys_in, params.grad_k);
    store_rows(from, count, valid, sums_at(plan.grad_value), plan.value_row, in.value_dim(), params.grad_values_out,
               params.grad_values_in, params.grad_v);
  }
  /// after, before: gradients of the state after the call, which are added, and of the state before, which rows before
  /// chunk_.first go to.
  TCNCA_HOST_DEVICE void store_rows(int from, int count, int valid, A const* block, int row, int dim,
                                    tensor_view<A const, 4> const& after, tensor_view<A, 4> const& before,
                                    tensor_view<T, 4> const& grad) const {
    int const packs = grad.present() || before.present() ? divide_up(dim, W) : 0;
    index_t const head = Shape.grouped ? chunk_.key_head : chunk_.head;
    bool const in_state_after = after.present() && chunk_.origin + in.chunk > in.position + in.q.extent[2];
    for_each_pair(group, count, packs, [&](int r, int n) TCNCA_INLINE {
      int const c = n * W, j = from + r;
      value v = r < valid ? tcnca::load<W>(block + r * row + c) : broadcast<W>(A(0));
      if (in_state_after) v = v + this->load(after.at(chunk_.batch, head, j, 0), c, dim);
      if (j >= chunk_.first && grad.present())
        this->store(grad.at(chunk_.batch, head, this->sequence_index(chunk_, j), 0), c, dim, v);
      if (j < chunk_.first && before.present()) this->store(before.at(chunk_.batch, head, j, 0), c, dim, v);
    });
  }

  TCNCA_HOST_DEVICE void store_query_gradients() const {
    int const packs = divide_up(in.key_dim(), W);
    for_each_pair(group, chunk_.last - chunk_.first, packs, [&](int r, int n) TCNCA_INLINE {
      int const i = chunk_.first + r, c = n * W;
      value const v = tcnca::load<W>(const_cast<A const*>(grad_query_ + index_t(i) * params.plan.query_row + c));
      this->store(params.grad_q.at(chunk_.batch, chunk_.head, this->sequence_index(chunk_, i), 0), c, in.key_dim(),
                  v * broadcast<W>(this->scale(chunk_, i)));
    });
  }
};

}  // namespace tcnca
