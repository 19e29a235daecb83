// Stacks with long receptive fields that run as passes on a GPU.
#include "passes.hpp"

namespace tcnca::testing {
namespace {

using types =
    all_or_few<subjects_on<fiber_or_cuda, stack_case<bf16, k4_deep>, stack_case<bf16, k8>, stack_case<bf16, k51>>,
               subjects_on<fiber_or_cuda, stack_case<bf16, k4_deep>, stack_case<bf16, k51>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_passes, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
