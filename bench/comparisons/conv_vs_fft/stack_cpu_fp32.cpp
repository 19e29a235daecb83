// The stacks of the headline benchmark on the CPU, fp32.
#include "bind_stack.hpp"
#include "device_cpu.hpp"

namespace tcnca::bench {

template <>
contender make_cpu_stack(size_t which, pass direction, sequences<float> const& s, float const* weight) {
  return bind_headline_stack(cpu_device{{s.p.threads}}, which, direction, s, weight);
}

}  // namespace tcnca::bench
