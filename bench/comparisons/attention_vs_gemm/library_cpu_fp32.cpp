// The library on the CPU in fp32.
#include "../../support/device_cpu.hpp"
#include "bind.hpp"

namespace tcnca::bench {

template <>
contender make_cpu_attention(pass direction, attention_problem const& p, attention_tensors<float> const& t) {
  return bind_attention(cpu_device{{p.threads}}, direction, p, t);
}

}  // namespace tcnca::bench
