// Packs of 1 to 16 lanes whatever the registers of the processor, and the generic kernels: the bits of the oracle.
#include "vector_backward_suite.hpp"
#include "vector_cases.hpp"
#include "vector_forward_suite.hpp"

namespace tcnca::testing {
namespace {

template <class T, conv_stack_shape Shape>
vector_checks forward_of_widths(std::string const& name) {
  return joined({forward_checks(name + "_1", forward_of<T, Shape, width_tuning<T, Shape, 1>>()),
                 forward_checks(name + "_4", forward_of<T, Shape, width_tuning<T, Shape, 4>>()),
                 forward_checks(name + "_8", forward_of<T, Shape, width_tuning<T, Shape, 8>>()),
                 forward_checks(name + "_16", forward_of<T, Shape, width_tuning<T, Shape, 16>>()),
                 forward_checks(name + "_generic", forward_of<T, Shape, generic_tuning<T, Shape>>())});
}
vector_checks forward_cases() {
  return joined({forward_of_widths<float, shapes::list_any>("first"),
                 forward_of_widths<float, shapes::last(shapes::list_near)>("last")});
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_forward, ::testing::ValuesIn(forward_cases()), check_name);

// The first layout at the widths that the default tuning of some processor has, the other at the remaining ones.
template <conv_stack_shape Shape, int Width>
compiled_stack<float> both_of_width() {
  return both_of<float, Shape, width_tuning<float, Shape, Width>>();
}
vector_checks backward_cases() {
  constexpr conv_stack_shape first = shapes::list_any, last = shapes::last(shapes::list_near);
  return joined(
      {backward_checks("first_4", both_of_width<first, 4>()), backward_checks("first_8", both_of_width<first, 8>()),
       backward_checks("first_generic", both_of<float, first, generic_tuning<float, first>>()),
       backward_checks("last_1", both_of_width<last, 1>()), backward_checks("last_16", both_of_width<last, 16>())});
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_backward, ::testing::ValuesIn(backward_cases()), check_name);

}  // namespace
}  // namespace tcnca::testing
