// The CPU's backward kernel: one walk along a sequence recomputes the layers, and the gradients follow.
//
// A walk takes in x in steps of some thousand elements, which stay in the first cache. Each step passes all layers,
// then all gradients, from the last layer to the first: 2 * layers levels in all. A level computes the positions of the
// step minus its lag (see conv_stack_vector_layout), from what the windows of the levels before it hold. With h the
// gradients of a layer's sums, one load of each tap serves both of its sums:
//   grad_in[t]    = sum_k w[k] h[t + k d - look_ahead], the newest h first, and
//   grad_w[k]    += in[t] h[t + k d - look_ahead] for all t.
// The inputs `in` are in the window that the layer itself has read, until the gradients arrive.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/agent.hpp"
#include "../../block/group.hpp"
#include "../residual.hpp"
#include "backward_memory.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent of the backward pass on the CPU. An item is one sequence, for the channels of a vector.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_vector_backward_agent : detail::conv_stack_vector_backward_memory<T, Shape, Policy> {
  using base = detail::conv_stack_vector_backward_memory<T, Shape, Policy>;
  using typename base::A, typename base::layout_type, typename base::params_type, typename base::value;
  using typename base::range, typename base::window;
  using base::layers, base::taps, base::W, base::P, base::E, base::Lanes;
  using base::bidirectional, base::has_derivative, base::derivative_by_sign;
  using base::params;
  using group_type = Group;
  /// Elements of x per vector load.
  static constexpr int x_vector_elements = W;
  static_assert(Group::size() == 1, "tcnca::conv_stack: the CPU's backward kernel needs groups of one thread");

  static constexpr auto make_plan(index_t length, bool state) { return layout_type::make_plan(length, state); }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(Lanes.channels()));
  }
  static constexpr group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = p.plan.elements * sizeof(A)};
  }

  TCNCA_HOST_DEVICE conv_stack_vector_backward_agent(Group, params_type const& p, A* shared, A*) : base(p, shared) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    base::start_item(item);
    if constexpr (!bidirectional) {
      walk(0, true);
    } else {
      // The derivative of the final SiLU needs the sum of both directions: a walk without gradients computes the causal
      // one.
      if constexpr (Shape.skip) { walk(0, false); }
      walk(1, true);
      walk(0, true);
    }
    if (may_stream<T, Lanes> && params.grad_x_streaming) end_streaming();
  }

 private:
  using base::batch_, base::channel_, base::length_, base::direction_, base::step_begin_, base::x_, base::grad_y_,
      base::grad_x_, base::input_, base::derivative_, base::grad_, base::residual_, base::skip_, base::memory_;
  using base::dilation, base::history, base::look_ahead, base::gradient_look_ahead, base::residual_of,
      base::residual_end, base::has_state, base::whole_length, base::places, base::step_of, base::weight,
      base::bias_or_zero, base::zero, base::sums, base::sequence_at, base::state_before, base::complete_input,
      base::complete_grad, base::for_each_vector, base::with_loads, base::prefetch_next;

  /// One direction of the stack over the sequence; with gradients unless only its outputs are needed.
  TCNCA_NOINLINE void walk(int direction_index, bool with_gradients) {
    auto const& plan = params.plan;
    direction_ = direction_index;
    base::start();
    index_t const end = (with_gradients ? places().output_shift : places().skip.shift) + whole_length();
    int steps = plan.steps_per_total;
    for (step_begin_ = 0;;) {
      base::load_input();
      for (int l = 0; l < layers; l++)
        if (l + 1 < layers || layout_type::uses_outputs) forward(l, with_gradients);
      if (with_gradients) {
        output_gradient();
        for (int l = layers - 1; l >= 0; l--) input_gradient(l);
      }
      if (step_begin_ + plan.step >= end) break;
      if (with_gradients && plan.steps_per_total > 0 && --steps == 0) {
        sums().add_to_totals();
        steps = plan.steps_per_total;
      }
      base::next_step(with_gradients);
    }
    if (with_gradients)
      sums().store_result(params.sums, batch_, channel_, x_.channels, direction_, !bidirectional || direction_ == 1);
  }

  /// The outputs of a layer, and the derivatives of its activation. The last layer's go to the window of its gradients,
  /// where output_gradient() reads them.
  TCNCA_NOINLINE void forward(int l, bool with_gradients) const {
    bool const is_last = l + 1 == layers;
    range const r = step_of(places().derivative[l].shift).within(0, whole_length());
    if (!r.empty()) {
      A* const out = (is_last ? grad_[l] : input_[is_last ? l : l + 1]).at(r.first);
      sum_inputs(l, r, out);
      if ((has_derivative && !derivative_by_sign) || Shape.ends_residual(l)) activate_outputs(l, r, out);
      if (bidirectional && is_last && !with_gradients)
        window::copy(out, sequence_at(params.plan.output, r.first), r.elements());
    }
    if (!is_last) complete_input(l + 1);
  }
  /// The taps of a run from position `begin` on, tap 0 at t of a row, or without one of window w. Ends the run where
  /// one of them is not contiguous.
  TCNCA_HOST_DEVICE void tap_pointers(window const& w, A const* row, index_t t, index_t step, detail::tap_run& run,
                                      index_t begin, detail::array<A const*, taps>& from) const {
    index_t count = run.end - begin;
    t -= run.first * step;
    if (layout_type::reads_x && row != nullptr) {
      index_t at = t;
      for (int k = run.first; k < run.last; k++, at -= step) count = base::inside(at, count);
      for (int k = run.first; k < run.last; k++, t -= step) from[k] = base::row_at(row, t, count, k);
    } else {
      for (int k = run.first; k < run.last; k++, t -= step) {
        from[k] = w.at(t);
        count = w.contiguous(t, count);
      }
    }
    run.end = begin + count;
  }
  static TCNCA_NOINLINE void activate_relu(A* v, index_t count) {
    for (index_t i = 0; i < count; i += W) store<W>(v + i, max_zero(load<W>(const_cast<A const*>(v) + i)));
  }
  TCNCA_NOINLINE void sum_inputs(int l, range r, A* out) const {
    index_t const ahead = look_ahead(l), begin = has_state() ? -history(l) : 0, d = dilation(l);
    detail::tap_vectors<A const> const w{weight(l * taps), W};
    A const* const bias = bias_or_zero(l);
    for (detail::tap_run run; r.first < r.last; out += (run.end - r.first) * E, r.first = run.end) {
      run = detail::tap_run::at<taps, P>(r.first, r.last, layout_type::block, d, ahead, begin, length_);
      detail::array<A const*, taps> from;
      tap_pointers(input_[l], l == 0 ? base::x_row() : nullptr, r.first + ahead, d, run, r.first, from);
      index_t const count = (run.end - r.first) * E;
      if (run.first == 0 && run.last == taps) {
        detail::for_all_taps<taps>([&](auto n, auto k, auto first, auto last) TCNCA_INLINE {
          detail::sum_taps<W, decltype(n)::value, decltype(first)::value != 0,
                           derivative_by_sign&& decltype(last)::value != 0>(from + k, w.from(k), bias, out, count);
        });
      } else {
        if (run.first >= run.last) detail::fill<W>(bias, out, count);
        detail::for_some_taps<taps>(run.first, run.last, [&](auto n, int k, auto first) TCNCA_INLINE {
          detail::sum_taps<W, decltype(n)::value, decltype(first)::value != 0, false>(from + k, w.from(k), bias, out,
                                                                                      count);
        });
        if (derivative_by_sign) activate_relu(out, count);
      }
    }
  }
  TCNCA_NOINLINE void activate_outputs(int l, range r, A* out) const {
    A* const derivative = has_derivative ? derivative_[l].at(r.first) : nullptr;
    A const* const residual =
        Shape.ends_residual(l) ? input_[residual_of(l) * Shape.residual_span()].at(r.first) : nullptr;
    for (index_t i = 0; i < r.elements(); i += W) {
      auto const a = detail::activate_layer<Shape>(load<W>(const_cast<A const*>(out) + i), [&](value v) TCNCA_INLINE {
        return Shape.residual_span() > 0 && residual ? v + load<W>(residual + i) : v;
      });
      store<W>(out + i, a.value);
      if constexpr (has_derivative) { store<W>(derivative + i, a.derivative); }
    }
    if constexpr (has_derivative) { derivative_[l].repeat(); }
  }

  /// The gradients of the last layer's sums: grad_y, through the final SiLU and the activation; and the gradient of
  /// omega.
  TCNCA_NOINLINE void output_gradient() const {
    constexpr int l = layers - 1;
    if (layout_type::reads_grad_y) return;
    range const r = step_of(places().grad[l].shift).within(0, whole_length());
    if (!r.empty()) {
      with_loads(grad_y_, r, [&](range part, auto const& grad_y) TCNCA_INLINE { output_gradient(part, grad_y); });
    }
    if constexpr (Shape.ends_residual(l)) { residual_[l].repeat(); }
    if constexpr (Shape.skip && !bidirectional) { skip_.repeat(); }
    complete_grad(l, r);
  }
  template <class F>
  TCNCA_HOST_DEVICE void output_gradient(range r, F const& grad_y) const {
    constexpr int l = layers - 1;
    constexpr bool ends_residual = Shape.ends_residual(l), loads_derivative = has_derivative && !derivative_by_sign;
    if (r.empty()) return;
    auto const& plan = params.plan;
    A* const h = grad_[l].at(r.first);  // holds the outputs
    A* const residual = ends_residual ? residual_[l].at(r.first) : nullptr;
    A* const skip = Shape.skip && !bidirectional ? skip_.at(r.first) : nullptr;
    A const* const derivative = loads_derivative ? derivative_[l].at(r.first) : nullptr;
    A const* const x = Shape.skip ? input_[0].at(r.first) : nullptr;
    A* const omega_sum = sums().row(layout_type::rows - 1);
    value const omega = load<W>(weight(layout_type::rows - 1));
    value sum = load<W>(const_cast<A const*>(omega_sum));
    for_each_vector(r, [&](index_t t, index_t i) TCNCA_INLINE {
      value g;
      value const y = load<W>(const_cast<A const*>(h) + i);
      if (Shape.skip && bidirectional && direction_ == 0) {
        g = load<W>(const_cast<A const*>(sequence_at(plan.output_grad, t)));
      } else {
        g = grad_y(t);
        if constexpr (Shape.skip) {
          value v = y;
          value const in = load<W>(x + i);
          if constexpr (bidirectional) { v = v + load<W>(const_cast<A const*>(sequence_at(plan.output, t))); }
          g = g * activate<activation::silu>(fma(omega, in, v)).derivative;
          store<W>(bidirectional ? sequence_at(plan.output_grad, t) : skip + i, g);
          sum = fma(g, in, sum);
        }
      }
      if constexpr (ends_residual && !Shape.post_activation) { store<W>(residual + i, g); }
      if constexpr (derivative_by_sign) {
        g = select_positive(y, g, broadcast<W>(A(0)));
      } else if constexpr (has_derivative) {
        g = g * load<W>(derivative + i);
      }
      if constexpr (ends_residual && Shape.post_activation) { store<W>(residual + i, g); }
      store<W>(h + i, g);
    });
    if constexpr (Shape.skip) { store<W>(omega_sum, sum); }
  }

  /// The gradients of a layer's inputs, and of its weights. Those of the inputs become gradients of the sums of the
  /// layer below it, or grad_x; those before position 0 belong to the state.
  TCNCA_NOINLINE void input_gradient(int l) const {
    index_t const shift = l > 0 ? places().grad[max_of(l - 1, 0)].shift : places().output_shift;
    range const all = step_of(shift).within(has_state() ? -round_up(history(l), P) : index_t(0), whole_length());
    A* const buffer = memory_ + params.plan.buffer[direction_];
    if (range const before = all.within(all.first, 0); !before.empty()) {
      sum_gradients<false>(l, before, buffer);
      exchange_state(l, before, buffer);
    }
    range const r = all.within(0, all.last);
    if (!r.empty()) {
      A* const out = l > 0 ? grad_[max_of(l - 1, 0)].at(r.first) : grad_x_row(r) ? grad_x_row(r) : buffer;
      // Positions with a gradient of the state are incomplete until that is added.
      index_t const state_begin =
          params.grad_state_out.present() ? max_of(index_t(0), length_ - history(l)) / P * P : r.last;
      range const first = r.within(r.first, state_begin), rest = r.within(state_begin, r.last);
      if (!first.empty()) {
        if (derivative_by_sign && l > 0) sum_gradients<derivative_by_sign>(l, first, out);
        else sum_gradients<false>(l, first, out);
      }
      if (!rest.empty()) {
        A* const from = out + (rest.first - r.first) * E;
        sum_gradients<false>(l, rest, from);
        exchange_state(l, rest, from);
        if (derivative_by_sign && l > 0) {
          index_t const part = input_[l].contiguous(rest.first, rest.last - rest.first) * E;
          detail::relu<W>(input_[l].at(rest.first), from, from, part);
          detail::relu<W>(input_[l].at(rest.first + part / E), from + part, from + part, rest.elements() - part);
        }
      }
      if (Shape.residual_span() > 0 || (has_derivative && !derivative_by_sign)) finish_gradient(l, r, out);
      if (l == 0 && !grad_x_row(r)) store_grad_x(r, out);
    }
    if (l > 0) complete_grad(max_of(l - 1, 0), r);
  }
  template <bool Relu>
  TCNCA_NOINLINE void sum_gradients(int l, range r, A* out) const {
    index_t const ahead = gradient_look_ahead(l), d = dilation(l);
    // Tap j of this level is tap taps - 1 - j of the layer.
    detail::tap_vectors<A const> const w{weight(l * taps + taps - 1), -W};
    detail::prefetch_lines const next = prefetch_next(l);
    detail::tap_vectors<A> const sum{sums().row(l * taps + taps - 1), -W};
    for (detail::tap_run run; r.first < r.last; out += (run.end - r.first) * E, r.first = run.end) {
      run = detail::tap_run::at<taps, P>(r.first, r.last, layout_type::block, d, ahead, 0, length_);
      detail::array<A const*, taps> from;
      A const* const x = l == 0 ? base::x_row() : nullptr;
      index_t const limit = run.end - r.first;
      run.end = r.first + (x ? base::inside(r.first, limit) : input_[l].contiguous(r.first, limit));
      tap_pointers(grad_[l], l + 1 == layers ? base::grad_y_row() : nullptr, r.first + ahead, d, run, r.first, from);
      A const* const in = x ? base::row_at(x, r.first, run.end - r.first, taps) : input_[l].at(r.first);
      index_t const count = (run.end - r.first) * E;
      if (run.first == 0 && run.last == taps) {
        detail::for_all_taps<taps>([&](auto n, auto k, auto first, auto last) TCNCA_INLINE {
          detail::correlate_taps<W, decltype(n)::value, decltype(first)::value != 0, Relu&& decltype(last)::value != 0>(
              from + k, w.from(k), in, out, sum.from(k), count, next);
        });
      } else {
        if (run.first >= run.last) detail::fill<W>(zero(), out, count);
        detail::for_some_taps<taps>(run.first, run.last, [&](auto n, int k, auto first) TCNCA_INLINE {
          detail::correlate_taps<W, decltype(n)::value, decltype(first)::value != 0, false>(
              from + k, w.from(k), in, out, sum.from(k), count, next);
        });
        if (Relu) detail::relu<W>(in, out, out, count);
      }
    }
  }
  /// Adds the gradient of the final state; writes that of the initial state.
  TCNCA_NOINLINE void exchange_state(int l, range r, A* g) const {
    auto const grad_in = state_before(params.grad_state_in, l);
    auto const grad_out = detail::layer_state<A const>::template of<Shape>(l, params.grad_state_out, batch_, channel_,
                                                                           x_.channels, length_, params.slots.end[l]);
    for (index_t i = 0; i < r.elements(); i++) {
      index_t const t = r.first + i / E, c = i % E;
      if (c >= x_.channels) continue;
      if (grad_out.view.present() && t >= length_ - grad_out.history && t < length_) g[i] += *grad_out.at(t, c);
      if (grad_in.view.present() && t < 0 && t >= -grad_in.history) *grad_in.at(t, c) = g[i];
    }
  }
  /// From the gradients of a layer's inputs to those of the sums of the layer below it.
  TCNCA_NOINLINE void finish_gradient(int l, range r, A* g) const {
    int const below = max_of(l - 1, 0);
    bool const starts = Shape.starts_residual(l), ends = l > 0 && Shape.ends_residual(below);
    A const* const added = starts ? residual_[residual_end(l)].at(r.first) : nullptr;
    A* const residual = ends ? residual_[below].at(r.first) : nullptr;
    A const* const derivative =
        has_derivative && !derivative_by_sign && l > 0 ? derivative_[below].at(r.first) : nullptr;
    for (index_t i = 0; i < r.elements(); i += W) {
      value v = load<W>(const_cast<A const*>(g) + i);
      if (added) v = v + load<W>(added + i);
      if (residual && !Shape.post_activation) store<W>(residual + i, v);
      if (derivative) v = v * load<W>(derivative + i);
      if (residual && Shape.post_activation) store<W>(residual + i, v);
      store<W>(g + i, v);
    }
    if (residual) residual_[below].repeat();
  }
  /// grad_x, if the results of level 0 need no change and no conversion.
  TCNCA_HOST_DEVICE A* grad_x_row([[maybe_unused]] range r) const {
    if constexpr (Lanes.along_length && same<T, A> && !bidirectional && !Shape.skip) {
      return params.grad_x_streaming || r.last > length_ || !grad_x_.row ? nullptr : grad_x_.row + r.first;
    } else {
      return nullptr;
    }
  }
  /// Writes grad_x: the sum of both directions and the skip connection.
  TCNCA_NOINLINE void store_grad_x(range r, A* from) const {
    if (!params.grad_x.present()) return;
    auto const& plan = params.plan;
    if constexpr (bidirectional) {
      A* const other = sequence_at(plan.partial, r.first);
      if (direction_ == 1) return window::copy(from, other, r.elements());
      for (index_t i = 0; i < r.elements(); i += W)
        store<W>(from + i, load<W>(const_cast<A const*>(from) + i) + load<W>(const_cast<A const*>(other) + i));
    }
    if constexpr (Shape.skip) {
      A const* const grad = bidirectional ? sequence_at(plan.output_grad, r.first) : skip_.at(r.first);
      value const omega = load<W>(weight(layout_type::rows - 1));
      for (index_t i = 0; i < r.elements(); i += W)
        store<W>(from + i, fma(omega, load<W>(grad + i), load<W>(const_cast<A const*>(from) + i)));
    }
    bool const whole_vectors = grad_x_.vectorizable && grad_x_.channels == Lanes.channels();
    range const complete = r.within(r.first, whole_vectors ? length_ / P * P : 0),
                rest = r.within(max_of(r.first, complete.last), r.last);
    T* const to = grad_x_.row;
    if (may_stream<T, Lanes> && params.grad_x_streaming)
      for_each_vector(complete, [&](index_t t, index_t i) TCNCA_INLINE {
        store_streaming<W>(to + (Lanes.along_length ? t : t * grad_x_.stride), load<W>(const_cast<A const*>(from) + i));
      });
    else
      for_each_vector(complete, [&](index_t t, index_t i) TCNCA_INLINE {
        store<W>(to + (Lanes.along_length ? t : t * grad_x_.stride), load<W>(const_cast<A const*>(from) + i));
      });
    A const* const last = from + (rest.first - r.first) * E;
    for_each_vector(rest,
                    [&](index_t t, index_t i) TCNCA_INLINE { grad_x_.store(t, 0, length_ - t, load<W>(last + i)); });
  }
};

}  // namespace tcnca
