// A call with less workspace than its query returns, with another number of threads than the query, with too many
// threads, after a fork, and in other floating-point modes: it succeeds, and results have the same bits.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cfenv>
#include <chrono>
#include <functional>
#include <thread>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "chunked_attention/cases.hpp"
#include "conv_stack/cases.hpp"
#include "ema/problem.hpp"
#include "gated_fusion/problem.hpp"
#include "support/packed.hpp"

namespace tcnca::testing {
namespace {

using code = status_code;

struct small_stack {
  static constexpr char const* name = "small";
  static constexpr conv_stack_shape shape{
      .taps = 2, .depth = 1, .dilation_base = 3, .convolutions = 2, .bias = true, .skip = true};
};
struct stack_both_ways {
  static constexpr char const* name = "both_ways";
  static constexpr conv_stack_shape shape{.taps = 2, .depth = 1, .dir = direction::bidirectional};
};
struct small_ema {
  static constexpr char const* name = "small";
  static constexpr ema_shape shape{.states = 3};
};
struct ema_both_ways {
  static constexpr char const* name = "both_ways";
  static constexpr ema_shape shape{.states = 3, .dir = direction::bidirectional};
};
struct packed_attention {
  static constexpr char const* name = "packed";
  static constexpr chunked_attention_shape shape{.causal = true, .bias = true, .packed = true};
};
struct all_gates {
  static constexpr char const* name = "all";
  static constexpr gated_fusion_shape shape{};
};

/// A call that takes a workspace.
struct entry {
  std::string name;
  std::function<size_t(cpu)> query;
  std::function<status(cpu, workspace)> call;
  std::function<std::vector<unsigned char>(bool clear)> results;

  /// The bits of the results with `bytes` of workspace.
  std::vector<unsigned char> run(cpu e, size_t bytes, char const* what) const {
    SCOPED_TRACE(::testing::Message() << name << ", " << what << ", " << e.threads << " threads, " << bytes
                                      << " bytes");
    results(true);
    scratch_memory const scratch(bytes);
    status const s = call(e, scratch.get());
    EXPECT_TRUE(s.ok()) << to_string(s) << ": " << s.argument();
    EXPECT_TRUE(scratch.intact()) << "written outside of the workspace";
    return results(false);
  }
};
template <class... Tensor>
std::function<std::vector<unsigned char>(bool)> bits_of(Tensor&... t) {
  return [&t...](bool clear) {
    std::vector<unsigned char> all;
    auto const one = [&](auto& tensor) {
      if (clear) tensor.clear();
      auto const bits = tensor.bits();
      all.insert(all.end(), bits.begin(), bits.end());
    };
    (one(t), ...);
    return all;
  };
}

template <class Op, class Args>
entry forward_entry(std::string name, Args a, std::function<std::vector<unsigned char>(bool)> results) {
  return {name + " forward", [a](cpu e) { return Op::forward_workspace(e, a); },
          [a](cpu e, workspace w) { return Op::forward(e, a, w); }, results};
}
template <class Op, class Args>
entry backward_entry(std::string name, Args a, std::function<std::vector<unsigned char>(bool)> results) {
  return {name + " backward", [a](cpu e) { return Op::backward_workspace(e, a); },
          [a](cpu e, workspace w) { return Op::backward(e, a, w); }, results};
}

template <class Case>
struct stack_problem : conv_stack_problem<subject<cpu_backend, float, Case>> {
  using base = conv_stack_problem<subject<cpu_backend, float, Case>>;
  using typename base::op;
  explicit stack_problem(extents size_of_it) : base(size_of_it, 1) { this->want_gradients(); }
  /// of: changes the arguments.
  std::vector<entry> entries(auto const& of) {
    return {forward_entry<op>("conv_stack", of(this->forward()), bits_of(this->y, this->state_out)),
            backward_entry<op>(
                "conv_stack", of(this->backward()),
                bits_of(this->grad_x, this->grad_weight, this->grad_bias, this->grad_omega, this->grad_state_in))};
  }
  std::vector<entry> entries() { return entries(std::identity{}); }
};

/// Every call that takes a workspace, with work for several threads.
struct every_call {
  stack_problem<small_stack> stack{
      {.batch = 5, .channels = 3, .length = 50, .position = 4, .state_in = true, .state_out = true}};
  stack_problem<small_stack> cut{{.batch = 1, .channels = 1, .length = 40000}};
  stack_problem<stack_both_ways> cut_both_ways{{.batch = 1, .channels = 1, .length = 40000}};
  ema_problem<ema_subject<cpu_backend, float, small_ema>> average{
      {.batch = 5, .channels = 18, .length = 50, .state_in = true, .state_out = true}, 1};
  ema_problem<ema_subject<cpu_backend, float, ema_both_ways>> average_both_ways{
      {.batch = 5, .channels = 18, .length = 50}, 1};
  attention_problem<attention_subject<cpu_backend, float, softmax_causal_bias>> attention{{.batch = 2,
                                                                                           .heads = 3,
                                                                                           .length = 70,
                                                                                           .key_dim = 16,
                                                                                           .value_dim = 24,
                                                                                           .chunk = 32,
                                                                                           .position = 40,
                                                                                           .state_out = true},
                                                                                          1};
  attention_problem<attention_subject<cpu_backend, float, softmax_causal_bias>> tokens{{.batch = 2,
                                                                                        .heads = 3,
                                                                                        .length = 2,
                                                                                        .key_dim = 16,
                                                                                        .value_dim = 24,
                                                                                        .chunk = 32,
                                                                                        .position = 40,
                                                                                        .state_out = true},
                                                                                       1};
  attention_problem<attention_subject<cpu_backend, float, packed_attention>> packed{{.batch = 5,
                                                                                     .heads = 2,
                                                                                     .length = 70,
                                                                                     .key_dim = 16,
                                                                                     .value_dim = 24,
                                                                                     .chunk = 8,
                                                                                     .position = 6,
                                                                                     .state_out = true},
                                                                                    1};
  packed_rows many{5, 50, 4}, many_chunks{5, 70, 6};
  // One row of keys, split over the threads.
  attention_problem<attention_subject<cpu_backend, float, softmax_causal_bias>> token{
      {.length = 1, .key_dim = 16, .value_dim = 24, .chunk = 1500, .position = 1490, .state_out = true}, 1};
  gates_problem<gates_subject<cpu_backend, float, all_gates>> gates{{.batch = 5, .length = 100, .columns = 20}, 1};
  tensor<float, 2> kappa{{18, 50}, {0, 1}};

  std::vector<entry> entries() {
    std::vector<entry> all;
    auto const add = [&](std::vector<entry> more) { all.insert(all.end(), more.begin(), more.end()); };
    add(stack.entries()), add(stack.entries(many)), add(cut.entries()), add(cut_both_ways.entries());
    auto const averages = [&](auto& p, auto const& of) {
      using op = typename std::remove_reference_t<decltype(p)>::op;
      add({forward_entry<op>("ema", of(p.forward()), bits_of(p.y, p.state_out)),
           backward_entry<op>("ema", of(p.backward()),
                              bits_of(p.grad_x, p.grad_delta, p.grad_alpha, p.grad_beta, p.grad_gamma, p.grad_omega,
                                      p.grad_state_in))});
    };
    averages(average, std::identity{}), averages(average, many), averages(average_both_ways, std::identity{});
    using ema_op = decltype(average)::op;
    typename ema_op::kernel_args const k{average.delta.view(), average.alpha.view(), average.beta.view(),
                                         average.gamma.view(), kappa.view()};
    add({{"ema kernel", [k](cpu e) { return ema_op::kernel_workspace(e, k); },
          [k](cpu e, workspace w) { return ema_op::kernel(e, k, w); }, bits_of(kappa)}});
    auto const attend = [&](auto& p, auto const& of) {
      using op = typename std::remove_reference_t<decltype(p)>::op;
      add({forward_entry<op>("chunked_attention", of(p.forward()), bits_of(p.o, p.lse, p.keys_out, p.values_out)),
           backward_entry<op>("chunked_attention", of(p.backward()),
                              bits_of(p.grad_q, p.grad_k, p.grad_v, p.grad_bias, p.grad_keys_in, p.grad_values_in))});
    };
    attend(attention, std::identity{}), attend(tokens, std::identity{}), attend(token, std::identity{}),
        attend(packed, many_chunks);
    using gates_op = decltype(gates)::op;
    auto const m = gates.mix_backward();
    add({{"mix_backward", [m](cpu e) { return gates_op::mix_backward_workspace(e, m); },
          [m](cpu e, workspace w) { return gates_op::mix_backward(e, m, w); },
          bits_of(gates.grad_z, gates.grad_gq, gates.grad_mq, gates.grad_gk, gates.grad_mk)}});
    return all;
  }
};

// The backward pass of attention reads o and lse: any values suffice, and it must not change them.
struct workspaces : ::testing::Test {
  every_call calls;
  std::vector<entry> entries = [this] {
    auto const all = calls.entries();
    for (entry const& e : all)
      if (e.name == "chunked_attention forward") (void)e.run({1}, e.query({1}), "for its results");
    return all;
  }();
};

TEST_F(workspaces, from_what_one_thread_needs_to_what_all_need) {
  for (entry const& call : entries) {
    size_t const one = call.query({1}), all = call.query({4});
    auto const expected = call.run({1}, one, "the query");
    EXPECT_GE(all, one) << call.name;
    for (int const threads : {1, 2, 4})
      for (size_t const bytes : {one, one + 256, (one + all) / 2 / 256 * 256, all - 256, all, 2 * all})
        if (bytes >= one) {
          EXPECT_TRUE(call.run({threads}, bytes, "less") == expected)
              << call.name << ", " << threads << " threads, " << bytes << " bytes";
        }
    if (one == 0) continue;
    auto const before = call.results(true);
    scratch_memory const less(one - 1);
    status const s = call.call({4}, less.get());
    EXPECT_TRUE(s == code::workspace_too_small) << call.name << ": " << to_string(s);
    EXPECT_STREQ(s.argument(), "workspace");
    EXPECT_TRUE(call.results(false) == before) << call.name << ": something was written";
  }
}

#if defined(_OPENMP)
TEST_F(workspaces, other_threads_than_the_query_was_asked_for) {
  int const threads = omp_get_max_threads();
  for (entry const& call : entries)
    for (int const asked : {1, 2, 7})
      for (int const given : {1, 3, 8}) {
        auto const expected = call.run({1}, call.query({1}), "one thread");
        omp_set_num_threads(asked);
        size_t const bytes = call.query({});
        omp_set_num_threads(given);
        EXPECT_TRUE(call.run({}, bytes, "other threads") == expected) << call.name;
      }
  omp_set_num_threads(threads);
}
#endif

// A query depends neither on pointers nor on whether the state is updated in place.
TEST(workspace_query, is_the_same_for_any_pointers) {
  stack_problem<small_stack> p({.batch = 1, .channels = 1, .length = 40000, .state_in = true, .state_out = true});
  using op = decltype(p)::op;
  auto apart = p.forward(), in_place = apart, nowhere = apart;
  in_place.state_out.data = const_cast<float*>(in_place.state_in.data);
  nowhere.x.data = nullptr, nowhere.y.data = nullptr, nowhere.state_in.data = nullptr, nowhere.state_out.data = nullptr;
  size_t const bytes = op::forward_workspace(cpu{4}, apart);
  EXPECT_EQ(op::forward_workspace(cpu{4}, in_place), bytes);
  EXPECT_EQ(op::forward_workspace(cpu{4}, nowhere), bytes);
  scratch_memory const scratch(bytes);
  ASSERT_TRUE(op::forward(cpu{4}, apart, scratch.get()).ok());
  auto const y = p.y.bits(), state = p.state_out.bits();
  ASSERT_TRUE(op::forward(cpu{4}, in_place, scratch.get()).ok());
  EXPECT_TRUE(p.y.bits() == y && p.state_in.bits() == state);

  ema_problem<ema_subject<cpu_backend, float, small_ema>> average{
      {.batch = 2, .channels = 3, .length = 9, .state_in = true, .state_out = true}, 1};
  using ema_op = decltype(average)::op;
  auto back = average.backward();
  size_t const given = ema_op::backward_workspace(cpu{1}, back);
  back.grad_state_out.data = nullptr;
  EXPECT_EQ(ema_op::backward_workspace(cpu{1}, back), given);
}

// The same on a GPU, where the workspace holds only what does not fit in shared memory: here the outputs of the causal
// direction.
TEST(workspaces_of_fiber_groups, from_what_one_group_needs) {
  ema_problem<ema_subject<fiber_backend<>, float, ema_both_ways>> p{{.batch = 3, .channels = 5, .length = 40}, 1};
  using op = decltype(p)::op;
  auto const a = p.forward();
  size_t const one = op::forward_workspace(fibers<>{1, 1}, a), all = op::forward_workspace(fibers<>{1, 3}, a);
  EXPECT_EQ(all, 3 * one);
  std::vector<unsigned char> expected;
  for (size_t const bytes : {one, 2 * one - 256, 2 * one, all}) {
    p.y.clear();
    scratch_memory const scratch(bytes);
    EXPECT_TRUE(op::forward(fibers<>{1, 3}, a, scratch.get()).ok());
    EXPECT_TRUE(scratch.intact());
    if (expected.empty()) expected = p.y.bits();
    EXPECT_TRUE(p.y.bits() == expected) << bytes;
  }
  scratch_memory const less(one - 1);
  EXPECT_TRUE(op::forward(fibers<>{1, 3}, a, less.get()) == code::workspace_too_small);
}

TEST(executors, more_threads_than_any_machine_has) {
  stack_problem<small_stack> p({.batch = 3000, .channels = 1, .length = 3});
  for (entry const& call : p.entries()) {
    auto const expected = call.run({1}, call.query({1}), "one thread");
    for (int const threads : {50000, 100000, std::numeric_limits<int>::max()}) {
      EXPECT_EQ(call.query({threads}), call.query({cpu::max_threads})) << call.name;
      EXPECT_TRUE(call.run({threads}, call.query({threads}), "many threads") == expected) << call.name;
    }
  }
}

// GCC's OpenMP library has no threads in a child process, and waits for them.
TEST(executors, one_thread_in_a_child_after_a_parallel_call) {
  every_call calls;
  auto const entries = calls.entries();
  for (entry const& call : entries) (void)call.run({4}, call.query({4}), "parent");
  pid_t const child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    bool good = true;
    for (entry const& call : entries) {
      scratch_memory const scratch(call.query({1}));
      good = good && call.call({1}, scratch.get()).ok();
    }
    _exit(good ? 0 : 1);
  }
  int result = 0;
  pid_t ended = 0;
  for (int i = 0; i < 6000 && ended == 0; i++) {
    ended = waitpid(child, &result, WNOHANG);
    if (ended == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (ended == 0) kill(child, SIGKILL), waitpid(child, &result, 0);
  EXPECT_EQ(ended, child) << "the child hangs";
  EXPECT_TRUE(WIFEXITED(result) && WEXITSTATUS(result) == 0);
}

// --- All threads use the floating-point mode of the caller. ---

/// The bits of y of a stack with work for all threads, with normal or denormal inputs.
std::vector<unsigned char> bits_in_mode(int threads, double magnitude, std::function<void()> enter) {
  static stack_problem<stack_both_ways> p({.batch = 300, .channels = 1, .length = 4000});
  for (index_t i = 0; i < p.x.count(); i++) *p.x.at(i) = float(double(i % 1000) * magnitude);
  auto const call = p.entries()[0];
  size_t const bytes = call.query({threads});
  scratch_memory const scratch(bytes);
  p.y.clear();
  std::fenv_t before;
  std::fegetenv(&before);
  enter();
  status const s = call.call({threads}, scratch.get());
  std::fesetenv(&before);
  EXPECT_TRUE(s.ok());
  return p.y.bits();
}
void expect_modes_apart(double magnitude, std::function<void()> enter) {
  auto const nothing = [] {};
  auto const usual = bits_in_mode(1, magnitude, nothing), other = bits_in_mode(1, magnitude, enter);
  EXPECT_TRUE(usual != other) << "the mode makes no difference to these data";
  for (int i = 0; i < 3; i++) {
    EXPECT_TRUE(bits_in_mode(4, magnitude, enter) == other);
    EXPECT_TRUE(bits_in_mode(4, magnitude, nothing) == usual) << "a thread has kept the mode";
  }
}
TEST(floating_point_mode, rounding) {
  expect_modes_apart(1e-3, [] { std::fesetround(FE_UPWARD); });
  expect_modes_apart(1e-3, [] { std::fesetround(FE_TOWARDZERO); });
}
#if defined(__SSE2__)
TEST(floating_point_mode, denormals) {
  for (unsigned const bits : {0x8000u, 0x8040u})  // flush to zero; and denormals are zero
    expect_modes_apart(1e-41, [=] { __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | bits); });
}
#endif

}  // namespace
}  // namespace tcnca::testing
