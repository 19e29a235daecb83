// The forward kernel: one group walks along one sequence for some channels. x enters tile by tile, passes through all
// layers in the group's memory, and y leaves. Each layer keeps a ring of its newest inputs, as long as its history;
// nothing else is stored.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of the forward pass. An item is one segment of one sequence, for the channels of a group.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_forward_agent : detail::conv_stack_group<Group, T, Shape, Policy> {
  using base = detail::conv_stack_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::ring_type, typename base::value;
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  using base::Lanes, base::group, base::vector_elements;
  using group_type = Group;
  using params_type = conv_stack_forward_params<T, Shape.layers(), parameter_t<T, Shape.weights>>;
  static constexpr int layers = Shape.layers();
  static constexpr conv_stack_spaces<Policy> spaces = conv_stack_forward_spaces<T, Shape, Policy>;
  params_type const& params;

  TCNCA_HOST_DEVICE conv_stack_forward_agent(Group g, params_type const& p, A* shared, A* scratch)
      : base{g, shared, scratch}, params(p) {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(Lanes.channels())) * p.segments;
  }
  static constexpr group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = p.plan.shared_memory * sizeof(A),
            .global_scratch_bytes = p.plan.global_scratch * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const segment = item % params.segments, groups = divide_up(params.x.extent[1], index_t(Lanes.channels()));
    number_ = item / params.segments / groups;
    channel_ = item / params.segments % groups * Lanes.channels();
    sequence_place const place = base::place_of(params, number_);
    length_ = place.length;
    segment_begin_ = segment * params.segment_length;
    segment_end_ = min_of(length_, segment_begin_ + params.segment_length);
    // Another kernel takes the sequence, or it has fewer segments than the longest one.
    if (use_step_kernel(place, params.step_limit) || (segment > 0 && segment_begin_ >= length_)) return;
    x_ = base::lanes_of(params.x, place, channel_, params.x_vectorizable, base::x_vector_elements);
    y_ = base::lanes_of(params.y, place, channel_, params.y_vectorizable, Lanes.width);
    for (direction_ = 0; direction_ < Shape.directions(); direction_++) walk();
    if (base::can_stream(layers - 1) && params.y_streaming) end_streaming();
  }

 private:
  index_t number_, channel_, length_;    // of the sequence in the call, its first channel here, its positions
  index_t segment_begin_, segment_end_;  // the outputs of this item
  index_t walk_begin_;                   // the walk starts here, before the segment
  index_t data_begin_;                   // inputs before this position are zero
  int direction_;
  sequence_lanes<T const, Lanes> x_;
  sequence_lanes<T, Lanes> y_;

  TCNCA_HOST_DEVICE ring_type ring_at(memory_place const& m) const {
    return {base::template at<spaces.rings>(m), m.mask};
  }
  TCNCA_HOST_DEVICE A* staging() const { return base::template at<spaces.rings>(params.plan.staging); }
  TCNCA_HOST_DEVICE A* weights() const { return base::template at<spaces.weight>(params.plan.weight); }
  /// Whether the sequence has a row of the states.
  TCNCA_HOST_DEVICE bool has_slot() const { return base::place_of(params, number_).slot >= 0; }
  /// A layer's part of a state before the first sample, or after the last one.
  template <class U>
  TCNCA_HOST_DEVICE detail::layer_state<U> state_before(sequence_view<U> const& state, int l) const {
    return base::state_at(params, state, number_, l, channel_, x_.channels, false);
  }
  template <class U>
  TCNCA_HOST_DEVICE detail::layer_state<U> state_after(sequence_view<U> const& state, int l) const {
    return base::state_at(params, state, number_, l, channel_, x_.channels, true);
  }

  /// One direction of the stack over the segment.
  TCNCA_HOST_DEVICE void walk() {
    auto const& schedule = params.plan.schedule;
    start();
    for (index_t before = walk_begin_;; before += schedule.step) {
      index_t const end = min_of(before + schedule.step, length_);
      this->load_input(ring_at(params.plan.input[0]), x_, before, end, staging());
      if (before < length_ && end == length_) clear_after_end(0);
      group.sync();
      level_progress progress = schedule.input(walk_begin_, before);
      // After the last input a causal layer has at most one tile left, and computes it although it is incomplete.
      if (Shape.dir == direction::causal && end == length_) progress.after = tiling::flush_position(length_);
      for (int l = 0; l < layers; l++) {
        progress = schedule.output(progress, l, Shape.look_ahead(l, direction_));
        index_t const tile = schedule.tile[l];
        for (index_t t = progress.before; t < min_of(progress.after, length_); t += tile) compute(l, t, t + tile);
      }
      if (progress.after >= segment_end_) break;
    }
    if (params.state_out.present() && segment_end_ == length_ && has_slot()) {
      for (int l = 0; l < layers; l++)
        detail::store_history(group, ring_at(params.plan.input[l]), state_after(params.state_out, l), data_begin_ < 0);
    }
    group.sync();  // the next walk reuses the memory
  }

  /// Loads the weights, and what precedes the walk: the state, or zeros.
  TCNCA_NOINLINE void start() {
    index_t look_ahead = 0;
    for (int l = 0; l < layers; l++) look_ahead += Shape.look_ahead(l, direction_);
    // A later segment starts one receptive field early: the inputs of its own outputs are then exact.
    index_t const first_input = segment_begin_ + look_ahead - (Shape.receptive_field() - 1);
    walk_begin_ = max_of(index_t(0), first_input) / vector_elements * vector_elements;
    bool const has_state = params.state_in.present() && walk_begin_ == 0 && has_slot();
    this->load_weights(weights(), params.weight, params.bias, params.omega, channel_, x_.channels, direction_);
    for (int l = 0; l < layers; l++) {
      ring_type const r = ring_at(params.plan.input[l]);
      if (has_state) detail::load_history(group, r, state_before(params.state_in, l));
      else
        this->clear(r, walk_begin_ - tiling::zeros_before(l, params.plan.schedule.tile[l], segment_end_ - walk_begin_),
                    walk_begin_);
    }
    data_begin_ = has_state ? -Shape.receptive_field() : walk_begin_;
  }

  /// Writes the zeros that a layer with look-ahead reads after the end of the sequence.
  TCNCA_HOST_DEVICE void clear_after_end(int l) const {
    if constexpr (Shape.dir != direction::causal) {
      index_t const tile = min_of(params.plan.schedule.tile[l].positions, length_);
      if (index_t const look_ahead = Shape.look_ahead(l, direction_); look_ahead > 0)
        this->clear(ring_at(params.plan.input[l]), length_, length_ + tiling::zeros_after(l, tile, look_ahead));
    }
  }

  /// Computes the outputs [from, to) of a layer, into the next layer's ring or y. Ends with a barrier.
  TCNCA_HOST_DEVICE void compute(int l, index_t from, index_t to) const {
    bool const is_last = l + 1 == layers;
    if (is_last) from = max_of(from, segment_begin_);
    to = min_of(to, is_last ? segment_end_ : length_);
    if (from >= to) return;
    // The last layer has loops of its own, without a test of the destination for each pack.
    if (is_last) {
      compute_output(from, to);
    } else if constexpr (layers > 1) {
      compute_hidden(l, from, to);
      if (to == length_) clear_after_end(l + 1);
    }
    group.sync();
  }
  TCNCA_NOINLINE void compute_hidden(int l, index_t from, index_t to) const {
    tile_writer<A, Lanes> const next(ring_at(params.plan.input[l + 1]), from, to - from, staging());
    layer_sums<0, layers - 1>(l, from, to,
                              [next](int offset, int p, value v) TCNCA_INLINE { next.store(offset, p, v); });
    next.finish();
  }
  TCNCA_NOINLINE void compute_output(index_t from, index_t to) const {
    sequence_writer<T, Lanes> const y(y_, from, to - from, base::can_stream(layers - 1) && params.y_streaming);
    layer_sums<layers - 1, layers>(layers - 1, from, to, [this, y, from, to](int offset, int p, value v) TCNCA_INLINE {
      store_output(y, from + offset, offset, p, to, v);
    });
  }

  /// emit(offset, p, output) for the packs of [from, to) of a layer in [First, Last).
  template <int First, int Last, class Emit>
  TCNCA_HIDDEN TCNCA_HOST_DEVICE void layer_sums(int l, index_t from, index_t to, Emit const& emit) const {
    bool const adds_residual = Shape.ends_residual(l);
    constexpr int span = max_of(1, Shape.residual_span());
    ring_type const residual = ring_at(params.plan.input[Shape.residual_span() > 0 ? l / span * span : 0]);
    this->template dilated_sums<First, Last>(
        l, ring_at(params.plan.input[l]), this->taps_of(weights(), l, direction_ == 1), from, to,
        Shape.look_ahead(l, direction_), data_begin_, length_,
        [emit, residual, adds_residual, from](int offset, int p, value sum) TCNCA_INLINE {
          auto const a = detail::activate_layer<Shape>(sum, [&](value v) TCNCA_INLINE {
            return Shape.residual_span() > 0 && adds_residual ? v + residual.load(uint32(from + offset), p) : v;
          });
          emit(offset, p, a.value);
        });
  }

  /// Writes y at position t: the sum of both directions, the skip connection, the final SiLU.
  TCNCA_HOST_DEVICE void store_output(sequence_writer<T, Lanes> const& y, [[maybe_unused]] index_t t, int offset, int p,
                                      [[maybe_unused]] index_t to, value v) const {
    if constexpr (Shape.dir == direction::bidirectional) {
      A* const partial = base::template at<spaces.sequences>(params.plan.partial) +
                         (t - segment_begin_) * Lanes.channels() + p * Lanes.width;
      if (direction_ == 0) return store<Lanes.width>(partial, v);
      v = v + load<Lanes.width>(const_cast<A const*>(partial));
    }
    if constexpr (Shape.skip) {
      value const omega = load_tap<A, Lanes>(this->omega_of(weights()), p);
      v = activate<activation::silu>(fma(omega, x_.load(t, p, to - t), v)).value;
    }
    y.store(offset, p, v);
  }
};

}  // namespace tcnca
