// The part of a layer that mixes along time before attention: TCNCA's convolution stack or MEGA's EMA, behind one
// interface.
#pragma once
#include <tcnca/conv_stack.hpp>
#include <tcnca/ema.hpp>

#include <cmath>

#include "elementwise.hpp"
#include "passage.hpp"

namespace tcnca::models {

/// The interface of a mixer. Activations are [batch, length, channels].
template <class T, class E>
class mixer {
 public:
  virtual ~mixer() = default;
  mixer(mixer const&) = delete;
  mixer& operator=(mixer const&) = delete;

  /// Call after `commit`: reserves the workspace of forward and backward.
  virtual void reserve(context<T, E>& c, T const* x, T* y) const = 0;
  virtual void forward(context<T, E> const& c, T const* x, T* y) const = 0;
  virtual void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x) const = 0;

  /// Causal mixers: takes the state that is carried from piece to piece from `states`.
  virtual void plan_states(context<T, E> const&, memory_of<T, E>&) {
    throw std::logic_error("this mixer remembers nothing from piece to piece");
  }
  /// Call after the states have been committed: reserves the workspace of a piece.
  virtual void reserve_piece(context<T, E>&, passage<T, E> const&, T const*, T*) const {}
  /// Zeroes the state in a slot, for a sequence that begins.
  virtual void clear_state(context<T, E> const&, memory_of<T, E> const&, index_t) const {}
  /// Forward pass of a piece; reads and updates the states of the passage.
  virtual void forward_continued(context<T, E> const&, passage<T, E> const&, T const*, T*) const {
    throw std::logic_error("this mixer remembers nothing from piece to piece");
  }

 protected:
  mixer() = default;
};

/// Weights are initialized from N(0, 1 / taps), which preserves the variance of a signal; levels with a residual start
/// at a tenth of that deviation, so that a new stack is close to the identity. (Language models then learn faster than
/// with MEGA's EMA; without this, slower.) Biases start at 0, the skip connection at 1. Bidirectional stacks of padded
/// sequences must have no biases, which would turn the zeros of the padding into non-zeros that deeper levels read.
template <class T, class E, conv_stack_shape Shape>
class conv_mixer final : public mixer<T, E> {
  static_assert(Shape.order == layout::batch_length_channels, "activations of a model are [batch, length, channels]");

 public:
  conv_mixer(context<T, E>& c, index_t channels) : channels_(channels) {
    weight_ = c.parameter(sets * Shape.taps * channels, {.deviation = (Shape.residuals == residual::level ? 0.1 : 1) /
                                                                      std::sqrt(double(Shape.taps))});
    if (Shape.bias) bias_ = c.parameter(sets * channels, {});
    if (Shape.skip) omega_ = c.parameter(channels, {.mean = 1});
  }
  void reserve(context<T, E>& c, T const* x, T* y) const override {
    c.reserve(op::forward_workspace(c.executor(), forward_args(c, x, y)));
    c.reserve(op::backward_workspace(c.executor(), backward_args(c, x, x, y)));
  }
  void forward(context<T, E> const& c, T const* x, T* y) const override {
    if (Shape.bias && !causal && c.lengths() != nullptr)
      throw std::logic_error("a stack with biases that looks ahead hears padding");
    require(op::forward(c.executor(), forward_args(c, x, y), c.scratch()));
  }
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x) const override {
    require(op::backward(c.executor(), backward_args(c, x, grad_y, grad_x), c.scratch()));
  }

  void plan_states(context<T, E> const& c, memory_of<T, E>& states) override {
    state_ = states.take(c.batch * state_size());
  }
  void reserve_piece(context<T, E>& c, passage<T, E> const& at, T const* x, T* y) const override {
    if constexpr (causal) { c.reserve(op::forward_workspace(c.executor(), piece_args(c, at, x, y))); }
  }
  void clear_state(context<T, E> const& c, memory_of<T, E> const& states, index_t slot) const override {
    fill(c.executor(), state_size(), T(0), states[state_] + slot * state_size());
  }
  void forward_continued(context<T, E> const& c, passage<T, E> const& at, T const* x, T* y) const override {
    if constexpr (causal) {
      require(op::forward(c.executor(), piece_args(c, at, x, y), c.scratch()));
    } else {
      mixer<T, E>::forward_continued(c, at, x, y);
    }
  }

 private:
  using op = conv_stack<T, Shape>;
  static constexpr int sets = Shape.weight_sets();
  static constexpr bool causal = Shape.dir == direction::causal;
  index_t state_size() const { return channels_ * op::state_length; }

  template <class U>
  sequence_view<U> view(context<T, E> const& c, U* p) const {
    return sequence(p, layout::batch_length_channels, c.batch, channels_, c.length);
  }
  typename op::forward_args forward_args(context<T, E> const& c, T const* x, T* y) const {
    typename op::forward_args a;
    a.x = view(c, x), a.y = view(c, y);
    inputs(c, a);
    return a;
  }
  typename op::forward_args piece_args(context<T, E> const& c, passage<T, E> const& at, T const* x, T* y) const {
    auto a = forward_args(c, x, y);
    a.state_out =
        sequence((*at.states)[state_], layout::batch_length_channels, at.state_rows, channels_, op::state_length);
    a.state_in = a.state_out, a.slots = at.slots;
    a.position = at.position, a.positions = at.positions;
    return a;
  }
  typename op::backward_args backward_args(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x) const {
    typename op::backward_args a;
    a.x = view(c, x), a.grad_y = view(c, grad_y), a.grad_x = view(c, grad_x);
    inputs(c, a);
    a.grad_weight = contiguous(c.gradients[weight_], sets, Shape.taps, channels_);
    if (Shape.bias) a.grad_bias = contiguous(c.gradients[bias_], sets, channels_);
    if (Shape.skip) a.grad_omega = contiguous(c.gradients[omega_], channels_);
    return a;
  }
  void inputs(context<T, E> const& c, auto& a) const {
    a.offsets = c.offsets(), a.max_length = c.longest();
    a.weight = contiguous(c.values[weight_], sets, Shape.taps, channels_);
    if (Shape.bias) a.bias = contiguous(c.values[bias_], sets, channels_);
    if (Shape.skip) a.omega = contiguous(c.values[omega_], channels_);
  }

  index_t channels_;
  region weight_, bias_, omega_, state_;
};

/// Parameters are initialized as in MEGA.
template <class T, class E, ema_shape Shape>
class ema_mixer : public mixer<T, E> {
  static_assert(Shape.order == layout::batch_length_channels, "activations of a model are [batch, length, channels]");

 public:
  ema_mixer(context<T, E>& c, index_t channels) : channels_(channels) {
    index_t const count = rows() * Shape.states;
    delta_ = c.parameter(count, {.deviation = 0.2}), alpha_ = c.parameter(count, {.deviation = 0.2});
    beta_ = c.parameter(count, {.mean = 1, .deviation = 0.02, .alternating = true}),
    gamma_ = c.parameter(count, {.deviation = 1});
    if (Shape.skip) omega_ = c.parameter(channels, {.deviation = 1});
  }
  void reserve(context<T, E>& c, T const* x, T* y) const override {
    c.reserve(op::forward_workspace(c.executor(), forward_args(c, x, y)));
    c.reserve(op::backward_workspace(c.executor(), backward_args(c, x, x, y)));
  }
  void forward(context<T, E> const& c, T const* x, T* y) const override {
    require(op::forward(c.executor(), forward_args(c, x, y), c.scratch()));
  }
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x) const override {
    require(op::backward(c.executor(), backward_args(c, x, grad_y, grad_x), c.scratch()));
  }

  void plan_states(context<T, E> const& c, memory_of<T, E>& states) override {
    state_ = states.take(c.batch * state_size());
  }
  void reserve_piece(context<T, E>& c, passage<T, E> const& at, T const* x, T* y) const override {
    if constexpr (causal) { c.reserve(op::forward_workspace(c.executor(), piece_args(c, at, x, y))); }
  }
  void clear_state(context<T, E> const& c, memory_of<T, E> const& states, index_t slot) const override {
    fill(c.executor(), state_size(), T(0), states[state_] + slot * state_size());
  }
  void forward_continued(context<T, E> const& c, passage<T, E> const& at, T const* x, T* y) const override {
    if constexpr (causal) {
      require(op::forward(c.executor(), piece_args(c, at, x, y), c.scratch()));
    } else {
      mixer<T, E>::forward_continued(c, at, x, y);
    }
  }

 private:
  using op = ema<T, Shape>;
  static constexpr bool causal = Shape.dir == direction::causal;
  index_t rows() const { return Shape.directions() * channels_; }
  index_t state_size() const { return channels_ * Shape.states; }

  template <class U>
  sequence_view<U> view(context<T, E> const& c, U* p) const {
    return sequence(p, layout::batch_length_channels, c.batch, channels_, c.length);
  }
  tensor_view<T, 2> table(T* p) const { return contiguous(p, rows(), Shape.states); }
  typename op::forward_args forward_args(context<T, E> const& c, T const* x, T* y) const {
    typename op::forward_args a;
    a.x = view(c, x), a.y = view(c, y);
    inputs(c, a);
    return a;
  }
  typename op::forward_args piece_args(context<T, E> const& c, passage<T, E> const& at, T const* x, T* y) const {
    auto a = forward_args(c, x, y);
    a.state_out = contiguous((*at.states)[state_], at.state_rows, channels_, index_t(Shape.states));
    a.state_in = a.state_out, a.slots = at.slots;
    return a;
  }
  typename op::backward_args backward_args(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x) const {
    typename op::backward_args a;
    a.x = view(c, x), a.grad_y = view(c, grad_y), a.grad_x = view(c, grad_x);
    inputs(c, a);
    auto const& g = c.gradients;
    a.grad_delta = table(g[delta_]), a.grad_alpha = table(g[alpha_]), a.grad_beta = table(g[beta_]),
    a.grad_gamma = table(g[gamma_]);
    if (Shape.skip) a.grad_omega = contiguous(g[omega_], channels_);
    return a;
  }
  void inputs(context<T, E> const& c, auto& a) const {
    a.offsets = c.offsets(), a.max_length = c.longest();
    auto const& v = c.values;
    a.delta = table(v[delta_]), a.alpha = table(v[alpha_]), a.beta = table(v[beta_]), a.gamma = table(v[gamma_]);
    if (Shape.skip) a.omega = contiguous(v[omega_], channels_);
  }

  index_t channels_;
  region delta_, alpha_, beta_, gamma_, omega_, state_;
};

}  // namespace tcnca::models
