// Every operation on tensors with any base address and any row pitch: a GPU accesses several elements at once only if
// the address is a multiple of them. The smallest shapes, each size of elements, both layouts.
#include "conv_stack/cases.hpp"
#include "ema/problem.hpp"
#include "gated_fusion/problem.hpp"

namespace tcnca::testing {
namespace {

/// The largest extent: one access of eight elements, and one element more.
constexpr index_t most = 9;

/// visit(extent, placement) for all extents up to `most`, offsets and paddings up to three elements, and whole accesses
/// of four.
template <class Visit>
void for_each_placement(Visit visit) {
  for (index_t extent = 1; extent <= most; extent++)
    for (int offset = 0; offset <= 4; offset++)
      for (int const padding : {0, 1, 2, 3, 4}) {
        if (offset > 1 && padding > 1 && offset != padding) continue;
        SCOPED_TRACE(::testing::Message() << "extent " << extent << ", offset " << offset << ", padding " << padding);
        visit(extent, placement{padding, offset});
        if (::testing::Test::HasFailure()) return;
      }
}

template <layout Order>
struct one_layer {
  static constexpr char const* name = Order == layout::batch_channels_length ? "first" : "last";
  static constexpr conv_stack_shape shape{
      .taps = 2, .depth = 1, .dilations = {9}, .bias = true, .skip = true, .order = Order};
};
using rows = one_layer<layout::batch_channels_length>;
using columns = one_layer<layout::batch_length_channels>;

template <class S>
struct conv_stack_placement : ::testing::Test {};
// All sizes of elements, both layouts. bf16 and fp16 have the same accesses, so each meets one layout.
using stacks =
    all_or_few<subjects_on_one<stack_case<float, rows>, stack_case<float, columns>, stack_case<double, rows>,
                               stack_case<double, columns>, stack_case<bf16, rows>, stack_case<fp16, columns>>,
               subjects_on_one<stack_case<float, columns>, stack_case<bf16, rows>, stack_case<double, rows>>>;
TYPED_TEST_SUITE(conv_stack_placement, stacks, subject_name);

TYPED_TEST(conv_stack_placement, forward_and_backward) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for_each_placement([&](index_t extent, placement where) {
    // Channels first: the extent is the remainder of a row after two accesses.
    index_t const channels = S::shape.order == layout::batch_channels_length ? 2 : extent,
                  length = S::shape.order == layout::batch_channels_length ? 16 + extent : 11;
    conv_stack_problem<S> problem({.batch = 2,
                                   .channels = channels,
                                   .length = length,
                                   .position = 3,
                                   .state_in = true,
                                   .state_out = true,
                                   .where = where},
                                  1);
    problem.run_forward();
    problem.expect_forward();
    problem.want_gradients();
    problem.run_backward();
    problem.expect_backward();
  });
}

TYPED_TEST(conv_stack_placement, tokens) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for_each_placement([&](index_t extent, placement where) {
    conv_stack_problem<S> problem(
        {
            .batch = 2,
            .channels = extent,
            .length = 2,
            .position = 3,
            .state_in = true,
            .state_out = true,
            .where = where,
        },
        1);
    problem.run_forward();
    problem.expect_forward();
  });
}

template <layout Order>
struct two_states {
  static constexpr char const* name = Order == layout::batch_channels_length ? "first" : "last";
  static constexpr ema_shape shape{.states = 2, .order = Order};
};
using rows_of_two = two_states<layout::batch_channels_length>;
using columns_of_two = two_states<layout::batch_length_channels>;

template <class S>
struct ema_placement : ::testing::Test {};
using emas = all_or_few<
    subjects_on_one<ema_case<float, rows_of_two>, ema_case<float, columns_of_two>, ema_case<double, rows_of_two>,
                    ema_case<double, columns_of_two>, ema_case<bf16, rows_of_two>, ema_case<fp16, columns_of_two>>,
    subjects_on_one<ema_case<float, columns_of_two>, ema_case<bf16, rows_of_two>, ema_case<double, rows_of_two>>>;
TYPED_TEST_SUITE(ema_placement, emas, subject_name);

TYPED_TEST(ema_placement, forward_and_backward) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for_each_placement([&](index_t extent, placement where) {
    ema_problem<S> problem(
        {.batch = 2, .channels = extent, .length = 7 + extent, .state_in = true, .state_out = true, .where = where}, 1);
    problem.run_forward(1);
    problem.expect_forward();
    problem.run_backward(1);
    problem.expect_backward();
  });
}

TYPED_TEST(ema_placement, kernel) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for_each_placement([&](index_t extent, placement where) {
    ema_problem<S>({.batch = 1, .channels = 2, .length = extent, .where = where}, 1).run_kernel(1);
  });
}

// Tiles whose length is not a multiple of an access: every second tile begins in the middle of one.
struct odd_tiles {
  template <class T>
  struct tuning : default_ema_tuning<T, rows_of_two::shape> {
    static constexpr ema_policy forward(target t) {
      auto p = default_ema_tuning<T, rows_of_two::shape>::forward(t);
      if (t.compute_capability != 0) p.threads = 4, p.outputs_per_thread = 3;
      return p;
    }
    static constexpr ema_policy backward(target t) { return forward(t); }
  };
  template <class T>
  struct subject : ema_subject<std::tuple_element_t<0, one_backend>, T, rows_of_two> {
    using op = ema<T, rows_of_two::shape, tuning<T>>;
  };
};
TEST(ema_tiles, that_are_no_multiple_of_an_access) {
  using S = odd_tiles::subject<bf16>;
  TCNCA_TEST_NEEDS(S::backend);
  for (index_t const length : {12, 40}) {
    ema_problem<S> problem(
        {.batch = 2, .channels = 2, .length = length, .state_in = true, .state_out = true, .where = {8, 0}}, 1);
    problem.run_forward(1);
    problem.expect_forward();
    problem.run_backward(1);
    problem.expect_backward();
  }
}

struct all_gates {
  static constexpr char const* name = "all";
  static constexpr gated_fusion_shape shape{};
};
template <class S>
struct gates_placement : ::testing::Test {};
using all_types =
    subjects_on_one<gates_case<float, all_gates>, gates_case<double, all_gates>, gates_case<bf16, all_gates>>;
using gates = all_or_few<all_types, subjects_on_one<gates_case<bf16, all_gates>>>;
TYPED_TEST_SUITE(gates_placement, gates, subject_name);

TYPED_TEST(gates_placement, forward_and_backward) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for_each_placement([&](index_t extent, placement where) {
    gates_problem<S> problem({.batch = 2, .length = 3, .columns = extent, .where = where}, 1);
    problem.run_mix(1);
    S::backend::finish();
    problem.expect_mix();
    problem.clear();
    problem.run_reset(1);
    S::backend::finish();
    problem.expect_reset();
    problem.clear();
    problem.run_update(1);
    S::backend::finish();
    problem.expect_update();
  });
}

}  // namespace
}  // namespace tcnca::testing
