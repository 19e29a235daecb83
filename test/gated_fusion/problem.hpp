// A problem for gated_fusion: its tensors, the calls, and the comparison with the reference.
#pragma once
#include <array>
#include <ostream>
#include <vector>

#include <tcnca/gated_fusion.hpp>

#include "reference/gated_fusion.hpp"
#include "support/backend.hpp"
#include "support/compare.hpp"
#include "support/optional.hpp"

namespace tcnca::testing {

/// The type under test: gates, an element type, a backend.
template <class Backend, class Element, class Case>
struct gates_subject {
  using backend = Backend;
  using T = Element;
  using A = accumulate_t<T>;
  static constexpr gated_fusion_shape shape = Case::shape;
  using op = gated_fusion<T, shape>;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};
/// A subject without its backend.
template <class T, class Case>
struct gates_case {
  template <class Backend>
  using on = gates_subject<Backend, T, Case>;
};

struct gates_extents {
  index_t batch = 1, length = 1, columns = 1;
  double dropout = 0;
  placement where = {};
  friend std::ostream& operator<<(std::ostream& out, gates_extents const& e) {
    return out << "batch " << e.batch << ", length " << e.length << ", columns " << e.columns << ", dropout "
               << e.dropout << ", padding " << e.where.padding << ", offset " << e.where.offset;
  }
};

template <class S>
struct gates_problem {
  using T = typename S::T;
  using A = typename S::A;
  using op = typename S::op;
  using bounded = reference::ema::bounded;
  static constexpr gated_fusion_shape shape = S::shape;

  gates_extents e;
  reference::gates::shape what{shape.update_gate, shape.mixer_path};
  reference::gates::problem p;
  tensor<T, 3> z, q, k, grad_q, grad_k, grad_z, o, r, y, grad_y, grad_o, grad_r, x, u, hx, h, grad_x, grad_u, grad_hx,
      grad_h;
  tensor<A, 1> gq, mq, gk, mk, grad_gq, grad_mq, grad_gk, grad_mk;

  explicit gates_problem(gates_extents const& size, std::uint64_t seed, double spread = 3) : e(size) {
    random_bits random{seed};
    p.length = e.length, p.columns = e.columns;
    what.dropout = shape.dropout ? e.dropout : 0, what.seed = random(),
    what.offset = random() >> between(random, 0, 63);
    for (auto* t : all_rows()) *t = tensor<T, 3>({e.batch, e.length, e.columns}, {0, 1, 2}, e.where);
    for (auto* t : all_parameters()) *t = tensor<A, 1>({e.columns}, {0}, e.where);
    p.z = fill(z, random, spread), p.o = fill(o, random, spread), p.r = fill(r, random, spread),
    p.grad_y = fill(grad_y, random, 1);
    p.u = fill(u, random, spread), p.hx = fill(hx, random, spread), p.h = fill(h, random, spread),
    p.x = fill(x, random, spread);
    p.grad_q = fill(grad_q, random, 1), p.grad_k = fill(grad_k, random, 1);
    p.gq = fill(gq, random, 1), p.mq = fill(mq, random, 1), p.gk = fill(gk, random, 1), p.mk = fill(mk, random, 1);
  }
  std::vector<tensor<T, 3>*> all_rows() {
    return {&z,      &q,      &k, &grad_q, &grad_k, &grad_z, &o,      &r,      &y,       &grad_y,
            &grad_o, &grad_r, &x, &u,      &hx,     &h,      &grad_x, &grad_u, &grad_hx, &grad_h};
  }
  std::vector<tensor<A, 1>*> all_parameters() { return {&gq, &mq, &gk, &mk, &grad_gq, &grad_mq, &grad_gk, &grad_mk}; }

  typename op::mix_args mix() const {
    return {z.view(), gq.view(), mq.view(), gk.view(), mk.view(), q.view(), k.view()};
  }
  typename op::mix_backward_args mix_backward() const {
    return {z.view(),      gq.view(),      gk.view(),      grad_q.view(),  grad_k.view(),
            grad_z.view(), grad_gq.view(), grad_mq.view(), grad_gk.view(), grad_mk.view()};
  }
  typename op::reset_args reset() const { return {o.view(), r.view(), y.view()}; }
  typename op::reset_backward_args reset_backward() const {
    return {o.view(), r.view(), grad_y.view(), grad_o.view(), grad_r.view()};
  }
  typename op::update_args update() const {
    typename op::update_args a{x.view(), {}, {}, h.view(), y.view(), what.dropout, what.seed, what.offset};
    if (shape.update_gate) a.u = u.view();
    if (shape.mixer_path) a.hx = hx.view();
    return a;
  }
  typename op::update_backward_args update_backward() const {
    typename op::update_backward_args a;
    a.h = h.view(), a.grad_y = grad_y.view(), a.grad_x = grad_x.view(), a.grad_h = grad_h.view();
    if (shape.update_gate) a.x = x.view(), a.u = u.view(), a.grad_u = grad_u.view();
    if (shape.mixer_path) a.hx = hx.view(), a.grad_hx = grad_hx.view();
    a.dropout = what.dropout, a.seed = what.seed, a.offset = what.offset;
    return a;
  }

  void run_mix(std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    succeed(op::mix(executor, mix()));
    auto const args = mix_backward();
    run_with_workspace<typename S::backend>(op::mix_backward_workspace(executor, args),
                                            [&](workspace w) { return op::mix_backward(executor, args, w); });
  }
  void run_reset(std::uint64_t seed) {
    if constexpr (shape.reset_gate) {
      succeed(op::reset(S::backend::make(seed), reset()));
      succeed(op::reset_backward(S::backend::make(seed), reset_backward()));
    }
  }
  void run_update(std::uint64_t seed) {
    succeed(op::update(S::backend::make(seed), update()));
    succeed(op::update_backward(S::backend::make(seed), update_backward()));
  }

  void expect_mix() {
    use_arithmetic_of<T>();
    auto const exact = reference::gates::mix<bounded>(p);
    auto const gradient = reference::gates::mix_backward<bounded>(p);
    EXPECT_TRUE(matches(q, exact.q)) << "q";
    EXPECT_TRUE(matches(k, exact.k)) << "k";
    EXPECT_TRUE(matches(grad_z, gradient.z)) << "grad_z";
    EXPECT_TRUE(matches(grad_gq, gradient.gq)) << "grad_gq";
    EXPECT_TRUE(matches(grad_mq, gradient.mq)) << "grad_mq";
    EXPECT_TRUE(matches(grad_gk, gradient.gk)) << "grad_gk";
    EXPECT_TRUE(matches(grad_mk, gradient.mk)) << "grad_mk";
    expect_nothing_else();
  }
  void expect_reset() {
    if constexpr (shape.reset_gate) {
      use_arithmetic_of<T>();
      auto const gradient = reference::gates::reset_backward<bounded>(p);
      EXPECT_TRUE(matches(y, reference::gates::reset<bounded>(p))) << "y";
      EXPECT_TRUE(matches(grad_o, gradient.o)) << "grad_o";
      EXPECT_TRUE(matches(grad_r, gradient.r)) << "grad_r";
      expect_nothing_else();
    }
  }
  void expect_update() {
    use_arithmetic_of<T>();
    auto const gradient = reference::gates::update_backward<bounded>(what, p);
    EXPECT_TRUE(matches(y, reference::gates::update<bounded>(what, p))) << "y";
    EXPECT_TRUE(matches(grad_x, gradient.x)) << "grad_x";
    EXPECT_TRUE(matches(grad_h, gradient.h)) << "grad_h";
    if (shape.update_gate) { EXPECT_TRUE(matches(grad_u, gradient.u)) << "grad_u"; }
    if (shape.mixer_path) { EXPECT_TRUE(matches(grad_hx, gradient.h)) << "grad_hx"; }
    expect_nothing_else();
  }
  /// Expects unchanged inputs, and nothing written between rows.
  void expect_nothing_else() {
    for (auto* t : all_rows()) EXPECT_TRUE(t->intact());
    for (auto* t : all_parameters()) EXPECT_TRUE(t->intact());
    EXPECT_TRUE(z.values() == p.z && o.values() == p.o && r.values() == p.r && x.values() == p.x && u.values() == p.u &&
                hx.values() == p.hx && h.values() == p.h && grad_y.values() == p.grad_y &&
                grad_q.values() == p.grad_q && grad_k.values() == p.grad_k && gq.values() == p.gq &&
                mq.values() == p.mq && gk.values() == p.gk && mk.values() == p.mk)
        << "an input was written";
  }

  std::vector<std::vector<unsigned char>> bits() {
    std::vector<std::vector<unsigned char>> b;
    for (auto* t : results()) b.push_back(t->bits());
    for (auto* t : {&grad_gq, &grad_mq, &grad_gk, &grad_mk}) b.push_back(t->bits());
    return b;
  }
  std::vector<tensor<T, 3>*> results() {
    return {&q, &k, &grad_z, &y, &grad_o, &grad_r, &grad_x, &grad_u, &grad_hx, &grad_h};
  }
  void clear() {
    for (auto* t : results()) t->clear();
    for (auto* t : {&grad_gq, &grad_mq, &grad_gk, &grad_mk}) t->clear();
  }

  static void succeed(status s) {
    ASSERT_TRUE(s.ok()) << to_string(s) << ": " << s.argument();
    S::backend::finish();
  }
  /// Within the bound of each number, plus half a unit of its element type; in fp64 twice the bound, because the
  /// reference computes in fp64 too.
  template <class E, int Rank>
  static ::testing::AssertionResult matches(tensor<E, Rank> const& got, std::vector<bounded> const& exact) {
    std::vector<double> value, bound;
    for (auto const& b : exact) {
      double const store = std::is_same_v<E, A> ? 0 : std::ldexp(1, -format_of<E>.digits);
      value.push_back(b.v), bound.push_back((std::is_same_v<A, double> ? 2 : 1) * b.e + store * (std::abs(b.v) + b.e) +
                                            underflow<E>() + underflow<A>());
    }
    return within(got, value, bound);
  }
};

}  // namespace tcnca::testing
