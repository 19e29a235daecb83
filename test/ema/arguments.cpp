// Invalid arguments of the exponential moving average: each has its own status and the argument's name, and no byte is
// written.
#include <functional>

#include "problem.hpp"

namespace tcnca::testing {
namespace {

using code = status_code;

struct with_all {
  static constexpr char const* name = "with_all";
  static constexpr ema_shape shape{.states = 3};
};
struct bare {
  static constexpr char const* name = "bare";
  static constexpr ema_shape shape{.states = 3, .skip = false, .order = layout::batch_length_channels};
};
struct both_ways {
  static constexpr char const* name = "both_ways";
  static constexpr ema_shape shape{.states = 3, .dir = direction::bidirectional};
};

template <class Case>
struct checked {
  using S = ema_subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using forward_args = typename op::forward_args;
  using backward_args = typename op::backward_args;
  ema_problem<S> problem{{.batch = 2, .channels = 3, .length = 9, .state_in = S::causal, .state_out = S::causal}, 1};

  /// Calls with one argument changed.
  void forward(code expected, std::string const& name, std::function<void(forward_args&, cpu&, workspace&)> change) {
    cpu e{1};
    auto args = problem.forward();
    call(expected, name, op::forward_workspace(e, args),
         [&](workspace w) { return change(args, e, w), op::forward(e, args, w); });
  }
  void backward(code expected, std::string const& name, std::function<void(backward_args&, cpu&, workspace&)> change) {
    cpu e{1};
    auto args = problem.backward();
    call(expected, name, op::backward_workspace(e, args),
         [&](workspace w) { return change(args, e, w), op::backward(e, args, w); });
  }
  void both(code expected, std::string const& name, auto change) {
    forward(expected, name, [=](auto& a, auto& e, auto& w) { change(a, e, w); });
    backward(expected, name, [=](auto& a, auto& e, auto& w) { change(a, e, w); });
  }

  /// Checks of every tensor.
  template <class Args, class View>
  void tensor_checked(View Args::*member, std::string const& name, bool optional = false) {
    auto const on = [&](code expected, auto change) {
      auto const f = [=](Args& a, cpu&, workspace&) { change(a.*member); };
      if constexpr (std::is_same_v<Args, forward_args>) {
        forward(expected, name, f);
      } else {
        backward(expected, name, f);
      }
    };
    constexpr int last = View::rank - 1;
    if (name != "x") on(code::invalid_extent, [](View& v) { v.extent[0]++; });
    on(code::invalid_extent, [](View& v) { v.extent[last] = -1; });
    on(code::invalid_stride, [](View& v) { v.stride[0] = -1; });
    if (!optional) on(code::null_pointer, [](View& v) { v.data = nullptr; });
    on(code::misaligned_pointer,
       [](View& v) { v.data = reinterpret_cast<decltype(v.data)>(reinterpret_cast<std::uintptr_t>(v.data) + 1); });
  }

 private:
  void call(code expected, std::string const& name, std::size_t bytes, std::function<status(workspace)> f) {
    SCOPED_TRACE(Case::name);
    scratch_memory const scratch(bytes);
    problem.clear();
    auto const before = problem.bits();
    status const s = f(scratch.get());
    EXPECT_EQ(int(s.code()), int(expected)) << name << ": answered " << to_string(s) << " (" << s.argument() << ")";
    EXPECT_EQ(s.argument(), name);
    EXPECT_TRUE(before == problem.bits()) << name << ": something was written";
    for (std::size_t i = 0; i < bytes; i++)
      ASSERT_EQ(static_cast<unsigned char*>(scratch.get().data)[i], 0xff) << name << ": the workspace was written";
    problem.expect_inputs_untouched();
  }
};

TEST(ema_arguments, every_tensor) {
  using c = checked<with_all>;
  using f = c::forward_args;
  using b = c::backward_args;
  c t;
  t.tensor_checked(&f::x, "x"), t.tensor_checked(&f::delta, "delta"), t.tensor_checked(&f::alpha, "alpha"),
      t.tensor_checked(&f::beta, "beta");
  t.tensor_checked(&f::gamma, "gamma"), t.tensor_checked(&f::omega, "omega"), t.tensor_checked(&f::y, "y");
  t.tensor_checked(&f::state_in, "state_in", true), t.tensor_checked(&f::state_out, "state_out", true);
  t.tensor_checked(&b::x, "x"), t.tensor_checked(&b::grad_y, "grad_y"), t.tensor_checked(&b::grad_x, "grad_x");
  t.tensor_checked(&b::grad_delta, "grad_delta"), t.tensor_checked(&b::grad_alpha, "grad_alpha"),
      t.tensor_checked(&b::grad_beta, "grad_beta");
  t.tensor_checked(&b::grad_gamma, "grad_gamma"), t.tensor_checked(&b::grad_omega, "grad_omega");
  t.tensor_checked(&b::grad_state_out, "grad_state_out", true),
      t.tensor_checked(&b::grad_state_in, "grad_state_in", true);
}

TEST(ema_arguments, contiguous_axis_and_folded_outputs) {
  checked<with_all> t;
  t.both(code::invalid_stride, "x", [](auto& a, auto&, auto&) { a.x.stride[2] = 2; });
  t.forward(code::invalid_stride, "y", [](auto& a, auto&, auto&) { a.y.stride[1] = 0; });
  t.backward(code::invalid_stride, "grad_delta", [](auto& a, auto&, auto&) { a.grad_delta.stride[0] = 1; });
  checked<bare> last;
  last.both(code::invalid_stride, "x", [](auto& a, auto&, auto&) { a.x.stride[1] = 2; });
}

TEST(ema_arguments, overlap) {
  checked<with_all> t;
  t.forward(code::overlap, "y", [](auto& a, auto&, auto&) { a.y.data = const_cast<float*>(a.x.data); });
  t.forward(code::overlap, "state_out",
            [](auto& a, auto&, auto&) { a.state_out.data = const_cast<float*>(a.state_in.data) + 1; });
  t.backward(code::overlap, "grad_alpha", [](auto& a, auto&, auto&) { a.grad_beta.data = a.grad_alpha.data; });
  t.backward(code::overlap, "grad_state_in",
             [](auto& a, auto&, auto&) { a.grad_state_in.data = const_cast<float*>(a.state_in.data); });
}

TEST(ema_arguments, workspace_and_executor) {
  checked<with_all> t;
  t.both(code::workspace_too_small, "workspace", [](auto&, auto&, workspace& w) { w.bytes--; });
  t.both(code::workspace_too_small, "workspace", [](auto&, auto&, workspace& w) { w.data = nullptr; });
  t.both(code::invalid_executor, "", [](auto&, cpu& e, auto&) { e.threads = -1; });
}

TEST(ema_arguments, unused_by_the_shape) {
  checked<bare> t;
  static float memory[64];
  t.both(code::unexpected_argument, "omega",
         [](auto& a, auto&, auto&) { a.omega = contiguous(static_cast<float const*>(memory), 3); });
  t.backward(code::unexpected_argument, "grad_omega",
             [](auto& a, auto&, auto&) { a.grad_omega = contiguous(memory, 3); });
  t.backward(code::unexpected_argument, "grad_state_in", [](auto& a, auto&, auto&) { a.state_in = {}; });
  checked<both_ways> b;
  b.both(code::unexpected_argument, "state_in",
         [](auto& a, auto&, auto&) { a.state_in = contiguous(static_cast<float const*>(memory), 2, 3, 3); });
  b.forward(code::unexpected_argument, "state_out",
            [](auto& a, auto&, auto&) { a.state_out = contiguous(memory, 2, 3, 3); });
  b.backward(code::unexpected_argument, "grad_state_out",
             [](auto& a, auto&, auto&) { a.grad_state_out = contiguous(static_cast<float const*>(memory), 2, 3, 3); });
}

TEST(ema_arguments, kernel) {
  using op = checked<both_ways>::op;
  checked<both_ways> t;
  std::vector<float> memory(6 * 20, 7.0f), grad(4 * 18, 7.0f);
  typename op::kernel_args good{.delta = t.problem.delta.view(),
                                .alpha = t.problem.alpha.view(),
                                .beta = t.problem.beta.view(),
                                .gamma = t.problem.gamma.view(),
                                .kappa = contiguous(memory.data(), 6, 20)};
  auto const expect = [&](code expected, char const* name, auto change) {
    auto a = good;
    scratch_memory const scratch(op::kernel_workspace(cpu{1}, a));
    workspace w = scratch.get();
    change(a, w);
    status const s = op::kernel(cpu{1}, a, w);
    EXPECT_EQ(int(s.code()), int(expected)) << name;
    EXPECT_STREQ(s.argument(), name);
    EXPECT_EQ(memory, std::vector<float>(6 * 20, 7.0f));
  };
  expect(code::invalid_extent, "kappa", [](auto& a, auto&) { a.kappa.extent[0] = 5; });
  expect(code::invalid_extent, "delta", [](auto& a, auto&) { a.kappa.extent[0] = 4; });
  expect(code::invalid_stride, "kappa", [](auto& a, auto&) { a.kappa.stride[1] = 2; });
  expect(code::null_pointer, "kappa", [](auto& a, auto&) { a.kappa.data = nullptr; });
  expect(code::overlap, "kappa", [](auto& a, auto&) { a.kappa.data = const_cast<float*>(a.gamma.data); });
  expect(code::workspace_too_small, "workspace", [](auto&, workspace& w) { w.bytes--; });
}

}  // namespace
}  // namespace tcnca::testing
