// The compared stacks on the CPU in bf16.
#include "../../support/device_cpu.hpp"
#include "bind_compared.hpp"

namespace tcnca::bench {

template <>
contender make_cpu_stack(size_t which, pass direction, sequences<bf16> const& s, bf16 const* weight) {
  return bind_compared_stack(cpu_device{{s.p.threads}}, which, direction, s, weight);
}

}  // namespace tcnca::bench
