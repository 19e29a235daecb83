// expect: tcnca::conv_stack: on a GPU a policy's width must be 1 where neighbouring positions are neighbours in memory
#include <tcnca/conv_stack.hpp>

#include "../support/fiber.hpp"

constexpr tcnca::conv_stack_shape shape{.taps = 2};
struct vector_tuning : tcnca::default_conv_stack_tuning<float, shape> {
  static constexpr tcnca::conv_stack_policy forward(tcnca::target t) {
    auto p = tcnca::default_conv_stack_tuning<float, shape>::forward(t);
    p.width = 4;
    return p;
  }
};
tcnca::size_t bytes() {
  return tcnca::conv_stack<float, shape, vector_tuning>::forward_workspace(tcnca::testing::fibers<>{}, {});
}
