// Arguments of every operation: each view in turn is absent, without memory, too large, outside the address space, or
// present but unused; extents, positions and chunks whose products do not fit 64 bits. Nothing may be written, and no
// sanitizer may report an error.
#include "argument_table.hpp"
#include "chunked_attention/cases.hpp"
#include "conv_stack/cases.hpp"
#include "ema/problem.hpp"
#include "gated_fusion/problem.hpp"

namespace tcnca::testing {
namespace {

using code = status_code;
constexpr index_t least = std::numeric_limits<index_t>::min(), most = std::numeric_limits<index_t>::max();

struct full_stack {
  static constexpr char const* name = "full";
  static constexpr conv_stack_shape shape{
      .taps = 2, .depth = 1, .dilation_base = 3, .convolutions = 2, .bias = true, .skip = true};
};
struct bare_stack {
  static constexpr char const* name = "bare";
  static constexpr conv_stack_shape shape{
      .taps = 3, .depth = 1, .dir = direction::symmetric, .order = layout::batch_length_channels};
};
struct full_ema {
  static constexpr char const* name = "full";
  static constexpr ema_shape shape{.states = 3};
};
struct bare_ema {
  static constexpr char const* name = "bare";
  static constexpr ema_shape shape{.states = 3, .dir = direction::bidirectional, .skip = false};
};
struct full_gates {
  static constexpr char const* name = "full";
  static constexpr gated_fusion_shape shape{.dropout = true};
};
struct bare_gates {
  static constexpr char const* name = "bare";
  static constexpr gated_fusion_shape shape{.update_gate = false, .mixer_path = false};
};

/// The role of a view that may be absent where the shape has it.
constexpr role optional(role r) { return r == role::unused ? r : role::optional; }

/// Enough memory for every call in this file.
workspace room() {
  alignas(256) static unsigned char bytes[1 << 22];
  return {bytes, sizeof(bytes)};
}

template <class Case>
struct stack_calls {
  using S = subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using F = typename op::forward_args;
  using B = typename op::backward_args;
  static constexpr auto use(bool b) { return b ? role::needed : role::unused; }
  static constexpr role state = S::causal ? role::optional : role::unused, bias = use(S::shape.bias),
                        omega = use(S::shape.skip);
  conv_stack_problem<S> p{
      {.batch = 2, .channels = 3, .length = 9, .position = 4, .state_in = S::causal, .state_out = S::causal}, 1};
  stack_calls() { p.want_gradients(); }

  static status forward(F const& a) { return op::forward(cpu{2}, a, room()); }
  static status backward(B const& a) { return op::backward(cpu{2}, a, room()); }
  auto tables() const {
    auto const in = [](auto& a, auto f) {
      f("x", a.x, role::first), f("weight", a.weight, role::needed), f("bias", a.bias, bias),
          f("omega", a.omega, omega);
    };
    return std::tuple{
        argument_table{"forward", p.forward(), forward,
                       [in](F& a, auto f) {
                         in(a, f), f("state_in", a.state_in, state), f("y", a.y, role::needed),
                             f("state_out", a.state_out, state);
                       }},
        argument_table{"backward", p.backward(), backward, [in](B& a, auto f) {
                         in(a, f), f("state_in", a.state_in, state), f("grad_y", a.grad_y, role::needed);
                         f("grad_state_out", a.grad_state_out, state), f("grad_x", a.grad_x, role::optional);
                         f("grad_weight", a.grad_weight, role::optional), f("grad_bias", a.grad_bias, optional(bias));
                         f("grad_omega", a.grad_omega, optional(omega)), f("grad_state_in", a.grad_state_in, state);
                       }}};
  }
};

template <class Case>
struct ema_calls {
  using S = ema_subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using F = typename op::forward_args;
  using B = typename op::backward_args;
  using K = typename op::kernel_args;
  using KB = typename op::kernel_backward_args;
  static constexpr role state = S::causal ? role::optional : role::unused,
                        omega = S::shape.skip ? role::needed : role::unused;
  ema_problem<S> p{{.batch = 2, .channels = 3, .length = 9, .state_in = S::causal, .state_out = S::causal}, 1};
  tensor<float, 2> kappa{{3 * S::shape.directions(), 9}, {0, 1}};

  static status forward(F const& a) { return op::forward(cpu{2}, a, room()); }
  static status backward(B const& a) { return op::backward(cpu{2}, a, room()); }
  static status kernel(K const& a) { return op::kernel(cpu{2}, a, room()); }
  static status kernel_backward(KB const& a) { return op::kernel_backward(cpu{2}, a, room()); }
  auto tables() const {
    auto const rates = [](auto& a, auto f) {
      f("delta", a.delta, role::needed), f("alpha", a.alpha, role::needed), f("beta", a.beta, role::needed),
          f("gamma", a.gamma, role::needed);
    };
    auto const gradients = [](auto& a, auto f) {
      f("grad_delta", a.grad_delta, role::optional), f("grad_alpha", a.grad_alpha, role::optional),
          f("grad_beta", a.grad_beta, role::optional);
      f("grad_gamma", a.grad_gamma, role::optional);
    };
    auto const in = [rates](auto& a, auto f) {
      f("x", a.x, role::first), rates(a, f), f("omega", a.omega, omega), f("state_in", a.state_in, state);
    };
    K const k{p.delta.view(), p.alpha.view(), p.beta.view(), p.gamma.view(), kappa.view()};
    KB const kb{p.delta.view(),      p.alpha.view(),      p.beta.view(),      p.gamma.view(),     kappa.view(),
                p.grad_delta.view(), p.grad_alpha.view(), p.grad_beta.view(), p.grad_gamma.view()};
    return std::tuple{
        argument_table{"forward", p.forward(), forward,
                       [in](F& a, auto f) { in(a, f), f("y", a.y, role::needed), f("state_out", a.state_out, state); }},
        argument_table{"backward", p.backward(), backward,
                       [in, gradients](B& a, auto f) {
                         in(a, f), f("grad_y", a.grad_y, role::needed), f("grad_state_out", a.grad_state_out, state);
                         f("grad_x", a.grad_x, role::optional), gradients(a, f),
                             f("grad_omega", a.grad_omega, optional(omega));
                         f("grad_state_in", a.grad_state_in, state);
                       }},
        argument_table{"kernel", k, kernel, [rates](K& a, auto f) { rates(a, f); }},
        argument_table{"kernel_backward", kb, kernel_backward,
                       [rates, gradients](KB& a, auto f) { rates(a, f), gradients(a, f); }}};
  }
};

template <class Case>
struct attention_calls {
  using S = attention_subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using F = typename op::forward_args;
  using B = typename op::backward_args;
  static constexpr role state = S::causal ? role::optional : role::unused,
                        bias = S::shape.bias ? role::needed : role::unused;
  static constexpr role lse_out = S::softmax ? role::optional : role::unused,
                        result = S::softmax ? role::needed : role::unused;
  attention_problem<S> p{{.batch = 2,
                          .heads = 3,
                          .length = 9,
                          .key_dim = 16,
                          .value_dim = 24,
                          .chunk = 5,
                          .position = 10,
                          .lengths = true,
                          .state_in = S::causal,
                          .state_out = S::causal},
                         1};

  static status forward(F const& a) { return op::forward(cpu{2}, a, room()); }
  static status backward(B const& a) { return op::backward(cpu{2}, a, room()); }
  auto tables() const {
    auto const in = [](auto& a, auto f) {
      f("q", a.q, role::first), f("k", a.k, role::needed), f("v", a.v, role::first), f("bias", a.bias, bias),
          f("lengths", a.lengths, role::optional);
      f("alibi_slopes", a.alibi_slopes, role::unused), f("head_lengths", a.head_lengths, role::unused);
      f("offsets", a.offsets, role::unused), f("slots", a.slots, role::unused);
      f("positions", a.positions, role::unused), f("random_state", a.random_state, role::unused);
      f("keys_in", a.keys_in, state), f("values_in", a.values_in, state);
    };
    return std::tuple{
        argument_table{"forward", p.forward(), forward,
                       [in](F& a, auto f) {
                         in(a, f), f("o", a.o, role::needed), f("lse", a.lse, lse_out);
                         f("keys_out", a.keys_out, state), f("values_out", a.values_out, state);
                       }},
        argument_table{"backward", p.backward(), backward, [in](B& a, auto f) {
                         in(a, f), f("o", a.o, result), f("lse", a.lse, result), f("grad_o", a.grad_o, role::needed);
                         f("grad_keys_out", a.grad_keys_out, state), f("grad_values_out", a.grad_values_out, state);
                         f("grad_q", a.grad_q, role::needed), f("grad_k", a.grad_k, role::needed),
                             f("grad_v", a.grad_v, role::needed);
                         f("grad_bias", a.grad_bias, bias), f("grad_keys_in", a.grad_keys_in, state);
                         f("grad_values_in", a.grad_values_in, state);
                       }}};
  }
};

template <class Case>
struct gates_calls {
  using S = gates_subject<cpu_backend, float, Case>;
  using op = typename S::op;
  static constexpr role u = S::shape.update_gate ? role::needed : role::unused,
                        hx = S::shape.mixer_path ? role::needed : role::unused;
  gates_problem<S> p{{.batch = 2, .length = 3, .columns = 6, .dropout = S::shape.dropout ? 0.5 : 0}, 1};

  auto tables() const {
    auto const n = role::needed;
    return std::tuple{
        argument_table{"mix", p.mix(), [](auto const& a) { return op::mix(cpu{2}, a); },
                       [=](auto& a, auto f) {
                         f("z", a.z, role::first), f("gq", a.gq, n), f("mq", a.mq, n), f("gk", a.gk, n),
                             f("mk", a.mk, n), f("q", a.q, n), f("k", a.k, n);
                       }},
        argument_table{"mix_backward", p.mix_backward(),
                       [](auto const& a) { return op::mix_backward(cpu{2}, a, room()); },
                       [=](auto& a, auto f) {
                         f("z", a.z, role::first), f("gq", a.gq, n), f("gk", a.gk, n), f("grad_q", a.grad_q, n),
                             f("grad_k", a.grad_k, n);
                         f("grad_z", a.grad_z, role::optional), f("grad_gq", a.grad_gq, role::optional),
                             f("grad_mq", a.grad_mq, role::optional), f("grad_gk", a.grad_gk, role::optional),
                             f("grad_mk", a.grad_mk, role::optional);
                       }},
        argument_table{"reset", p.reset(), [](auto const& a) { return op::reset(cpu{2}, a); },
                       [=](auto& a, auto f) { f("o", a.o, role::first), f("r", a.r, n), f("y", a.y, n); }},
        argument_table{"reset_backward", p.reset_backward(),
                       [](auto const& a) { return op::reset_backward(cpu{2}, a); },
                       [=](auto& a, auto f) {
                         f("o", a.o, role::first), f("r", a.r, n), f("grad_y", a.grad_y, n),
                             f("grad_o", a.grad_o, role::optional), f("grad_r", a.grad_r, role::optional);
                       }},
        argument_table{"update", p.update(), [](auto const& a) { return op::update(cpu{2}, a); },
                       [=](auto& a, auto f) {
                         f("h", a.h, role::first), f("x", a.x, n), f("u", a.u, u), f("hx", a.hx, hx), f("y", a.y, n);
                       }},
        argument_table{"update_backward", p.update_backward(),
                       [](auto const& a) { return op::update_backward(cpu{2}, a); },
                       [=](auto& a, auto f) {
                         f("h", a.h, role::first), f("x", a.x, u), f("u", a.u, u), f("hx", a.hx, hx),
                             f("grad_y", a.grad_y, n), f("grad_x", a.grad_x, role::optional);
                         f("grad_u", a.grad_u, optional(u)), f("grad_hx", a.grad_hx, optional(hx)),
                             f("grad_h", a.grad_h, role::optional);
                       }}};
  }
};

template <class Calls>
struct arguments : ::testing::Test {
  Calls calls;
};
using all_calls = ::testing::Types<stack_calls<full_stack>, stack_calls<bare_stack>, ema_calls<full_ema>,
                                   ema_calls<bare_ema>, attention_calls<softmax_causal_bias>,
                                   attention_calls<laplace_plain>, gates_calls<full_gates>, gates_calls<bare_gates>>;
TYPED_TEST_SUITE(arguments, all_calls);

TYPED_TEST(arguments, every_view_of_every_call) {
  std::apply([](auto const&... table) { (table.check_every_view(), ...); }, this->calls.tables());
}

/// Sets the extents of every view that must match the first, with strides that need little memory.
template <class View>
void stretch(View& v, index_t a, index_t b, index_t c) {
  index_t const extent[3] = {a, b, c};
  for (int r = 0; r < 3; r++) v.extent[r] = extent[r], v.stride[r] = v.stride[r] == 1 ? 1 : 0;
}
constexpr index_t too_many[][3] = {{index_t(1) << 31, index_t(1) << 31, index_t(1) << 31},
                                   {index_t(1) << 32, index_t(1) << 32, 0},
                                   {index_t(1) << 32, index_t(1) << 32, 1},
                                   {1, 0, most},
                                   {most, most, most},
                                   {(index_t(1) << 48) + 1, 1, 1}};

TEST(arguments, products_of_extents_that_do_not_fit) {
  stack_calls<full_stack> const stack;
  stack_calls<bare_stack> const bare;
  ema_calls<full_ema> const ema;
  ema_calls<bare_ema> const both_ways;
  attention_calls<softmax_causal_bias> const attention;
  gates_calls<full_gates> const gates;
  auto const refused = [](auto const& op, auto args, char const* name, auto call, auto query) {
    (void)op;
    EXPECT_EQ(query(args), 0u) << name;
    status const s = call(args);
    EXPECT_TRUE(s == code::invalid_extent) << to_string(s);
    EXPECT_STREQ(s.argument(), name);
  };
  for (auto const& e : too_many) {
    auto const sequences = [&](auto const& calls) {
      using op = typename std::remove_reference_t<decltype(calls)>::op;
      auto f = calls.p.forward();
      stretch(f.x, e[0], e[1], e[2]), stretch(f.y, e[0], e[1], e[2]);
      refused(
          op(), f, "x", [&](auto& a) { return calls.forward(a); },
          [](auto& a) { return op::forward_workspace(cpu{2}, a); });
      auto b = calls.p.backward();
      stretch(b.x, e[0], e[1], e[2]), stretch(b.grad_y, e[0], e[1], e[2]), stretch(b.grad_x, e[0], e[1], e[2]);
      refused(
          op(), b, "x", [&](auto& a) { return calls.backward(a); },
          [](auto& a) { return op::backward_workspace(cpu{2}, a); });
    };
    sequences(stack), sequences(bare), sequences(ema), sequences(both_ways);
    using attention_op = decltype(attention)::op;
    auto const heads = [&](auto a, auto call, auto query) {
      for (auto* v : {&a.q, &a.k, &a.v}) stretch(*v, e[0], e[1], e[2]);
      refused(attention_op(), a, "q", call, query);
    };
    heads(attention.p.forward(), attention.forward, [](auto& a) { return attention_op::forward_workspace(cpu{2}, a); });
    heads(attention.p.backward(), attention.backward,
          [](auto& a) { return attention_op::backward_workspace(cpu{2}, a); });
    using gates_op = decltype(gates)::op;
    auto m = gates.p.mix_backward();
    stretch(m.z, e[0], e[1], e[2]);
    refused(
        gates_op(), m, "z", [](auto& a) { return gates_op::mix_backward(cpu{2}, a, room()); },
        [](auto& a) { return gates_op::mix_backward_workspace(cpu{2}, a); });
    using ema_op = decltype(ema)::op;
    ema_op::kernel_args k{.kappa = contiguous(static_cast<float*>(nullptr), e[0], e[1])};
    (void)ema_op::kernel_workspace(cpu{2}, k);
    EXPECT_FALSE(ema_op::kernel(cpu{2}, k, room()).ok());
  }
}

// The largest extents that pass the checks: the result of a query fits 64 bits, or is the largest number.
TEST(arguments, queries_of_the_largest_extents) {
  constexpr index_t limit = index_t(1) << 48;
  index_t const shapes[][3] = {
      {limit, 1, 1}, {1, limit, 1}, {1, 1, limit}, {index_t(1) << 24, index_t(1) << 24, 0}, {1, 1, 0}};
  for (auto const& e : shapes)
    for (int const threads : {1, 2, std::numeric_limits<int>::max()}) {
      auto const sequences = [&](auto const& calls) {
        using op = typename std::remove_reference_t<decltype(calls)>::op;
        auto f = calls.p.forward();
        stretch(f.x, e[0], e[1], e[2]), stretch(f.y, e[0], e[1], e[2]);
        auto b = calls.p.backward();
        stretch(b.x, e[0], e[1], e[2]), stretch(b.grad_y, e[0], e[1], e[2]), stretch(b.grad_x, e[0], e[1], e[2]);
        EXPECT_GE(op::forward_workspace(cpu{threads}, f), op::forward_workspace(cpu{1}, f));
        EXPECT_GE(op::backward_workspace(cpu{threads}, b), op::backward_workspace(cpu{1}, b));
        EXPECT_FALSE(calls.forward(f).ok());
        EXPECT_FALSE(calls.backward(b).ok());
      };
      sequences(stack_calls<full_stack>()), sequences(stack_calls<bare_stack>()), sequences(ema_calls<full_ema>()),
          sequences(ema_calls<bare_ema>());
      attention_calls<softmax_causal_bias> const attention;
      using op = decltype(attention)::op;
      for (index_t const chunk : {1, 5, 16384})
        for (index_t const position : {index_t(0), index_t(16383), index_t(1) << 62}) {
          auto f = attention.p.forward();
          auto b = attention.p.backward();
          for (auto* v : {&f.q, &f.k, &f.v, &b.q, &b.k, &b.v})
            stretch(*v, e[0] > 16 ? e[0] / 16 : e[0], e[1], e[2] > 16 ? e[2] / 16 : e[2]);
          f.chunk = b.chunk = chunk, f.position = b.position = position;
          EXPECT_GE(op::forward_workspace(cpu{threads}, f), op::forward_workspace(cpu{1}, f));
          EXPECT_GE(op::backward_workspace(cpu{threads}, b), op::backward_workspace(cpu{1}, b));
        }
    }
}

TEST(arguments, positions_and_chunks) {
  stack_calls<full_stack> const stack;
  attention_calls<softmax_causal_bias> const attention;
  auto const judge = [](status s, code expected, char const* name) {
    EXPECT_TRUE(s == expected) << to_string(s);
    EXPECT_STREQ(s.argument(), name);
  };
  for (index_t const position : {least, index_t(-1), (index_t(1) << 62) + 1, most}) {
    auto const at = [&](auto a) { return a.position = position, a; };
    judge(stack.forward(at(stack.p.forward())), code::invalid_position, "position");
    judge(stack.backward(at(stack.p.backward())), code::invalid_position, "position");
    judge(attention.forward(at(attention.p.forward())), code::invalid_position, "position");
    judge(attention.backward(at(attention.p.backward())), code::invalid_position, "position");
  }
  auto const last = [](auto a) { return a.position = index_t(1) << 62, a; };
  judge(stack.forward(last(stack.p.forward())), code::success, "");
  judge(stack.backward(last(stack.p.backward())), code::success, "");
  judge(attention.forward(last(attention.p.forward())), code::success, "");
  judge(attention.backward(last(attention.p.backward())), code::success, "");
  for (index_t const chunk : {least, index_t(-1), index_t(0), index_t(16385), most}) {
    auto const of = [&](auto a) { return a.chunk = chunk, a; };
    judge(attention.forward(of(attention.p.forward())), code::invalid_value, "chunk");
    judge(attention.backward(of(attention.p.backward())), code::invalid_value, "chunk");
    EXPECT_EQ(decltype(attention)::op::backward_workspace(cpu{2}, of(attention.p.backward())), 0u);
  }
}

// The product of extents of a view may overflow before the call.
TEST(arguments, views_with_overflowing_products) {
  float x = 0;
  index_t const big = index_t(1) << 40;
  EXPECT_EQ(contiguous(&x, big, big, big).count(), most);
  EXPECT_EQ(contiguous(&x, big, big, big).stride[0], most);
  EXPECT_EQ(contiguous(&x, big, big, index_t(0)).count(), 0);
  EXPECT_EQ(sequence(&x, layout::batch_channels_length, 2, big, big).stride[0], most);
  EXPECT_FALSE((tensor_view<float, 2>{}).given());
  EXPECT_TRUE((tensor_view<float, 2>{nullptr, {0, 1}, {}}).given());
  EXPECT_TRUE((tensor_view<float, 2>{&x, {}, {}}).given());
}

}  // namespace
}  // namespace tcnca::testing
