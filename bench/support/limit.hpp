// The time that the peak rates of a processor allow for a call.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

namespace tcnca::bench {

/// A lower bound of the time of a call: its arithmetic at the FMA peak or its memory traffic at the copy bandwidth,
/// whichever takes longer. Rates are per second; NaN where they could not be measured.
struct time_limit {
  double operations = 0, bytes = 0;
  double fma_rate = std::numeric_limits<double>::quiet_NaN(), copy_rate = std::numeric_limits<double>::quiet_NaN();

  double fma_ms() const { return operations / fma_rate * 1e3; }
  double copy_ms() const { return bytes / copy_rate * 1e3; }
  bool known() const { return !std::isnan(copy_ms() + fma_ms()); }
  /// What binds.
  char const* name() const { return !known() ? "unknown" : copy_ms() > fma_ms() ? "copy" : "fma"; }
  /// NaN where a rate is unknown.
  double percent(double ms) const {
    return known() ? 100 * std::max(copy_ms(), fma_ms()) / ms : std::numeric_limits<double>::quiet_NaN();
  }
};

}  // namespace tcnca::bench
