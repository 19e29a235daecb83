// A table of instantiations, looked up by shape at run time. Only stack.cpp instantiates the operation. Files that
// include this header compile as fast as the header itself (0.3 s), instead of 2 s for each instantiation of
// forward and somewhat more for each of backward (g++ 12, -O2).
//
// `extern template status stack::forward<cpu>(...)` is not enough: member templates are inline functions, which a
// compiler instantiates all the same when it optimizes (g++ 12: 1.9 s, clang++ 14: 3.5 s).
#pragma once
#include <tcnca/conv_stack.hpp>

namespace example {

// The functions of one instantiation. Their types depend on the element type only.
struct stack {
  tcnca::conv_stack_shape shape;
  std::size_t (*forward_workspace)(tcnca::cpu, tcnca::conv_stack_forward_args<float> const&) noexcept;
  tcnca::status (*forward)(tcnca::cpu, tcnca::conv_stack_forward_args<float> const&, tcnca::workspace) noexcept;
};

// A null pointer if the shape is not in the table.
stack const* find_stack(tcnca::conv_stack_shape const&);

}  // namespace example
