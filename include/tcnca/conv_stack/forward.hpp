// One group walks along the sequences of its channels once: x comes in tile by tile, passes all layers in fast memory, y goes out.
// Each layer keeps a ring of its newest inputs, as many as it looks back; nothing else is stored.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What a forward pass is given; the same for all groups.
template <element T, int Layers>
struct conv_stack_forward_params {
  sequence_view<T const> x;
  tensor_view<T const, 3> weight;
  tensor_view<T const, 2> bias;
  tensor_view<T const, 1> omega;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T> y;
  sequence_view<accumulate_t<T>> state_out;
  index_t position = 0;
  index_t segments = 1, segment_length = 0;  // each sequence is cut in this many pieces, walked by different groups
  bool x_vectorizable = false, y_vectorizable = false;  // packs of x and y may be accessed whole
  bool y_streaming =
      false;  // y goes past the caches: its rows are aligned, and larger than what a later pass would find there
  bool all_vectorizable = false;  // and those of every other tensor too
  conv_stack_forward_plan<Layers> plan = {};
};

/// The forward pass of one item: some channels of one sequence, one segment.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_forward_agent : detail::conv_stack_group<Group, T, Shape, Policy> {
  using base = detail::conv_stack_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::ring_type, typename base::value;
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  using base::Lanes, base::group, base::vector_elements, base::at, base::ring_at;
  using group_type = Group;
  using params_type = conv_stack_forward_params<T, Shape.layers()>;
  static constexpr int layers = Shape.layers(), taps = Shape.taps;
  static constexpr index_t P = Lanes.positions();
  params_type const& params;

  TCNCA_HOST_DEVICE conv_stack_forward_agent(Group g, params_type const& p, A* shared_memory, A* global_scratch)
      : base{g, shared_memory, global_scratch}, params(p) {
    this->spare = at(p.plan.spare);
  }

  /// Items, each a call of operator().
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(Lanes.channels())) * p.segments;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const segment = item % params.segments, groups = divide_up(params.x.extent[1], index_t(Lanes.channels()));
    batch_ = item / params.segments / groups;
    channel_ = item / params.segments % groups * Lanes.channels();
    length_ = params.x.extent[2];
    from_ = segment * params.segment_length;
    to_ = min_of(length_, from_ + params.segment_length);
    x_ = {params.x, batch_, channel_, params.x_vectorizable};
    y_ = {params.y, batch_, channel_, params.y_vectorizable};
    for (direction_ = 0; direction_ < Shape.directions(); direction_++) walk();
    if (base::streams(layers - 1) && params.y_streaming) end_streaming();
  }

 private:
  index_t batch_, channel_, length_;
  index_t from_, to_;    // the outputs of this segment
  index_t begin_, low_;  // the walk begins here; inputs before low_ are zero
  int direction_;
  sequence_lanes<T const, Lanes> x_;
  sequence_lanes<T, Lanes> y_;

  /// One direction_index of the stack over the segment.
  TCNCA_HOST_DEVICE void walk() {
    auto const& plan = params.plan;
    start();
    for (index_t before = begin_;; before += plan.step) {
      index_t const end = min_of(before + plan.step, length_);
      this->append(ring_at(plan.input[0]), x_, before, end);
      if (before < length_ && end == length_) finish(0);
      group.sync();
      // What each layer had and has now of its inputs follows from what the first one had and has.
      // With all of x there a causal layer has no more than a tile to do, and need not wait for the tile to fill.
      bool const all = Shape.dir == direction::causal && end == length_;
      index_t had = before, has = all ? tiling::beyond(length_) : before + plan.step;
      for (int l = 0; l < layers; l++) {
        index_t const look_ahead = Shape.look_ahead(l, direction_), step = plan.tile[l];
        index_t const done = detail::whole_tiles(had, look_ahead, step, begin_);
        had = done;
        has = detail::whole_tiles(has, look_ahead, step, begin_);
        for (index_t t = done; t < min_of(has, length_); t += step) layer(l, t, t + step);
      }
      if (has >= to_) break;
    }
    if (params.state_out.present() && to_ == length_) store_state();
    group.sync();  // the next walk reuses the memory
  }

  /// Weights, and what lies before the sequence: the state, or as many zeros as one tile can reach.
  TCNCA_NOINLINE void start() {
    index_t ahead = 0;
    for (int l = 0; l < layers; l++) ahead += Shape.look_ahead(l, direction_);
    // A later segment starts a receptive field early: what its own outputs depend on is then exact.
    begin_ = max_of(index_t(0), from_ + ahead - (Shape.receptive_field() - 1)) / vector_elements * vector_elements;
    bool const state = params.state_in.present() && begin_ == 0;
    this->load_weights(at(params.plan.weight), params.weight, params.bias, params.omega, channel_, x_.channels,
                       direction_);
    for (int l = 0; l < layers; l++) {
      ring_type const r = ring_at(params.plan.input[l]);
      if (state) this->load_history(r, params.state_in, batch_, channel_, x_.channels, l, params.position);
      else this->clear(r, begin_ - tiling::reach(l, params.plan.tile[l], to_ - begin_), begin_);
    }
    low_ = state ? -Shape.receptive_field() : begin_;
  }

  /// A layer that looks ahead reads zeros past the end.
  TCNCA_HOST_DEVICE void finish(int l) const {
    if constexpr (Shape.dir != direction::causal) {
      if (index_t const ahead = Shape.look_ahead(l, direction_); ahead > 0)
        this->clear(ring_at(params.plan.input[l]), length_,
                    length_ + tiling::reach_ahead(l, min_of(params.plan.tile[l], length_), ahead));
    }
  }

  /// Outputs [from, to) of a layer into the next ring or into y.
  TCNCA_HOST_DEVICE void layer(int l, index_t from, index_t to) const {
    bool const last = l + 1 == layers;
    if (last) from = max_of(from, from_);
    to = min_of(to, last ? to_ : length_);
    if (from >= to) return;
    A const* const weights = at(params.plan.weight);
    ring_type const in = ring_at(params.plan.input[l]);
    ring_type const residual =
        ring_at(params.plan.input[Shape.residual_span() > 0 ? l / Shape.residual_span() * Shape.residual_span() : 0]);
    // Loops of their own, so that none chooses for each pack where it goes.
    auto const sums = [&](auto dilation, auto const& emit) TCNCA_INLINE {
      base::subtiles(l, from, to, Shape.look_ahead(l, direction_), low_, length_,
                     [&](dilated_tile const& tile, int begin) TCNCA_INLINE {
                       dilated_sum<taps, Policy.outputs_per_thread, decltype(dilation)::value>(
                           group, in, this->taps_of(weights, l, direction_ == 1), tile,
                           [&](int offset, int p, value sum) TCNCA_INLINE {
                             value v = activate<Shape.act>(sum).value;
                             if (Shape.ends_residual(l)) v = v + residual.load(uint32(from + begin + offset), p);
                             emit(begin + offset, p, v);
                           });
                     });
    };
    if (last) {
      sequence_writer<T, Lanes> const y(y_, from, to - from, base::streams(layers - 1) && params.y_streaming);
      sums(constant<base::short_dilation(layers - 1)>{},
           [&](int offset, int p, value v) TCNCA_INLINE { output(y, weights, from, offset, p, to, v); });
    } else {
      tile_writer<A, Lanes> const next(ring_at(params.plan.input[l + 1]), from, to - from, this->spare);
      base::template with_dilation<0, layers - 1>(l, [&](auto dilation) TCNCA_INLINE {
        sums(dilation, [&](int offset, int p, value v) TCNCA_INLINE { next.store(offset, p, v); });
      });
      next.finish();
      if (to == length_) finish(l + 1);
    }
    group.sync();
  }

  /// The stack's result at t: the sum of the halves, the skip connection, y.
  TCNCA_HOST_DEVICE void output(sequence_writer<T, Lanes> const& y, A const* weights, index_t from, int offset, int p,
                                index_t to, value v) const {
    [[maybe_unused]] index_t const t = from + offset;
    if constexpr (Shape.dir == direction::bidirectional) {
      A* const partial = at(params.plan.partial) + (t - from_) * Lanes.channels() + p * Lanes.width;
      if (direction_ == 0) return store<Lanes.width>(partial, v);
      v = v + load<Lanes.width>(const_cast<A const*>(partial));
    }
    if constexpr (Shape.skip) {
      value const omega = load_tap<A, Lanes>(this->omega(weights), p);
      v = activate<activation::silu>(fma(omega, x_.load(t, p, to - t), v)).value;
    }
    y.store(offset, p, v);
  }

  TCNCA_NOINLINE void store_state() const {
    for (int l = 0; l < layers; l++) {
      ring_type const r = ring_at(params.plan.input[l]);
      index_t const history = Shape.history(l), begin = Shape.history_before(l);
      for (index_t i = group.rank(); i < history * Lanes.channels(); i += group.size()) {
        index_t const c = i % Lanes.channels(), t = length_ - history + i / Lanes.channels();
        if (c >= x_.channels) continue;
        A const v = t >= 0 || low_ < 0 ? r.load_sample(uint32(t), int(c)) : A(0);
        *params.state_out.at(batch_, channel_ + c, begin + detail::modulo(params.position + t, history)) = v;
      }
    }
  }
};

}  // namespace tcnca
