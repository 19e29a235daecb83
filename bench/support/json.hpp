// Values as JSON. NaN and infinity become null.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

#include <tcnca/core/config.hpp>

namespace tcnca::bench::detail {

inline std::string json(double v) {
  if (!std::isfinite(v)) return "null";
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", v);
  return text;
}
inline std::string json(std::string const& v) {
  std::string text = "\"";
  for (char const c : v) {
    if (c == '"' || c == '\\') text += '\\';
    text += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return text + '"';
}
inline std::string json(index_t v) { return std::to_string(v); }

}  // namespace tcnca::bench::detail
