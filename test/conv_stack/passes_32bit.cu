// Stacks of fp32 that run as passes on a GPU. With 8 taps they use the same kernels as with 17.
#include "passes.hpp"

namespace tcnca::testing {
namespace {

using all_types = subjects_on<fiber_or_cuda, stack_case<float, k4>, stack_case<float, k4_skip>,
                              stack_case<float, k4_last>, stack_case<float, k17>>;
using few_types =
    subjects_on<fiber_or_cuda, stack_case<float, k4_skip>, stack_case<float, k4_last>, stack_case<float, k8>>;
using types = all_or_few<all_types, few_types>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_passes, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
