// The forward pass of an EMA: one group walks along the sequences of its channels, tile by tile.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What a forward pass is given; the same for all groups.
template <element T>
struct ema_forward_params {
  ema_parameters<accumulate_t<T>> parameters;
  sequence_view<T const> x;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T> y;
  sequence_view<accumulate_t<T>> state_out;
  bool x_vectorizable = false, y_vectorizable = false;
};

/// The forward pass of one item: some channels of one sequence.
/// Near memory: shared_memory_elements. Far memory, bidirectional only: global_scratch_elements, the causal half's outputs.
template <class Group, element T, ema_shape Shape, ema_policy Policy, class Scan = group_scan>
struct ema_forward_agent : detail::ema_group<Group, T, Shape, Policy, Scan> {
  using base = detail::ema_group<Group, T, Shape, Policy, Scan>;
  using typename base::A, typename base::value, typename base::tiling, typename base::memory;
  using base::group, base::shared_memory, base::N, base::channels, base::shared;
  using group_type = Group;
  using params_type = ema_forward_params<T>;
  static constexpr int group_size = Group::size();
  static constexpr bool bidirectional = Shape.directions() == 2;

  static constexpr int carry = memory::first, tile = round_up(carry + memory::table, 16);
  static constexpr int other = tile + round_up(tiling::buffer, 16),
                       table = other + (bidirectional ? round_up(tiling::buffer, 16) : 0);
  static constexpr int stage = table + (shared ? tiling::slots(N) : 0), scratch = stage + tiling::stage;
  static constexpr size_t shared_memory_elements(params_type const&) {
    return scratch + divide_up(Scan::template bytes<A, group_size>, sizeof(A));
  }
  static constexpr size_t global_scratch_elements(params_type const& p) {
    return bidirectional ? size_t(p.x.extent[2]) * channels : 0;
  }
  static constexpr index_t items(params_type const& p) { return base::items(p.x.extent[0], p.x.extent[1]); }

  params_type const& params;
  A* global_scratch;
  TCNCA_HOST_DEVICE ema_forward_agent(Group g, params_type const& p, A* shared_memory, A* global_scratch)
      : base(g, shared_memory), params(p), global_scratch(global_scratch) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const groups = divide_up(params.x.extent[1], index_t(channels));
    batch_ = item / groups;
    channel_ = item % groups * channels;
    x_ = {params.x, batch_, channel_, params.x_vectorizable};
    y_ = {params.y, batch_, channel_, params.y_vectorizable};
    begin(0);
    if (params.state_in.present() || params.state_out.present()) walk<false, true>();
    else walk<false, false>();
    if (params.state_out.present())
      this->for_each_row(x_.existing, [&](int r, int n, int c, int count) {
        this->store_state(params.state_out, batch_, channel_ + c, n, count, this->get(carry, r));
      });
    if constexpr (bidirectional) {
      group.sync();
      begin(1);
      walk<true, false>();
    }
    group.sync();  // the next item reuses the memory
  }

 private:
  index_t batch_, channel_;
  detail::ema_sequence<Group, T const, tiling> x_;
  detail::ema_sequence<Group, T, tiling> y_;

  TCNCA_HOST_DEVICE void begin(int half) const {
    this->load_coefficients(params.parameters, channel_, x_.existing, half * params.x.extent[1]);
    this->for_each_row(x_.existing, [&](int r, int n, int c, int count) {
      bool const state = params.state_in.present();
      this->put(carry, r,
                state ? this->load_state(params.state_in, batch_, channel_ + c, n, count) : broadcast<base::W>(A(0)));
    });
  }

  template <bool Reverse, bool Exact>
  TCNCA_HOST_DEVICE void walk() const {
    constexpr bool last = !bidirectional || Reverse;
    this->template for_each_tile<Reverse>(params.x.extent[2], [&](index_t first, int n) {
      group.sync();  // the tile before has been stored
      x_.load(group, first, n, shared_memory + tile, shared_memory + stage);
      if constexpr (bidirectional && last) {
        this->copy(global_scratch + first * channels, shared_memory + other, n * channels);
      }
      group.sync();
      auto const prepare = [&](int r) TCNCA_INLINE {  // GCC drops the call of a function that only prefetches
        x_.prefetch(this->template after<Reverse>(first, n), r, params.x.extent[2]);
        if (last) y_.prefetch(this->template after<Reverse>(first, n), r, params.x.extent[2]);
      };
      value const omega = Shape.skip && last ? this->omega() : broadcast<base::W>(A(0));
      this->template recurrence<Reverse, Exact>(
          shared_memory + tile, n, carry, table, scratch, prepare, [&](int at, value x, value y) TCNCA_INLINE {
            if constexpr (bidirectional && last) {
              y = y + load<base::W>(const_cast<A const*>(shared_memory + other + at));
            }
            if constexpr (Shape.skip && last) { y = activate<activation::silu>(fma(omega, x, y)).value; }
            store<base::W>(shared_memory + tile + at, y);
          });
      group.sync();
      if constexpr (last) {
        y_.store(group, first, n, shared_memory + tile, shared_memory + stage);
      } else {
        this->copy(shared_memory + tile, global_scratch + first * channels, n * channels);
      }
    });
    group.sync();
  }
};

}  // namespace tcnca
