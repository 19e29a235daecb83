// The library on the CPU in bf16.
#include "../../support/device_cpu.hpp"
#include "bind.hpp"

namespace tcnca::bench {

template <>
contender make_cpu_attention(pass direction, attention_problem const& p, attention_tensors<bf16> const& t) {
  return bind_attention(cpu_device{{p.threads}}, direction, p, t);
}

}  // namespace tcnca::bench
