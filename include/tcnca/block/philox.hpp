// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): random numbers as a function of a key and a counter.
#pragma once
#include "../arch/full_product.hpp"
#include "../arch/host.hpp"
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

/// The constants of a round: what a round adds to the key, and the factors of the counter's words.
inline constexpr uint32 philox_step0 = 0x9E3779B9u, philox_step1 = 0xBB67AE85u;
inline constexpr uint32 philox_factor0 = 0xD2511F53u, philox_factor1 = 0xCD9E8D57u;

/// The keys of the rounds for a 64-bit key.
struct philox_keys {
  uint32 word[10][2];
  TCNCA_HOST_DEVICE constexpr explicit philox_keys(uint64 key = 0) : word{} {
    for (uint32 r = 0; r < 10; r++)
      word[r][0] = uint32(key) + r * philox_step0, word[r][1] = uint32(key >> 32) + r * philox_step1;
  }
};

/// Four random words for a key and a counter of four words.
TCNCA_HOST_DEVICE constexpr philox_words philox(philox_keys const& keys, philox_words counter) {
  auto& c = counter.word;
  TCNCA_UNROLL
  for (auto const& key : keys.word) {
    detail::uint32_pair const p0 = detail::full_product(philox_factor0, c[0]),
                              p1 = detail::full_product(philox_factor1, c[2]);
    uint32 const next0 = p1.high ^ c[1] ^ key[0], next2 = p0.high ^ c[3] ^ key[1];
    c[0] = next0, c[1] = p1.low, c[2] = next2, c[3] = p0.low;
  }
  return counter;
}
TCNCA_HOST_DEVICE constexpr philox_words philox(uint64 key, philox_words counter) {
  return philox(philox_keys(key), counter);
}

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
/// philox() for several counters at a time, in vectors V of 64-bit lanes. The upper halves of the counters' and of the
/// results' lanes are of no meaning.
class philox_vectors {
 public:
  explicit philox_vectors(uint64 key) : keys_(key) {}
  template <class V>
  TCNCA_HOST_DEVICE void operator()(V (&c)[4]) const {
    V const factor0 = V{} + philox_factor0, factor1 = V{} + philox_factor1;
    for (auto const& key : keys_.word) {
      V const p0 = detail::product_of_low_halves(c[0], factor0), p1 = detail::product_of_low_halves(c[2], factor1);
      // no_contract(): else GCC adds the key to c[1], in an instruction of its own.
      V const key0 = detail::no_contract(V{} + key[0]), key1 = detail::no_contract(V{} + key[1]);
      c[0] = (p1 >> 32) ^ c[1] ^ key0, c[1] = p1;
      c[2] = (p0 >> 32) ^ c[3] ^ key1, c[3] = p0;
    }
  }

 private:
  philox_keys keys_;
};
#endif

}  // namespace tcnca
