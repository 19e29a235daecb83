// One group walks along the sequences of its channels once, forwards in time, and carries the gradients with it: the layers are computed
// again in fast memory, and the gradient of each follows as soon as it has seen enough of what comes after. Nothing is stored between the
// forward and the backward pass, and nothing is computed twice.
#pragma once
#include "../block/correlate.hpp"
#include "backward_plan.hpp"
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What a backward pass is given; the same for all groups.
template <element T, int Layers>
struct conv_stack_backward_params {
  sequence_view<T const> x;
  tensor_view<T const, 3> weight;
  tensor_view<T const, 2> bias;
  tensor_view<T const, 1> omega;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T const> grad_y;
  sequence_view<accumulate_t<T> const> grad_state_out;
  sequence_view<T> grad_x;
  sequence_view<accumulate_t<T>> grad_state_in;
  tensor_view<accumulate_t<T>, 3>
      sums;  // [batch, conv_stack_sums rows, channels]: of weights, biases and omega, a sequence each
  index_t position = 0;
  bool x_vectorizable = false, grad_y_vectorizable = false, grad_x_vectorizable = false;
  bool grad_x_streaming = false;  // as y_streaming of the forward pass
  conv_stack_backward_plan<Layers> plan = {};
};

/// The backward pass of one item: some channels of one sequence.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_backward_agent : detail::conv_stack_group<Group, T, Shape, Policy> {
  using base = detail::conv_stack_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::ring_type, typename base::value;
  using base::Lanes, base::group, base::vector_elements, base::packs, base::at, base::ring_at;
  using group_type = Group;
  using params_type = conv_stack_backward_params<T, Shape.layers()>;
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  static constexpr int layers = Shape.layers(), taps = Shape.taps, width = Lanes.width;
  static constexpr index_t P = Lanes.positions();
  static constexpr bool bidirectional = Shape.dir == direction::bidirectional, curved = Shape.act != activation::none;

  params_type const& params;

  TCNCA_HOST_DEVICE conv_stack_backward_agent(Group g, params_type const& p, A* shared_memory, A* global_scratch)
      : base{g, shared_memory, global_scratch}, params(p) {
    this->spare = at(p.plan.spare[0]);
  }

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(Lanes.channels()));
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const groups = divide_up(params.x.extent[1], index_t(Lanes.channels()));
    batch_ = item / groups;
    channel_ = item % groups * Lanes.channels();
    length_ = params.x.extent[2];
    x_ = {params.x, batch_, channel_, params.x_vectorizable};
    grad_y_ = {params.grad_y, batch_, channel_, params.grad_y_vectorizable};
    grad_x_ = {params.grad_x, batch_, channel_, params.grad_x_vectorizable};
    if constexpr (!bidirectional) {
      walk(0, true);
    } else {
      // The final SiLU's derivative needs the sum of both halves: the first direction runs forward only, then both backwards.
      if constexpr (Shape.skip) { walk(0, false); }
      walk(1, true);
      walk(0, true);
    }
    if (base::streams(0) && params.grad_x_streaming) end_streaming();
  }

 private:
  index_t batch_, channel_, length_;
  index_t low_;  // inputs before it are zero
  int direction_;
  sequence_lanes<T const, Lanes> x_, grad_y_;
  sequence_lanes<T, Lanes> grad_x_;

  TCNCA_HOST_DEVICE index_t look_ahead(int l) const { return Shape.look_ahead(l, direction_); }
  TCNCA_HOST_DEVICE index_t backward_look_ahead(int l) const {
    return Shape.history(l) - Shape.look_ahead(l, direction_);
  }
  TCNCA_HOST_DEVICE static int residual_of(int l) { return Shape.residual_span() > 0 ? l / Shape.residual_span() : 0; }
  TCNCA_HOST_DEVICE A* buffer(memory_place const& m, index_t t, int p) const {
    return at(m) + t * Lanes.channels() + p * width;
  }

  TCNCA_HOST_DEVICE void walk(int direction_index, bool backwards) {
    auto const& plan = params.plan;
    direction_ = direction_index;
    start();
    bool const last_layer = curved || Shape.skip || !backwards;  // else its outputs are of no use
    bool const state = params.grad_state_in.present();
    int steps = 0;
    for (index_t before = 0;; before += plan.step) {
      index_t const end = min_of(before + plan.step, length_);
      this->append(ring_at(plan.input[0]), x_, before, end);
      if (before < length_ && end == length_) finish(ring_at(plan.input[0]), 0, look_ahead(0));
      group.sync();
      // What each layer had and has of its inputs, and then of its gradients; at first nothing, not even what lies before position 0.
      index_t had = before > 0 ? before : nothing, has = before + plan.step;
      for (int l = 0; l < layers; l++) {
        index_t const step = plan.tile[l], done = detail::whole_tiles(had, look_ahead(l), step, 0);
        had = done, has = detail::whole_tiles(has, look_ahead(l), step, 0);
        for (index_t t = done; t < has; t += step) {
          index_t const to = min_of(t + step, length_);
          if (t >= to) break;
          if (l + 1 < layers || last_layer) forward(l, t, to, backwards);
          if (l + 1 < layers || !backwards) continue;
          output_gradient(t, to);
          arrived(l, t, to);
        }
      }
      if (!backwards) {
        if (has >= length_) break;
        continue;
      }
      index_t begin = 0;
      for (int l = layers - 1; l >= 0; l--) {
        // Tiles begin as early as the gradients come late: no layer waits for the rest of one. With a state they go on before position 0.
        index_t const step = plan.tile[l];
        begin = plan.single_tile ? (state ? -round_up(Shape.history(l), step) : 0)
                                 : begin - round_up(backward_look_ahead(l), P);
        index_t const done = detail::whole_tiles(had, backward_look_ahead(l), step, begin);
        had = done, has = detail::whole_tiles(has, backward_look_ahead(l), step, begin);
        for (index_t t = done; t < min_of(has, max_of(length_, index_t(1))); t += step) {
          if (state) backward(l, max_of(t, -Shape.history(l)), min_of(t + step, index_t(0)));
          backward(l, max_of(t, index_t(0)), min_of(t + step, length_));
        }
      }
      if (has >= length_) break;
      if (plan.steps_of_a_sum > 0 && ++steps % plan.steps_of_a_sum == 0) add_to_totals();
    }
    if (backwards) store_sums();
    group.sync();  // the next walk reuses the memory
  }
  static constexpr index_t nothing = -(index_t(1) << 62);

  TCNCA_NOINLINE void start() {
    auto const& plan = params.plan;
    bool const state = params.state_in.present();
    this->load_weights(at(plan.weight), params.weight, params.bias, params.omega, channel_, x_.channels, direction_);
    for (int l = 0; l < layers; l++) {
      ring_type const r = ring_at(plan.input[l]);
      if (state) this->load_history(r, params.state_in, batch_, channel_, x_.channels, l, params.position);
      else this->clear(r, -tiling::reach(l, plan.longest, length_, !plan.single_tile), 0);
      this->clear(ring_at(plan.grad[l]),
                  -tiling::reach(l, plan.longest, state ? plan.longest + 1 : length_, !plan.single_tile), 0);
      if (length_ == 0) finish(ring_at(plan.grad[l]), l, backward_look_ahead(l));
    }
    low_ = state ? -Shape.receptive_field() : 0;
    A* const sums = at(plan.sums);
    for (int i = group.rank(); i < tiling::sum_rows * group.size(); i += group.size())
      store<width>(sums + i * width, broadcast<width>(A(0)));
    for (int i = group.rank(); i < tiling::sum_rows * Lanes.channels() && plan.steps_of_a_sum > 0; i += group.size())
      totals()[i] = 0;
  }
  TCNCA_HOST_DEVICE double* totals() const { return reinterpret_cast<double*>(at(params.plan.totals)); }

  /// Tiles are no longer than the sequence, but for those before it, whose gradients belong to the state.
  TCNCA_HOST_DEVICE index_t longest_tile() const {
    return params.state_in.present() ? params.plan.longest : min_of(params.plan.longest, length_);
  }

  /// Zeros behind the end of a ring that layer l reads there, or whose last pack must be.
  TCNCA_HOST_DEVICE void finish(ring_type r, int l, index_t ahead) const {
    if (ahead > 0 || P > 1) this->clear(r, length_, length_ + tiling::reach_ahead(l, longest_tile(), ahead));
  }

  /// The dilated sums [from, to) of a layer; emit as for dilated_sum.
  template <class Emit>
  TCNCA_HOST_DEVICE void sums(int l, ring_type in, dilated_taps<A> w, index_t from, index_t to, index_t look_ahead,
                              index_t low, Emit const& emit) const {
    base::template with_dilation<0, layers>(l, [&](auto dilation) TCNCA_INLINE {
      base::subtiles(l, from, to, look_ahead, low, length_, [&](dilated_tile const& tile, int begin) TCNCA_INLINE {
        dilated_sum<taps, Policy.outputs_per_thread, decltype(dilation)::value>(
            group, in, w, tile, [&](int offset, int p, value sum) TCNCA_INLINE { emit(begin + offset, p, sum); });
      });
    });
  }

  /// Outputs [from, to) of a layer once more, and the derivative of its activation. Those of the last wait in its gradient's place, for output_gradient().
  TCNCA_HOST_DEVICE void forward(int l, index_t from, index_t to, bool backwards) const {
    auto const& plan = params.plan;
    bool const last = l + 1 == layers;
    ring_type const in = ring_at(plan.input[l]),
                    next_ring = ring_at(last ? plan.grad[l] : plan.input[last ? l : l + 1]);
    writer const next(next_ring, from, to - from, this->spare),
        derivatives(ring_at(plan.derivative[l]), from, to - from, at(plan.spare[1]));
    ring_type const residual =
        ring_at(plan.input[Shape.residual_span() > 0 ? residual_of(l) * Shape.residual_span() : 0]);
    auto const emit = [&](int offset, int p, value sum) TCNCA_INLINE {
      auto const a = activate<Shape.act>(sum);
      value v = a.value;
      if (Shape.ends_residual(l)) v = v + residual.load(uint32(from + offset), p);
      if (bidirectional && last && !backwards) return store<width>(buffer(plan.carry, from + offset, p), v);
      next.store(offset, p, v);
      if (curved) derivatives.store(offset, p, a.derivative);
    };
    sums(l, in, this->taps_of(at(plan.weight), l, direction_ == 1), from, to, look_ahead(l), low_, emit);
    if (!last || backwards) next.finish();
    if (curved && (!last || backwards)) derivatives.finish();
    if (!last && to == length_) finish(next_ring, l + 1, look_ahead(l + 1));
    group.sync();
  }

  /// The gradient of the last layer's outputs [from, to): grad_y, through the final SiLU; and its part in the gradient of omega. A pass of
  /// its own: among the sums the exponentials would cost the registers that those need.
  TCNCA_HOST_DEVICE void output_gradient(index_t from, index_t to) const {
    auto const& plan = params.plan;
    share<Lanes, Group> const mine(group);
    ring_type const x = ring_at(plan.input[0]), y = ring_at(plan.grad[layers - 1]),
                    derivatives = ring_at(plan.derivative[layers - 1]), skip = ring_at(plan.skip);
    gradient_sink const all(*this, layers - 1, from, to);
    value const omega = Shape.skip ? load_tap<A, Lanes>(this->omega(at(plan.weight)), mine.p) : broadcast<width>(A(0));
    A* const sum_at = at(plan.sums) + ((tiling::sum_rows - 1) * group.size() + group.rank()) * width;
    value sum = load<width>(const_cast<A const*>(sum_at));
    for (index_t t = from + mine.worker * P; t < to; t += mine.workers * P) {
      int const offset = int(t - from);
      value g = grad_y_.load(t, mine.p, to - t);
      if constexpr (Shape.skip) {
        if (bidirectional && direction_ == 0) {
          g = load<width>(const_cast<A const*>(buffer(plan.total, t, mine.p)));
        } else {
          value v = y.load(uint32(t), mine.p);
          value const in = x.load(uint32(t), mine.p);
          if constexpr (bidirectional) { v = v + load<width>(const_cast<A const*>(buffer(plan.carry, t, mine.p))); }
          g = g * activate<activation::silu>(fma(omega, in, v)).derivative;
          if constexpr (bidirectional) {
            store<width>(buffer(plan.total, t, mine.p), g);
          } else if constexpr (curved) {
            skip.store(uint32(t), mine.p, g);
          }
          sum = fma(g, in, sum);
        }
      }
      all.store(offset, mine.p, g, curved ? derivatives.load(uint32(t), mine.p) : g);
    }
    if (Shape.skip) store<width>(sum_at, sum);
    all.finish();
    group.sync();
  }

  using writer = tile_writer<A, Lanes>;
  /// Takes the gradients of a layer's outputs [from, to) as they come: through the activation, into the layer's ring.
  struct gradient_sink {
    bool has_residual_;
    writer residual, grad;
    TCNCA_HOST_DEVICE gradient_sink(conv_stack_backward_agent const& a, int l, index_t from, index_t to)
        : has_residual_(curved && Shape.ends_residual(l)),
          residual(a.ring_at(a.params.plan.residual[residual_of(l)]), from, to - from, a.at(a.params.plan.spare[1])),
          grad(a.ring_at(a.params.plan.grad[l]), from, to - from, a.spare) {}
    TCNCA_HOST_DEVICE void store(int offset, int p, value g, value derivative) const {
      if (has_residual_) residual.store(offset, p, g);
      grad.store(offset, p, curved ? g * derivative : g);
    }
    TCNCA_HOST_DEVICE void finish() const {
      if (has_residual_) residual.finish();
      grad.finish();
    }
  };

  /// Gradients of all of [from, to) of a layer have come: their part in the gradients of its weights and its bias.
  TCNCA_HOST_DEVICE void arrived(int l, index_t from, index_t to) const {
    auto const& plan = params.plan;
    ring_type const g = ring_at(plan.grad[l]);
    if (to == length_) {
      finish(g, l, backward_look_ahead(l));
      group.sync();
    }
    int const stride = group.size() * width;
    A* const sums = at(plan.sums) + group.rank() * width;
    base::template with_dilation<0, layers>(l, [&](auto dilation) TCNCA_INLINE {
      base::subtiles(l, from, to, look_ahead(l), low_, length_, [&](dilated_tile const& tile, int) TCNCA_INLINE {
        correlate<taps, Policy.outputs_per_thread, decltype(dilation)::value>(group, g, ring_at(plan.input[l]), tile,
                                                                              sums + l * taps * stride, stride);
      });
    });
    if constexpr (Shape.bias) {
      add_up(from, to, sums + (layers * taps + l) * stride,
             [&](index_t t, int p, value s) TCNCA_INLINE { return s + g.load(uint32(t), p); });
    }
    group.sync();
  }
  template <class F>
  TCNCA_HOST_DEVICE void add_up(index_t from, index_t to, A* sum, F f) const {
    share<Lanes, Group> const mine(group);
    value s = load<width>(const_cast<A const*>(sum));
    for (index_t t = from + mine.worker * P; t < to; t += mine.workers * P) s = f(t, mine.p, s);
    store<width>(sum, s);
  }

  /// Gradients of the inputs [from, to) of a layer; before position 0 they belong to the state.
  TCNCA_HOST_DEVICE void backward(int l, index_t from, index_t to) const {
    if (from >= to) return;
    if (from < 0 || (params.grad_state_out.present() && to > length_ - Shape.history(l)))
      backward_sums<true>(l, from, to);
    else backward_sums<false>(l, from, to);
    if (l > 0 && from >= 0) arrived(l - 1, from, to);
  }
  /// AtState: gradients of the states come from there or go there; apart from the others, for a call among the sums costs all their registers.
  template <bool AtState>
  TCNCA_HOST_DEVICE void backward_sums(int l, index_t from, index_t to) const {
    auto const& plan = params.plan;
    dilated_taps<A> w = this->taps_of(at(plan.weight), l, direction_ == 0);  // the transpose: the other way round
    w.bias = nullptr;
    value const omega = Shape.skip ? load_tap<A, Lanes>(this->omega(at(plan.weight)), share<Lanes, Group>(group).p)
                                   : broadcast<width>(A(0));
    sequence_writer<T, Lanes> const grad_x(grad_x_, from, to - from, base::streams(0) && params.grad_x_streaming);
    gradient_sink const below(*this, l > 0 ? l - 1 : 0, from, to);
    ring_type const derivatives = ring_at(plan.derivative[l > 0 ? l - 1 : 0]),
                    has_residual_ = ring_at(plan.residual[residual_of(l)]);
    auto const emit = [&](int offset, int p, value g) TCNCA_INLINE {
      index_t const t = from + offset;
      if (AtState && params.grad_state_out.present() && to > length_ - Shape.history(l))
        g = g + state_gradient(l, t, p);
      if (AtState && t < 0) return store_state_gradient(l, t, p, to - t, g);
      if (Shape.starts_residual(l)) g = g + has_residual_.load(uint32(t), p);
      if (l > 0) return below.store(offset, p, g, curved ? derivatives.load(uint32(t), p) : g);
      output(grad_x, offset, p, t, g, omega);
    };
    sums(l, ring_at(plan.grad[l]), w, from, to, backward_look_ahead(l), 0, emit);
    if (l > 0 && from >= 0) below.finish();
    group.sync();
  }

  TCNCA_HOST_DEVICE void output(sequence_writer<T, Lanes> const& grad_x, int offset, int p, index_t t, value g,
                                value omega) const {
    if constexpr (bidirectional) {
      A* const other = buffer(params.plan.partial, t, p);
      if (direction_ == 1) return store<width>(other, g);
      g = g + load<width>(const_cast<A const*>(other));
    }
    if constexpr (Shape.skip) {
      if constexpr (bidirectional) {
        g = fma(omega, load<width>(const_cast<A const*>(buffer(params.plan.total, t, p))), g);
      } else {
        g = fma(omega, ring_at(params.plan.skip).load(uint32(t), p), g);
      }
    }
    grad_x.store(offset, p, g);
  }

  /// The element of a state gradient that belongs to lane i of pack p at position t, or null.
  template <class U>
  TCNCA_HOST_DEVICE U* state_element(sequence_view<U> const& state, int l, index_t t, int p, int i) const {
    index_t const history = Shape.history(l), at_t = Lanes.along_length ? t + i : t,
                  c = Lanes.along_length ? 0 : p * width + i;
    if (c >= x_.channels) return nullptr;
    return state.at(batch_, channel_ + c, Shape.history_before(l) + detail::modulo(params.position + at_t, history));
  }
  /// The gradient from state_out at positions [t, t + P) of a layer's input.
  TCNCA_NOINLINE value state_gradient(int l, index_t t, int p) const {
    value g = broadcast<width>(A(0));
    TCNCA_UNROLL
    for (int i = 0; i < width; i++) {
      index_t const at_t = Lanes.along_length ? t + i : t;
      A const* const e = state_element(params.grad_state_out, l, t, p, i);
      if (e && at_t >= length_ - Shape.history(l) && at_t < length_) g.set_lane(i, *e);
    }
    return g;
  }
  TCNCA_NOINLINE void store_state_gradient(int l, index_t t, int p, index_t valid, value g) const {
    TCNCA_UNROLL
    for (int i = 0; i < width; i++) {
      if (Lanes.along_length && i >= valid) continue;
      if (A* const e = state_element(params.grad_state_in, l, t, p, i)) *e = g.lane(i);
    }
  }

  /// The sum of a row over all threads, in a fixed order, for one channel. Resets each thread's partial sum to zero.
  TCNCA_HOST_DEVICE A take_sum(int row, int c) const {
    A total = 0;
    for (int r = c / width; r < group.size(); r += packs) {
      A* const own = at(params.plan.sums) + size_t(row * group.size() + r) * width;
      if constexpr (Lanes.along_length) {
        total += sum_lanes(load<width>(const_cast<A const*>(own)));
        store<width>(own, broadcast<width>(A(0)));
      } else {
        total += own[c % width], own[c % width] = A(0);
      }
    }
    return total;
  }
  /// Adds the threads' partial sums to the fp64 totals. Call it after a barrier.
  TCNCA_NOINLINE void add_to_totals() const {
    double* const to = totals();
    if constexpr (!Lanes.along_length && Group::size() == 1 && packs == 1) {
      A* const from = at(params.plan.sums);
      for (int i = 0; i < tiling::sum_rows * width; i++) to[i] += double(from[i]), from[i] = A(0);
    } else {
      for (int i = group.rank(); i < tiling::sum_rows * Lanes.channels(); i += group.size())
        to[i] += double(take_sum(i / Lanes.channels(), i % Lanes.channels()));
    }
    group.sync();
  }
  /// The sums of all threads, in a fixed order, for this sequence and these channels.
  TCNCA_NOINLINE void store_sums() const {
    group.sync();
    int const first = direction_ * tiling::rows_per_direction;
    for (int i = group.rank(); i < tiling::sum_rows * Lanes.channels(); i += group.size()) {
      int const row = i / Lanes.channels(), c = i % Lanes.channels();
      bool const of_omega = Shape.skip && row == tiling::sum_rows - 1;
      if (c >= x_.channels || (of_omega && bidirectional && direction_ == 0)) continue;
      A total = take_sum(row, c);
      if (params.plan.steps_of_a_sum > 0) total = A(totals()[i] + double(total));
      // A reversed layer has its taps the other way round.
      int const tap = row % taps, to = row < layers * taps && direction_ == 1 ? row - tap + taps - 1 - tap : row;
      *params.sums.at(batch_, of_omega ? Shape.directions() * tiling::rows_per_direction : first + to, channel_ + c) =
          total;
    }
  }
};

}  // namespace tcnca
