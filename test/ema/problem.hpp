// A problem for the exponential moving average: its tensors, the calls, and the comparison with the reference.
#pragma once
#include <ostream>
#include <vector>

#include <tcnca/ema.hpp>

#include "reference/ema.hpp"
#include "support/backend.hpp"
#include "support/compare.hpp"
#include "support/optional.hpp"

namespace tcnca::testing {

/// The type under test: a moving average, an element type, a backend.
template <class Backend, class Element, class Case>
struct ema_subject {
  using backend = Backend;
  using T = Element;
  using A = accumulate_t<T>;
  static constexpr ema_shape shape = Case::shape;
  using op = ema<T, shape>;
  using traits = executor_traits<typename Backend::executor>;
  static constexpr ema_policy policy = default_ema_tuning<T, shape>::backward(traits::target);
  static constexpr int threads = traits::template group<policy.threads>::size();
  static constexpr index_t tile = ema_tiling<threads, T, shape, policy>::tile;
  static constexpr bool causal = shape.dir == direction::causal, shared = threads > 1;
  static std::string name() {
    return std::string(Backend::name) + std::to_string(threads) + "_" + name_of<T> + "_" + Case::name;
  }
};
/// A subject without its backend.
template <class T, class Case>
struct ema_case {
  template <class Backend>
  using on = ema_subject<Backend, T, Case>;
};

struct average_extents {
  index_t batch = 1, channels = 1, length = 1;
  bool state_in = false, state_out = false;
  placement where = {};
  friend std::ostream& operator<<(std::ostream& out, average_extents const& e) {
    return out << "batch " << e.batch << ", channels " << e.channels << ", length " << e.length
               << (e.state_in ? ", state in" : "") << (e.state_out ? ", state out" : "") << ", padding "
               << e.where.padding << ", offset " << e.where.offset;
  }
};

template <class S>
struct ema_problem {
  using T = typename S::T;
  using A = typename S::A;
  using op = typename S::op;
  static constexpr ema_shape shape = S::shape;

  average_extents e;
  reference::ema::shape const what{shape.states, shape.dir == direction::bidirectional, shape.skip,
                                   S::shared ? 2 * (std::log2(double(S::threads)) + 1) : 0};
  reference::ema::problem p;  // the same numbers in fp64
  tensor<T, 3> x, y, grad_y, grad_x;
  tensor<A, 2> delta, alpha, beta, gamma, grad_delta, grad_alpha, grad_beta, grad_gamma;
  tensor<A, 1> omega, grad_omega;
  tensor<A, 3> state_in, state_out, grad_state_out, grad_state_in;

  ema_problem(average_extents const& size, std::uint64_t seed) : e(size) {
    random_bits r{seed};
    p.batch = e.batch, p.channels = e.channels, p.length = e.length;
    x = new_sequence(), y = new_sequence(), grad_y = new_sequence(), grad_x = new_sequence();
    p.x = fill(x, r, 1), p.grad_y = fill(grad_y, r, 1);
    for (auto* v : {&delta, &alpha, &beta, &gamma, &grad_delta, &grad_alpha, &grad_beta, &grad_gamma})
      *v = tensor<A, 2>({shape.directions() * e.channels, shape.states}, {0, 1}, e.where);
    p.delta = fill(delta, r, 2), p.alpha = fill(alpha, r, 2), p.beta = fill(beta, r, 1), p.gamma = fill(gamma, r, 1.5);
    if (shape.skip)
      omega = tensor<A, 1>({e.channels}, {0}, e.where), grad_omega = tensor<A, 1>({e.channels}, {0}, e.where),
      p.omega = fill(omega, r, 1);
    if (e.state_in) state_in = new_state<A>(), grad_state_in = new_state<A>(), p.state_in = fill(state_in, r, 1);
    if (e.state_out)
      state_out = new_state<A>(), grad_state_out = new_state<A>(), p.grad_state_out = fill(grad_state_out, r, 1);
  }

  tensor<T, 3> new_sequence() const {
    return tensor<T, 3>::sequence(shape.order, e.batch, e.channels, e.length, e.where);
  }
  template <class E>
  tensor<E, 3> new_state() const {
    return tensor<E, 3>({e.batch, e.channels, shape.states}, {0, 1, 2}, e.where);
  }

  typename op::forward_args forward() const {
    return {.x = x.view(),
            .delta = delta.view(),
            .alpha = alpha.view(),
            .beta = beta.view(),
            .gamma = gamma.view(),
            .omega = omega.view(),
            .state_in = state_in.view(),
            .y = y.view(),
            .state_out = state_out.view()};
  }
  typename op::backward_args backward() const {
    return {.x = x.view(),
            .delta = delta.view(),
            .alpha = alpha.view(),
            .beta = beta.view(),
            .gamma = gamma.view(),
            .omega = omega.view(),
            .state_in = state_in.view(),
            .grad_y = grad_y.view(),
            .grad_state_out = grad_state_out.view(),
            .grad_x = grad_x.view(),
            .grad_delta = grad_delta.view(),
            .grad_alpha = grad_alpha.view(),
            .grad_beta = grad_beta.view(),
            .grad_gamma = grad_gamma.view(),
            .grad_omega = grad_omega.view(),
            .grad_state_in = grad_state_in.view()};
  }

  /// Calls with a workspace of exactly the size that the query returns.
  static void run_forward(typename op::forward_args const& a, std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    run_with_workspace<typename S::backend>(op::forward_workspace(executor, a),
                                            [&](workspace w) { return op::forward(executor, a, w); });
  }
  static void run_backward(typename op::backward_args const& a, std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    run_with_workspace<typename S::backend>(op::backward_workspace(executor, a),
                                            [&](workspace w) { return op::backward(executor, a, w); });
  }
  void run_forward(std::uint64_t seed) { run_forward(forward(), seed); }
  void run_backward(std::uint64_t seed) { run_backward(backward(), seed); }

  /// Expects results within their bounds, and nothing else written.
  void expect_forward() const {
    use_arithmetic_of<T>();
    auto const exact = reference::ema::forward<reference::ema::bounded>(what, p);
    EXPECT_TRUE(matches(y, exact.y)) << "y";
    if (state_out.present()) { EXPECT_TRUE(matches(state_out, exact.state_out)) << "state_out"; }
    EXPECT_TRUE(y.intact() && state_out.intact()) << "written outside of y or state_out";
    expect_inputs_untouched();
  }
  void expect_backward() const {
    use_arithmetic_of<T>();
    auto const exact = reference::ema::backward<reference::ema::bounded>(what, p);
    EXPECT_TRUE(matches(grad_x, exact.x)) << "grad_x";
    expect_parameters(exact);
    if (shape.skip) { EXPECT_TRUE(matches(grad_omega, exact.omega)) << "grad_omega"; }
    if (grad_state_in.present()) { EXPECT_TRUE(matches(grad_state_in, exact.state_in)) << "grad_state_in"; }
    EXPECT_TRUE(grad_x.intact() && grad_omega.intact() && grad_state_in.intact()) << "written outside of a gradient";
    expect_inputs_untouched();
  }

  /// The kernel and its gradient, from a random one.
  void run_kernel(std::uint64_t seed) {
    use_arithmetic_of<T>();
    random_bits r{seed};
    tensor<A, 2> kappa({shape.directions() * e.channels, e.length}, {0, 1}, e.where),
        grad_kappa({shape.directions() * e.channels, e.length}, {0, 1}, e.where);
    auto const given = fill(grad_kappa, r, 1);
    auto const executor = S::backend::make(seed);
    typename op::kernel_args const a{
        .delta = delta.view(),
        .alpha = alpha.view(),
        .beta = beta.view(),
        .gamma = gamma.view(),
        .kappa = kappa.view(),
    };
    run_with_workspace<typename S::backend>(op::kernel_workspace(executor, a),
                                            [&](workspace w) { return op::kernel(executor, a, w); });
    EXPECT_TRUE(matches(kappa, reference::ema::kernel<reference::ema::bounded>(what, p), 3 * shape.states)) << "kappa";
    typename op::kernel_backward_args const b{.delta = delta.view(),
                                              .alpha = alpha.view(),
                                              .beta = beta.view(),
                                              .gamma = gamma.view(),
                                              .grad_kappa = grad_kappa.view(),
                                              .grad_delta = grad_delta.view(),
                                              .grad_alpha = grad_alpha.view(),
                                              .grad_beta = grad_beta.view(),
                                              .grad_gamma = grad_gamma.view()};
    run_with_workspace<typename S::backend>(op::kernel_backward_workspace(executor, b),
                                            [&](workspace w) { return op::kernel_backward(executor, b, w); });
    expect_parameters(reference::ema::kernel_backward<reference::ema::bounded>(what, p, given));
    EXPECT_TRUE(kappa.intact() && grad_kappa.values() == given);
    expect_inputs_untouched();
  }

  std::vector<std::vector<unsigned char>> bits() const {
    return {y.bits(),         state_out.bits(),  grad_x.bits(),     grad_delta.bits(),   grad_alpha.bits(),
            grad_beta.bits(), grad_gamma.bits(), grad_omega.bits(), grad_state_in.bits()};
  }
  void clear() {
    y.clear(), grad_x.clear();
    for (auto* v : {&grad_delta, &grad_alpha, &grad_beta, &grad_gamma}) v->clear();
    if (shape.skip) grad_omega.clear();
    if (e.state_in) grad_state_in.clear();
    if (e.state_out) state_out.clear();
  }

  void expect_inputs_untouched() const {
    EXPECT_TRUE(x.values() == p.x && delta.values() == p.delta && alpha.values() == p.alpha &&
                beta.values() == p.beta && gamma.values() == p.gamma && omega.values() == p.omega &&
                state_in.values() == p.state_in && grad_y.values() == p.grad_y &&
                grad_state_out.values() == p.grad_state_out)
        << "an input was written";
    EXPECT_TRUE(x.intact() && delta.intact() && alpha.intact() && beta.intact() && gamma.intact() && omega.intact() &&
                state_in.intact() && grad_y.intact());
  }

 protected:
  /// Within the bound of each number, plus half a unit of its element type; `tiny`: the number of terms that may be
  /// denormal.
  template <class E, int Rank>
  static ::testing::AssertionResult matches(tensor<E, Rank> const& got,
                                            std::vector<reference::ema::bounded> const& exact, int tiny = 1) {
    std::vector<double> value, bound;
    for (auto const& b : exact) {
      double const store = std::is_same_v<E, A> ? 0 : std::ldexp(1, -format_of<E>.digits);
      value.push_back(b.v), bound.push_back(b.e + store * (std::abs(b.v) + b.e) + tiny * underflow<E>());
    }
    return within(got, value, bound);
  }
  void expect_parameters(reference::ema::gradients<reference::ema::bounded> const& exact) const {
    EXPECT_TRUE(matches(grad_delta, exact.delta)) << "grad_delta";
    EXPECT_TRUE(matches(grad_alpha, exact.alpha)) << "grad_alpha";
    EXPECT_TRUE(matches(grad_beta, exact.beta)) << "grad_beta";
    EXPECT_TRUE(matches(grad_gamma, exact.gamma)) << "grad_gamma";
    EXPECT_TRUE(grad_delta.intact() && grad_alpha.intact() && grad_beta.intact() && grad_gamma.intact())
        << "written outside of a gradient";
  }
};

}  // namespace tcnca::testing
