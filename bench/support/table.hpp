// Numbers in the tables that the programs print.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

namespace tcnca::bench::detail {

/// Three significant digits, right-aligned in `width` (0: no padding); "-" where nothing was measured.
inline std::string cell(double v, int width, char const* unit = "") {
  char text[64];
  if (std::isnan(v)) std::snprintf(text, sizeof text, "%*s", width, "-");
  else
    std::snprintf(text, sizeof text, "%*.*f%s", width - static_cast<int>(std::char_traits<char>::length(unit)),
                  v < 9.995   ? 2
                  : v < 99.95 ? 1
                              : 0,
                  v, unit);
  return text;
}

inline std::string milliseconds(double v, int width) {
  char text[64];
  if (std::isnan(v)) return cell(v, width);
  std::snprintf(text, sizeof text, "%*.*f", width, v < 0.9995 ? 3 : v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v);
  return text;
}

}  // namespace tcnca::bench::detail
