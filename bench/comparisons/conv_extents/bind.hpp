// The definition of bind_cpu.
#pragma once
#include "../../support/bind_stack.hpp"
#include "../../support/device_cpu.hpp"
#include "stacks.hpp"

namespace tcnca::bench {

template <layout Order>
contender bind_cpu(use how, int which, pass direction, sequences<float> const& s, float const* weight) {
  cpu_device const device{{s.p.threads}};
  contender chosen;
  auto const bind = [&]<int I> {
    constexpr conv_stack_shape shape = stacks<Order>[I];
    if (I != which) return;
    if (how == use::whole) chosen = bind_stack<float, shape>(device, direction, s, weight);
    else if (how == use::live) chosen = bind_stack<float, live_levels(shape)>(device, direction, s, weight);
    else chosen = bind_decode<float, shape>(device, s, weight);
  };
  [&]<int... I>(std::integer_sequence<int, I...>) { (bind.template operator()<I>(), ...); }
  (std::make_integer_sequence<int, stack_count>());
  return chosen;
}

}  // namespace tcnca::bench
