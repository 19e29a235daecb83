// The adjoint of an EMA over one tile. The gradient l of the states runs against the EMA, as an EMA of its own, and so
// does its derivative e with respect to q:
//   l[t] = g[t] + q l[t+1],   e[t] = l[t+1] + q e[t+1],   grad_x[t] = sum of u w l[t] over the states,
// where g is the gradient of y before the final SiLU. Then grad (u w) = sum of l x and grad q = u w sum of e x over the
// positions: the states of the forward pass are not needed.
#pragma once
#include "gradient_sums.hpp"
#include "recurrence.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// What drives an adjoint recurrence. Both are linear, so their results add up; they need different sums, because
/// grad_state_out is the gradient of h, without the factor w.
enum class adjoint_source {
  outputs,      ///< g
  final_state,  ///< grad_state_out alone: it enters at the last position of the sequence
};

template <class Group, element T, ema_shape Shape, ema_policy Policy>
struct ema_adjoint_base : ema_agent_base<Group, T, Shape, Policy> {
  using base = ema_agent_base<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tiling, typename base::segment;
  using base::group, base::shared_memory, base::N, base::W, base::packs, base::outputs_per_thread;
  using carry_type = typename base::template carry_of<dual<A>>;  // value: l; derivative: e
  using sums_type = ema_gradient_sums<Group, tiling>;
  static constexpr bool bidirectional = Shape.directions() == 2;

  // Shared memory, in elements of A: states of the forward pass; of the two adjoint recurrences; grad_state_out; tiles
  // of x and of g, which grad_x replaces; a tile of what the other direction adds (bidirectional); scratch
  // of the carry; the buffer of transposes; partial sums.
  static constexpr int table = base::table_elements, tile_elements = tiling::tile_elements;
  static constexpr int forward_states_begin = base::base_elements;
  static constexpr int adjoint_states_begin = forward_states_begin + table;
  static constexpr int grad_state_begin = adjoint_states_begin + 2 * carry_type::state_elements;
  static constexpr int x_begin = round_up(grad_state_begin + table, 16), g_begin = x_begin + tile_elements;
  static constexpr int other_begin = g_begin + tile_elements;
  static constexpr int carry_begin = other_begin + (bidirectional ? tile_elements : 0);
  static constexpr int transpose_begin = carry_begin + carry_type::scratch_elements;
  static constexpr int sums_begin = round_up(transpose_begin + tiling::transpose_elements, 16);

  // Kinds of sums: of l x and e x of each state for the first source; of g x, for omega; of l x and e x of each state
  // for the second source.
  static constexpr int omega_sum = 2 * N;
  TCNCA_HOST_DEVICE static constexpr int first_sum(adjoint_source source) {
    return source == adjoint_source::outputs ? 0 : 2 * N + 1;
  }
  TCNCA_HOST_DEVICE static constexpr int kinds_of_sums(bool has_final_state) {
    return (has_final_state ? 4 : 2) * N + 1;
  }

  sums_type sums;
  TCNCA_HOST_DEVICE ema_adjoint_base(Group g, A* shared, double* totals, bool has_final_state)
      : base(g, shared), sums{g, shared + sums_begin, totals, kinds_of_sums(has_final_state)} {}

  TCNCA_HOST_DEVICE carry_type carry_for(adjoint_source source) const {
    int const index = source == adjoint_source::outputs ? 0 : 1;
    return {group, this->segment_, shared_memory + adjoint_states_begin + index * carry_type::state_elements,
            shared_memory + carry_begin};
  }

  /// One round of a tile for one source: replaces g by grad_x in shared memory; the second source adds to it. at_end:
  /// the segment begins at the last position of the sequence. Called by all threads, with a barrier since the last
  /// call.
  template <int Direction, adjoint_source Source>
  TCNCA_HOST_DEVICE void adjoint_round(segment const& s, bool at_end, bool complete) const {
    carry_type const carry = carry_for(Source);
    carry.find_states([&](auto store) TCNCA_INLINE { end_states<Source>(s, at_end, store); }, complete);
    if (this->is_whole(s, complete)) gradients<outputs_per_thread, Direction, Source>(s, 0, at_end, carry);
    else
      for (int i = 0; i < s.count; i++) gradients<1, Direction, Source>(s, i, at_end && i == 0, carry);
  }

 private:
  TCNCA_HOST_DEVICE A* tile_at(int begin, int index) const { return shared_memory + begin + index; }

  /// store(row, l and e at the end of this thread's segment) for l and e of zero before it.
  template <adjoint_source Source, class Store>
  TCNCA_HOST_DEVICE void end_states(segment const& s, bool at_end, Store store) const {
    detail::array<value, outputs_per_thread> g;
    if constexpr (Source == adjoint_source::outputs) { this->load_segment(tile_at(g_begin, 0), s, 0, g); }
    this->template for_each_states<false>([&](int n, auto states) {
      detail::array<value, int(states)> q, l, e;
      this->template load_rows<states>(base::q_begin, this->row(n), q);
      unroll<0, states>([&](auto j) {
        l[j] = broadcast<W>(A(0));
        if constexpr (Source == adjoint_source::outputs) {
          l[j] = g[0];
        } else {
          if (at_end) l[j] = this->load_row(grad_state_begin, this->row(n + j));
        }
        e[j] = broadcast<W>(A(0));
      });
      unroll<1, outputs_per_thread>([&](auto i) {
        unroll<0, states>([&](auto j) {
          e[j] = fma(q[j], e[j], l[j]);
          if constexpr (Source == adjoint_source::outputs) {
            l[j] = fma(q[j], l[j], g[i]);
          } else {
            l[j] = q[j] * l[j];
          }
        });
      });
      unroll<0, states>([&](auto j) { store(this->row(n + j), dual<A>{l[j].lane(0), e[j].lane(0)}); });
    });
  }

  /// Count positions of this thread's segment: all of them, or one where the sequence ends within the segment.
  template <int Count, int Direction, adjoint_source Source>
  TCNCA_HOST_DEVICE void gradients(segment const& s, int first, bool at_end, carry_type const& carry) const {
    detail::array<value, Count> x, g, grad_x;
    this->load_segment(tile_at(x_begin, 0), s, first, x);
    this->load_segment(tile_at(g_begin, 0), s, first, g);
    if constexpr (Source == adjoint_source::final_state) {
      unroll<0, Count>([&](auto i) { grad_x[i] = g[i]; });
    } else if constexpr (Shape.skip && Direction == 0) {
      value const omega = this->omega();
      A* const sum = sums.own(omega_sum);
      value grad_omega = load<W>(const_cast<A const*>(sum));
      unroll<0, Count>([&](auto i) { grad_x[i] = omega * g[i], grad_omega = fma(g[i], x[i], grad_omega); });
      store<W>(sum, grad_omega);
    } else {
      unroll<0, Count>([&](auto i) { grad_x[i] = broadcast<W>(A(0)); });
    }
    bool const ends_tile = s.ends_tile && first + Count == s.count;
    this->template for_each_states<false>([&](int n, auto states) TCNCA_INLINE {
      add_states<states, Source>(n, at_end, ends_tile, carry, x, g, grad_x);
    });
    if constexpr (bidirectional && Direction == 1) {
      detail::array<value, Count> other;
      this->load_segment(tile_at(other_begin, 0), s, first, other);
      unroll<0, Count>([&](auto i) { grad_x[i] = grad_x[i] + other[i]; });
    }
    this->store_segment(tile_at(g_begin, 0), s, first, grad_x);
  }

  /// Rounds to a multiple of about the smallest normal number. The gradient of the last state decays along the
  /// sequence, and arithmetic on subnormal numbers is 20 times slower on x86.
  TCNCA_HOST_DEVICE static value flush_subnormal(value v) {
    value const unit = broadcast<W>(sizeof(A) == 4 ? A(0x1p-100) : A(0x1p-970));
    return materialize(v + unit) - unit;
  }

  /// What the states n, ..., n + States - 1 add to grad_x and to the sums.
  template <int States, adjoint_source Source, int Count>
  TCNCA_HOST_DEVICE void add_states(int n, bool at_end, bool ends_tile, carry_type const& carry,
                                    detail::array<value const, Count>& x, detail::array<value const, Count>& g,
                                    detail::array<value, Count>& grad_x) const {
    constexpr bool from_outputs = Source == adjoint_source::outputs;
    int const r = this->row(n);
    A* const sum = sums.own(first_sum(Source) + 2 * n);
    constexpr int kind = sums_type::kind_elements;
    detail::array<value, States> q, weight, l, e, sum_l, sum_e;
    this->template load_rows<States>(base::q_begin, r, q);
    this->template load_rows<States>(from_outputs ? base::uw_begin : base::u_begin, r, weight);
    unroll<0, States>([&](auto j) {
      sum_l[j] = load<W>(const_cast<A const*>(sum + 2 * j * kind));
      sum_e[j] = load<W>(const_cast<A const*>(sum + (2 * j + 1) * kind));
      auto const before = carry.load(r + j * packs);
      l[j] = before.value, e[j] = before.derivative;
    });
    unroll<0, Count>([&](auto i) {
      unroll<0, States>([&](auto j) {
        e[j] = fma(q[j], e[j], l[j]);
        if constexpr (from_outputs) {
          l[j] = fma(q[j], l[j], g[i]);
        } else {
          l[j] = i == 0 && at_end ? this->load_row(grad_state_begin, r + j * packs) : q[j] * l[j];
        }
        sum_e[j] = fma(e[j], x[i], sum_e[j]);
      });
      unroll<0, States>([&](auto j) {
        grad_x[i] = fma(weight[j], l[j], grad_x[i]);
        sum_l[j] = fma(l[j], x[i], sum_l[j]);
      });
    });
    unroll<0, States>([&](auto j) {
      if constexpr (!from_outputs && Group::size() == 1) { l[j] = flush_subnormal(l[j]), e[j] = flush_subnormal(e[j]); }
      store<W>(sum + 2 * j * kind, sum_l[j]), store<W>(sum + (2 * j + 1) * kind, sum_e[j]);
      carry.template store<Count == 1>(r + j * packs, {l[j], e[j]}, ends_tile);
    });
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
