// Philox4x32-10: random numbers that are a function of a key and a counter (Salmon, Moraes, Dror, Shaw, SC 2011), so that a dropout mask is
// computed again where it is needed and stored nowhere.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Four random words.
struct philox_words {
  uint32 word[4];
  /// Word n % 4, chosen: an index would put the words in memory.
  TCNCA_HOST_DEVICE constexpr uint32 of(int n) const {
    return n % 4 == 0 ? word[0] : n % 4 == 1 ? word[1] : n % 4 == 2 ? word[2] : word[3];
  }
};

/// The words that belong to a counter of four words under a 64-bit key.
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
