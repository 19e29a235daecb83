// Stacks of 16-bit elements that run as passes on a GPU. With 8 taps they use the same kernels as with 17.
#include "passes.hpp"

namespace tcnca::testing {
namespace {

using types = all_or_few<subjects_on<fiber_or_cuda, stack_case<bf16, k4>, stack_case<fp16, k4_silu_level>,
                                     stack_case<bf16, k4_last>, stack_case<bf16, k17_mixed>>,
                         subjects_on<fiber_or_cuda, stack_case<bf16, k4_last>, stack_case<bf16, k8_mixed>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_passes, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
