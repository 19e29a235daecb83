// The backward pass of an EMA. With a final SiLU, y is recomputed first and g, the gradient of y before the SiLU, is
// kept in global scratch. Then the adjoint of each direction (adjoint.hpp) computes grad_x and the sums for the
// gradients of the coefficients.
#pragma once
#include "adjoint.hpp"

namespace tcnca::inline TCNCA_TARGET {

template <element T>
struct ema_backward_params {
  ema_parameters<accumulate_t<T>> parameters = {};
  sequence_view<T const> x = {};
  sequence_view<accumulate_t<T> const> state_in = {};
  sequence_view<T const> grad_y = {};
  sequence_view<accumulate_t<T> const> grad_state_out = {};
  sequence_view<T> grad_x = {};
  sequence_view<accumulate_t<T>> grad_state_in = {};
  /// [batch, 3 states + 1, directions * channels]: for each sequence the gradients of u, w and q of each state, then
  /// that of omega.
  tensor_view<double, 3> sums = {};
  bool x_vectorizable = false, grad_y_vectorizable = false, grad_x_vectorizable = false;
};

/// One item: the gradients of a block of channels of one sequence.
template <class Group, element T, ema_shape Shape, ema_policy Policy>
struct ema_backward_agent : detail::ema_adjoint_base<Group, T, Shape, Policy> {
  using base = detail::ema_adjoint_base<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tiling, typename base::carry_type,
      typename base::sums_type, typename base::segment;
  using base::group, base::shared_memory, base::N, base::W, base::channels, base::bidirectional, base::table,
      base::sums;
  using group_type = Group;
  using params_type = ema_backward_params<T>;
  using source = detail::adjoint_source;

  params_type const& params;
  A* scratch_g;       // [position][channel]: g, or the causal y until it is known; with a final SiLU only
  A* scratch_grad_x;  // [position][channel]: grad_x of the causal direction; bidirectional only
  TCNCA_HOST_DEVICE ema_backward_agent(Group g, params_type const& p, A* shared, A* global_scratch)
      : base(g, shared, sums_type::needs_totals(p.x.extent[2]) ? reinterpret_cast<double*>(global_scratch) : nullptr,
             p.grad_state_out.present()),
        params(p),
        scratch_g(global_scratch + total_elements(p)),
        scratch_grad_x(scratch_g + (Shape.skip ? sequence_elements(p) : 0)) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::items(p.x.extent[0], p.x.extent[1]);
  }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const& p) {
    constexpr size_t tiles_in_scratch = (Shape.skip ? 1 : 0) + (bidirectional ? 1 : 0);
    size_t const sum_elements = size_t(base::kinds_of_sums(p.grad_state_out.given())) * sums_type::kind_elements;
    return {.shared_memory_bytes = (size_t(base::sums_begin) + sum_elements) * sizeof(A),
            .global_scratch_bytes = (total_elements(p) + sequence_elements(p) * tiles_in_scratch) * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const blocks = divide_up(params.x.extent[1], index_t(channels));
    batch_ = item / blocks;
    channel_ = item % blocks * channels;
    x_ = {params.x, batch_, channel_, params.x_vectorizable};
    grad_y_ = {params.grad_y, batch_, channel_, params.grad_y_vectorizable};
    grad_x_ = {params.grad_x, batch_, channel_, params.grad_x_vectorizable};
    if constexpr (Shape.skip) {
      if (params.state_in.present()) recompute_forward<0, true>();
      else recompute_forward<0, false>();
      if constexpr (bidirectional) { recompute_forward<1, false>(); }
    }
    adjoint<0>();
    if constexpr (bidirectional) { adjoint<1>(); }
  }

 private:
  index_t batch_, channel_;
  detail::ema_sequence<Group, T const, tiling> x_, grad_y_;
  detail::ema_sequence<Group, T, tiling> grad_x_;

  TCNCA_HOST_DEVICE static constexpr size_t total_elements(params_type const& p) {
    return round_up(sums_type::total_elements(base::kinds_of_sums(true), p.x.extent[2]), size_t(16));
  }
  /// Of one of the arrays [position][channel] in the scratch. Both begin at a multiple of 16 elements.
  TCNCA_HOST_DEVICE static constexpr size_t sequence_elements(params_type const& p) {
    return round_up(size_t(p.x.extent[2]) * channels, size_t(16));
  }

  /// Computes y, and from it g, which goes to scratch_g. Direction 0: causal. Called by all threads; syncs at the end.
  template <int Direction, bool Stateful>
  TCNCA_HOST_DEVICE void recompute_forward() const {
    constexpr bool Reverse = Direction == 1, last = Direction + 1 == Shape.directions();
    A *const tile_x = shared_memory + base::x_begin, *const tile_g = shared_memory + base::g_begin;
    A *const causal = shared_memory + base::other_begin, *const transpose_buffer =
                                                             shared_memory + base::transpose_begin;
    typename base::template carry_of<A> const carry{group, this->segment_, shared_memory + base::forward_states_begin,
                                                    shared_memory + base::carry_begin};
    this->load_coefficients(params.parameters, channel_, x_.valid_channels, Direction * params.x.extent[1], carry);
    this->for_each_row(x_.valid_channels, [&](int r, int n, int c, int count) {
      carry.set_state(r, this->load_state(params.state_in, batch_, channel_ + c, n, count));
    });
    this->template for_each_tile<Reverse>(params.x.extent[2], [&](index_t first, int n) {
      group.sync();  // the previous tile has been stored
      x_.load(group, first, n, tile_x, transpose_buffer);
      if (last) grad_y_.load(group, first, n, tile_g, transpose_buffer);
      if (bidirectional && last) this->copy_to_tile(scratch_g + first * channels, causal, n * channels);
      group.sync();
      value const omega = this->omega();
      index_t const next = this->template next_tile<Reverse>(first, n);
      auto const prefetch = [&](int r) TCNCA_INLINE {  // inline: GCC removes calls of functions that only prefetch
        x_.prefetch(next, r, params.x.extent[2]);
        if (last) grad_y_.prefetch(next, r, params.x.extent[2]);
      };
      auto const emit = [&]<int Count>(auto const& s, int begin, detail::array<value, Count>& x,
                                       detail::array<value, Count>& y) TCNCA_INLINE {
        if constexpr (base::bidirectional && last) {
          detail::array<value, Count> other;
          this->load_segment(causal, s, begin, other);
          unroll<0, Count>([&](auto i) { y[i] = y[i] + other[i]; });
        }
        if constexpr (last) {
          detail::array<value, Count> grad_y;
          this->load_segment(tile_g, s, begin, grad_y);
          unroll<0, Count>(
              [&](auto i) { y[i] = grad_y[i] * activate<activation::silu>(fma(omega, x[i], y[i])).derivative; });
        }
        this->store_segment(tile_g, s, begin, y);
      };
      this->template recurrence<Reverse, Stateful>(tile_x, n, carry, prefetch, emit);
      group.sync();
      this->copy_tile(tile_g, scratch_g + first * channels, n * channels);
    });
    group.sync();
  }

  /// The gradients of one direction. Its positions are visited in the order opposite to that of the EMA. Called by all
  /// threads; syncs at the end.
  template <int Direction>
  TCNCA_HOST_DEVICE void adjoint() {
    constexpr bool Reverse = Direction == 0, last = Direction + 1 == Shape.directions();
    A *const tile_x = shared_memory + base::x_begin, *const tile_g = shared_memory + base::g_begin;
    A *const other = shared_memory + base::other_begin, *const transpose_buffer = shared_memory + base::transpose_begin;
    begin_adjoint<Direction>();
    bool first_tile = true;
    this->template for_each_tile<Reverse>(params.x.extent[2], [&](index_t first, int n) {
      group.sync();
      x_.load(group, first, n, tile_x, transpose_buffer);
      if constexpr (Shape.skip) {
        this->copy_to_tile(scratch_g + first * channels, tile_g, n * channels);
      } else {
        grad_y_.load(group, first, n, tile_g, transpose_buffer);
      }
      if (bidirectional && last) this->copy_to_tile(scratch_grad_x + first * channels, other, n * channels);
      group.sync();
      index_t const next = this->template next_tile<Reverse>(first, n);
      this->for_each_round(n, [&](int r) TCNCA_INLINE {
        segment const s = this->template segment_of<Reverse>(r, n);
        x_.prefetch(next, r, params.x.extent[2]);
        if (!Shape.skip) grad_y_.prefetch(next, r, params.x.extent[2]);
        if (last && params.grad_x.present()) grad_x_.prefetch(next, r, params.x.extent[2]);
        bool const at_end = first_tile && r == 0 && this->segment_ == 0;
        this->template adjoint_round<Direction, source::outputs>(s, at_end, n == base::tiling::tile);
        if (params.grad_state_out.present()) {
          group.sync();  // both use the same scratch memory for the scan
          this->template adjoint_round<Direction, source::final_state>(s, at_end, n == base::tiling::tile);
        }
      });
      first_tile = false;
      group.sync();
      if constexpr (last) {
        if (params.grad_x.present()) grad_x_.store(group, first, n, tile_g, transpose_buffer);
      } else {
        this->copy_tile(tile_g, scratch_grad_x + first * channels, n * channels);
      }
      sums.end_tile();
    });
    group.sync();
    sums.finish();
    group.sync();
    store_coefficient_gradients(Direction);
    group.sync();  // the next direction or item reuses the memory
  }

  /// Coefficients, states of zero, grad_state_out, sums of zero. Does not sync.
  template <int Direction>
  TCNCA_HOST_DEVICE void begin_adjoint() {
    carry_type const outputs = this->carry_for(source::outputs), final_state = this->carry_for(source::final_state);
    this->load_coefficients(params.parameters, channel_, x_.valid_channels, Direction * params.x.extent[1], outputs);
    this->for_each_row(x_.valid_channels, [&](int r, int n, int c, int count) {
      value const zero = broadcast<W>(A(0));
      outputs.set_state(r, {zero, zero}), final_state.set_state(r, {zero, zero});
      store<W>(this->at(base::grad_state_begin, r),
               this->load_state(params.grad_state_out, batch_, channel_ + c, n, count));
    });
    sums.clear();
  }

  /// This sequence's part of the gradients of u, w and q of each state and of omega; the gradient of state_in.
  TCNCA_HOST_DEVICE void store_coefficient_gradients(int direction) const {
    if (Shape.skip && direction == 0)
      for (int c = group.rank(); c < x_.valid_channels; c += group.size())
        *params.sums.at(batch_, 3 * N, channel_ + c) = sums.sum(base::omega_sum, c);
    A const *const from_outputs = shared_memory + base::adjoint_states_begin,  // l [state][channel], then e
        *const from_final_state = from_outputs + carry_type::state_elements;
    for (int j = group.rank(); j < table; j += group.size()) {
      int const c = j % channels, n = j / channels;
      if (c >= x_.valid_channels) continue;
      A const q = shared_memory[base::q_begin + j], u = shared_memory[base::u_begin + j],
              w = shared_memory[base::w_begin + j];
      A const h = direction == 0 && params.state_in.present() ? *params.state_in.at(batch_, channel_ + c, n) : A(0);
      A const l = from_outputs[j], e = from_outputs[table + j];
      double const sum_l = sums.sum(2 * n, c), sum_e = sums.sum(2 * n + 1, c);
      double grad_u = double(w) * sum_l, grad_w = double(u) * sum_l + double(q * h * l);
      double grad_q = double(w) * (double(u) * sum_e + double(h * (l + q * e)));
      A grad_h = w * q * l;
      if (params.grad_state_out.present()) {
        int const kind = base::first_sum(source::final_state) + 2 * n;
        A const final_l = from_final_state[j], final_e = from_final_state[table + j];
        grad_u += sums.sum(kind, c);
        grad_q += double(u) * sums.sum(kind + 1, c) + double(h * (final_l + q * final_e));
        grad_h += params.x.extent[2] > 0 ? q * final_l : shared_memory[base::grad_state_begin + j];
      }
      index_t const row = direction * params.x.extent[1] + channel_ + c;
      *params.sums.at(batch_, 3 * n, row) = grad_u;
      *params.sums.at(batch_, 3 * n + 1, row) = grad_w;
      *params.sums.at(batch_, 3 * n + 2, row) = grad_q;
      if (params.grad_state_in.present()) *params.grad_state_in.at(batch_, channel_ + c, n) = grad_h;
    }
  }
};

}  // namespace tcnca
