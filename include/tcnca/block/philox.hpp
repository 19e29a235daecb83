// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): random numbers as a function of a key and a counter.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Four random words.
struct philox_words {
  uint32 word[4];
  /// Word n % 4. By comparisons: a run-time index would move the words from registers to memory.
  TCNCA_HOST_DEVICE constexpr uint32 of(int n) const {
    return n % 4 == 0 ? word[0] : n % 4 == 1 ? word[1] : n % 4 == 2 ? word[2] : word[3];
  }
};

/// Four random words for a 64-bit key and a counter of four words.
TCNCA_HOST_DEVICE constexpr philox_words philox(uint64 key, philox_words counter) {
  uint32 k0 = uint32(key), k1 = uint32(key >> 32);
  auto& c = counter.word;
  for (int round = 0; round < 10; round++) {
    uint64 const p0 = uint64(0xD2511F53u) * c[0], p1 = uint64(0xCD9E8D57u) * c[2];
    uint32 const next0 = uint32(p1 >> 32) ^ c[1] ^ k0, next2 = uint32(p0 >> 32) ^ c[3] ^ k1;
    c[0] = next0, c[1] = uint32(p1), c[2] = next2, c[3] = uint32(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace tcnca
