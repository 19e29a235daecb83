// The library's EMA on the CPU; compiled once, because its instantiation is expensive.
#include "../../support/device_cpu.hpp"
#include "bind_scan.hpp"

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
