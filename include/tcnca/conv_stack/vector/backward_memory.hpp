// The memory of the CPU's backward kernel during a walk: windows, weights, sums; the beginning and the end of a step.
#pragma once
#include "../../block/sequence_lanes.hpp"
#include "../generic/backward_plan.hpp"
#include "backward_plan.hpp"
#include "correlate.hpp"
#include "sums.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_vector_backward_memory {
  using A = accumulate_t<T>;
  using Weight = parameter_t<T, Shape.weights>;
  using layout_type = conv_stack_vector_layout<T, Shape, Policy>;
  using params_type = conv_stack_backward_params<T, Shape.layers(), Weight, typename layout_type::plan>;
  static constexpr int layers = Shape.layers(), taps = Shape.taps, W = layout_type::W;
  static constexpr index_t P = layout_type::P, E = layout_type::E;
  static constexpr lanes Lanes{W, 1, layout_type::along_length};
  static constexpr bool bidirectional = layout_type::bidirectional, has_derivative = layout_type::has_derivative,
                        derivative_by_sign = layout_type::derivative_by_sign;
  using value = pack<A, W>;
  using sums_type = conv_stack_vector_sums<T, Shape, Policy>;

  /// Positions [first, last), whole vectors.
  struct range {
    index_t first, last;
    TCNCA_HOST_DEVICE index_t elements() const { return (last - first) * E; }
    TCNCA_HOST_DEVICE bool empty() const { return first >= last; }
    TCNCA_HOST_DEVICE range within(index_t begin, index_t end) const {
      return {max_of(first, begin), min_of(last, end)};
    }
  };

  /// A window during a walk.
  struct window {
    A* memory;
    index_t slot;                         // of the current step's first position
    index_t capacity, history, repeated;  // see walk_window
    index_t base;                         // the current step's first position

    TCNCA_HOST_DEVICE index_t index(index_t t) const {
      index_t const i = slot + (t - base);
      return i < 0 ? i + capacity : i;
    }
    TCNCA_HOST_DEVICE A* at(index_t t) const { return memory + index(t) * E; }
    /// How many of `limit` positions from t on are contiguous, in whole vectors.
    TCNCA_HOST_DEVICE index_t contiguous(index_t t, index_t limit) const {
      index_t const i = index(t);
      return capacity == 0 || i + limit <= capacity + repeated ? limit : round_up(capacity - i, P);
    }
    /// After the current step is written: copies the first positions of a ring behind its end.
    TCNCA_HOST_DEVICE void repeat() const {
      if (capacity == 0 || slot != 0) return;
      if (repeated == P) store<W>(memory + capacity * E, load<W>(const_cast<A const*>(memory)));
      else copy(memory, memory + capacity * E, repeated * E);
    }
    TCNCA_HOST_DEVICE void next(index_t step) {
      base += step;
      if (capacity > 0) {
        slot += step;
        if (slot == capacity) slot = 0;
      } else {
        copy(memory + step * E, memory, history * E);
      }
    }
    static TCNCA_NOINLINE void copy(A const* from, A* to, index_t count) {
      for (index_t i = 0; i < count; i += W) store<W>(to + i, load<W>(from + i));
    }
  };

  params_type const& params;
  A* memory_;
  index_t batch_, channel_, length_;
  sequence_lanes<T const, Lanes> x_, grad_y_;
  sequence_lanes<T, Lanes> grad_x_;
  int direction_;
  index_t step_begin_;  // x[step_begin_, step_begin_ + step) is the current step
  array<window, layers> input_, derivative_, grad_, residual_;
  window skip_;

#if defined(__CUDACC__)  // nvcc rejects a static table in functions that device code could call
  TCNCA_HOST_DEVICE index_t look_ahead(int l) const { return Shape.look_ahead(l, direction_); }
  TCNCA_HOST_DEVICE static index_t dilation(int l) { return Shape.dilation(l); }
  TCNCA_HOST_DEVICE static index_t history(int l) { return Shape.history(l); }
#else
  TCNCA_HOST_DEVICE index_t look_ahead(int l) const { return layout_type::table.look_ahead[direction_][l]; }
  TCNCA_HOST_DEVICE static index_t dilation(int l) { return layout_type::table.dilation[l]; }
  TCNCA_HOST_DEVICE static index_t history(int l) { return layout_type::table.history[l]; }
#endif
  TCNCA_HOST_DEVICE index_t gradient_look_ahead(int l) const { return history(l) - look_ahead(l); }
  TCNCA_HOST_DEVICE static int residual_of(int l) { return Shape.residual_span() > 0 ? l / Shape.residual_span() : 0; }
  /// The layer that ends the residual which layer l starts.
  TCNCA_HOST_DEVICE static int residual_end(int l) { return l + Shape.residual_span() - 1; }
  TCNCA_HOST_DEVICE bool has_state() const { return params.state_in.present(); }
  TCNCA_HOST_DEVICE index_t whole_length() const { return round_up(length_, P); }
  TCNCA_HOST_DEVICE conv_stack_walk_windows<layers> const& places() const { return params.plan.walk[direction_]; }
  TCNCA_HOST_DEVICE range step_of(index_t shift) const {
    return {step_begin_ - shift, step_begin_ - shift + params.plan.step};
  }
  TCNCA_HOST_DEVICE A const* weight(int row) const { return memory_ + params.plan.weight + row * W; }
  TCNCA_HOST_DEVICE A const* bias_or_zero(int l) const { return Shape.bias ? weight(layers * taps + l) : zero(); }
  TCNCA_HOST_DEVICE A const* zero() const { return weight(layout_type::rows); }
  TCNCA_HOST_DEVICE sums_type sums() const {
    auto const& plan = params.plan;
    return {memory_ + plan.sums, plan.steps_per_total > 0 ? reinterpret_cast<double*>(memory_ + plan.totals) : nullptr};
  }
  /// A buffer of a whole sequence.
  TCNCA_HOST_DEVICE A* sequence_at(size_t offset, index_t t) const { return memory_ + offset + t * E; }
  template <class U>
  TCNCA_HOST_DEVICE layer_state<U> state_before(sequence_view<U> const& state, int l) const {
    return layer_state<U>::template of<Shape>(l, state, batch_, channel_, x_.channels, 0, params.slots.begin[l]);
  }

  TCNCA_HOST_DEVICE conv_stack_vector_backward_memory(params_type const& p, A* memory) : params(p), memory_(memory) {}

  TCNCA_NOINLINE void start_item(index_t item) {
    index_t const groups = divide_up(params.x.extent[1], index_t(Lanes.channels()));
    batch_ = item / groups;
    channel_ = item % groups * Lanes.channels();
    length_ = params.x.extent[2];
    x_ = {params.x, batch_, channel_, params.x_vectorizable};
    grad_y_ = {params.grad_y, batch_, channel_, params.grad_y_vectorizable};
    grad_x_ = {params.grad_x, batch_, channel_, params.grad_x_vectorizable};
  }

  TCNCA_NOINLINE void next_step(bool with_gradients) {
    index_t const step = params.plan.step;
    step_begin_ += step;
    for (int l = 0; l < layers; l++) {
      input_[l].next(step), grad_[l].next(step);
      if (has_derivative && !derivative_by_sign) derivative_[l].next(step);
      if (Shape.ends_residual(l)) residual_[l].next(step);
    }
    if (Shape.skip && !bidirectional && with_gradients) skip_.next(step);
  }

  /// Loads the weights, and what precedes the sequence: the state, or zeros. Clears the sums.
  TCNCA_NOINLINE void start() {
    load_weights();
    sums().clear();
    auto const open = [&](walk_window const& w) TCNCA_INLINE {
      return window{.memory = memory_ + w.offset,
                    .slot = w.capacity > 0 ? 0 : w.history,
                    .capacity = w.capacity,
                    .history = w.history,
                    .repeated = w.repeated,
                    .base = -w.shift};
    };
    for (int l = 0; l < layers; l++) {
      input_[l] = open(places().input[l]), grad_[l] = open(places().grad[l]);
      if (has_derivative && !derivative_by_sign) derivative_[l] = open(places().derivative[l]);
      if (Shape.residual_span() > 0) residual_[l] = open(places().residual[l]);
      clear(grad_[l], -grad_zeros_before(l), min_of(grad_[l].base, index_t(0)));
      if (has_state()) {
        clear(input_[l], -round_up(history(l), P), 0);
        load_state(l);
      } else {
        clear(input_[l], -input_zeros_before(l), min_of(input_[l].base, index_t(0)));
      }
    }
    if (Shape.skip) skip_ = open(places().skip);
  }

  /// Zeros that the levels read before position 0.
  TCNCA_HOST_DEVICE index_t input_zeros_before(int l) const {
    return has_state() ? 0 : layout_type::zeros(gradient_look_ahead(l));
  }
  TCNCA_HOST_DEVICE index_t grad_zeros_before(int l) const {
    return layout_type::zeros(has_state() ? history(l) : look_ahead(l));
  }
  /// `last` is a multiple of P.
  TCNCA_HOST_DEVICE static void clear(window const& w, index_t first, index_t last) {
    for (; first < last && first % P != 0; first++) w.at(first)[0] = A(0);
    for (index_t t = first; t < last; t += P) store<W>(w.at(t), broadcast<W>(A(0)));
  }

  TCNCA_NOINLINE void load_weights() const {
    A* const to = memory_ + params.plan.weight;
    auto const row = [&](int r, Weight const* from, index_t stride) TCNCA_INLINE {
      if constexpr (Lanes.along_length) {
        store<W>(to + r * W, broadcast<W>(to_accumulate(*from)));
      } else {
        store<W>(to + r * W, load_some<W>(from, stride, x_.channels));
      }
    };
    int const first = direction_ * layers;
    for (int l = 0; l < layers; l++) {
      for (int k = 0; k < taps; k++)
        row(l * taps + (direction_ == 1 ? taps - 1 - k : k), params.weight.at(first + l, k, channel_),
            params.weight.stride[2]);
      if (Shape.bias) row(layers * taps + l, params.bias.at(first + l, channel_), params.bias.stride[1]);
    }
    if (Shape.skip) row(layout_type::rows - 1, params.omega.at(channel_), params.omega.stride[0]);
    store<W>(to + layout_type::rows * W, broadcast<W>(A(0)));
  }
  TCNCA_NOINLINE void load_state(int l) const {
    auto const state = state_before(params.state_in, l);
    for (index_t t = -state.history; t < 0; t++)
      for (index_t c = 0; c < E; c++) input_[l].at(t)[c] = c < state.channels ? *state.at(t, c) : A(0);
  }

  /// After the vectors of the current step are written: zeros before and after the sequence, and the ring's copy.
  TCNCA_HOST_DEVICE void complete(window const& w, index_t zeros_before, index_t zeros_after) const {
    index_t const end = w.base + params.plan.step;
    if (w.base < 0 || end > length_ || (w.capacity > 0 && w.slot == 0)) complete_ends(w, zeros_before, zeros_after);
  }
  TCNCA_NOINLINE void complete_ends(window const& w, index_t zeros_before, index_t zeros_after) const {
    index_t const end = w.base + params.plan.step;
    clear(w, max_of(w.base, -zeros_before), min_of(end, index_t(0)));
    clear(w, max_of(w.base, length_), min_of(end, whole_length() + zeros_after));
    w.repeat();
  }
  TCNCA_HOST_DEVICE void complete_input(int l) const {
    complete(input_[l], input_zeros_before(l), layout_type::zeros(look_ahead(l)));
  }
  /// The same for the gradients of a layer's sums; adds them to the gradient of its bias.
  TCNCA_NOINLINE void complete_grad(int l, range r) const {
    complete(grad_[l], grad_zeros_before(l), layout_type::zeros(gradient_look_ahead(l)));
    if constexpr (Shape.bias) {
      if (r.empty()) return;
      A const* const from = grad_[l].at(r.first);
      A* const row = sums().row(layers * taps + l);
      array<value, 4> sum = {load<W>(const_cast<A const*>(row)), load<W>(zero()), load<W>(zero()), load<W>(zero())};
      index_t i = 0;
      for (; i + 4 * W <= r.elements(); i += 4 * W)
        unroll<0, 4>([&](auto u) TCNCA_INLINE { sum[u] = sum[u] + load<W>(from + i + u * W); });
      for (; i < r.elements(); i += W) sum[0] = sum[0] + load<W>(from + i);
      store<W>(row, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
  }

  /// x or grad_y as inputs of a level; null if a window holds them.
  TCNCA_HOST_DEVICE A const* x_row() const {
    if constexpr (layout_type::reads_x) {
      return has_state() ? nullptr : x_.row;
    } else {
      return nullptr;
    }
  }
  TCNCA_HOST_DEVICE A const* grad_y_row() const {
    if constexpr (layout_type::reads_grad_y) {
      return grad_y_.row;
    } else {
      return nullptr;
    }
  }
  /// How many of `limit` positions from t on lie inside of the sequence, or at an end of it; whole vectors.
  TCNCA_HOST_DEVICE index_t inside(index_t t, index_t limit) const {
    if (t >= 0 && t + limit <= length_) return limit;
    if (t < 0) return min_of(limit, min_of(round_up(-t, P), layout_type::block));
    return t + P <= length_ ? (length_ - t) / P * P : min_of(limit, layout_type::block);
  }
  /// Positions [t, t + count) of a row, which are inside() or at an end: then copied to edge vectors `i`, with zeros.
  TCNCA_HOST_DEVICE A const* row_at(A const* row, index_t t, index_t count, int i) const {
    return t >= 0 && t + count <= length_ ? row + t : copy_edge(row, t, count, i);
  }
  TCNCA_NOINLINE A const* copy_edge(A const* row, index_t t, index_t count, int i) const {
    A* const to = memory_ + params.plan.edges + i * layout_type::block;
    for (index_t j = 0; j < count; j += P) store<W>(to + j, broadcast<W>(A(0)));
    for (index_t j = max_of(index_t(0), -t); j < min_of(count, length_ - t); j++) to[j] = row[t + j];
    return to;
  }

  /// f(vector t, offset in elements) for the vectors of a range.
  template <class F>
  TCNCA_HOST_DEVICE static void for_each_vector(range r, F const& f) {
    index_t i = 0;
    for (index_t t = r.first; t < r.last; t += P, i += W) f(t, i);
  }
  /// Calls f(load) with a function that loads the vector at position t of a sequence.
  template <class F>
  TCNCA_HOST_DEVICE void with_loads(sequence_lanes<T const, Lanes> const& from, range r, F const& f) const {
    index_t const complete = from.vectorizable && from.channels == Lanes.channels() ? length_ / P * P : 0;
    f(r.within(r.first, complete),
      [&](index_t t) TCNCA_INLINE { return load<W>(from.row + (Lanes.along_length ? t : t * from.stride)); });
    f(r.within(complete, r.last), [&](index_t t) TCNCA_INLINE { return from.load(t, 0, length_ - t); });
  }

  TCNCA_NOINLINE void load_input() const {
    if (x_row() != nullptr) return;
    range const r = step_of(places().input[0].shift).within(0, whole_length());
    if (!r.empty()) {
      with_loads(x_, r, [&](range part, auto const& x) TCNCA_INLINE {
        A* const to = input_[0].at(part.first);
        for_each_vector(part, [&](index_t t, index_t i) TCNCA_INLINE { store<W>(to + i, x(t)); });
      });
    }
    complete_input(0);
  }
  /// What gradient level l prefetches of x and grad_y for the next step, or for the next item: each level a part,
  /// because a whole step at a time would wait for memory.
  TCNCA_HOST_DEVICE detail::prefetch_lines prefetch_next(int l) const {
    constexpr int of_x = layers / 2, of_grad = layers - of_x;
    constexpr index_t line = Lanes.along_length ? 64 / index_t(sizeof(T)) : 1;  // positions
    bool const is_x = l < of_x;
    auto const& from = is_x ? params.x : params.grad_y;
    index_t t = step_begin_ - (is_x ? places().input[0].shift : places().grad[layers - 1].shift) + params.plan.step;
    T const* row = is_x ? x_.row : grad_y_.row;
    index_t const step = min_of(params.plan.step, length_);
    index_t next_item = 0;
    if (t >= length_) t = 0, next_item = Lanes.channels() * from.stride[1] * index_t(sizeof(T));
    t += step * (is_x ? l : l - of_x) / (is_x ? max_of(of_x, 1) : of_grad) / line * line;
    index_t const stride = Lanes.along_length ? index_t(sizeof(T)) : from.stride[2] * index_t(sizeof(T));
    // Integers: the address may lie outside of the tensor.
    return {reinterpret_cast<char const*>(reinterpret_cast<size_t>(row) + size_t(next_item + t * stride)),
            line * stride};
  }
};

}  // namespace tcnca::detail
