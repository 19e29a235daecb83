// The backward kernel: one group walks along one sequence for some channels, forward in time. It recomputes the layers
// in the group's memory, and the gradient of each layer follows with the delay that its taps require (see
// conv_stack_schedule). Nothing is stored between the forward and the backward pass.
#pragma once
#include "../../block/correlate.hpp"
#include "backward_plan.hpp"
#include "common.hpp"
#include "partial_sums.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of the backward pass. An item is one sequence, for the channels of a group.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_backward_agent : detail::conv_stack_group<Group, T, Shape, Policy> {
  using base = detail::conv_stack_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::ring_type, typename base::value;
  using base::Lanes, base::group;
  using group_type = Group;
  using params_type = conv_stack_backward_params<T, Shape.layers(), parameter_t<T, Shape.weights>>;
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  static constexpr int layers = Shape.layers(), taps = Shape.taps, width = Lanes.width;
  static constexpr index_t P = Lanes.positions();
  static constexpr bool bidirectional = Shape.dir == direction::bidirectional,
                        has_derivative = Shape.act != activation::none;
  static constexpr conv_stack_spaces<Policy> spaces = conv_stack_backward_spaces<T, Shape, Policy, Group::size()>;

  params_type const& params;

  TCNCA_HOST_DEVICE conv_stack_backward_agent(Group g, params_type const& p, A* shared, A* scratch)
      : base{g, shared, scratch}, params(p) {}

  static constexpr auto make_plan(index_t length, bool state) {
    return make_conv_stack_backward_plan<T, Shape, Policy, Group::size()>(length, state);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(Lanes.channels()));
  }
  static constexpr group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = p.plan.shared_memory * sizeof(A),
            .global_scratch_bytes = p.plan.global_scratch * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const groups = divide_up(params.x.extent[1], index_t(Lanes.channels()));
    number_ = item / groups;
    channel_ = item % groups * Lanes.channels();
    sequence_place const place = base::place_of(params, number_);
    length_ = place.length, has_slot_ = place.slot >= 0;
    x_ = base::lanes_of(params.x, place, channel_, params.x_vectorizable, base::x_vector_elements);
    grad_y_ = base::lanes_of(params.grad_y, place, channel_, params.grad_y_vectorizable, Lanes.width);
    grad_x_ = base::lanes_of(params.grad_x, place, channel_, params.grad_x_vectorizable, Lanes.width);
    if constexpr (!bidirectional) {
      walk(0, true);
    } else {
      // The derivative of the final SiLU needs the sum of both directions: a walk without gradients computes the causal
      // one.
      if constexpr (Shape.skip) { walk(0, false); }
      walk(1, true);
      walk(0, true);
    }
    if (base::can_stream(0) && params.grad_x_streaming) end_streaming();
  }

 private:
  index_t number_, channel_, length_;  // of the sequence in the call, its first channel here, its positions
  bool has_slot_;                      // the sequence has a row of the states
  index_t data_begin_;                 // inputs before this position are zero
  int direction_;
  sequence_lanes<T const, Lanes> x_, grad_y_;
  sequence_lanes<T, Lanes> grad_x_;
  using writer = tile_writer<A, Lanes>;

  TCNCA_HOST_DEVICE index_t look_ahead(int l) const { return Shape.look_ahead(l, direction_); }
  /// How much later than an input of a layer the last output is that depends on it.
  TCNCA_HOST_DEVICE index_t gradient_look_ahead(int l) const { return Shape.history(l) - look_ahead(l); }
  TCNCA_HOST_DEVICE static int residual_of(int l) { return Shape.residual_span() > 0 ? l / Shape.residual_span() : 0; }
  TCNCA_HOST_DEVICE ring_type ring_at(memory_place const& m) const {
    return {base::template at<spaces.rings>(m), m.mask};
  }
  TCNCA_HOST_DEVICE A* staging(int i) const { return base::template at<spaces.rings>(params.plan.staging[i]); }
  TCNCA_HOST_DEVICE A* weights() const { return base::template at<spaces.weight>(params.plan.weight); }
  /// Pack p at position t of a buffer that holds a whole sequence.
  TCNCA_HOST_DEVICE A* sequence_at(memory_place const& m, index_t t, int p) const {
    return base::template at<spaces.sequences>(m) + t * Lanes.channels() + p * width;
  }
  TCNCA_HOST_DEVICE detail::conv_stack_partial_sums<Group, T, Shape, Policy> partial_sums() const {
    auto const& plan = params.plan;
    double* const totals = reinterpret_cast<double*>(base::template at<memory_space::global>(plan.totals));
    return {group, base::template at<spaces.sums>(plan.sums), plan.steps_per_total > 0 ? totals : nullptr};
  }
  /// Whether the sequence has this state.
  TCNCA_HOST_DEVICE bool has_slot(auto const& state) const { return state.present() && has_slot_; }
  /// A layer's part of a state before the first sample, or after the last one.
  TCNCA_HOST_DEVICE auto state_before(auto const& state, int l) const {
    return base::state_at(params, state, number_, l, channel_, x_.channels, false);
  }
  TCNCA_HOST_DEVICE auto state_after(auto const& state, int l) const {
    return base::state_at(params, state, number_, l, channel_, x_.channels, true);
  }

  /// One direction of the stack over the sequence; with gradients unless only its outputs are needed.
  TCNCA_NOINLINE void walk(int direction_index, bool with_gradients) {
    auto const& schedule = params.plan.schedule;
    direction_ = direction_index;
    start();
    // The outputs of the last layer are needed only for the activation, the final SiLU, or another direction.
    bool const compute_last = has_derivative || Shape.skip || !with_gradients;
    bool const has_state_gradient = has_slot(params.grad_state_in);
    int steps = params.plan.steps_per_total;  // until the sums are added to the totals
    for (index_t before = 0;; before += schedule.step) {
      index_t const end = min_of(before + schedule.step, length_);
      ring_type const input = ring_at(params.plan.input[0]);
      this->load_input(input, x_, before, end, staging(0));
      if (before < length_ && end == length_) clear_after_end(input, 0, look_ahead(0));
      group.sync();
      level_progress progress = schedule.input(0, before);
      for (int l = 0; l < layers; l++) {
        progress = schedule.output(progress, l, look_ahead(l));
        for (index_t t = progress.before; t < min_of(progress.after, length_); t += schedule.tile[l]) {
          index_t const to = min_of(t + schedule.tile[l], length_);
          if (l + 1 < layers || compute_last) recompute_forward(l, t, to, with_gradients);
          if (l + 1 == layers && with_gradients) {
            output_gradient(t, to);
            add_to_weight_gradient(l, t, to);
          }
        }
      }
      for (int l = layers - 1; l >= 0 && with_gradients; l--) {
        progress =
            schedule.input_gradient(progress, l, gradient_look_ahead(l), has_state_gradient ? Shape.history(l) : 0, P);
        index_t const tile = schedule.tile[l];
        for (index_t t = progress.before; t < min_of(progress.after, max_of(length_, index_t(1))); t += tile) {
          if (has_state_gradient) input_gradient(l, max_of(t, -Shape.history(l)), min_of(t + tile, index_t(0)));
          input_gradient(l, max_of(t, index_t(0)), min_of(t + tile, length_));
        }
      }
      if (progress.after >= length_) break;
      if (with_gradients && params.plan.steps_per_total > 0 && --steps == 0) {
        add_to_totals();
        steps = params.plan.steps_per_total;
      }
    }
    if (with_gradients) store_sums();
    group.sync();  // the next walk reuses the memory
  }

  /// Loads the weights, and what precedes the sequence: the state, or zeros. Clears the sums.
  TCNCA_NOINLINE void start() {
    auto const& plan = params.plan;
    bool const has_state = has_slot(params.state_in), unaligned = !plan.schedule.single_tile;
    this->load_weights(weights(), params.weight, params.bias, params.omega, channel_, x_.channels, direction_);
    index_t const longest = plan.schedule.tile[layers - 1];
    for (int l = 0; l < layers; l++) {
      ring_type const input = ring_at(plan.input[l]), grad = ring_at(plan.grad[l]);
      if (has_state) detail::load_history(group, input, state_before(params.state_in, l));
      else this->clear(input, -tiling::zeros_before(l, longest, length_, unaligned), 0);
      this->clear(grad, -tiling::zeros_before(l, longest, has_state ? longest + 1 : length_, unaligned), 0);
      if (length_ == 0) clear_after_end(grad, l, gradient_look_ahead(l));
    }
    data_begin_ = has_state ? -Shape.receptive_field() : 0;
    partial_sums().clear();
  }
  TCNCA_NOINLINE void add_to_totals() const { partial_sums().add_to_totals(); }
  TCNCA_NOINLINE void store_sums() const {
    partial_sums().store_result(params.sums, number_, channel_, x_.channels, direction_,
                                !bidirectional || direction_ == 1);
  }

  /// Writes zeros after the end of a ring that layer l reads with this look-ahead, or the rest of its last pack.
  TCNCA_HOST_DEVICE void clear_after_end(ring_type r, int l, index_t ahead) const {
    // Tiles are no longer than the sequence, except for those of the state's gradient.
    index_t const longest = params.plan.schedule.tile[layers - 1],
                  tile = has_slot(params.state_in) ? longest : min_of(longest, length_);
    if (ahead > 0 || P > 1) this->clear(r, length_, length_ + tiling::zeros_after(l, tile, ahead));
  }

  /// Recomputes the outputs [from, to) of a layer and the derivative of its activation. The last layer's outputs go to
  /// the ring of its gradient, where output_gradient() reads them.
  TCNCA_NOINLINE void recompute_forward(int l, index_t from, index_t to, bool with_gradients) const {
    auto const& plan = params.plan;
    bool const is_last = l + 1 == layers;
    ring_type const next_ring = ring_at(is_last ? plan.grad[l] : plan.input[is_last ? l : l + 1]);
    writer const next(next_ring, from, to - from, staging(0)),
        derivative(ring_at(plan.derivative[l]), from, to - from, staging(1));
    ring_type const residual = ring_at(plan.input[residual_of(l) * Shape.residual_span()]);
    bool const adds_residual = Shape.ends_residual(l), output_only = bidirectional && is_last && !with_gradients;
    this->template dilated_sums<0, layers>(
        l, ring_at(plan.input[l]), this->taps_of(weights(), l, direction_ == 1), from, to, look_ahead(l), data_begin_,
        length_,
        [this, next, derivative, residual, adds_residual, output_only, from](int offset, int p, value sum)
            TCNCA_INLINE {
              auto const a = detail::activate_layer<Shape>(sum, [&](value v) TCNCA_INLINE {
                return Shape.residual_span() > 0 && adds_residual ? v + residual.load(uint32(from + offset), p) : v;
              });
              if constexpr (bidirectional) {
                if (output_only) return store<width>(sequence_at(params.plan.output, from + offset, p), a.value);
              }
              next.store(offset, p, a.value);
              if constexpr (has_derivative) { derivative.store(offset, p, a.derivative); }
            });
    if (!is_last || with_gradients) {
      next.finish();
      if (has_derivative) derivative.finish();
    }
    if (!is_last && to == length_) clear_after_end(next_ring, l + 1, look_ahead(l + 1));
    group.sync();
  }

  /// Receives the gradients of a layer's outputs [from, to): multiplies them with the derivative of the activation and
  /// writes them to the layer's ring.
  struct gradient_sink {
    bool ends_residual;
    writer residual, grad;
    TCNCA_HOST_DEVICE gradient_sink(conv_stack_backward_agent const& a, int l, index_t from, index_t to)
        : ends_residual(tiling::has_residual_gradients && Shape.ends_residual(l)),
          residual(a.ring_at(a.params.plan.residual[residual_of(l)]), from, to - from, a.staging(1)),
          grad(a.ring_at(a.params.plan.grad[l]), from, to - from, a.staging(0)) {}
    TCNCA_HOST_DEVICE void store(int offset, int p, value g, value derivative) const {
      if (ends_residual) residual.store(offset, p, g);
      grad.store(offset, p, has_derivative ? g * derivative : g);
    }
    TCNCA_HOST_DEVICE void finish() const {
      if (ends_residual) residual.finish();
      grad.finish();
    }
  };

  /// The gradient of the last layer's outputs [from, to): grad_y, through the final SiLU; and the gradient of omega. A
  /// pass of its own, because the exponentials need the registers of the sums.
  TCNCA_NOINLINE void output_gradient(index_t from, index_t to) const {
    auto const& plan = params.plan;
    thread_partition<Lanes, Group> const part(group);
    int const p = part.pack;
    ring_type const x = ring_at(plan.input[0]), y = ring_at(plan.grad[layers - 1]),
                    derivative = ring_at(plan.derivative[layers - 1]), skip = ring_at(plan.skip);
    gradient_sink const sink(*this, layers - 1, from, to);
    value const omega = load_omega();
    A* const omega_sum = partial_sums().row(tiling::parameter_rows - 1);
    value sum = load<width>(const_cast<A const*>(omega_sum));
    for (index_t t = from + part.worker * P; t < to; t += part.workers * P) {
      int const offset = int(t - from);
      value g = grad_y_.load(t, p, to - t);
      if constexpr (Shape.skip) {
        if (bidirectional && direction_ == 0) {
          g = load<width>(const_cast<A const*>(sequence_at(plan.output_grad, t, p)));
        } else {
          value v = y.load(uint32(t), p);
          value const in = x.load(uint32(t), p);
          if constexpr (bidirectional) { v = v + load<width>(const_cast<A const*>(sequence_at(plan.output, t, p))); }
          g = g * activate<activation::silu>(fma(omega, in, v)).derivative;
          if constexpr (bidirectional) {
            store<width>(sequence_at(plan.output_grad, t, p), g);
          } else if constexpr (has_derivative) {
            skip.store(uint32(t), p, g);
          }
          sum = fma(g, in, sum);
        }
      }
      sink.store(offset, p, g, has_derivative ? derivative.load(uint32(t), p) : g);
    }
    if (Shape.skip) store<width>(omega_sum, sum);
    sink.finish();
    group.sync();
  }

  /// Adds the terms of [from, to) to the gradients of a layer's weights and bias. The gradients of its sums must be
  /// complete there.
  TCNCA_HOST_DEVICE void add_to_weight_gradient(int l, index_t from, index_t to) const {
    ring_type const g = ring_at(params.plan.grad[l]), input = ring_at(params.plan.input[l]);
    if (to == length_) {
      clear_after_end(g, l, gradient_look_ahead(l));
      group.sync();
    }
    auto const sums = partial_sums();
    base::for_each_subtile(l, from, to, look_ahead(l), data_begin_, length_,
                           [&](dilated_tile const& tile, int) TCNCA_INLINE {
                             base::template with_short_dilation<0, layers>(l, [&](auto dilation) TCNCA_INLINE {
                               correlate<taps, Policy.outputs_per_thread, decltype(dilation)::value>(
                                   group, g, input, tile, sums.weight_row(l), sums.row_stride());
                             });
                           });
    if constexpr (Shape.bias) {
      thread_partition<Lanes, Group> const part(group);
      value sum = load<width>(const_cast<A const*>(sums.bias_row(l)));
      for (index_t t = from + part.worker * P; t < to; t += part.workers * P) sum = sum + g.load(uint32(t), part.pack);
      store<width>(sums.bias_row(l), sum);
    }
    group.sync();
  }

  /// Computes the gradients of a layer's inputs [from, to); those before position 0 belong to the state.
  TCNCA_NOINLINE void input_gradient(int l, index_t from, index_t to) const {
    if (from >= to) return;
    index_t const state_begin = has_slot(params.grad_state_out) ? length_ - Shape.history(l) : length_;
    if (from >= 0 && to <= state_begin) {
      sum_gradients(l, from, to);
    } else {
      // Positions that exchange gradients with the state use general kernels, without short dilations. If the layer has
      // a faster kernel for its short dilation, it computes the positions before them. The split is a whole number of
      // dilations and packs after `from`. It does not add the state's zeros there, which may change the sign of a zero.
      index_t split = from;
      if (int const d = base::short_dilation(l); d > 0 && from >= 0)
        split += max_of(index_t(0), state_begin - from) / (d * P) * (d * P);
      if (split > from) sum_gradients(l, from, split);
      sum_gradients_with_state(l, split, to);
    }
    group.sync();
    if (l > 0 && from >= 0) add_to_weight_gradient(l - 1, from, to);
  }

  // The next functions do not synchronize. The first layer, the others, and positions of a state have kernels of their
  // own: a call between the sums, as for a partial pack of grad_x, costs the registers that hold them.

  TCNCA_HOST_DEVICE void sum_gradients(int l, index_t from, index_t to) const {
    if (l == 0) {
      auto const grad_x = grad_x_writer(from, to);
      value const omega = load_omega();
      transposed_sums<0, 1, false>(l, from, to, [this, grad_x, omega, from](int offset, int p, value g) TCNCA_INLINE {
        store_grad_x(grad_x, offset, p, from + offset, g, omega);
      });
    } else if constexpr (layers > 1) {
      gradient_sink const sink(*this, l - 1, from, to);
      ring_type const derivative = ring_at(params.plan.derivative[l - 1]);
      transposed_sums<1, layers, false>(l, from, to, [sink, derivative, from](int offset, int p, value g) TCNCA_INLINE {
        sink.store(offset, p, g, has_derivative ? derivative.load(uint32(from + offset), p) : g);
      });
      sink.finish();
    }
  }
  TCNCA_HOST_DEVICE void sum_gradients_with_state(int l, index_t from, index_t to) const {
    auto const grad_x = grad_x_writer(from, to);
    value const omega = load_omega();
    gradient_sink const sink(*this, max_of(l - 1, 0), from, to);
    ring_type const derivative = ring_at(params.plan.derivative[max_of(l - 1, 0)]);
    constexpr int none = 0;  // no layers, so no kernels for short dilations
    transposed_sums<none, none, true>(
        l, from, to, [this, l, from, grad_x, omega, sink, derivative](int offset, int p, value g) TCNCA_INLINE {
          index_t const t = from + offset;
          if (l == 0) store_grad_x(grad_x, offset, p, t, g, omega);
          else sink.store(offset, p, g, has_derivative ? derivative.load(uint32(t), p) : g);
        });
    if (l > 0 && from >= 0) sink.finish();
  }
  /// emit(offset, p, gradient) for the gradients of the inputs [from, to) of a layer in [First, Last). WithState: with
  /// the gradients of the states; those of positions before 0 are stored, not emitted.
  template <int First, int Last, bool WithState, class Emit>
  TCNCA_HIDDEN TCNCA_HOST_DEVICE void transposed_sums(int l, index_t from, index_t to, Emit const& emit) const {
    // The transposed convolution: taps in the opposite order, no bias.
    dilated_taps<A> w = this->taps_of(weights(), l, direction_ == 0);
    w.bias = nullptr;
    ring_type const residual = ring_at(params.plan.residual[residual_of(l)]);
    auto const grad_out = state_after(params.grad_state_out, WithState ? l : 0);
    auto const grad_in = state_before(params.grad_state_in, WithState ? l : 0);
    bool const starts_residual = Shape.starts_residual(l),
               reads_state = has_slot(params.grad_state_out) && to > length_ - Shape.history(l);
    this->template dilated_sums<First, Last>(
        l, ring_at(params.plan.grad[l]), w, from, to, gradient_look_ahead(l), 0, length_,
        [emit, residual, grad_out, grad_in, from, to, starts_residual, reads_state](int offset, int p, value g)
            TCNCA_INLINE {
              index_t const t = from + offset;
              if constexpr (WithState) {
                if (reads_state) g = g + detail::load_state_gradient<Lanes>(grad_out, t, p);
                if (t < 0) return detail::store_state_gradient<Lanes>(grad_in, t, p, to - t, g);
              }
              if (Shape.residual_span() > 0 && starts_residual) g = g + residual.load(uint32(t), p);
              emit(offset, p, g);
            });
  }
  TCNCA_HOST_DEVICE sequence_writer<T, Lanes> grad_x_writer(index_t from, index_t to) const {
    // An absent one has no address.
    return {grad_x_, grad_x_.row ? from : 0, to - from, base::can_stream(0) && params.grad_x_streaming};
  }
  TCNCA_HOST_DEVICE value load_omega() const {
    if constexpr (!Shape.skip) {
      return broadcast<width>(A(0));
    } else {
      return load_tap<A, Lanes>(this->omega_of(weights()), thread_partition<Lanes, Group>(group).pack);
    }
  }

  /// Writes grad_x at position t: the sum of both directions and the skip connection.
  TCNCA_HOST_DEVICE void store_grad_x(sequence_writer<T, Lanes> const& grad_x, int offset, int p, index_t t, value g,
                                      value omega) const {
    if constexpr (bidirectional) {
      A* const other = sequence_at(params.plan.partial, t, p);
      if (direction_ == 1) return store<width>(other, g);
      g = g + load<width>(const_cast<A const*>(other));
    }
    if constexpr (Shape.skip) {
      if constexpr (bidirectional) {
        g = fma(omega, load<width>(const_cast<A const*>(sequence_at(params.plan.output_grad, t, p))), g);
      } else {
        g = fma(omega, ring_at(params.plan.skip).load(uint32(t), p), g);
      }
    }
    if (params.grad_x.present()) grad_x.store(offset, p, g);
  }
};

}  // namespace tcnca
