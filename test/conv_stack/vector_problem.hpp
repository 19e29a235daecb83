// Stacks behind one type for all shapes, so that a check is compiled once for each element type, and a shape costs what
// the library costs.
#pragma once
#include <string>

#include "vector_oracle.hpp"

namespace tcnca::testing {

/// The calls of one instantiation of conv_stack on the CPU.
template <class T>
struct compiled_stack {
  using canonical = conv_stack<T, conv_stack_shape{}>;
  using forward_args = typename canonical::forward_args;
  using backward_args = typename canonical::backward_args;
  conv_stack_shape shape;
  size_t (*forward_workspace)(cpu, forward_args const&);
  status (*forward)(cpu, forward_args const&, workspace);
  size_t (*backward_workspace)(cpu, backward_args const&) = nullptr;
  status (*backward)(cpu, backward_args const&, workspace) = nullptr;
};

template <class Op, class Args>
typename Op::forward_args forward_args_of(Args const& a) {
  return {a.x, a.weight, a.bias, a.omega, a.state_in, a.y, a.state_out, a.position};
}
template <class Op, class Args>
typename Op::backward_args backward_args_of(Args const& a) {
  return {a.x,      a.weight,      a.bias,      a.omega,      a.state_in,      a.grad_y,  a.grad_state_out,
          a.grad_x, a.grad_weight, a.grad_bias, a.grad_omega, a.grad_state_in, a.position};
}

/// The forward pass of a stack.
template <class T, conv_stack_shape Shape, class Tuning = default_conv_stack_tuning<T, Shape>>
compiled_stack<T> forward_of() {
  using op = conv_stack<T, Shape, Tuning>;
  static_assert(!op::template forward_rounds_between_layers<cpu>);
  using args = typename compiled_stack<T>::forward_args;
  return {.shape = Shape,
          .forward_workspace = [](cpu e, args const& a) { return op::forward_workspace(e, forward_args_of<op>(a)); },
          .forward = [](cpu e, args const& a, workspace w) { return op::forward(e, forward_args_of<op>(a), w); }};
}
/// Both passes.
template <class T, conv_stack_shape Shape, class Tuning = default_conv_stack_tuning<T, Shape>>
compiled_stack<T> both_of() {
  using op = conv_stack<T, Shape, Tuning>;
  static_assert(!op::template backward_rounds_between_layers<cpu>);
  using args = typename compiled_stack<T>::backward_args;
  compiled_stack<T> s = forward_of<T, Shape, Tuning>();
  s.backward_workspace = [](cpu e, args const& a) { return op::backward_workspace(e, backward_args_of<op>(a)); };
  s.backward = [](cpu e, args const& a, workspace w) { return op::backward(e, backward_args_of<op>(a), w); };
  return s;
}

/// The default tuning with packs of so many lanes.
template <class T, conv_stack_shape Shape, int Width>
struct width_tuning {
  using base = default_conv_stack_tuning<T, Shape>;
  static constexpr conv_stack_policy with(conv_stack_policy p) {
    p.width = Width;
    return p;
  }
  static constexpr conv_stack_policy forward(target t) { return with(base::forward(t)); }
  static constexpr conv_stack_policy backward(target t) { return with(base::backward(t)); }
};

/// A problem for a compiled stack.
template <class T>
struct vector_problem : conv_stack_tensors<T> {
  using base = conv_stack_tensors<T>;
  using typename base::A;
  using forward_args = typename compiled_stack<T>::forward_args;
  using backward_args = typename compiled_stack<T>::backward_args;
  compiled_stack<T> const& calls;

  vector_problem(compiled_stack<T> const& compiled, extents const& size, std::uint64_t seed, bool gradients = false)
      : base(compiled.shape, size, seed), calls(compiled) {
    if (gradients) this->want_gradients();
  }

  forward_args forward() const { return this->template forward_args_as<forward_args>(); }
  backward_args backward() const { return this->template backward_args_as<backward_args>(); }

  /// Calls with a workspace of exactly the size that the query returns.
  void run_forward(int threads) const { run_forward(calls, forward(), threads); }
  static void run_forward(compiled_stack<T> const& calls, forward_args const& a, int threads) {
    run_with_workspace<cpu_backend>(calls.forward_workspace(cpu{threads}, a),
                                    [&](workspace w) { return calls.forward(cpu{threads}, a, w); });
  }
  void run_backward(int threads) const { run_backward(calls, backward(), threads); }
  static void run_backward(compiled_stack<T> const& calls, backward_args const& a, int threads) {
    run_with_workspace<cpu_backend>(calls.backward_workspace(cpu{threads}, a),
                                    [&](workspace w) { return calls.backward(cpu{threads}, a, w); });
  }

  void clear_outputs() { this->y.clear(), this->state_out.clear(); }
  void clear_gradients() {
    this->grad_x.clear(), this->grad_weight.clear(), this->grad_bias.clear(), this->grad_omega.clear(),
        this->grad_state_in.clear();
  }
  /// The bits of the gradients of the parameters.
  std::vector<unsigned char> parameter_gradients() const {
    auto all = this->grad_weight.bits();
    for (auto const& more : {this->grad_bias.bits(), this->grad_omega.bits()})
      all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  /// Expects the oracle's bits, and nothing else written.
  void expect_outputs(exact_results<A> const& right) const {
    EXPECT_TRUE(are_exactly(this->y, right.y)) << "y";
    if (this->state_out.present()) { EXPECT_TRUE(are_exactly(this->state_out, right.state_out)) << "state_out"; }
    EXPECT_TRUE(this->y.intact() && this->state_out.intact()) << "written outside of y or state_out";
  }
  void expect_input_gradients(exact_results<A> const& right) const {
    EXPECT_TRUE(are_exactly(this->grad_x, right.grad_x)) << "grad_x";
    if (this->grad_state_in.present()) {
      EXPECT_TRUE(are_exactly(this->grad_state_in, right.grad_state_in)) << "grad_state_in";
    }
    this->expect_gradients_intact();
  }
};

}  // namespace tcnca::testing
