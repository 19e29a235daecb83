// The only file that instantiates stacks; a larger table has one file per stack. Backward, and other executors, are
// further members of the table; those of CUDA are instantiated in a .cu file.
#include "stack.hpp"

namespace example {
namespace {

using shape = tcnca::conv_stack_shape;

template <shape Shape>
constexpr stack instantiate() {
  using operation = tcnca::conv_stack<float, Shape>;
  return {Shape, operation::template forward_workspace<tcnca::cpu>, operation::template forward<tcnca::cpu>};
}

constexpr stack table[] = {
    instantiate<shape{.taps = 4, .depth = 6, .dilation_base = 4, .act = tcnca::activation::relu}>(),
    instantiate<shape{.taps = 3, .dilations = {1, 2, 5}, .bias = true}>(),
};

}  // namespace

stack const* find_stack(shape const& wanted) {
  for (stack const& s : table)
    if (s.shape == wanted) return &s;
  return nullptr;
}

}  // namespace example
