// A call with many sequences, of an operation whose inputs are x and parameters and whose state is one tensor; it
// equals a call for each sequence.
#pragma once
#include "compare.hpp"
#include "packed.hpp"

namespace tcnca::testing {

/// Base: the problem of one call, with a batch of 1 if sequences are packed. Derived has
///   state(): a tensor for the states of all sequences,
///   for_each_parameter(f): calls f(gradient) for the gradients of parameters,
///   expect_parameters_within_bounds().
template <class Derived, class Base>
struct packed_problem : Base {
  using typename Base::A, typename Base::T;

  packed_layout const& where;
  tensor<A, 3> states_in, states_out, grad_states_out, grad_states_in;

  /// extents: of the operation's problem; batch, length, position and placement are set here.
  template <class Extents>
  packed_problem(packed_layout const& l, Extents extents, placement place, std::uint64_t seed)
      : Base(of_layout(extents, l, place), seed), where(l) {}
  void add_states(bool has_state_in, bool has_state_out, std::uint64_t seed) {
    random_bits r{seed};
    auto const add = [&](tensor<A, 3>& t) { t = self().state(); };
    if (has_state_in) add(states_in), add(grad_states_in), fill(states_in, r, 1);
    if (has_state_out) add(states_out), add(grad_states_out), fill(grad_states_out, r, 1);
  }

  auto all_forward() const {
    auto a = with_tables(Base::forward());
    a.state_out = states_out.view();
    return a;
  }
  auto all_backward() const {
    auto a = with_tables(Base::backward());
    a.grad_state_out = grad_states_out.view(), a.grad_state_in = grad_states_in.view();
    return a;
  }
  /// The arguments for sequence s alone.
  template <class Args>
  Args alone(Args a, index_t s) const {
    where.cut(a.x, s), a.state_in = where.state(a.state_in, s);
    if constexpr (requires { a.y; }) {
      where.cut(a.y, s), a.state_out = where.state(a.state_out, s);
    } else {
      where.cut(a.grad_y, s), where.cut(a.grad_x, s);
      a.grad_state_out = where.state(a.grad_state_out, s), a.grad_state_in = where.state(a.grad_state_in, s);
    }
    a.offsets = {}, a.max_length = 0, a.slots = {};
    if constexpr (requires { a.positions; }) { a.position = where.position(s), a.positions = {}; }
    return a;
  }

  void expect_forward_equal(std::uint64_t seed, bool in_place) {
    auto a = all_forward();
    auto const initial = states_in.values();
    if (in_place) a.state_out = states_in.view();
    auto const& last = in_place ? states_in : states_out;
    Base::run_forward(a, seed);
    auto const of_y = this->y.bits(), states = last.bits();
    this->y.clear();
    if (in_place) states_in.assign(initial);
    else states_out.clear();
    for (index_t s = 0; s < where.count(); s++) Base::run_forward(alone(a, s), seed);
    EXPECT_TRUE(this->y.bits() == of_y) << "y";
    EXPECT_TRUE(last.bits() == states) << "states";
    if (in_place) states_in.assign(initial);
    EXPECT_TRUE(this->y.intact() && states_in.intact() && states_out.intact()) << "written outside";
  }

  void expect_backward_equal(std::uint64_t seed) {
    auto const a = all_backward();
    clear_gradients();
    Base::run_backward(a, seed);
    auto const of_x = this->grad_x.bits(), states = grad_states_in.bits();
    auto const parameters = bits_of_parameters();
    clear_gradients();
    Base::run_backward(a, seed + 1);  // with another number of threads
    EXPECT_TRUE(this->grad_x.bits() == of_x && grad_states_in.bits() == states && bits_of_parameters() == parameters)
        << "not the same from run to run";
    self().expect_parameters_within_bounds();
    clear_gradients();
    for (index_t s = 0; s < where.count(); s++) {
      auto one = alone(a, s);
      if (!one.state_in.given()) one.grad_state_in = {};
      Base::run_backward(one, seed);
    }
    EXPECT_TRUE(this->grad_x.bits() == of_x) << "grad_x";
    EXPECT_TRUE(grad_states_in.bits() == states) << "grad_state_in";
    bool intact = this->grad_x.intact() && grad_states_in.intact();
    self().for_each_parameter([&](auto& t) { intact = intact && t.intact(); });
    EXPECT_TRUE(intact) << "written outside";
    this->expect_inputs_untouched();
  }

  /// The numbers of a tensor [batch, channels, length], or of states, that belong to sequence s.
  std::vector<double> part(tensor<T, 3> const& t, index_t s) const {
    auto view = t.view();
    where.cut(view, s);
    return numbers(view);
  }
  std::vector<double> state_of(tensor<A, 3> const& t, index_t s) const { return numbers(where.state(t.view(), s)); }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }

  template <class Extents>
  static Extents of_layout(Extents e, packed_layout const& l, placement place) {
    e.batch = l.packed() ? 1 : l.count(), e.length = l.packed() ? l.total() : l.longest(), e.where = place;
    if constexpr (requires { e.position; }) { e.position = l.common_position; }
    return e;
  }
  template <class Args>
  Args with_tables(Args a) const {
    a.state_in = states_in.view();
    a.offsets = where.offsets.view(), a.max_length = where.max_length, a.slots = where.slots.view();
    if constexpr (requires { a.positions; }) { a.positions = where.positions.view(); }
    return a;
  }
  std::vector<std::vector<unsigned char>> bits_of_parameters() {
    std::vector<std::vector<unsigned char>> all;
    self().for_each_parameter([&](auto& t) { all.push_back(t.bits()); });
    return all;
  }
  void clear_gradients() {
    this->grad_x.clear(), grad_states_in.clear();
    self().for_each_parameter([](auto& t) { t.clear(); });
  }
  template <class View>
  static std::vector<double> numbers(View const& v) {
    std::vector<double> all;
    for (index_t c = 0; c < v.extent[1]; c++)
      for (index_t i = 0; i < v.extent[2]; i++) all.push_back(to_double(*v.at(0, c, i)));
    return all;
  }
};

/// Expects that both passes of a call equal those of the sequences alone.
template <class Problem>
void check_packed(packed_layout const& l, index_t channels, bool state_in, bool state_out, placement place,
                  std::uint64_t seed) {
  SCOPED_TRACE(::testing::Message() << l << ", channels " << channels << (state_in ? ", state in" : "")
                                    << (state_out ? ", state out" : "") << ", padding " << place.padding << ", seed "
                                    << seed);
  Problem problem(l, channels, place, seed);
  problem.add_states(state_in, state_out, seed);
  problem.expect_forward_equal(seed, false);
  if (state_in && state_out) problem.expect_forward_equal(seed, true);
  problem.expect_backward_equal(seed);
}

}  // namespace tcnca::testing
