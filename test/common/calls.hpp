// Calls of every operation with valid arguments, and the tables of their views.
#pragma once
#include "argument_table.hpp"
#include "chunked_attention/cases.hpp"
#include "conv_stack/cases.hpp"
#include "ema/problem.hpp"
#include "gated_fusion/problem.hpp"
#include "support/packed.hpp"

namespace tcnca::testing {
namespace {

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
struct packed_attention {
  static constexpr char const* name = "packed";
  static constexpr chunked_attention_shape shape{.causal = true, .bias = true, .packed = true};
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

/// The tables of packed sequences.
void visit_tables(auto& a, auto f) {
  f("offsets", a.offsets, role::first), f("slots", a.slots, role::optional);
  if constexpr (requires { a.positions; }) { f("positions", a.positions, role::optional); }
}

template <class Case>
struct stack_calls {
  using S = subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using F = typename op::forward_args;
  using B = typename op::backward_args;
  static constexpr auto use(bool b) { return b ? role::needed : role::unused; }
  static constexpr role bias = use(S::shape.bias), omega = use(S::shape.skip);
  conv_stack_problem<S> p{
      {.batch = 2, .channels = 3, .length = 9, .position = 4, .state_in = S::causal, .state_out = S::causal}, 1};
  packed_rows rows{2, 9, 4};
  stack_calls() { p.want_gradients(); }

  static status forward(F const& a) {
    (void)op::forward_workspace(cpu{2}, a);  // takes any arguments
    return op::forward(cpu{2}, a, room());
  }
  static status backward(B const& a) {
    (void)op::backward_workspace(cpu{2}, a);
    return op::backward(cpu{2}, a, room());
  }
  auto tables() const {
    return std::tuple_cat(tables_of<role::optional>("", p.forward(), p.backward()), packed_tables());
  }
  auto packed_tables() const { return tables_of<role::rows>("packed ", rows(p.forward()), rows(p.backward())); }

 private:
  template <role State>
  static constexpr role state = S::causal ? State : role::unused;
  template <role State>
  static auto tables_of(std::string const& kind, F const& of_forward, B const& of_backward) {
    auto const in = [](auto& a, auto f) {
      f("x", a.x, role::first), f("weight", a.weight, role::needed), f("bias", a.bias, bias),
          f("omega", a.omega, omega);
      if (a.offsets.given()) visit_tables(a, f);
    };
    return std::tuple{
        argument_table{kind + "forward", of_forward, forward,
                       [in](F& a, auto f) {
                         in(a, f), f("state_in", a.state_in, state<State>), f("y", a.y, role::needed),
                             f("state_out", a.state_out, state<State>);
                       }},
        argument_table{kind + "backward", of_backward, backward, [in](B& a, auto f) {
                         in(a, f), f("state_in", a.state_in, state<State>), f("grad_y", a.grad_y, role::needed);
                         f("grad_state_out", a.grad_state_out, state<State>), f("grad_x", a.grad_x, role::optional);
                         f("grad_weight", a.grad_weight, role::optional), f("grad_bias", a.grad_bias, optional(bias));
                         f("grad_omega", a.grad_omega, optional(omega)),
                             f("grad_state_in", a.grad_state_in, state<State>);
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
  static constexpr role omega = S::shape.skip ? role::needed : role::unused;
  ema_problem<S> p{{.batch = 2, .channels = 3, .length = 9, .state_in = S::causal, .state_out = S::causal}, 1};
  tensor<float, 2> kappa{{3 * S::shape.directions(), 9}, {0, 1}};
  packed_rows rows{2, 9, 0};

  static status forward(F const& a) {
    (void)op::forward_workspace(cpu{2}, a);
    return op::forward(cpu{2}, a, room());
  }
  static status backward(B const& a) {
    (void)op::backward_workspace(cpu{2}, a);
    return op::backward(cpu{2}, a, room());
  }
  static status kernel(K const& a) { return op::kernel(cpu{2}, a, room()); }
  static status kernel_backward(KB const& a) { return op::kernel_backward(cpu{2}, a, room()); }
  auto tables() const {
    K const k{p.delta.view(), p.alpha.view(), p.beta.view(), p.gamma.view(), kappa.view()};
    KB const kb{p.delta.view(),      p.alpha.view(),      p.beta.view(),      p.gamma.view(),     kappa.view(),
                p.grad_delta.view(), p.grad_alpha.view(), p.grad_beta.view(), p.grad_gamma.view()};
    return std::tuple_cat(tables_of<role::optional>("", p.forward(), p.backward()), packed_tables(),
                          std::tuple{argument_table{"kernel", k, kernel, [](K& a, auto f) { rates(a, f); }},
                                     argument_table{"kernel_backward", kb, kernel_backward,
                                                    [](KB& a, auto f) { rates(a, f), gradients(a, f); }}});
  }
  auto packed_tables() const { return tables_of<role::rows>("packed ", rows(p.forward()), rows(p.backward())); }

 private:
  static void rates(auto& a, auto f) {
    f("delta", a.delta, role::needed), f("alpha", a.alpha, role::needed), f("beta", a.beta, role::needed),
        f("gamma", a.gamma, role::needed);
  }
  static void gradients(auto& a, auto f) {
    f("grad_delta", a.grad_delta, role::optional), f("grad_alpha", a.grad_alpha, role::optional),
        f("grad_beta", a.grad_beta, role::optional);
    f("grad_gamma", a.grad_gamma, role::optional);
  }
  template <role State>
  static constexpr role state = S::causal ? State : role::unused;
  template <role State>
  static auto tables_of(std::string const& kind, F const& of_forward, B const& of_backward) {
    auto const in = [](auto& a, auto f) {
      f("x", a.x, role::first), rates(a, f), f("omega", a.omega, omega), f("state_in", a.state_in, state<State>);
      if (a.offsets.given()) visit_tables(a, f);
    };
    return std::tuple{argument_table{kind + "forward", of_forward, forward,
                                     [in](F& a, auto f) {
                                       in(a, f), f("y", a.y, role::needed), f("state_out", a.state_out, state<State>);
                                     }},
                      argument_table{kind + "backward", of_backward, backward, [in](B& a, auto f) {
                                       in(a, f), f("grad_y", a.grad_y, role::needed),
                                           f("grad_state_out", a.grad_state_out, state<State>);
                                       f("grad_x", a.grad_x, role::optional), gradients(a, f),
                                           f("grad_omega", a.grad_omega, optional(omega));
                                       f("grad_state_in", a.grad_state_in, state<State>);
                                     }}};
  }
};

template <class Case>
struct attention_calls {
  using S = attention_subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using F = typename op::forward_args;
  using B = typename op::backward_args;
  static constexpr bool packed = S::shape.packed;
  static constexpr role state = !S::causal ? role::unused
                                : packed   ? role::rows
                                           : role::optional,
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
                          .lengths = !packed,  // of the number of sequences, which only offsets may change
                          .state_in = S::causal,
                          .state_out = S::causal},
                         1};
  packed_rows rows{2, 9, 10};
  uint64 random_state[2] = {1, 2};

  static status forward(F const& a) {
    (void)op::forward_workspace(cpu{2}, a);
    return op::forward(cpu{2}, a, room());
  }
  static status backward(B const& a) {
    (void)op::backward_workspace(cpu{2}, a);
    return op::backward(cpu{2}, a, room());
  }
  auto packed_tables() const { return tables(); }
  auto tables() const {
    auto const in = [](auto& a, auto f) {
      f("q", a.q, role::first), f("k", a.k, role::needed), f("v", a.v, role::first), f("bias", a.bias, bias);
      f("alibi_slopes", a.alibi_slopes, role::unused), f("head_lengths", a.head_lengths, role::unused);
      if (packed) {
        visit_tables(a, f), f("random_state", a.random_state, role::optional);
      } else {
        f("lengths", a.lengths, role::optional), f("offsets", a.offsets, role::unused);
        f("slots", a.slots, role::unused), f("positions", a.positions, role::unused);
        f("random_state", a.random_state, role::unused);
      }
      f("keys_in", a.keys_in, state), f("values_in", a.values_in, state);
    };
    return std::tuple{
        argument_table{"forward", with_tables(p.forward()), forward,
                       [in](F& a, auto f) {
                         in(a, f), f("o", a.o, role::needed), f("lse", a.lse, lse_out);
                         f("keys_out", a.keys_out, state), f("values_out", a.values_out, state);
                       }},
        argument_table{"backward", with_tables(p.backward()), backward, [in](B& a, auto f) {
                         in(a, f), f("o", a.o, result), f("lse", a.lse, result), f("grad_o", a.grad_o, role::needed);
                         f("grad_keys_out", a.grad_keys_out, state), f("grad_values_out", a.grad_values_out, state);
                         f("grad_q", a.grad_q, role::optional), f("grad_k", a.grad_k, role::optional),
                             f("grad_v", a.grad_v, role::optional);
                         f("grad_bias", a.grad_bias, optional(bias)), f("grad_keys_in", a.grad_keys_in, state);
                         f("grad_values_in", a.grad_values_in, state);
                       }}};
  }

 private:
  template <class Args>
  Args with_tables(Args a) const {
    if (!packed) return a;
    a.random_state = contiguous<uint64 const>(random_state, 2);
    return rows(a);
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

}  // namespace
}  // namespace tcnca::testing
