// The forward kernel on a CPU: a thread walks along a sequence in blocks. A block of x passes all layers in registers
// and leaves to y; each layer keeps its newest inputs in a window.
#pragma once
#include "../../block/agent.hpp"
#include "../../block/group.hpp"
#include "../generic/plan.hpp"
#include "block.hpp"
#include "partial.hpp"
#include "plan.hpp"
#include "state.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of the forward pass on a CPU. An item is one segment of one sequence, for one channel or a few packs of
/// channels. Outputs have the bits of conv_stack_forward_agent.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_vector_forward_agent {
  static_assert(Group::size() == 1);
  using plan = conv_stack_vector_plan<T, Shape, Policy>;
  using A = typename plan::A;
  using Weight = parameter_t<T, Shape.weights>;
  using group_type = Group;
  using params_type = conv_stack_forward_params<T, Shape.layers(), Weight>;
  static constexpr lanes Lanes = plan::Lanes;
  static constexpr int layers = plan::layers, W = Lanes.width, x_vector_elements = W;
  static constexpr index_t P = Lanes.positions(), block_positions = plan::block_positions;
  static constexpr int block_vectors = plan::block_vectors;
  using value = pack<A, W>;
  using block = typename plan::block;

  params_type const& params;

  TCNCA_HOST_DEVICE conv_stack_vector_forward_agent(Group, params_type const& p, A* shared, A* scratch)
      : params(p), memory_(shared), scratch_(scratch) {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], channels_per_item(p)) * p.segments;
  }
  /// Packs of channels per item: as many as leave enough items for the workers; one if x and y fit into the workers'
  /// second caches.
  TCNCA_HOST_DEVICE static constexpr int packs_per_item(sequence_view<T const> const& x, index_t workers) {
    index_t const batch = x.extent[0], channels = x.extent[1];
    if (2 * x.count() * index_t(sizeof(T)) <= workers << 20) return 1;
    for (int packs = plan::max_packs; packs > 1; packs /= 2) {
      index_t const items = batch * divide_up(channels, index_t(packs * W));
      if (items >= 4 * workers || (items > 0 && items % workers == 0)) return packs;
    }
    return 1;
  }
  static constexpr group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = size_t(plan::elements * plan::max_packs) * sizeof(A),
            .global_scratch_bytes = bidirectional ? size_t(partial_elements(p) * plan::max_packs) * sizeof(A) : 0};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const segment = item % params.segments, groups = divide_up(params.x.extent[1], channels_per_item(params));
    batch_ = item / params.segments / groups;
    first_channel_ = item / params.segments % groups * channels_per_item(params);
    packs_ =
        int(min_of(index_t(params.packs), divide_up(params.x.extent[1] - first_channel_, index_t(plan::channels))));
    length_ = params.x.extent[2];
    segment_begin_ = segment * params.segment_length;
    segment_end_ = min_of(length_, segment_begin_ + params.segment_length);
    unroll<0, Shape.directions()>([&](auto direction) TCNCA_INLINE { walk<decltype(direction)::value>(); });
    if (params.y_streaming) end_streaming();
  }

 private:
  static constexpr bool bidirectional = Shape.dir == direction::bidirectional;
  /// Whether a vector of y may be stored with a non-temporal store: neighbouring vectors are whole cache lines.
  static constexpr bool can_stream = Lanes.along_length ? W * sizeof(T) >= 16 : W * sizeof(T) >= 64;

  /// Whether taps of the first layer may be loaded from x.
  static constexpr bool reads_history_from_x = same<T, A> && Lanes.along_length && W > 1;
  /// Positions that each pack of channels of an item takes in turn: x and y are accessed in whole rows of their
  /// memory, but for a short time.
  static constexpr index_t positions_per_turn = 16 * block_positions;

  A *memory_, *scratch_;
  index_t batch_, first_channel_, length_;
  int packs_;                            // of the item
  A *parameters_, *partial_;             // of the current pack
  index_t channel_, channels_;           // of the current pack
  index_t turn_begin_, prefetched_;      // the current turn, and vectors of the next one that have been prefetched
  index_t segment_begin_, segment_end_;  // the outputs of this item
  index_t walk_begin_;                   // the walk starts here, before the segment
  bool has_state_;                       // the windows start with a state
  T const* x_;
  T* y_;

  /// Elements of x and y from one vector of a block to the next.
  TCNCA_HOST_DEVICE static index_t step_of(auto const& v) { return Lanes.along_length ? index_t(W) : v.stride[2]; }
  TCNCA_HOST_DEVICE static index_t offset_of(auto const& v, index_t t) {
    return Lanes.along_length ? t : t * v.stride[2];
  }

  /// x from position s on, if that is what a window keeps.
  TCNCA_HOST_DEVICE A const* x_block([[maybe_unused]] index_t s) const {
    if constexpr (reads_history_from_x) {
      return x_ + s;
    } else {
      return nullptr;
    }
  }
  TCNCA_HOST_DEVICE static constexpr index_t channels_per_item(params_type const& p) {
    return Lanes.along_length ? 1 : p.packs * W;
  }
  TCNCA_HOST_DEVICE static constexpr index_t partial_elements(params_type const& p) {
    return (p.segment_length + 2 * block_positions) * plan::channels;
  }

  /// Selects a pack of the item. Returns the memory of its windows.
  TCNCA_HOST_DEVICE A* select(int pack) {
    channel_ = first_channel_ + pack * plan::channels;
    channels_ = min_of(index_t(plan::channels), params.x.extent[1] - channel_);
    x_ = params.x.at(batch_, channel_, 0);
    y_ = params.y.at(batch_, channel_, 0);
    parameters_ = memory_ + pack * plan::elements;
    partial_ = scratch_ + pack * partial_elements(params);
    return parameters_ + plan::parameter_elements;
  }

  /// One direction of the stack over the segment.
  template <int Direction>
  TCNCA_NOINLINE void walk() {
    using windows_type = detail::layer_windows<plan, Direction>;
    for (int p = 0; p < packs_; p++) start<Direction>(select(p));
    index_t const end = segment_end_ + plan::look_ahead_before(layers, Direction);
    if constexpr (Lanes.along_length) {
      windows_type windows(select(0));
      walk_blocks<Direction>(windows, walk_begin_, end, end);
    } else {
      windows_type first(memory_);  // of the current turn
      index_t s = walk_begin_;
      do {
        index_t const turn_end = min_of(s + positions_per_turn, end);
        windows_type windows(first);
        for (int p = 0; p < packs_; p++) {
          windows = windows_type(first, select(p));
          turn_begin_ = s, prefetched_ = p * positions_per_turn;
          walk_blocks<Direction>(windows, s, turn_end, end);
        }
        first = windows;
        s += positions_per_turn;
      } while (s < end);
    }
  }

  /// The blocks of the current pack from walk position `from` on, until `to` or the end of the walk.
  template <int Direction>
  TCNCA_HOST_DEVICE void walk_blocks(detail::layer_windows<plan, Direction>& windows, index_t from, index_t to,
                                     index_t end) {
    constexpr index_t look_ahead = plan::look_ahead_before(layers, Direction);
    index_t const begin = walk_begin_, length = length_;
    bool const has_state = has_state_, saves_state = params.state_out.present() && segment_end_ == length_;
    block v, residual;
    for (index_t s = from;; s += block_positions) {
      bool const is_last = s + block_positions >= end;
      load_x(v, s);
      if constexpr (!Lanes.along_length) {
        if (plan::max_packs == 1 || packs_ > 1) prefetch_next_turn();
      }
      unroll<0, layers>([&](auto layer) TCNCA_INLINE {
        constexpr int l = decltype(layer)::value;
        constexpr index_t ahead = plan::look_ahead_before(l, Direction),
                          ahead_of_use =
                              ahead + max_of(Shape.look_ahead(l, Direction), plan::residual_delay(l, Direction));
        detail::compiler_fence();
        auto& window = windows.template of<l>();
        index_t first = begin;  // the window starts here
        if constexpr (look_ahead > 0) {
          index_t const t = s - ahead;
          if (t < 0 || t + block_positions > length) [[unlikely]] {
            // A layer that has not started, or whose outputs are all outside, leaves out only zeros.
            if (t + block_positions <= 0 || s - ahead_of_use >= length) return;
            detail::with_copy(v, [&](block& copy) { detail::clear_outside<Lanes>(copy, t, length); });
          }
          if (ahead > begin) first += (ahead - begin) / block_positions * block_positions;
        }
        if constexpr (Shape.dir == direction::causal) {
          if (is_last && saves_state) [[unlikely]]
            detail::with_copy(v, [&](block& copy) { save_state<l>(window, copy, s); });
        }
        if constexpr (Shape.starts_residual(l) && plan::residual_delay(l, Direction) == 0) {
          detail::copy_block(residual, v);
        }
        dilated_taps<A> const taps = taps_of(l, Direction == 1);
        int const live = has_state ? Shape.taps : window.live_taps(s, first);
        bool const is_read = plan::residual_delay(l, Direction) > 0 || saves_state || s + Shape.dilation(l) < end;
        bool const history_in_x = s >= window.history && s + block_positions <= length;
        if (l == 0 && reads_history_from_x && history_in_x) [[likely]]
          window.template convolve<l == 0 && reads_history_from_x>(taps, live, v, x_block(s), is_read);
        else window.convolve(taps, live, v, nullptr, is_read);
        if constexpr (!Shape.post_activation) { detail::activate_block<Shape.act>(v); }
        if constexpr (Shape.ends_residual(l)) {
          constexpr int start = l + 1 - Shape.residual_span();
          if constexpr (plan::residual_delay(start, Direction) > 0) {
            windows.template of<start>().load_delayed(residual);
          }
          unroll<0, block_vectors>([&](auto u) TCNCA_INLINE { v[u] = v[u] + residual[u]; });
        }
        if constexpr (Shape.post_activation) { detail::activate_block<Shape.act>(v); }
      });
      detail::compiler_fence();
      store_output<Direction>(v, s - look_ahead);
      if (s + block_positions >= to) break;
    }
  }

  /// Prefetches a block's share of x and y for the next turn of all packs, in the order of memory: a processor's own
  /// prefetcher then recognizes it.
  TCNCA_HOST_DEVICE void prefetch_next_turn() {
    index_t t = turn_begin_ + positions_per_turn + prefetched_ / packs_, pack = prefetched_ % packs_;
    prefetched_ += block_vectors;
    for (int u = 0; u < block_vectors && t < params.x.extent[2]; u++) {
      detail::prefetch(params.x.at(batch_, first_channel_ + pack * W, t));
      if (!params.y_streaming) detail::prefetch(params.y.at(batch_, first_channel_ + pack * W, t));
      if (++pack == packs_) pack = 0, t++;
    }
  }

  /// Loads the parameters, and what precedes the walk: the state, or zeros.
  template <int Direction>
  TCNCA_NOINLINE void start(A* memory) {
    constexpr index_t look_ahead = plan::look_ahead_before(layers, Direction), shift = look_ahead % P;
    // A later segment starts one receptive field early: the inputs of its own outputs are then exact.
    index_t const first = max_of(index_t(0), segment_begin_ + look_ahead - (Shape.receptive_field() - 1));
    // Blocks of y are aligned like the sequence.
    walk_begin_ = (first - shift + P) / P * P - P + shift;
    has_state_ = params.state_in.present() && first == 0;
    load_parameters(Direction);
    detail::layer_windows<plan, Direction> windows(memory);
    unroll<0, layers>([&](auto layer) TCNCA_INLINE {
      constexpr int l = decltype(layer)::value;
      auto& window = windows.template of<l>();
      if (has_state_) {
        if constexpr (Shape.history(l) > 0) {
          auto const state = detail::layer_state<A const>::template of<Shape>(l, params.state_in, batch_, channel_,
                                                                              channels_, 0, params.slots.begin[l]);
          detail::copy_history<false, Lanes>(
              state, -window.history, window.history,
              detail::history_ring<A>{window.memory, window.capacity, window.capacity - window.history});
        }
      } else {
        window.clear();
      }
    });
  }

  /// Writes the state of layer l after the last position. v are its inputs from position s on, in the last block.
  template <int l>
  TCNCA_HOST_DEVICE void save_state(auto const& window, block const& v, index_t s) const {
    if constexpr (Shape.history(l) > 0) {
      auto const state = detail::layer_state<A>::template of<Shape>(l, params.state_out, batch_, channel_, channels_,
                                                                    length_, params.slots.end[l]);
      save_history(state, detail::history_ring<A>{window.memory, window.capacity, window.slot}, v, s);
    }
  }
  TCNCA_NOINLINE void save_history(detail::layer_state<A> const& state, detail::history_ring<A> ring, block const& v,
                                   index_t s) const {
    index_t t = length_ - state.history;
    if (index_t const outside = min_of(-t, state.history); !has_state_ && outside > 0) {
      detail::clear_history(state, t, outside);
      t += outside;
    }
    if (t < s) {
      ring.slot -= s - t;
      if (ring.slot < 0) ring.slot += ring.capacity;
      detail::copy_history<true, Lanes>(state, t, s - t, ring);
      t = s;
    }
    alignas(64) A positions[block_positions * plan::channels];
    detail::store_block(positions, v);
    detail::copy_history<true, Lanes>(state, t, length_ - t,
                                      detail::history_ring<A>{positions, block_positions, t - s});
  }

  /// Copies the parameters of one direction: [layer][tap][channel], then biases, then omega. Channels that do not exist
  /// become zero.
  TCNCA_NOINLINE void load_parameters(int direction) {
    A* to = parameters_;
    auto const copy_row = [&](Weight const* from, index_t stride) TCNCA_INLINE {
      if constexpr (plan::channels == 1) {
        *to = to_accumulate(*from);
      } else {
        store<W>(to, stride == 1 && channels_ == W ? load<W>(from) : load_some<W>(from, stride, channels_));
      }
      to += plan::channels;
    };
    Weight const* layer = params.weight.at(direction * layers, 0, channel_);
    for (int l = 0; l < layers; l++, layer += params.weight.stride[0]) {
      Weight const* tap = layer;
      for (int k = 0; k < Shape.taps; k++, tap += params.weight.stride[1]) copy_row(tap, params.weight.stride[2]);
    }
    for (int l = direction * layers; Shape.bias && l < (direction + 1) * layers; l++)
      copy_row(params.bias.at(l, channel_), params.bias.stride[1]);
    if constexpr (Shape.skip) { copy_row(params.omega.at(channel_), params.omega.stride[0]); }
  }
  /// The taps of a layer and its bias. reversed: the last tap first.
  TCNCA_HOST_DEVICE dilated_taps<A> taps_of(int layer, bool reversed) const {
    A const* const first = parameters_ + layer * Shape.taps * plan::channels;
    A const* const bias = Shape.bias ? parameters_ + (layers * Shape.taps + layer) * plan::channels : nullptr;
    if (reversed) return {.tap = first + (Shape.taps - 1) * plan::channels, .step = -plan::channels, .bias = bias};
    return {.tap = first, .step = plan::channels, .bias = bias};
  }

  /// v becomes the positions [t, t + block) of x, zero outside of the sequence.
  TCNCA_HOST_DEVICE void load_x(block& v, index_t t) const {
    T const* const from = x_ + offset_of(params.x, t);
    index_t const step = step_of(params.x);
    if constexpr (Lanes.along_length) {
      constexpr index_t elements_ahead = 2048 / sizeof(T);
      unroll<0, block_vectors>([&](auto u) TCNCA_INLINE { detail::prefetch(from + u * step + elements_ahead); });
    }
    if (t < 0 || t + block_positions > length_ || channels_ < plan::channels) [[unlikely]] {
      block copy;
      load_edge(copy, t);
      detail::copy_block(v, copy);
    } else {
      unroll<0, block_vectors>([&](auto u) TCNCA_INLINE { v[u] = load<W>(from + u * step); });
    }
  }
  TCNCA_NOINLINE void load_edge(block& v, index_t t) const {
    for (int u = 0; u < block_vectors; u++) {
      index_t const at = t + u * P, before = max_of(index_t(0), -at), after = min_of(P, length_ - at);
      T const* const from = x_ + offset_of(params.x, at);
      if (after <= before) {
        v[u] = broadcast<W>(A(0));
      } else if (!Lanes.along_length) {
        v[u] = detail::load_partial<W>(from, channels_);
      } else if (before == 0 && after == W) {
        v[u] = load<W>(from);
      } else if (before == 0) {
        v[u] = detail::load_partial<W>(from, after);
      } else {
        for (int i = 0; i < W; i++) v[u].set_lane(i, i >= before && i < after ? to_accumulate(from[i]) : A(0));
      }
    }
  }
  /// Writes the outputs of the segment in the block from position t on: the sum of both directions, the skip
  /// connection, the final SiLU.
  template <int Direction>
  TCNCA_HOST_DEVICE void store_output(block& v, index_t t) const {
    if (t + block_positions <= segment_begin_ || t >= segment_end_) [[unlikely]]
      return;
    if constexpr (bidirectional) {
      A* const partial = partial_ + (t - segment_begin_ + block_positions) * plan::channels;
      if constexpr (Direction == 0) {
        return detail::store_block(partial, v);
      } else {
        unroll<0, block_vectors>([&](auto u)
                                     TCNCA_INLINE { v[u] = v[u] + load<W>(const_cast<A const*>(partial + u * W)); });
      }
    }
    if constexpr (Shape.skip) {
      detail::with_copy(v, [&](block& copy) { add_skip(copy, t); });
    }
    if (t < segment_begin_ || t + block_positions > segment_end_ || channels_ < plan::channels) [[unlikely]] {
      detail::with_copy(v, [&](block& copy) { store_edge(copy, t); });
      return;
    }
    T* const to = y_ + offset_of(params.y, t);
    index_t const step = step_of(params.y);
    if (can_stream && params.y_streaming) {
      unroll<0, block_vectors>([&](auto u) TCNCA_INLINE { store_streaming<W>(to + u * step, v[u]); });
    } else {
      unroll<0, block_vectors>([&](auto u) TCNCA_INLINE { store<W>(to + u * step, v[u]); });
    }
  }
  TCNCA_NOINLINE void add_skip(block& v, index_t t) const {
    auto const omega = load_tap<A, Lanes>(parameters_ + Shape.parameters_per_direction() * plan::channels, 0);
    block x;
    load_x(x, t);
    unroll<0, block_vectors>([&](auto u)
                                 TCNCA_INLINE { v[u] = activate<activation::silu>(fma(omega, x[u], v[u])).value; });
  }
  TCNCA_NOINLINE void store_edge(block const& v, index_t t) const {
    for (int u = 0; u < block_vectors; u++) {
      index_t const at = t + u * P, before = max_of(index_t(0), segment_begin_ - at),
                    after = min_of(P, segment_end_ - at);
      if (after <= before) continue;
      T* const to = y_ + offset_of(params.y, at);
      if (!Lanes.along_length) {
        detail::store_partial<W>(to, channels_, v[u]);
      } else if (before == 0 && after == W) {
        store<W>(to, v[u]);
      } else if (before == 0) {
        detail::store_partial<W>(to, after, v[u]);
      } else {
        for (index_t i = before; i < after; i++) to[i] = from_accumulate<T>(v[u].lane(int(i)));
      }
    }
  }
};

}  // namespace tcnca
