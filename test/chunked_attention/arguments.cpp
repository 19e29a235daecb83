// Invalid arguments of chunked attention: each has its own status and the argument's name, and no byte is written.
#include <functional>

#include "cases.hpp"

namespace tcnca::testing {
namespace {

using code = status_code;

template <class Case>
struct checked {
  using S = attention_subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using F = typename op::forward_args;
  using B = typename op::backward_args;
  attention_problem<S> problem{{.batch = 2,
                                .heads = 3,
                                .length = 9,
                                .key_dim = 16,
                                .value_dim = 24,
                                .chunk = 5,
                                .position = S::causal ? 8 : 10,
                                .lengths = true,
                                .state_out = S::causal,
                                .dropout = S::shape.dropout ? 0.5 : 0},
                               1};

  /// Calls with one argument changed.
  void forward(code expected, std::string const& name, std::function<void(F&, cpu&, workspace&)> change) {
    cpu e{1};
    auto args = problem.forward();
    call(expected, name, op::forward_workspace(e, args),
         [&](workspace w) { return change(args, e, w), op::forward(e, args, w); });
  }
  void backward(code expected, std::string const& name, std::function<void(B&, cpu&, workspace&)> change) {
    cpu e{1};
    auto args = problem.backward();
    call(expected, name, op::backward_workspace(e, args),
         [&](workspace w) { return change(args, e, w), op::backward(e, args, w); });
  }
  void both(code expected, std::string const& name, auto change) {
    forward(expected, name, [=](auto& a, auto& e, auto& w) { change(a, e, w); });
    backward(expected, name, [=](auto& a, auto& e, auto& w) { change(a, e, w); });
  }

  /// Checks of every tensor: extents, strides, pointers. `sets`: the number of its extents, from the last on, that
  /// the other tensors must match.
  template <class Args, class View>
  void tensor_checked(View Args::*member, std::string const& name, bool optional = false, int sets = 0) {
    SCOPED_TRACE(name);
    auto const on = [&](code expected, auto change) {
      auto const f = [=](Args& a, cpu&, workspace&) { change(a.*member); };
      if constexpr (std::is_same_v<Args, F>) {
        forward(expected, name, f);
      } else {
        backward(expected, name, f);
      }
    };
    constexpr int last = View::rank - 1;
    bool const written = !std::is_const_v<typename View::value_type>;
    for (int axis = 0; axis <= last; axis++) {
      if (axis == last || axis + sets <= last) on(code::invalid_extent, [=](View& v) { v.extent[axis]++; });
      on(code::invalid_extent, [=](View& v) { v.extent[axis] = -1; });
      on(code::invalid_stride, [=](View& v) { v.stride[axis] = -1; });
    }
    if (View::rank == 4) on(code::invalid_stride, [](View& v) { v.stride[last] = 2; });
    if (written) on(code::invalid_stride, [](View& v) { v.stride[0] = 0; });
    if (written) on(code::invalid_stride, [](View& v) { v.stride[last - 1] = 1; });
    if (!optional) on(code::null_pointer, [](View& v) { v.data = nullptr; });
    if (!optional && sets == 0) on(code::missing_argument, [](View& v) { v = {}; });
    on(code::misaligned_pointer,
       [](View& v) { v.data = reinterpret_cast<decltype(v.data)>(reinterpret_cast<std::uintptr_t>(v.data) + 2); });
  }

 private:
  void call(code expected, std::string const& name, std::size_t bytes, std::function<status(workspace)> f) {
    SCOPED_TRACE(Case::name);
    scratch_memory const scratch(bytes + 512);
    problem.clear();
    auto const before = problem.bits();
    status const s = f({scratch.get().data, bytes});
    EXPECT_EQ(int(s.code()), int(expected)) << name << ": answered " << to_string(s) << " (" << s.argument() << ")";
    EXPECT_EQ(s.argument(), name);
    EXPECT_TRUE(before == problem.bits()) << name << ": something was written";
    for (std::size_t i = 0; i < bytes; i++)
      ASSERT_EQ(static_cast<unsigned char*>(scratch.get().data)[i], 0xff) << name << ": the workspace was written";
    problem.expect_inputs_untouched();
  }
};
using with_all = checked<softmax_causal_bias_dropout>;
using bare = checked<laplace_plain>;
using bare_softmax = checked<softmax_plain>;

TEST(chunked_attention_arguments, valid_arguments_pass) {
  auto const run = [](auto t) {
    t.problem.run_forward(1), t.problem.run_backward(1);
    t.problem.expect_forward(), t.problem.expect_backward();
  };
  run(with_all{}), run(bare{}), run(bare_softmax{});
}

TEST(chunked_attention_arguments, every_tensor_forward) {
  using F = with_all::F;
  with_all t;
  t.tensor_checked(&F::q, "q", false, 4), t.tensor_checked(&F::k, "k"), t.tensor_checked(&F::v, "v", false, 1);
  t.tensor_checked(&F::bias, "bias"), t.tensor_checked(&F::lengths, "lengths", true);
  t.tensor_checked(&F::keys_in, "keys_in"), t.tensor_checked(&F::values_in, "values_in");
  t.tensor_checked(&F::o, "o"), t.tensor_checked(&F::lse, "lse", true);
  t.tensor_checked(&F::keys_out, "keys_out"), t.tensor_checked(&F::values_out, "values_out");
}

TEST(chunked_attention_arguments, every_tensor_backward) {
  using B = with_all::B;
  with_all t;
  t.tensor_checked(&B::q, "q", false, 4), t.tensor_checked(&B::k, "k"), t.tensor_checked(&B::v, "v", false, 1);
  t.tensor_checked(&B::bias, "bias"), t.tensor_checked(&B::lengths, "lengths", true);
  t.tensor_checked(&B::keys_in, "keys_in"), t.tensor_checked(&B::values_in, "values_in");
  t.tensor_checked(&B::o, "o"), t.tensor_checked(&B::lse, "lse"), t.tensor_checked(&B::grad_o, "grad_o");
  t.tensor_checked(&B::grad_keys_out, "grad_keys_out", true),
      t.tensor_checked(&B::grad_values_out, "grad_values_out", true);
  t.tensor_checked(&B::grad_q, "grad_q", true), t.tensor_checked(&B::grad_k, "grad_k", true),
      t.tensor_checked(&B::grad_v, "grad_v", true);
  t.tensor_checked(&B::grad_bias, "grad_bias", true);
  t.tensor_checked(&B::grad_keys_in, "grad_keys_in", true),
      t.tensor_checked(&B::grad_values_in, "grad_values_in", true);
}

TEST(chunked_attention_arguments, dims_have_a_range) {
  with_all t;
  for (index_t const dim : {0, 8, 15, 20, 264})
    t.both(code::invalid_extent, "q", [=](auto& a, auto&, auto&) { a.q.extent[3] = a.k.extent[3] = dim; });
  for (index_t const dim : {0, 8, 15, 20, 2056})
    t.both(code::invalid_extent, "v", [=](auto& a, auto&, auto&) { a.v.extent[3] = dim; });
}

TEST(chunked_attention_arguments, numbers_have_a_range) {
  with_all t;
  bare b;
  for (index_t const chunk : {index_t(-1), index_t(0), index_t(16385), index_t(1) << 40})
    t.both(code::invalid_value, "chunk", [=](auto& a, auto&, auto&) { a.chunk = chunk; });
  for (double const p : {-0.1, 1.0, 1.5, double(NAN), double(INFINITY)})
    t.both(code::invalid_value, "dropout", [=](auto& a, auto&, auto&) { a.dropout = p; });
  // The range of the arithmetic, here fp32, not of the argument.
  for (double const scale : {double(NAN), double(INFINITY), -double(INFINITY), 1e39, -1e39, 0x1.fffffffp127}) {
    t.both(code::invalid_value, "scale", [=](auto& a, auto&, auto&) { a.scale = scale; });
    b.both(code::invalid_value, "scale", [=](auto& a, auto&, auto&) { a.scale = scale; });
  }
  t.both(code::invalid_position, "position", [](auto& a, auto&, auto&) { a.position = -1; });
  b.both(code::invalid_position, "position", [](auto& a, auto&, auto&) { a.position = -5; });
  // Without a state, a call begins at the start of a chunk.
  b.both(code::invalid_position, "position", [](auto& a, auto&, auto&) { a.position = 11; });
}

TEST(chunked_attention_arguments, overlap) {
  with_all t;
  t.forward(code::overlap, "o", [](auto& a, auto&, auto&) { a.o.data = const_cast<float*>(a.v.data); });
  t.forward(code::overlap, "o", [](auto& a, auto&, auto&) { a.o.data = const_cast<float*>(a.q.data) + 1; });
  t.forward(code::overlap, "lse", [](auto& a, auto&, auto&) { a.lse.data = const_cast<float*>(a.bias.data) - 2; });
  t.forward(code::overlap, "o", [](auto& a, auto&, auto&) { a.lse.data = a.o.data; });
  // In-place updates need exactly the same memory and the same state.
  t.forward(code::overlap, "keys_out",
            [](auto& a, auto&, auto&) { a.keys_out.data = const_cast<float*>(a.keys_in.data) + 16; });
  t.forward(code::overlap, "keys_out",
            [](auto& a, auto&, auto&) { a.keys_out.data = const_cast<float*>(a.values_in.data); });
  t.forward(code::overlap, "values_out", [](auto& a, auto&, auto&) {
    a.values_out.data = const_cast<float*>(a.values_in.data), a.values_out.stride[0] += 8;
  });
  t.forward(code::overlap, "keys_out", [](auto& a, auto&, auto&) { a.keys_out.data = const_cast<float*>(a.k.data); });
  t.backward(code::overlap, "grad_q", [](auto& a, auto&, auto&) { a.grad_k.data = a.grad_q.data; });
  t.backward(code::overlap, "grad_v", [](auto& a, auto&, auto&) { a.grad_v.data = const_cast<float*>(a.grad_o.data); });
  t.backward(code::overlap, "grad_bias",
             [](auto& a, auto&, auto&) { a.grad_bias.data = const_cast<float*>(a.bias.data); });
  t.backward(code::overlap, "grad_keys_in",
             [](auto& a, auto&, auto&) { a.grad_keys_in.data = const_cast<float*>(a.grad_keys_out.data); });
  t.backward(code::overlap, "grad_values_in",
             [](auto& a, auto&, auto&) { a.grad_values_in.data = const_cast<float*>(a.values_in.data); });
}

TEST(chunked_attention_arguments, workspace_and_executor) {
  with_all t;
  t.both(code::workspace_too_small, "workspace", [](auto&, auto&, workspace& w) { w.bytes--; });
  t.both(code::workspace_too_small, "workspace", [](auto&, auto&, workspace& w) { w.data = nullptr; });
  t.both(code::workspace_misaligned, "workspace",
         [](auto&, auto&, workspace& w) { w.data = static_cast<char*>(w.data) + 32; });
  t.forward(code::overlap, "o", [](auto& a, auto&, workspace& w) { a.o.data = static_cast<float*>(w.data); });
  t.both(code::invalid_executor, "", [](auto&, cpu& e, auto&) { e.threads = -1; });
}

TEST(chunked_attention_arguments, a_state_is_keys_and_values) {
  with_all t;
  t.both(code::missing_argument, "keys_in", [](auto& a, auto&, auto&) { a.keys_in = {}; });
  t.both(code::missing_argument, "values_in", [](auto& a, auto&, auto&) { a.values_in = {}; });
  t.forward(code::missing_argument, "keys_out", [](auto& a, auto&, auto&) { a.keys_out = {}; });
  t.forward(code::missing_argument, "values_out", [](auto& a, auto&, auto&) { a.values_out = {}; });
  // At the start of a chunk a state is optional: keys and values together, and its gradients only with it.
  t.both(code::missing_argument, "values_in", [](auto& a, auto&, auto&) { a.position = 10, a.values_in = {}; });
  t.backward(code::unexpected_argument, "grad_keys_in",
             [](auto& a, auto&, auto&) { a.position = 10, a.keys_in = a.values_in = {}; });
  t.backward(code::unexpected_argument, "grad_values_in",
             [](auto& a, auto&, auto&) { a.position = 10, a.keys_in = a.values_in = {}, a.grad_keys_in = {}; });
}

TEST(chunked_attention_arguments, unused_by_the_shape) {
  static float memory[4096];
  bare t;
  auto const keys = contiguous(memory, 2, 3, 5, 16), values = contiguous(memory, 2, 3, 5, 24),
             rows = contiguous(memory, 2, 3, 9, 24);
  auto const table = contiguous(memory, 3, 9);
  auto const lse = contiguous(memory, 2, 3, 9, 2);
  t.both(code::unexpected_argument, "bias", [=](auto& a, auto&, auto&) { a.bias = table; });
  t.both(code::unexpected_argument, "keys_in", [=](auto& a, auto&, auto&) { a.keys_in = keys; });
  t.both(code::unexpected_argument, "values_in", [=](auto& a, auto&, auto&) { a.values_in = values; });
  t.both(code::unexpected_argument, "dropout", [](auto& a, auto&, auto&) { a.dropout = 0.1; });
  t.both(code::unexpected_argument, "lse", [=](auto& a, auto&, auto&) { a.lse = lse; });
  t.forward(code::unexpected_argument, "keys_out", [=](auto& a, auto&, auto&) { a.keys_out = keys; });
  t.forward(code::unexpected_argument, "values_out", [=](auto& a, auto&, auto&) { a.values_out = values; });
  t.backward(code::unexpected_argument, "o", [=](auto& a, auto&, auto&) { a.o = rows; });
  t.backward(code::unexpected_argument, "grad_bias", [=](auto& a, auto&, auto&) { a.grad_bias = table; });
  t.backward(code::unexpected_argument, "grad_keys_out", [=](auto& a, auto&, auto&) { a.grad_keys_out = keys; });
  t.backward(code::unexpected_argument, "grad_values_out", [=](auto& a, auto&, auto&) { a.grad_values_out = values; });
  t.backward(code::unexpected_argument, "grad_keys_in", [=](auto& a, auto&, auto&) { a.grad_keys_in = keys; });
  bare_softmax s;
  s.backward(code::missing_argument, "o", [](auto& a, auto&, auto&) { a.o = {}; });
  s.backward(code::missing_argument, "lse", [](auto& a, auto&, auto&) { a.lse = {}; });
}

// A query accepts invalid arguments.
TEST(chunked_attention_arguments, queries_accept_invalid_arguments) {
  using op = with_all::op;
  with_all t;
  auto const ask = [&](auto change) {
    auto f = t.problem.forward();
    auto b = t.problem.backward();
    change(f), change(b);
    (void)op::forward_workspace(cpu{2}, f), (void)op::backward_workspace(cpu{2}, b);
  };
  for (index_t const chunk : {index_t(-1), index_t(0), index_t(1) << 40}) ask([=](auto& a) { a.chunk = chunk; });
  for (int axis = 0; axis < 4; axis++)
    ask([=](auto& a) { a.q.extent[axis] = -1; }), ask([=](auto& a) { a.q.extent[axis] = 0; });
  ask([](auto& a) { a.v.extent[3] = -8; }), ask([](auto& a) { a.position = -1; }), ask([](auto& a) { a = {}; });
}

TEST(chunked_attention_arguments, rotary) {
  using op = with_all::op;
  std::vector<float> memory(5 * 200, 7.0f);
  auto const at = [&](int part, index_t columns) { return contiguous(memory.data() + part * 200, 3, columns); };
  typename op::rotary_args f;
  f.a = at(0, 16), f.b = at(1, 16), f.bias = at(2, 9), f.chunk = 5;
  typename op::rotary_backward_args b;
  b.a = at(0, 16), b.b = at(1, 16), b.grad_bias = at(2, 9), b.grad_a = at(3, 16), b.grad_b = at(4, 16), b.chunk = 5;
  auto const judge = [&](status s, code expected, char const* name) {
    EXPECT_EQ(int(s.code()), int(expected)) << name << ": answered " << to_string(s) << " (" << s.argument() << ")";
    EXPECT_STREQ(s.argument(), name);
    EXPECT_EQ(memory, std::vector<float>(5 * 200, 7.0f)) << name;
  };
  auto const forward = [&](code expected, char const* name, auto change) {
    auto args = f;
    cpu e{1};
    change(args, e), judge(op::rotary(e, args), expected, name);
  };
  auto const backward = [&](code expected, char const* name, auto change) {
    auto args = b;
    cpu e{1};
    change(args, e), judge(op::rotary_backward(e, args), expected, name);
  };
  auto const both = [&](code expected, char const* name, auto change) {
    forward(expected, name, change), backward(expected, name, change);
  };
  for (index_t const chunk : {0, -1, 16385})
    both(code::invalid_value, "chunk", [=](auto& a, auto&) { a.chunk = chunk; });
  both(code::invalid_extent, "a", [](auto& a, auto&) { a.a.extent[1] = 15; });
  both(code::invalid_extent, "b", [](auto& a, auto&) { a.a.extent[1] = 14; });
  both(code::invalid_extent, "b", [](auto& a, auto&) { a.b.extent[0] = 2; });
  both(code::invalid_stride, "a", [](auto& a, auto&) { a.a.stride[0] = -1; });
  both(code::null_pointer, "b", [](auto& a, auto&) { a.b.data = nullptr; });
  both(code::invalid_executor, "", [](auto&, cpu& e) { e.threads = -1; });
  forward(code::invalid_extent, "bias", [](auto& a, auto&) { a.bias.extent[1] = 10; });
  forward(code::invalid_stride, "bias", [](auto& a, auto&) { a.bias.stride[0] = 1; });
  forward(code::overlap, "bias", [](auto& a, auto&) { a.bias.data = const_cast<float*>(a.a.data); });
  backward(code::invalid_extent, "grad_bias", [](auto& a, auto&) { a.grad_bias.extent[1] = 8; });
  backward(code::invalid_extent, "grad_a", [](auto& a, auto&) { a.grad_a.extent[1] = 8; });
  backward(code::overlap, "grad_a", [](auto& a, auto&) { a.grad_b.data = a.grad_a.data; });
}

}  // namespace
}  // namespace tcnca::testing
