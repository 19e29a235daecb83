// A problem for conv_stack: its tensors, the calls, and the comparison with the reference.
#pragma once
#include <sstream>
#include <vector>

#include <tcnca/conv_stack.hpp>

#include "reference/conv_stack.hpp"
#include "support/backend.hpp"
#include "support/compare.hpp"
#include "support/optional.hpp"

namespace tcnca::testing {

/// The reference's description of a shape.
inline reference::stack describe(conv_stack_shape const& s) {
  reference::stack r;
  r.taps = s.taps;
  for (int block = 0; block < s.blocks; block++) {
    std::int64_t power = 1;
    for (int level = 0; level < s.levels(); level++, power *= s.dilation_base)
      for (int i = 0; i < s.convolutions; i++) r.dilation.push_back(s.listed() ? s.dilations[level] : power);
  }
  r.residual_span = s.residuals == residual::level   ? s.convolutions
                    : s.residuals == residual::block ? s.convolutions * s.levels()
                                                     : 0;
  switch (s.act) {
    case activation::none: r.act = reference::activation::none; break;
    case activation::relu: r.act = reference::activation::relu; break;
    case activation::silu: r.act = reference::activation::silu; break;
    case activation::gelu_erf: r.act = reference::activation::gelu_erf; break;
    case activation::gelu_tanh: r.act = reference::activation::gelu_tanh; break;
    case activation::tanh: r.act = reference::activation::tanh; break;
  }
  r.post_activation = s.post_activation, r.bias = s.bias, r.skip = s.skip;
  r.dir = s.dir == direction::causal      ? reference::direction::causal
          : s.dir == direction::symmetric ? reference::direction::symmetric
                                          : reference::direction::bidirectional;
  return r;
}

/// The default tuning with the generic kernels.
template <class T, conv_stack_shape Shape>
struct generic_tuning {
  using base = default_conv_stack_tuning<T, Shape>;
  static constexpr conv_stack_policy with(conv_stack_policy p) {
    p.kernels = stack_kernels::generic;
    return p;
  }
  static constexpr conv_stack_policy forward(target t) { return with(base::forward(t)); }
  static constexpr conv_stack_policy backward(target t) { return with(base::backward(t)); }
};

/// The type under test: a stack, an element type, a tuning, a backend.
template <class Backend, class Element, class Case, class Tuning = default_conv_stack_tuning<Element, Case::shape>>
struct subject {
  using backend = Backend;
  using T = Element;
  using A = accumulate_t<T>;
  using weight = parameter_t<T, Case::shape.weights>;
  static constexpr conv_stack_shape shape = Case::shape;
  using op = conv_stack<T, shape, Tuning>;
  using traits = executor_traits<typename Backend::executor>;
  static constexpr conv_stack_policy policy = Tuning::forward(traits::target);
  static constexpr bool causal = shape.dir == direction::causal;
  using executor = typename Backend::executor;
  static constexpr bool forward_rounds = op::template forward_rounds_between_layers<executor>,
                        backward_rounds = op::template backward_rounds_between_layers<executor>;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};

/// A subject without its backend.
template <class T, class Case, class Tuning = default_conv_stack_tuning<T, Case::shape>>
struct stack_case {
  template <class Backend>
  using on = subject<Backend, T, Case, Tuning>;
};

struct extents {
  index_t batch = 1, channels = 1, length = 1, position = 0;
  bool state_in = false, state_out = false;
  placement where = {};
  friend std::ostream& operator<<(std::ostream& out, extents const& e) {
    return out << "batch " << e.batch << ", channels " << e.channels << ", length " << e.length << ", position "
               << e.position << (e.state_in ? ", state in" : "") << (e.state_out ? ", state out" : "") << ", padding "
               << e.where.padding << ", offset " << e.where.offset;
  }
};

/// The tensors of one problem, with random inputs and results initialized to NaN. Weight: the type of the parameters.
template <class Element, class Weight = Element>
struct conv_stack_tensors {
  using T = Element;
  using A = accumulate_t<T>;

  conv_stack_shape form;
  extents e;
  reference::stack const stack;
  reference::problem p;  // the same numbers in fp64
  tensor<T, 3> x, y, grad_y, grad_x;
  tensor<Weight, 3> weight;
  tensor<Weight, 2> bias;
  tensor<Weight, 1> omega;
  tensor<A, 3> state_in, state_out, grad_state_out, grad_state_in, grad_weight;
  tensor<A, 2> grad_bias;
  tensor<A, 1> grad_omega;

  conv_stack_tensors(conv_stack_shape const& shape, extents const& size, std::uint64_t seed)
      : form(shape), e(size), stack(describe(shape)) {
    random_bits r{seed};
    index_t const rows = index_t(stack.directions()) * stack.layers();
    x = new_sequence<T>(e.length);
    // Magnitudes of order 1 in all layers: independent inputs of variance 1/3 keep their variance if sum w^2 is 1.
    double const scale = std::sqrt(3.0 / stack.taps);
    weight = tensor<Weight, 3>({rows, form.taps, e.channels}, {0, 1, 2}, e.where);
    p.x = fill(x, r, 1), p.weight = fill(weight, r, scale);
    if (form.bias) bias = tensor<Weight, 2>({rows, e.channels}, {0, 1}, e.where), p.bias = fill(bias, r, 0.5);
    if (form.skip) omega = tensor<Weight, 1>({e.channels}, {0}, e.where), p.omega = fill(omega, r, 1);
    if (e.state_in) state_in = new_sequence<A>(stack.state_length()), p.state_in = fill(state_in, r, 1);
    y = new_sequence<T>(e.length);
    if (e.state_out) state_out = new_sequence<A>(stack.state_length());
    p.batch = e.batch, p.channels = e.channels, p.length = e.length, p.position = e.position;
    seed_ = r();
  }
  /// Rounds the parameters to T.
  void round_parameters() {
    auto const round = [](auto& v) {
      v.for_each([](Weight& w) { w = from_double<Weight>(to_double(from_double<T>(to_double(w)))); });
      return v.values();
    };
    p.weight = round(weight), p.bias = round(bias), p.omega = round(omega);
  }
  /// Creates the tensors that only the backward pass needs.
  void want_gradients() {
    random_bits r{seed_};
    index_t const rows = index_t(stack.directions()) * stack.layers();
    grad_y = new_sequence<T>(e.length), p.grad_y = fill(grad_y, r, 1);
    if (e.state_out)
      grad_state_out = new_sequence<A>(stack.state_length()), p.grad_state_out = fill(grad_state_out, r, 1);
    grad_x = new_sequence<T>(e.length);
    grad_weight = tensor<A, 3>({rows, form.taps, e.channels}, {0, 1, 2}, e.where);
    if (form.bias) grad_bias = tensor<A, 2>({rows, e.channels}, {0, 1}, e.where);
    if (form.skip) grad_omega = tensor<A, 1>({e.channels}, {0}, e.where);
    if (e.state_in) grad_state_in = new_sequence<A>(stack.state_length());
  }

  template <class E>
  tensor<E, 3> new_sequence(index_t length) const {
    return tensor<E, 3>::sequence(form.order, e.batch, e.channels, length, e.where);
  }

  /// The arguments of a call. Args is forward_args of a stack, or backward_args.
  template <class Args>
  Args forward_args_as() const {
    return {.x = x.view(),
            .weight = weight.view(),
            .bias = bias.view(),
            .omega = omega.view(),
            .state_in = state_in.view(),
            .y = y.view(),
            .state_out = state_out.view(),
            .position = e.position};
  }
  template <class Args>
  Args backward_args_as() const {
    return {.x = x.view(),
            .weight = weight.view(),
            .bias = bias.view(),
            .omega = omega.view(),
            .state_in = state_in.view(),
            .grad_y = grad_y.view(),
            .grad_state_out = grad_state_out.view(),
            .grad_x = grad_x.view(),
            .grad_weight = grad_weight.view(),
            .grad_bias = grad_bias.view(),
            .grad_omega = grad_omega.view(),
            .grad_state_in = grad_state_in.view(),
            .position = e.position};
  }

  /// Expects results within their bounds, and nothing else written. rounds: between layers, to T.
  void expect_forward_within_bounds(bool rounds, tensor<A, 3> const& last_state) const {
    use_arithmetic_of<T>();
    auto const r = reference::forward(rounding(rounds), p);
    EXPECT_TRUE(within(y, r.y.value, r.y.error)) << "y";
    if (last_state.present()) { EXPECT_TRUE(within(last_state, r.state_out.value, r.state_out.error)) << "state_out"; }
    EXPECT_TRUE(y.intact() && last_state.intact()) << "written outside of y or state_out";
    expect_inputs_untouched();
  }
  void expect_backward_within_bounds(bool rounds) const {
    use_arithmetic_of<T>();
    auto const r = reference::backward(rounding(rounds), p);
    EXPECT_TRUE(within(grad_x, r.grad_x.value, r.grad_x.error)) << "grad_x";
    EXPECT_TRUE(within(grad_weight, r.grad_weight.value, r.grad_weight.error)) << "grad_weight";
    if (form.bias) { EXPECT_TRUE(within(grad_bias, r.grad_bias.value, r.grad_bias.error)) << "grad_bias"; }
    if (form.skip) { EXPECT_TRUE(within(grad_omega, r.grad_omega.value, r.grad_omega.error)) << "grad_omega"; }
    if (grad_state_in.present()) {
      EXPECT_TRUE(within(grad_state_in, r.grad_state_in.value, r.grad_state_in.error)) << "grad_state_in";
    }
    expect_gradients_intact();
    expect_inputs_untouched();
  }
  void expect_gradients_intact() const {
    EXPECT_TRUE(grad_x.intact() && grad_weight.intact() && grad_bias.intact() && grad_omega.intact() &&
                grad_state_in.intact())
        << "written outside of a gradient";
  }
  void expect_inputs_untouched() const {
    EXPECT_TRUE(x.intact() && weight.intact() && bias.intact() && omega.intact() && state_in.intact() &&
                grad_y.intact() && grad_state_out.intact());
    EXPECT_TRUE(x.values() == p.x && weight.values() == p.weight && bias.values() == p.bias &&
                omega.values() == p.omega && state_in.values() == p.state_in)
        << "an input was written";
    if (grad_y.present()) {
      EXPECT_TRUE(grad_y.values() == p.grad_y && grad_state_out.values() == p.grad_state_out) << "an input was written";
    }
  }

 private:
  std::uint64_t seed_;

  reference::stack rounding(bool rounds) const {
    auto s = stack;
    s.rounds = rounds;
    return s;
  }
};

/// A problem for a subject.
template <class S>
struct conv_stack_problem : conv_stack_tensors<typename S::T, typename S::weight> {
  using base = conv_stack_tensors<typename S::T, typename S::weight>;
  using typename base::A, typename base::T;
  using op = typename S::op;
  using forward_args = typename op::forward_args;
  using backward_args = typename op::backward_args;
  static constexpr conv_stack_shape shape = S::shape;

  conv_stack_problem(extents const& size, std::uint64_t seed) : base(shape, size, seed) {
    if (S::forward_rounds || S::backward_rounds) this->round_parameters();  // as kernels on tensor cores do
  }

  forward_args forward() const { return this->template forward_args_as<forward_args>(); }
  backward_args backward() const { return this->template backward_args_as<backward_args>(); }

  /// Calls with a workspace of exactly the size that the query returns.
  void run_forward(std::uint64_t seed = 1) { run_forward(forward(), seed); }
  static void run_forward(forward_args const& a, std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    run_with_workspace<typename S::backend>(op::forward_workspace(executor, a),
                                            [&](workspace w) { return op::forward(executor, a, w); });
  }
  void run_backward(std::uint64_t seed = 1) { run_backward(backward(), seed); }
  static void run_backward(backward_args const& a, std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    run_with_workspace<typename S::backend>(op::backward_workspace(executor, a),
                                            [&](workspace w) { return op::backward(executor, a, w); });
  }

  void expect_forward() const { expect_forward(this->state_out); }
  /// The same with the final state in another tensor.
  void expect_forward(tensor<A, 3> const& last_state) const {
    this->expect_forward_within_bounds(S::forward_rounds, last_state);
  }
  void expect_backward() const { this->expect_backward_within_bounds(S::backward_rounds); }
};

/// Expects that every gradient is optional. call(args): backward.
template <class T, class Weight, class Args, class Call>
void expect_optional_gradients(conv_stack_tensors<T, Weight>& problem, Args const& args, Call call) {
  expect_each_is_optional(
      args, call, std::pair{&Args::grad_x, &problem.grad_x}, std::pair{&Args::grad_weight, &problem.grad_weight},
      std::pair{&Args::grad_bias, &problem.grad_bias}, std::pair{&Args::grad_omega, &problem.grad_omega},
      std::pair{&Args::grad_state_in, &problem.grad_state_in});
}

/// Edge lengths: 0, the receptive field, tiles, and one more or less.
template <class S>
std::vector<index_t> edge_lengths() {
  index_t const r = S::op::receptive_field, t = S::policy.tile;
  std::vector<index_t> all;
  for (index_t n :
       {index_t(0), index_t(1), index_t(2), r - 1, r, r + 1, t - 1, t, t + 1, 2 * t + 1, 3 * t - 1, 2 * (t + r) + 3})
    if (n >= 0 && std::find(all.begin(), all.end(), n) == all.end()) all.push_back(n);
  return all;
}

/// Random small extents, states and placements.
template <class S>
extents random_extents(random_bits& r) {
  extents e;
  e.batch = between(r, 0, 8) == 0 ? 0 : between(r, 1, 3);
  e.channels = between(r, 0, 8) == 0 ? 0 : between(r, 1, 7);
  index_t const far = 2 * S::op::receptive_field + 3 * S::policy.tile;
  e.length = between(r, 0, 3) == 0 ? between(r, 0, 4) : between(r, 0, int(far));
  e.position = between(r, 0, 1) ? between(r, 0, 1000) : (index_t(1) << 40) + between(r, 0, 1000);
  e.state_in = S::causal && between(r, 0, 1);
  e.state_out = S::causal && between(r, 0, 1);
  if (between(r, 0, 1)) e.where = {between(r, 0, 9), between(r, 0, 9)};
  return e;
}

}  // namespace tcnca::testing
