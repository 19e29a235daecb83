// The version of the library. CMake reads it from this file.
#pragma once

namespace tcnca {

inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

}  // namespace tcnca
