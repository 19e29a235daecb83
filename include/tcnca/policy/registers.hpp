// What the policies know of the CPU.
#pragma once

namespace tcnca::inline TCNCA_TARGET::detail {
/// Bytes of the widest vector register that the translation unit may use.
inline constexpr int register_bytes =
#if defined(__AVX512F__)
    64;
#elif defined(__AVX__)
    32;
#else
    16;
#endif
}  // namespace tcnca::detail
