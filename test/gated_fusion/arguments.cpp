// Invalid arguments of the gates: each has its own status and the argument's name, and no byte is written.
#include <functional>

#include "problem.hpp"

namespace tcnca::testing {
namespace {

using code = status_code;

struct all_gates {
  static constexpr char const* name = "all";
  static constexpr gated_fusion_shape shape{.dropout = true};
};
struct bare {
  static constexpr char const* name = "bare";
  static constexpr gated_fusion_shape shape{.update_gate = false, .reset_gate = false, .mixer_path = false};
};

template <class Case>
struct checked {
  using S = gates_subject<cpu_backend, float, Case>;
  using op = typename S::op;
  using problem_type = gates_problem<S>;
  problem_type problem{{.batch = 2, .length = 3, .columns = 6, .dropout = 0.5}, 1};

  /// A pass with one argument changed.
  template <class Args>
  void expect(code expected, std::string const& name, Args (problem_type::*make)() const,
              std::function<status(cpu, Args const&)> pass, std::function<void(Args&)> change, cpu executor = {1}) {
    problem.clear();
    auto const before = problem.bits();
    Args args = (problem.*make)();
    change(args);
    status const s = pass(executor, args);
    EXPECT_EQ(int(s.code()), int(expected)) << name << ": answered " << to_string(s) << " (" << s.argument() << ")";
    EXPECT_EQ(s.argument(), name);
    EXPECT_TRUE(before == problem.bits()) << name << ": something was written";
    problem.expect_nothing_else();
  }
  void mix(code c, std::string const& name, std::function<void(typename op::mix_args&)> change) {
    expect<typename op::mix_args>(
        c, name, &problem_type::mix, [](cpu e, auto const& a) { return op::mix(e, a); }, change);
  }
  void mix_backward(code c, std::string const& name, std::function<void(typename op::mix_backward_args&)> change,
                    size_t less = 0) {
    scratch_memory const scratch(op::mix_backward_workspace(cpu{1}, problem.mix_backward()));
    workspace w = scratch.get();
    w.bytes -= less;
    expect<typename op::mix_backward_args>(
        c, name, &problem_type::mix_backward, [w](cpu e, auto const& a) { return op::mix_backward(e, a, w); }, change);
  }
  void reset(code c, std::string const& name, std::function<void(typename op::reset_args&)> change) {
    expect<typename op::reset_args>(
        c, name, &problem_type::reset, [](cpu e, auto const& a) { return op::reset(e, a); }, change);
  }
  void reset_backward(code c, std::string const& name, std::function<void(typename op::reset_backward_args&)> change) {
    expect<typename op::reset_backward_args>(
        c, name, &problem_type::reset_backward, [](cpu e, auto const& a) { return op::reset_backward(e, a); }, change);
  }
  void update(code c, std::string const& name, std::function<void(typename op::update_args&)> change,
              cpu executor = {1}) {
    expect<typename op::update_args>(
        c, name, &problem_type::update, [](cpu e, auto const& a) { return op::update(e, a); }, change, executor);
  }
  void update_backward(code c, std::string const& name,
                       std::function<void(typename op::update_backward_args&)> change) {
    expect<typename op::update_backward_args>(
        c, name, &problem_type::update_backward, [](cpu e, auto const& a) { return op::update_backward(e, a); },
        change);
  }

  /// Checks of every tensor of a pass, but for the one whose extents the others must match.
  template <class Args, class View, class Call>
  static void every(Call call, View Args::*member, std::string const& name, bool optional = false) {
    auto const on = [&](code expected, auto change) { call(expected, name, [=](Args& a) { change(a.*member); }); };
    constexpr int last = View::rank - 1;
    on(code::invalid_extent, [](View& v) { v.extent[0]++; });
    on(code::invalid_extent, [](View& v) { v.extent[last] = -1; });
    on(code::invalid_stride, [](View& v) { v.stride[0] = -1; });
    if (last == 2) on(code::invalid_stride, [](View& v) { v.stride[last] = 2; });
    on(code::null_pointer, [](View& v) { v.data = nullptr; });
    if (!optional) on(code::missing_argument, [](View& v) { v = {}; });
    on(code::misaligned_pointer,
       [](View& v) { v.data = reinterpret_cast<decltype(v.data)>(reinterpret_cast<std::uintptr_t>(v.data) + 1); });
  }
};

TEST(gated_fusion_arguments, every_tensor) {
  using c = checked<all_gates>;
  using op = c::op;
  c t;
  auto const mix = [&](auto... a) { t.mix(a...); };
  using m = op::mix_args;
  c::every<m>(mix, &m::gq, "gq"), c::every<m>(mix, &m::mq, "mq"), c::every<m>(mix, &m::gk, "gk"),
      c::every<m>(mix, &m::mk, "mk");
  c::every<m>(mix, &m::q, "q"), c::every<m>(mix, &m::k, "k");
  auto const mix_backward = [&](auto... a) { t.mix_backward(a...); };
  using mb = op::mix_backward_args;
  c::every<mb>(mix_backward, &mb::gq, "gq"), c::every<mb>(mix_backward, &mb::gk, "gk"),
      c::every<mb>(mix_backward, &mb::grad_q, "grad_q");
  c::every<mb>(mix_backward, &mb::grad_k, "grad_k"), c::every<mb>(mix_backward, &mb::grad_z, "grad_z", true),
      c::every<mb>(mix_backward, &mb::grad_gq, "grad_gq", true);
  c::every<mb>(mix_backward, &mb::grad_mq, "grad_mq", true), c::every<mb>(mix_backward, &mb::grad_gk, "grad_gk", true),
      c::every<mb>(mix_backward, &mb::grad_mk, "grad_mk", true);
  auto const reset = [&](auto... a) { t.reset(a...); };
  using r = op::reset_args;
  c::every<r>(reset, &r::r, "r"), c::every<r>(reset, &r::y, "y");
  auto const reset_backward = [&](auto... a) { t.reset_backward(a...); };
  using rb = op::reset_backward_args;
  c::every<rb>(reset_backward, &rb::r, "r"), c::every<rb>(reset_backward, &rb::grad_y, "grad_y"),
      c::every<rb>(reset_backward, &rb::grad_o, "grad_o", true);
  c::every<rb>(reset_backward, &rb::grad_r, "grad_r", true);
  auto const update = [&](auto... a) { t.update(a...); };
  using u = op::update_args;
  c::every<u>(update, &u::x, "x"), c::every<u>(update, &u::u, "u"), c::every<u>(update, &u::hx, "hx"),
      c::every<u>(update, &u::y, "y");
  auto const update_backward = [&](auto... a) { t.update_backward(a...); };
  using ub = op::update_backward_args;
  c::every<ub>(update_backward, &ub::x, "x"), c::every<ub>(update_backward, &ub::u, "u"),
      c::every<ub>(update_backward, &ub::hx, "hx");
  c::every<ub>(update_backward, &ub::grad_y, "grad_y"), c::every<ub>(update_backward, &ub::grad_x, "grad_x", true),
      c::every<ub>(update_backward, &ub::grad_u, "grad_u", true);
  c::every<ub>(update_backward, &ub::grad_hx, "grad_hx", true),
      c::every<ub>(update_backward, &ub::grad_h, "grad_h", true);
}

TEST(gated_fusion_arguments, random_state) {
  checked<all_gates> t;
  static std::uint64_t numbers[3] = {1, 2, 3};
  auto const good = contiguous(static_cast<uint64 const*>(numbers), 2);
  for (auto const change : {0, 1, 2}) {
    auto view = good;
    if (change == 0) view.extent[0] = 3;
    if (change == 1) view.stride[0] = -1;
    if (change == 2) view.data = nullptr;
    code const expected = change == 0 ? code::invalid_extent : change == 1 ? code::invalid_stride : code::null_pointer;
    t.update(expected, "random_state", [=](auto& a) { a.random_state = view; });
    t.update_backward(expected, "random_state", [=](auto& a) { a.random_state = view; });
  }
}

TEST(gated_fusion_arguments, overlap_and_folding) {
  checked<all_gates> t;
  auto& p = t.problem;
  t.mix(code::overlap, "q", [&](auto& a) { a.q.data = p.k.view().data; });
  t.mix(code::invalid_stride, "k", [](auto& a) { a.k.stride[1] = 5; });
  t.reset(code::overlap, "y", [&](auto& a) { a.y.data = p.r.view().data; });
  t.update(code::overlap, "y", [&](auto& a) { a.y.data = p.u.view().data; });
  t.update(code::overlap, "y", [&](auto& a) { a.y.data = p.x.view().data + 1, a.y.extent[0] = 2; });
  t.update_backward(code::overlap, "grad_u", [&](auto& a) { a.grad_hx.data = a.grad_u.data; });
  t.mix_backward(code::overlap, "grad_gq", [&](auto& a) { a.grad_mq.data = a.grad_gq.data; });
}

TEST(gated_fusion_arguments, numbers_workspace_and_executor) {
  checked<all_gates> t;
  t.update(code::invalid_value, "dropout", [](auto& a) { a.dropout = 1; });
  t.update(code::invalid_value, "dropout", [](auto& a) { a.dropout = -0.1; });
  t.update_backward(code::invalid_value, "dropout", [](auto& a) { a.dropout = NAN; });
  t.mix_backward(
      code::workspace_too_small, "workspace", [](auto&) {}, 1);
  t.update(
      code::invalid_executor, "", [](auto&) {}, cpu{-1});
}

TEST(gated_fusion_arguments, unused_by_the_shape) {
  checked<bare> t;
  auto& p = t.problem;
  t.update(code::unexpected_argument, "u", [&](auto& a) { a.u = p.u.view(); });
  t.update(code::unexpected_argument, "hx", [&](auto& a) { a.hx = p.hx.view(); });
  t.update(code::unexpected_argument, "dropout", [](auto& a) { a.dropout = 0.5; });
  static std::uint64_t numbers[2] = {};
  t.update(code::unexpected_argument, "random_state",
           [](auto& a) { a.random_state = contiguous(static_cast<uint64 const*>(numbers), 2); });
  t.update_backward(code::unexpected_argument, "x", [&](auto& a) { a.x = p.x.view(); });
  t.update_backward(code::unexpected_argument, "grad_u", [&](auto& a) { a.grad_u = p.grad_u.view(); });
  t.update_backward(code::unexpected_argument, "grad_hx", [&](auto& a) { a.grad_hx = p.grad_hx.view(); });
}

}  // namespace
}  // namespace tcnca::testing
