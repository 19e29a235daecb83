// The forward pass of an EMA.
#pragma once
#include "recurrence.hpp"

namespace tcnca::inline TCNCA_TARGET {

template <element T>
struct ema_forward_params {
  ema_parameters<accumulate_t<T>> parameters = {};
  sequence_view<T const> x = {};
  sequence_view<accumulate_t<T> const> state_in = {};
  sequence_view<T> y = {};
  sequence_view<accumulate_t<T>> state_out = {};
  bool x_vectorizable = false, y_vectorizable = false;  ///< tiling::vector_elements elements may be accessed at once
};

/// One item: the outputs of a block of channels of one sequence. The group computes tile after tile. Bidirectional: the
/// causal outputs of the whole sequence go to the global scratch, then the anti-causal EMA adds its own.
template <class Group, element T, ema_shape Shape, ema_policy Policy>
struct ema_forward_agent : detail::ema_agent_base<Group, T, Shape, Policy> {
  using base = detail::ema_agent_base<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tiling;
  using base::group, base::shared_memory, base::W, base::channels;
  using group_type = Group;
  using params_type = ema_forward_params<T>;
  using carry_type = typename base::template carry_of<A>;
  static constexpr bool bidirectional = Shape.directions() == 2;
  static constexpr int blocks_per_multiprocessor = sizeof(A) == 4 ? max_of(1, 512 / Group::size()) : 1;

  // Shared memory, in elements of A. A tile of y replaces its tile of x.
  static constexpr int states_begin = base::base_elements;
  static constexpr int tile_begin = round_up(states_begin + carry_type::state_elements, 16);
  static constexpr int causal_begin =
      tile_begin + tiling::tile_elements;  // bidirectional: a tile of the causal outputs
  static constexpr int carry_begin = causal_begin + (bidirectional ? tiling::tile_elements : 0);
  static constexpr int transpose_begin = carry_begin + carry_type::scratch_elements;
  static constexpr int shared_elements = transpose_begin + tiling::transpose_elements;

  params_type const& params;
  A* causal_outputs;  // [position][channel]
  carry_type carry;
  TCNCA_HOST_DEVICE ema_forward_agent(Group g, params_type const& p, A* shared, A* global_scratch)
      : base(g, shared),
        params(p),
        causal_outputs(global_scratch),
        carry{g, base::segment_, shared + states_begin, shared + carry_begin} {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::items(p.x.extent[0], p.x.extent[1]);
  }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = shared_elements * sizeof(A),
            .global_scratch_bytes = bidirectional ? size_t(p.x.extent[2]) * channels * sizeof(A) : 0};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const blocks = divide_up(params.x.extent[1], index_t(channels));
    batch_ = item / blocks;
    channel_ = item % blocks * channels;
    x_ = {params.x, batch_, channel_, params.x_vectorizable};
    y_ = {params.y, batch_, channel_, params.y_vectorizable};
    begin(0);
    if (params.state_in.present() || params.state_out.present()) outputs<false, true>();
    else outputs<false, false>();
    if (params.state_out.present())
      this->for_each_row(x_.valid_channels, [&](int r, int n, int c, int count) {
        auto const& state = params.state_out;
        if (count > 0) store_some<W>(state.at(batch_, channel_ + c, n), state.stride[1], count, carry.state_of(r));
      });
    if constexpr (bidirectional) {
      group.sync();
      begin(1);
      outputs<true, false>();
    }
    group.sync();  // the next item reuses the memory
  }

 private:
  index_t batch_, channel_;
  detail::ema_sequence<Group, T const, tiling> x_;
  detail::ema_sequence<Group, T, tiling> y_;

  /// Loads the coefficients and the states before the sequence, for direction 0 (causal) or 1. Does not sync.
  TCNCA_HOST_DEVICE void begin(int direction) const {
    this->load_coefficients(params.parameters, channel_, x_.valid_channels, direction * params.x.extent[1], carry);
    this->for_each_row(x_.valid_channels, [&](int r, int n, int c, int count) {
      carry.set_state(r, this->load_state(params.state_in, batch_, channel_ + c, n, count));
    });
  }

  /// The outputs of one direction; in the last direction the final ones.
  template <bool Reverse, bool Stateful>
  TCNCA_HOST_DEVICE void outputs() const {
    constexpr bool last = !bidirectional || Reverse;
    A *const tile = shared_memory + tile_begin, *const causal = shared_memory + causal_begin;
    A* const transpose_buffer = shared_memory + transpose_begin;
    this->template for_each_tile<Reverse>(params.x.extent[2], [&](index_t first, int n) {
      group.sync();  // the previous tile has been stored
      x_.load(group, first, n, tile, transpose_buffer);
      if constexpr (Shape.directions() == 2 && last) {
        this->copy_to_tile(causal_outputs + first * channels, causal, n * channels);
      }
      group.sync();
      index_t const next = this->template next_tile<Reverse>(first, n);
      auto const prefetch = [&](int r) TCNCA_INLINE {  // inline: GCC removes calls of functions that only prefetch
        x_.prefetch(next, r, params.x.extent[2]);
        if (last) y_.prefetch(next, r, params.x.extent[2]);
      };
      value const omega = Shape.skip && last ? this->omega() : broadcast<W>(A(0));
      auto const emit = [&]<int Count>(auto const& s, int begin, detail::array<value, Count>& x,
                                       detail::array<value, Count>& y) TCNCA_INLINE {
        if constexpr (Shape.directions() == 2 && last) {
          detail::array<value, Count> other;
          this->load_segment(causal, s, begin, other);
          unroll<0, Count>([&](auto i) { y[i] = y[i] + other[i]; });
        }
        if constexpr (Shape.skip && last) {
          unroll<0, Count>([&](auto i) { y[i] = activate<activation::silu>(fma(omega, x[i], y[i])).value; });
        }
        this->store_segment(tile, s, begin, y);
      };
      this->template recurrence<Reverse, Stateful>(tile, n, carry, prefetch, emit);
      group.sync();
      if constexpr (last) {
        y_.store(group, first, n, tile, transpose_buffer);
      } else {
        this->copy_tile(tile, causal_outputs + first * channels, n * channels);
      }
    });
    group.sync();
  }
};

}  // namespace tcnca
