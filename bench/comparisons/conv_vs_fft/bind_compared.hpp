// Binds a stack of compared_stacks to memory of a Device (support/device.hpp).
#pragma once
#include <utility>

#include "../../support/bind_stack.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

template <class T, class Device>
contender bind_compared_stack(Device const& device, size_t which, pass direction, sequences<T> const& s,
                              T const* weight) {
  contender chosen;
  [&]<size_t... I>(std::index_sequence<I...>) {
    ((I == which ? void(chosen = bind_stack<T, compared_stacks[I]>(device, direction, s, weight)) : void()), ...);
  }
  (std::make_index_sequence<compared_stacks.size()>());
  return chosen;
}

}  // namespace tcnca::bench
