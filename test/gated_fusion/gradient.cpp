// Gradients of the gates against difference quotients of the forward pass, in fp64.
#include "support/gradient.hpp"
#include "problem.hpp"

namespace tcnca::testing {
namespace {

struct all_gates {
  static constexpr char const* name = "all";
  static constexpr gated_fusion_shape shape{};
};
using reference::ema::bounded;
namespace gates = reference::gates;

struct gated_fusion_gradient : ::testing::Test {
  using S = gates_subject<std::tuple_element_t<0, one_backend>, double, all_gates>;
  gates_problem<S> p{{.batch = 2, .length = 3, .columns = 5}, 9, 2};
  gradient_check check;
  reference::sum<bounded> rounding;  // of the loss

  gated_fusion_gradient() { use_arithmetic_of<double>(); }
  /// <gradients of the results, results> after call().
  template <class Call, class... Results>
  static double loss(Call call, Results const&... results) {
    call();
    reference::sum<double> all;
    (add_loss(all, results.first->values(), *results.second), ...);
    return all.get();
  }
};

TEST_F(gated_fusion_gradient, mix) {
  p.run_mix(1);
  check.add("z", p.z, p.grad_z), check.add("gq", p.gq, p.grad_gq), check.add("mq", p.mq, p.grad_mq);
  check.add("gk", p.gk, p.grad_gk), check.add("mk", p.mk, p.grad_mk);
  auto const exact = gates::mix<bounded>(p.p);
  add_loss(rounding, p.p.grad_q, exact.q), add_loss(rounding, p.p.grad_k, exact.k);
  auto const call = [&] { p.succeed(S::op::mix(S::backend::make(1), p.mix())); };
  check.run([&] { return loss(call, std::pair{&p.grad_q, &p.q}, std::pair{&p.grad_k, &p.k}); }, rounding.get().e);
}

TEST_F(gated_fusion_gradient, reset) {
  p.run_reset(1);
  check.add("o", p.o, p.grad_o), check.add("r", p.r, p.grad_r);
  add_loss(rounding, p.p.grad_y, gates::reset<bounded>(p.p));
  auto const call = [&] { p.succeed(S::op::reset(S::backend::make(1), p.reset())); };
  check.run([&] { return loss(call, std::pair{&p.grad_y, &p.y}); }, rounding.get().e);
}

TEST_F(gated_fusion_gradient, update) {
  p.run_update(1);
  check.add("x", p.x, p.grad_x), check.add("u", p.u, p.grad_u);
  check.add("hx", p.hx, p.grad_hx), check.add("h", p.h, p.grad_h);
  add_loss(rounding, p.p.grad_y, gates::update<bounded>(p.what, p.p));
  auto const call = [&] { p.succeed(S::op::update(S::backend::make(1), p.update())); };
  check.run([&] { return loss(call, std::pair{&p.grad_y, &p.y}); }, rounding.get().e);
}

}  // namespace
}  // namespace tcnca::testing
