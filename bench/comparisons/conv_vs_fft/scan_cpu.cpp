// The EMA recurrence as a scan on the CPU.
#include "bind_scan.hpp"
#include "device_cpu.hpp"

namespace tcnca::bench {

template <>
contender make_cpu_scan(pass direction, sequences<float> const& s, ema_parameters const& ema) {
  return bind_scan(cpu_device{{s.p.threads}}, direction, s, ema);
}
template <>
contender make_cpu_scan(pass direction, sequences<bf16> const& s, ema_parameters const& ema) {
  return bind_scan(cpu_device{{s.p.threads}}, direction, s, ema);
}

}  // namespace tcnca::bench
