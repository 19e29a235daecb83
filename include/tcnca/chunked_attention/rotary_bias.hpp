// The table of MEGA's rotary relative biases and its gradient. No shared memory and no barriers: each result is made by
// one thread. Angles are computed in fp64, because positions are large.
#pragma once
#include "../block/agent.hpp"
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"
#if !defined(__CUDACC_RTC__)
#include <cmath>
#endif

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of both directions; the same for all groups. a, b and their gradients: [heads, dim]; bias, grad_bias:
/// [heads, 2 chunk - 1].
template <class A>
struct rotary_bias_params {
  tensor_view<A const, 2> a = {}, b = {};
  tensor_view<A, 2> bias = {};
  tensor_view<A const, 2> grad_bias = {};
  tensor_view<A, 2> grad_a = {}, grad_b = {};
  index_t chunk = 1;
};

namespace detail {

TCNCA_HOST_DEVICE void sine_and_cosine(double x, double& sine, double& cosine) {
#if defined(__CUDACC__)
  ::sincospi(x * 0.31830988618379067, &sine, &cosine);  // sincos would use local memory to reduce large angles
#else
  sine = std::sin(x), cosine = std::cos(x);
#endif
}
TCNCA_HOST_DEVICE double rotary_frequency(index_t k, index_t half) {
#if defined(__CUDACC__)
  return ::pow(10000.0, -double(k) / double(half));
#else
  return std::pow(10000.0, -double(k) / double(half));
#endif
}

/// cos and sin of n theta_k for descending n: one rotation per step, computed anew from the angle at each multiple of
/// 64 to bound the error.
struct rotation {
  double theta, step_cosine, step_sine, cosine = 1, sine = 0;
  index_t multiple;
  TCNCA_HOST_DEVICE rotation(index_t k, index_t pairs, index_t first)
      : theta(rotary_frequency(k, pairs)), multiple(first) {
    sine_and_cosine(theta, step_sine, step_cosine);
    set();
  }
  TCNCA_HOST_DEVICE void set() { sine_and_cosine(double(multiple) * theta, sine, cosine); }
  TCNCA_HOST_DEVICE void decrement() {
    multiple--;
    if (multiple % 64 == 0) return set();
    double const c = cosine * step_cosine + sine * step_sine;
    sine = sine * step_cosine - cosine * step_sine, cosine = c;
  }
};

}  // namespace detail

/// bias[chunk - 1 + j - i] = sum_k (a1 b1 + a2 b2) cos((i - j) theta_k) + (a1 b2 - a2 b1) sin((i - j) theta_k). Item: a
/// block of a head's table; each thread computes neighbouring entries.
template <class Group, element T>
struct rotary_bias_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = rotary_bias_params<A>;
  static constexpr int entries_per_thread = 16;
  static constexpr index_t block = entries_per_thread * Group::size();
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) { return divide_up(2 * p.chunk - 1, block); }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) { return p.a.extent[0] * blocks(p); }
  static group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE rotary_bias_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const head = item / blocks(p), half = p.a.extent[1] / 2,
                  first = item % blocks(p) * block + group.rank() * entries_per_thread;
    double sum[entries_per_thread] = {};
    for (index_t k = 0; k < half; k++) {
      double const a1 = double(*p.a.at(head, k)), a2 = double(*p.a.at(head, half + k)), b1 = double(*p.b.at(head, k)),
                   b2 = double(*p.b.at(head, half + k));
      double const even = a1 * b1 + a2 * b2, odd = a1 * b2 - a2 * b1;
      detail::rotation r(k, half, p.chunk - 1 - first);
      TCNCA_UNROLL
      for (int n = 0; n < entries_per_thread; n++, r.decrement()) sum[n] += even * r.cosine + odd * r.sine;
    }
    TCNCA_UNROLL
    for (int n = 0; n < entries_per_thread; n++)
      if (first + n < 2 * p.chunk - 1) *p.bias.at(head, first + n) = A(sum[n]);
  }
};

/// The gradients of a and b: each thread those of one head and k, summed over the table in its order.
template <class Group, element T>
struct rotary_bias_backward_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = rotary_bias_params<A>;
  TCNCA_HOST_DEVICE static constexpr index_t pairs(params_type const& p) { return p.a.extent[0] * (p.a.extent[1] / 2); }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return divide_up(pairs(p), index_t(Group::size()));
  }
  static group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE rotary_bias_backward_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const pair = item * group.size() + group.rank(), half = p.a.extent[1] / 2;
    if (pair >= pairs(p)) return;
    index_t const head = pair / half, k = pair % half;
    double c = 0, s = 0;
    detail::rotation r(k, half, p.chunk - 1);
    for (index_t d = 0; d < 2 * p.chunk - 1; d++, r.decrement()) {
      double const g = double(*p.grad_bias.at(head, d));
      c += g * r.cosine, s += g * r.sine;
    }
    double const a1 = double(*p.a.at(head, k)), a2 = double(*p.a.at(head, half + k)), b1 = double(*p.b.at(head, k)),
                 b2 = double(*p.b.at(head, half + k));
    if (p.grad_a.present())
      *p.grad_a.at(head, k) = A(c * b1 + s * b2), *p.grad_a.at(head, half + k) = A(c * b2 - s * b1);
    if (p.grad_b.present())
      *p.grad_b.at(head, k) = A(c * a1 - s * a2), *p.grad_b.at(head, half + k) = A(c * a2 + s * a1);
  }
};

}  // namespace tcnca
