// Passes over tensors [batch, length, columns], element by element: each is read and written once.
#pragma once
#include "../block/gate.hpp"
#include "../block/philox.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How a pass may access its tensors.
struct pass_access {
  bool vectorizable = false;  ///< a pack at a time
  bool streaming =
      false;  ///< results past the caches: they are aligned, and larger than what a later pass would find there
};

namespace detail {

/// What a group does with its rows: a part of its threads lies along the columns, the others take further rows.
template <class Group, element T, gated_fusion_policy Policy>
struct pass_group {
  using A = accumulate_t<T>;
  using group_type = Group;
  static constexpr int W = Policy.width;
  using value = pack<A, W>;
  static_assert((Group::size() & (Group::size() - 1)) == 0,
                "tcnca::gated_fusion: a policy's threads must be a power of two");

  Group group;
  pass_access how;

  /// Rows of an item. The policy's minimum apart, at most 1024, to bound the error of sums over them in A.
  TCNCA_HOST_DEVICE static constexpr index_t rows_of_item(index_t rows) {
    return max_of(Policy.rows, min_of(divide_up(rows, Policy.items), index_t(1024)));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items_for(index_t rows) { return divide_up(rows, rows_of_item(rows)); }
  /// Threads side by side along the columns: a power of two.
  TCNCA_HOST_DEVICE static constexpr int across(int columns) {
    int n = 1;
    while (2 * n <= Group::size() && n * W < columns) n *= 2;
    return n;
  }

  /// visit(batch, position) for the item's rows, each by the threads that lie side by side along it, in rising order.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_row(index_t item, index_t batch, index_t length, int columns, Visit visit) const {
    index_t const rows = batch * length, each = rows_of_item(rows), last = min_of(rows, (item + 1) * each);
    int const side = across(columns);
    index_t row = item * each + group.rank() / side, b = row / length, t = row % length;
    for (int const step = Group::size() / side; row < last; row += step) {
      visit(b, t);
      for (t += step; t >= length; t -= length) b++;
    }
    if (how.streaming) end_streaming();
  }
  /// visit(pack) for the packs of a row that fall to this thread.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_pack(int columns, Visit visit) const {
    int const side = across(columns);
    int c = group.rank() % side * W;
    if (how.vectorizable)
      for (; c + W <= columns; c += side * W) visit(some_columns<true>{c, W});
    for (; c < columns; c += side * W) visit(some_columns<false>{c, min_of(W, columns - c)});
  }
  /// Columns [first, first + count) of a row; Whole: a pack that may be accessed as one.
  template <bool Whole>
  struct some_columns {
    int first, count;
  };
  template <class U, bool Whole>
  TCNCA_HOST_DEVICE static value load(U const* row, some_columns<Whole> at) {
    if constexpr (Whole) {
      return tcnca::load<W>(row + at.first);
    } else {
      return load_some<W>(row + at.first, 1, at.count);
    }
  }
  template <bool Whole>
  TCNCA_HOST_DEVICE void store(T* row, some_columns<Whole> at, value v) const {
    if constexpr (!Whole) {
      store_some<W>(row + at.first, 1, at.count, v);
    } else {
      if (how.streaming) store_streaming<W>(row + at.first, v);
      else tcnca::store<W>(row + at.first, v);
    }
  }
  /// Parameters of the columns.
  template <bool Whole>
  TCNCA_HOST_DEVICE static value load(tensor_view<A const, 1> const& v, some_columns<Whole> at) {
    if (v.stride[0] == 1 && at.count == W) return load_anywhere<W>(v.data + at.first);
    return load_some<W>(v.at(at.first), v.stride[0], at.count);
  }
};

/// Dropout of an element-wise result: seed and counter (position + offset, column / 4, batch); word column % 4 below the bound drops.
struct element_dropout {
  uint32 drop_threshold = 0;
  double keep_scale = 1;
  uint64 seed = 0, offset = 0;

  /// What the elements c, c + 1, ... are multiplied by; f: all ones.
  template <class A, int W>
  TCNCA_HOST_DEVICE pack<A, W> factors(pack<A, W> f, index_t b, index_t t, int c) const {
    uint64 const at = uint64(t) + offset;
    philox_words words{};
    TCNCA_UNROLL
    for (int w = 0; w < W; w++) {
      if (w % 4 == 0) words = philox(seed, {{uint32(at), uint32(at >> 32), uint32((c + w) / 4), uint32(b)}});
      f.set_lane(w, words.of(W % 4 == 0 ? w : c + w) < drop_threshold ? A(0) : A(keep_scale));
    }
    return f;
  }
};

}  // namespace detail

/// Queries and keys from the shared representation; the same for all groups.
template <element T>
struct mix_params {
  using A = accumulate_t<T>;
  tensor_view<T const, 3> z;
  tensor_view<A const, 1> gq, mq, gk, mk;
  tensor_view<T, 3> q, k;
  pass_access how;
};
template <class Group, element T, gated_fusion_policy Policy>
struct mix_agent : detail::pass_group<Group, T, Policy> {
  using base = detail::pass_group<Group, T, Policy>;
  using typename base::A;
  using params_type = mix_params<T>;
  params_type const& params;
  TCNCA_HOST_DEVICE mix_agent(Group g, params_type const& p, A*, A*) : base{g, p.how}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::items_for(p.z.extent[0] * p.z.extent[1]);
  }

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

/// The reset gate, forward or (with grad_y) backward; the same for all groups.
template <element T>
struct reset_params {
  tensor_view<T const, 3> o, r, grad_y;
  tensor_view<T, 3> y, grad_o, grad_r;
  pass_access how;
};
template <class Group, element T, gated_fusion_policy Policy, bool Backward>
struct reset_agent : detail::pass_group<Group, T, Policy> {
  using base = detail::pass_group<Group, T, Policy>;
  using typename base::A;
  using params_type = reset_params<T>;
  params_type const& params;
  TCNCA_HOST_DEVICE reset_agent(Group g, params_type const& p, A*, A*) : base{g, p.how}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::items_for(p.o.extent[0] * p.o.extent[1]);
  }

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

/// The update gate, forward or (with grad_y) backward; the same for all groups.
template <element T>
struct update_params {
  tensor_view<T const, 3> x, u, hx, h, grad_y;
  tensor_view<T, 3> y, grad_x, grad_u, grad_hx, grad_h;
  detail::element_dropout dropout;
  pass_access how;
};
template <class Group, element T, gated_fusion_shape Shape, gated_fusion_policy Policy, bool Backward>
struct update_agent : detail::pass_group<Group, T, Policy> {
  using base = detail::pass_group<Group, T, Policy>;
  using typename base::A, typename base::value;
  using base::W;
  using params_type = update_params<T>;
  params_type const& params;
  TCNCA_HOST_DEVICE update_agent(Group g, params_type const& p, A*, A*) : base{g, p.how}, params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::items_for(p.h.extent[0] * p.h.extent[1]);
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    int const columns = int(p.h.extent[2]);
    this->for_each_row(item, p.h.extent[0], p.h.extent[1], columns, [&](index_t b, index_t t) TCNCA_INLINE {
      T const *const x = p.x.at(b, t, 0), *const u = p.u.at(b, t, 0), *const hx = p.hx.at(b, t, 0),
                     *const from = p.h.at(b, t, 0);
      T const* const grad_y = p.grad_y.at(b, t, 0);
      T *const y = p.y.at(b, t, 0), *const grad_x = p.grad_x.at(b, t, 0), *const grad_u = p.grad_u.at(b, t, 0);
      T *const grad_hx = p.grad_hx.at(b, t, 0), *const grad_h = p.grad_h.at(b, t, 0);
      this->for_each_pack(columns, [&](auto c) TCNCA_INLINE {
        value h = base::load(from, c), keep = broadcast<W>(A(1));
        if constexpr (Shape.mixer_path) { h = h + base::load(hx, c); }
        if constexpr (Shape.dropout) { keep = p.dropout.factors(keep, b, t, c.first); }
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
