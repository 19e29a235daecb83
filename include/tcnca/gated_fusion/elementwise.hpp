// Element-wise passes over tensors [batch, length, columns]: every element is read once and written once.
#pragma once
#include "../block/agent.hpp"
#include "../block/dropout.hpp"
#include "../block/gate.hpp"
#include "../core/tensor.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How a pass accesses its tensors.
struct pass_access {
  bool vectorizable = false;  ///< full packs use vector accesses
  bool streaming = false;  ///< vector stores are non-temporal (CPU): the outputs are aligned and larger than the caches
};

namespace detail {

/// The base of the passes: the rows and columns that each thread processes. A row is one position of one sequence.
/// threads_per_row threads share a row; the group processes group.size() / threads_per_row rows at a time.
template <class Group, element T, gated_fusion_policy Policy>
struct elementwise_pass {
  using A = accumulate_t<T>;
  using group_type = Group;
  static constexpr int W = Policy.width;
  using value = pack<A, W>;
  static_assert((Group::size() & (Group::size() - 1)) == 0,
                "tcnca::gated_fusion: a policy's threads must be a power of two");

  Group group;
  pass_access access;

  /// At most 1024, or the policy's minimum if that is larger: it bounds the error of sums over the rows in A.
  TCNCA_HOST_DEVICE static constexpr index_t rows_per_item(index_t rows) {
    return max_of(Policy.rows, min_of(divide_up(rows, Policy.items), index_t(1024)));
  }
  /// Items of a pass over v; none if v is empty.
  template <class U>
  TCNCA_HOST_DEVICE static constexpr index_t items_of(tensor_view<U, 3> const& v) {
    index_t const rows = v.extent[0] * v.extent[1];
    return v.extent[2] == 0 ? 0 : divide_up(rows, rows_per_item(rows));
  }
  TCNCA_HOST_DEVICE static constexpr int threads_per_row(int columns) {
    int n = 1;
    while (2 * n <= Group::size() && n * W < columns) n *= 2;
    return n;
  }

  /// visit(batch, position) for the rows of the item that this thread takes part in, in rising order.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_row(index_t item, index_t batch, index_t length, int columns, Visit visit) const {
    index_t const rows = batch * length, count = rows_per_item(rows), last = min_of(rows, (item + 1) * count);
    int const threads = threads_per_row(columns), step = Group::size() / threads;
    index_t row = item * count + group.rank() / threads, b = row / length, t = row % length;
    for (; row < last; row += step) {
      visit(b, t);
      for (t += step; t >= length; t -= length) b++;
    }
    if (access.streaming) end_streaming();
  }

  /// Columns [first, first + count) of a row. Full: W columns that one vector access may load or store.
  template <bool Full>
  struct column_range {
    int first, count;
  };
  /// visit(column_range) for the columns of a row that this thread processes.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_pack(int columns, Visit visit) const {
    int const threads = threads_per_row(columns);
    int c = group.rank() % threads * W;
    if (access.vectorizable)
      for (; c + W <= columns; c += threads * W) visit(column_range<true>{c, W});
    for (; c < columns; c += threads * W) visit(column_range<false>{c, min_of(W, columns - c)});
  }
  template <class U, bool Full>
  TCNCA_HOST_DEVICE static value load(U const* row, column_range<Full> at) {
    if constexpr (Full) {
      return tcnca::load<W>(row + at.first);
    } else {
      return load_some<W>(row + at.first, 1, at.count);
    }
  }
  template <bool Full>
  TCNCA_HOST_DEVICE void store(T* row, column_range<Full> at, value v) const {
    if constexpr (!Full) {
      store_some<W>(row + at.first, 1, at.count, v);
    } else {
      if (access.streaming) store_streaming<W>(row + at.first, v);
      else tcnca::store<W>(row + at.first, v);
    }
  }
  /// One parameter for each column.
  template <bool Full>
  TCNCA_HOST_DEVICE static value load(tensor_view<A const, 1> const& v, column_range<Full> at) {
    if (v.stride[0] == 1 && at.count == W) return load_anywhere<W>(v.data + at.first);
    return load_some<W>(v.at(at.first), v.stride[0], at.count);
  }
};

}  // namespace detail

template <element T>
struct mix_params {
  using A = accumulate_t<T>;
  tensor_view<T const, 3> z = {};
  tensor_view<A const, 1> gq = {}, mq = {}, gk = {}, mk = {};
  tensor_view<T, 3> q = {}, k = {};
  pass_access access = {};
};

/// Queries and keys from the shared representation.
template <class Group, element T, gated_fusion_policy Policy>
struct mix_agent : detail::elementwise_pass<Group, T, Policy> {
  using base = detail::elementwise_pass<Group, T, Policy>;
  using typename base::A;
  using params_type = mix_params<T>;

  params_type const& params;
  TCNCA_HOST_DEVICE mix_agent(Group g, params_type const& p, A*, A*) : base{g, p.access}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.z); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    int const columns = int(p.z.extent[2]);
    this->for_each_row(item, p.z.extent[0], p.z.extent[1], columns, [&](index_t b, index_t t) TCNCA_INLINE {
      T const* const z = p.z.at(b, t, 0);
      T *const q = p.q.at(b, t, 0), *const k = p.k.at(b, t, 0);
      this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
        auto const m = gate::mix(base::load(z, c), base::load(p.gq, c), base::load(p.mq, c), base::load(p.gk, c),
                                 base::load(p.mk, c));
        this->store(q, c, m.q), this->store(k, c, m.k);
      });
    });
  }
};

/// Forward: o, r, y. Backward: o, r, grad_y, grad_o, grad_r.
template <element T>
struct reset_params {
  tensor_view<T const, 3> o = {}, r = {}, grad_y = {};
  tensor_view<T, 3> y = {}, grad_o = {}, grad_r = {};
  pass_access access = {};
};

/// The reset gate, forward or backward.
template <class Group, element T, gated_fusion_policy Policy, bool Backward>
struct reset_agent : detail::elementwise_pass<Group, T, Policy> {
  using base = detail::elementwise_pass<Group, T, Policy>;
  using typename base::A;
  using params_type = reset_params<T>;

  params_type const& params;
  TCNCA_HOST_DEVICE reset_agent(Group g, params_type const& p, A*, A*) : base{g, p.access}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.o); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    int const columns = int(p.o.extent[2]);
    this->for_each_row(item, p.o.extent[0], p.o.extent[1], columns, [&](index_t b, index_t t) TCNCA_INLINE {
      T const *const o = p.o.at(b, t, 0), *const r = p.r.at(b, t, 0), *const grad_y = p.grad_y.at(b, t, 0);
      T *const y = p.y.at(b, t, 0), *const grad_o = p.grad_o.at(b, t, 0), *const grad_r = p.grad_r.at(b, t, 0);
      this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
        if constexpr (Backward) {
          auto const g = gate::reset_gradient(base::load(o, c), base::load(r, c), base::load(grad_y, c));
          this->store(grad_o, c, g.o), this->store(grad_r, c, g.r);
        } else {
          this->store(y, c, gate::reset(base::load(o, c), base::load(r, c)));
        }
      });
    });
  }
};

/// Forward: x, u, hx, h, y. Backward: x, u, hx, h, grad_y and the gradients. Tensors that the shape does not use are
/// absent.
template <element T>
struct update_params {
  tensor_view<T const, 3> x = {}, u = {}, hx = {}, h = {}, grad_y = {};
  tensor_view<T, 3> y = {}, grad_x = {}, grad_u = {}, grad_hx = {}, grad_h = {};
  dropout_params<accumulate_t<T>> dropout = {};
  pass_access access = {};
};

/// The update gate, forward or backward.
template <class Group, element T, gated_fusion_shape Shape, gated_fusion_policy Policy, bool Backward>
struct update_agent : detail::elementwise_pass<Group, T, Policy> {
  using base = detail::elementwise_pass<Group, T, Policy>;
  using typename base::A, typename base::value;
  using base::W;
  using params_type = update_params<T>;

  params_type const& params;
  TCNCA_HOST_DEVICE update_agent(Group g, params_type const& p, A*, A*) : base{g, p.access}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& params) { return base::items_of(params.h); }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    int const columns = int(p.h.extent[2]);
    this->for_each_row(item, p.h.extent[0], p.h.extent[1], columns, [&](index_t b, index_t t) TCNCA_INLINE {
      T const *const x = p.x.at(b, t, 0), *const u = p.u.at(b, t, 0), *const hx = p.hx.at(b, t, 0);
      T const *const h_row = p.h.at(b, t, 0), *const grad_y = p.grad_y.at(b, t, 0);
      T *const y = p.y.at(b, t, 0), *const grad_x = p.grad_x.at(b, t, 0), *const grad_u = p.grad_u.at(b, t, 0);
      T *const grad_hx = p.grad_hx.at(b, t, 0), *const grad_h = p.grad_h.at(b, t, 0);
      this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
        value h = base::load(h_row, c), keep = broadcast<W>(A(1));
        if constexpr (Shape.mixer_path) { h = h + base::load(hx, c); }
        if constexpr (Shape.dropout) { keep = p.dropout.template factors<base::W>(b, t, c.first); }
        if constexpr (!Backward) {
          if constexpr (Shape.update_gate) {
            this->store(y, c, gate::update(base::load(x, c), base::load(u, c), h, keep));
          } else {
            this->store(y, c, gate::update(base::load(x, c), h, keep));
          }
        } else {
          gate::update_gradients<A, W> g;
          if constexpr (Shape.update_gate) {
            g = gate::update_gradient(base::load(x, c), base::load(u, c), h, keep, base::load(grad_y, c));
          } else {
            g = gate::update_gradient(h, keep, base::load(grad_y, c));
          }
          this->store(grad_x, c, g.x), this->store(grad_h, c, g.h);
          if constexpr (Shape.update_gate) { this->store(grad_u, c, g.u); }
          if constexpr (Shape.mixer_path) { this->store(grad_hx, c, g.h); }
        }
      });
    });
  }
};

}  // namespace tcnca
