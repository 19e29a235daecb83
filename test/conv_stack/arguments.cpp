// Invalid arguments: each has its own status and the argument's name, and no byte is written.
#include "cases.hpp"

#include <optional>

namespace tcnca::testing {
namespace {

using code = status_code;

template <class S>
struct conv_stack_arguments : ::testing::Test {
  using T = typename S::T;
  using A = typename S::A;
  using op = typename S::op;
  using problem_type = conv_stack_problem<S>;
  using forward_args = typename op::forward_args;
  using backward_args = typename op::backward_args;
  static constexpr int contiguous_axis = S::shape.order == layout::batch_channels_length ? 2 : 1;

  problem_type problem{
      {.batch = 2, .channels = 3, .length = 9, .position = 4, .state_in = S::causal, .state_out = S::causal}, 1};
  cpu executor{1};

  conv_stack_arguments() { problem.want_gradients(); }

  // Calls with one argument changed; expects this status, and that nothing is written.
  template <class Args, class Change>
  void expect(code expected, std::string const& name, Change change) {
    constexpr bool is_forward = std::is_same_v<Args, forward_args>;
    Args args;
    if constexpr (is_forward) {
      args = problem.forward();
    } else {
      args = problem.backward();
    }
    cpu e = executor;
    if constexpr (is_forward) {
      workspace_.emplace(op::forward_workspace(e, args) + 4096);
    } else {
      workspace_.emplace(op::backward_workspace(e, args) + 4096);
    }
    workspace w = workspace_->get();
    change(args, e, w);
    auto const before = images();
    status const s = [&] {
      if constexpr (is_forward) {
        return op::forward(e, args, w);
      } else {
        return op::backward(e, args, w);
      }
    }();
    EXPECT_EQ(int(s.code()), int(expected)) << (is_forward ? "forward, " : "backward, ") << name << ": answered "
                                            << to_string(s) << " (" << s.argument() << ")";
    EXPECT_TRUE(name == s.argument() || name == "any" ||
                (" or " + name + " ").find(" or " + std::string(s.argument()) + " ") != std::string::npos)
        << (is_forward ? "forward: " : "backward: ") << "named " << s.argument() << ", expected " << name;
    EXPECT_TRUE(before == images()) << "something was written";
  }
  template <class Change>
  void expect_both(code expected, std::string const& name, Change change) {
    expect<forward_args>(expected, name, change);
    expect<backward_args>(expected, name, change);
  }

  // Checks of every tensor: extents, strides, pointer, alignment.
  template <class Args, class View>
  void expect_view_checked(View Args::*member, std::string const& name, bool output, bool optional) {
    constexpr int rank = View::rank;
    using element = std::remove_const_t<typename View::value_type>;
    auto const with = [&](auto f) { return [=](Args& a, cpu&, workspace&) { f(a.*member); }; };
    std::string const blamed = name == "x" ? "any" : name;  // the extents of x determine the others
    for (int axis = 0; axis < rank; axis++) {
      for (index_t const by : {-1, 1})
        expect<Args>(code::invalid_extent, blamed, with([=](View& v) { v.extent[axis] += by; }));
      expect<Args>(code::invalid_extent, blamed, with([=](View& v) { v.extent[axis] = -v.extent[axis]; }));
      expect<Args>(code::invalid_stride, name, with([=](View& v) { v.stride[axis] = -v.stride[axis]; }));
      if (output)
        expect<Args>(code::invalid_stride, name,
                     with([=](View& v) { v.extent[axis] > 1 ? v.stride[axis] = 0 : v.stride[axis] = -1; }));
      if (rank == 3 && axis == contiguous_axis && name.find("weight") == std::string::npos)
        expect<Args>(code::invalid_stride, name, with([=](View& v) { v.stride[axis] = 2; }));
    }
    if (output && rank > 1)  // two axes that fold onto each other, the last two that have more than one index
      expect<Args>(code::invalid_stride, name, with([=](View& v) {
                     int n = 0;
                     for (int axis = rank - 1; axis >= 0; axis--)
                       if (v.extent[axis] > 1 && n++ < 2) v.stride[axis] = 1;
                     if (n < 2) v.stride[0] = -1;
                   }));
    if (!optional) {
      expect<Args>(code::null_pointer, name, with([](View& v) { v.data = nullptr; }));
      expect<Args>(name == "x" ? code::invalid_extent : code::missing_argument, blamed, with([](View& v) { v = {}; }));
    }
    expect<Args>(
        code::misaligned_pointer, name, with([](View& v) {
          v.data = reinterpret_cast<decltype(v.data)>(reinterpret_cast<std::uintptr_t>(v.data) + sizeof(element) / 2);
        }));
  }

  // A workspace that is too small, null or misaligned, or that holds an input.
  template <class Args>
  void expect_workspace_checked(std::size_t bytes) {
    expect<Args>(code::workspace_too_small, "workspace", [=](Args&, cpu&, workspace& w) { w.bytes = bytes - 1; });
    expect<Args>(code::workspace_too_small, "workspace", [](Args&, cpu&, workspace& w) { w = {}; });
    expect<Args>(code::workspace_too_small, "workspace", [](Args&, cpu&, workspace& w) { w.data = nullptr; });
    expect<Args>(code::workspace_misaligned, "workspace",
                 [](Args&, cpu&, workspace& w) { w.data = static_cast<char*>(w.data) + 32, w.bytes -= 32; });
    expect<Args>(code::overlap, "any", [](Args& a, cpu&, workspace& w) { a.x.data = static_cast<float*>(w.data); });
  }

  // The output overlaps another argument: at its beginning, one element later, at its end.
  template <class Args, class Out, class Other>
  void expect_overlap(Out Args::*out, Other Args::*other, std::string const& a, std::string const& b) {
    for (int const where : {0, 1, 2}) {
      auto const change = [=](Args& args, cpu&, workspace&) {
        auto const& v = args.*other;
        index_t last = 0;
        for (int r = 0; r < Other::rank; r++) last += (v.extent[r] - 1) * v.stride[r];
        std::uintptr_t const at =
            reinterpret_cast<std::uintptr_t>(v.data) + (where == 1   ? sizeof(*v.data)
                                                        : where == 2 ? std::size_t(last) * sizeof(*v.data)
                                                                     : 0);
        (args.*out).data = reinterpret_cast<decltype((args.*out).data)>(at & ~(alignof(A) - 1));
      };
      expect<Args>(code::overlap, a + " or " + b, change);
    }
  }

 private:
  std::optional<scratch_memory> workspace_;
  std::vector<std::vector<unsigned char>> images() const {
    auto const& p = problem;
    return {p.x.image(),
            p.weight.image(),
            p.bias.image(),
            p.omega.image(),
            p.state_in.image(),
            p.y.image(),
            p.state_out.image(),
            p.grad_y.image(),
            p.grad_state_out.image(),
            p.grad_x.image(),
            p.grad_weight.image(),
            p.grad_bias.image(),
            p.grad_omega.image(),
            p.grad_state_in.image(),
            {reinterpret_cast<unsigned char*>(workspace_->get().data),
             reinterpret_cast<unsigned char*>(workspace_->get().data) + workspace_->get().bytes}};
  }
};
template <class Case>
using on_cpu = subject<cpu_backend, float, Case>;
using types = ::testing::Types<on_cpu<small_list>, on_cpu<small_last>, on_cpu<small_symmetric>>;
TYPED_TEST_SUITE(conv_stack_arguments, types, subject_name);

TYPED_TEST(conv_stack_arguments, valid_arguments_pass) {
  this->problem.run_forward();
  this->problem.expect_forward();
  this->problem.run_backward();
  this->problem.expect_backward();
}

TYPED_TEST(conv_stack_arguments, every_wrong_view_has_its_status_and_name) {
  using S = TypeParam;
  using F = typename S::op::forward_args;
  using B = typename S::op::backward_args;
  this->expect_view_checked(&F::x, "x", false, false);
  this->expect_view_checked(&B::x, "x", false, false);
  this->expect_view_checked(&F::weight, "weight", false, false);
  this->expect_view_checked(&B::weight, "weight", false, false);
  this->expect_view_checked(&F::y, "y", true, false);
  this->expect_view_checked(&B::grad_y, "grad_y", false, false);
  this->expect_view_checked(&B::grad_x, "grad_x", true, true);
  this->expect_view_checked(&B::grad_weight, "grad_weight", true, true);
  if constexpr (S::shape.bias) {
    this->expect_view_checked(&F::bias, "bias", false, false);
    this->expect_view_checked(&B::bias, "bias", false, false);
    this->expect_view_checked(&B::grad_bias, "grad_bias", true, true);
  }
  if constexpr (S::shape.skip) {
    this->expect_view_checked(&F::omega, "omega", false, false);
    this->expect_view_checked(&B::omega, "omega", false, false);
    this->expect_view_checked(&B::grad_omega, "grad_omega", true, true);
  }
  if constexpr (S::causal) {
    this->expect_view_checked(&F::state_in, "state_in", false, true);
    this->expect_view_checked(&B::state_in, "state_in", false, true);
    this->expect_view_checked(&F::state_out, "state_out", true, true);
    this->expect_view_checked(&B::grad_state_out, "grad_state_out", false, true);
    this->expect_view_checked(&B::grad_state_in, "grad_state_in", true, true);
  }
}

TYPED_TEST(conv_stack_arguments, unused_by_the_shape) {
  using S = TypeParam;
  using B = typename S::op::backward_args;
  float* const some = this->problem.x.view().data;
  if constexpr (!S::shape.bias) {
    this->expect_both(code::unexpected_argument, "bias",
                      [&](auto& a, cpu&, workspace&) { a.bias = contiguous(static_cast<float const*>(some), 2, 3); });
    this->template expect<B>(code::unexpected_argument, "grad_bias",
                             [&](B& a, cpu&, workspace&) { a.grad_bias = contiguous(some, 2, 3); });
  }
  if constexpr (!S::shape.skip) {
    this->expect_both(code::unexpected_argument, "omega",
                      [&](auto& a, cpu&, workspace&) { a.omega = contiguous(static_cast<float const*>(some), 3); });
    this->template expect<B>(code::unexpected_argument, "grad_omega",
                             [&](B& a, cpu&, workspace&) { a.grad_omega = contiguous(some, 3); });
  }
  if constexpr (!S::causal) {
    using F = typename S::op::forward_args;
    this->expect_both(code::unexpected_argument, "state_in", [&](auto& a, cpu&, workspace&) { a.state_in = a.x; });
    this->template expect<F>(code::unexpected_argument, "state_out",
                             [&](F& a, cpu&, workspace&) { a.state_out = a.y; });
    this->template expect<B>(code::unexpected_argument, "grad_state_out",
                             [&](B& a, cpu&, workspace&) { a.grad_state_out = a.grad_y; });
    this->template expect<B>(code::unexpected_argument, "grad_state_in",
                             [&](B& a, cpu&, workspace&) { a.grad_state_in = a.grad_x; });
  } else {
    // The gradient of a state that is absent.
    this->template expect<B>(code::unexpected_argument, "grad_state_in",
                             [&](B& a, cpu&, workspace&) { a.state_in = {}; });
  }
}

TYPED_TEST(conv_stack_arguments, executor_position_and_workspace) {
  using S = TypeParam;
  using F = typename S::op::forward_args;
  using B = typename S::op::backward_args;
  this->expect_both(code::invalid_executor, "", [](auto&, cpu& e, workspace&) { e.threads = -1; });
  this->expect_both(code::invalid_position, "position", [](auto& a, cpu&, workspace&) { a.position = -1; });
  // Short rows without a state may need no workspace in the forward pass.
  auto const forward_bytes = S::op::forward_workspace(this->executor, this->problem.forward());
  auto const backward_bytes = S::op::backward_workspace(this->executor, this->problem.backward());
  if constexpr (S::causal) { EXPECT_GT(forward_bytes, 0u); }
  EXPECT_GT(backward_bytes, 0u);
  if (forward_bytes > 0) {
    this->template expect_workspace_checked<F>(forward_bytes);
    this->template expect<F>(code::overlap, "any",
                             [](F& a, cpu&, workspace& w) { a.y.data = static_cast<float*>(w.data); });
  }
  this->template expect_workspace_checked<B>(backward_bytes);
  this->template expect<B>(code::overlap, "any",
                           [](B& a, cpu&, workspace& w) { a.grad_x.data = static_cast<float*>(w.data); });
}

TYPED_TEST(conv_stack_arguments, outputs_may_not_overlap) {
  using S = TypeParam;
  using F = typename S::op::forward_args;
  using B = typename S::op::backward_args;
  this->expect_overlap(&F::y, &F::x, "y", "x");
  this->expect_overlap(&F::y, &F::weight, "y", "weight");
  this->expect_overlap(&B::grad_x, &B::x, "grad_x", "x");
  this->expect_overlap(&B::grad_x, &B::grad_y, "grad_x", "grad_y");
  this->expect_overlap(&B::grad_weight, &B::weight, "grad_weight", "weight");
  this->expect_overlap(&B::grad_weight, &B::grad_x, "grad_weight", "grad_x");
  if constexpr (S::shape.bias) { this->expect_overlap(&B::grad_bias, &B::bias, "grad_bias", "bias"); }
  if constexpr (S::shape.skip) { this->expect_overlap(&B::grad_omega, &B::grad_weight, "grad_omega", "grad_weight"); }
  if constexpr (S::causal) {
    this->expect_overlap(&F::y, &F::state_in, "y", "state_in");
    this->expect_overlap(&F::state_out, &F::y, "state_out", "y");
    this->expect_overlap(&B::grad_state_in, &B::grad_state_out, "grad_state_in", "grad_state_out");
    // In-place updates need exactly the same memory.
    this->template expect<F>(code::overlap, "any", [](F& a, cpu&, workspace&) {
      a.state_out = {const_cast<float*>(a.state_in.data) + 1, {}, {}},
      std::copy_n(a.state_in.extent, 3, a.state_out.extent), std::copy_n(a.state_in.stride, 3, a.state_out.stride);
    });
  }
}

// Interleaved slices of one buffer do not overlap: x and y as the two halves of one wider sequence.
TYPED_TEST(conv_stack_arguments, slices_of_one_buffer_are_apart) {
  using S = TypeParam;
  auto& p = this->problem;
  auto both = tensor<float, 3>::sequence(S::shape.order, p.e.batch, 2 * p.e.channels, p.e.length);
  auto args = p.forward();
  auto half = both.view();
  half.extent[1] = p.e.channels;
  for (index_t b = 0; b < p.e.batch; b++)
    for (index_t c = 0; c < p.e.channels; c++)
      for (index_t t = 0; t < p.e.length; t++) *half.at(b, c, t) = *args.x.at(b, c, t);
  args.x = half;
  args.y = half;
  args.y.data += p.e.channels * half.stride[1];
  scratch_memory const scratch(S::op::forward_workspace(this->executor, args));
  EXPECT_TRUE(S::op::forward(this->executor, args, scratch.get()).ok());
  for (index_t b = 0; b < p.e.batch; b++)
    for (index_t c = 0; c < p.e.channels; c++)
      for (index_t t = 0; t < p.e.length; t++) *p.y.view().at(b, c, t) = *args.y.at(b, c, t);
  p.expect_forward();
}

}  // namespace
}  // namespace tcnca::testing
