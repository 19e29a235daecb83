// The floating-point mode of a CPU thread. Workers take over the caller's mode, so that results do not depend on which
// thread computes them.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The rounding and denormal modes of a thread. Always 0 on processors other than x86 and AArch64.
struct floating_point_mode {
  uint64 bits = 0;

#if defined(__SSE2__)
  static constexpr uint64 mask = 0xe040;  // MXCSR: flush to zero, rounding, denormals are zero
  static uint64 control() {
    uint32 all;
    asm volatile("stmxcsr %0" : "=m"(all) : : "memory");
    return all;
  }
  static void set_control(uint64 all) {
    uint32 const low = uint32(all);
    asm volatile("ldmxcsr %0" : : "m"(low) : "memory");
  }
#elif defined(__aarch64__)
  static constexpr uint64 mask = 0x07c80003;  // FPCR: AHP, DN, FZ, RMode, FZ16; AH and FIZ
  static uint64 control() {
    uint64 all;
    asm volatile("mrs %0, fpcr" : "=r"(all) : : "memory");
    return all;
  }
  static void set_control(uint64 all) { asm volatile("msr fpcr, %0" : : "r"(all) : "memory"); }
#else
  static constexpr uint64 mask = 0;
  static uint64 control() { return 0; }
  static void set_control(uint64) {}
#endif
  static floating_point_mode current() { return {control() & mask}; }
  /// Sets the mode of the calling thread. Exception masks and flags stay.
  void set() const {
    if (uint64 const all = control(); (all & mask) != bits) set_control((all & ~mask) | bits);
  }
};

/// Sets the calling thread's mode for the lifetime of the object.
class scoped_floating_point_mode {
 public:
  explicit scoped_floating_point_mode(floating_point_mode m) : before_(floating_point_mode::current()) { m.set(); }
  ~scoped_floating_point_mode() { before_.set(); }
  scoped_floating_point_mode(scoped_floating_point_mode const&) = delete;
  scoped_floating_point_mode& operator=(scoped_floating_point_mode const&) = delete;

 private:
  floating_point_mode before_;
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
