// Arguments of every operation: each view in turn is absent, without memory, too large, outside the address space, or
// present but unused; extents, positions and chunks whose products do not fit 64 bits. Nothing may be written, and no
// sanitizer may report an error.
#include "calls.hpp"

namespace tcnca::testing {
namespace {

using code = status_code;
constexpr index_t least = std::numeric_limits<index_t>::min(), most = std::numeric_limits<index_t>::max();

template <class Calls>
struct arguments : ::testing::Test {
  Calls calls;
};
using all_calls =
    ::testing::Types<stack_calls<full_stack>, stack_calls<bare_stack>, ema_calls<full_ema>, ema_calls<bare_ema>,
                     attention_calls<softmax_causal_bias>, attention_calls<laplace_plain>,
                     attention_calls<packed_attention>, gates_calls<full_gates>, gates_calls<bare_gates>>;
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

constexpr int32 falling[] = {0, 6, 5}, longer[] = {0, 4, 10}, negative[] = {-1, 4, 9}, empty[] = {3, 3, 8},
                wrong_slots[] = {0, 2}, some_slots[] = {-1, 0};
constexpr index_t before_the_first[] = {4, -2}, after_the_last[] = {(index_t(1) << 62) + 1, 4};

/// table: of a call with two packed sequences of 4 and 5 positions in slots 1 and 0. x: the first tensor's name.
void check_packed_tables(auto const& table, std::string const& x) {
  auto const with_offsets = [](auto const& offsets) {
    return [&](auto& a) { a.offsets.data = offsets, a.max_length = 0; };
  };
  table.refuses(code::invalid_value, "offsets", "(element[2] is 5)", with_offsets(falling));
  table.refuses(code::invalid_value, "offsets", "(element[2] is 10)", with_offsets(longer));
  table.refuses(code::invalid_value, "offsets", "(element[0] is -1)", with_offsets(negative));
  table.refuses(code::invalid_value, "max_length", "(length[1] is 5, expected 4)", [](auto& a) { a.max_length = 4; });
  table.refuses(code::invalid_value, "max_length", "", [](auto& a) { a.max_length = -1; });
  table.refuses(code::unexpected_argument, "max_length", "", [](auto& a) { a.offsets = {}, a.max_length = 9; });
  table.refuses(code::invalid_extent, x, "(extent[0] is 2, expected 1)", [](auto& a) { packed_rows::set_batch(a, 2); });
  table.refuses(code::invalid_value, "slots", "(element[1] is 2)", [](auto& a) { a.slots.data = wrong_slots; });
  table.for_each_view([&](std::string const& name, auto change) {
    if (name.find("state_") == 0 || name.find("_in") != name.npos || name.find("_out") != name.npos)
      table.refuses(code::invalid_value, "slots", "(element[0] is 1)",
                    [&](auto& a) { change(a, [](auto& view) { view.extent[0] = 1; }); });
  });
  if constexpr (requires { table.good.positions; }) {
    table.refuses(code::invalid_position, "positions", "(element[1] is -2)",
                  [](auto& a) { a.positions.data = before_the_first; });
    table.refuses(code::invalid_position, "positions", "(element[0] is",
                  [](auto& a) { a.positions.data = after_the_last; });
  }
  auto const passes = [&](auto change) {
    auto a = table.good;
    change(a);
    EXPECT_EQ(table.answer(a), "") << table.name;
  };
  passes([](auto& a) { a.slots.data = some_slots; });  // a sequence without a state
  passes(with_offsets(empty));
}
// Offsets that descend or leave the tensor, slots without a row, positions out of range, meaningless combinations.
TEST(arguments, packed_sequences) {
  auto const check = [](auto const& calls, char const* x) {
    std::apply([&](auto const&... table) { (check_packed_tables(table, x), ...); }, calls.packed_tables());
  };
  check(stack_calls<full_stack>(), "x"), check(ema_calls<full_ema>(), "x");
  check(attention_calls<packed_attention>(), "q");
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
