// The only file that instantiates the stack. Backward, and other executors, are wrapped in the same way; CUDA in a .cu
// file.
#include "stack.hpp"

namespace example {

std::size_t forward_workspace(tcnca::cpu e, stack::forward_args const& args) noexcept {
  return stack::forward_workspace(e, args);
}
tcnca::status forward(tcnca::cpu e, stack::forward_args const& args, tcnca::workspace scratch) noexcept {
  return stack::forward(e, args, scratch);
}

}  // namespace example
