// Stacks of fp32 that run as passes on a GPU.
#include "passes.hpp"

namespace tcnca::testing {
namespace {

using types = subjects_on<fiber_or_cuda, stack_case<float, k4>, stack_case<float, k4_skip>, stack_case<float, k4_last>,
                          stack_case<float, k17>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_passes, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
