// CRC-64 (ECMA-182 polynomial, bit-reversed). Detects any change within 64 consecutive bits, and others with
// probability 1 - 2^-64.
#pragma once
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace tcnca::training {

class checksum {
 public:
  void add(void const* data, std::size_t count) {
    auto at = static_cast<unsigned char const*>(data);
    for (; count >= 8;
         count -= 8,
         at += 8) {  // eight tables per step: limited by memory bandwidth, not by the latency of a lookup per byte
      std::uint64_t word;
      std::memcpy(&word, at, 8);
      if constexpr (std::endian::native == std::endian::big) { word = __builtin_bswap64(word); }
      word ^= state_;
      state_ = 0;
      for (std::size_t i = 0; i < 8; i++) state_ ^= tables[7 - i][(word >> (8 * i)) & 255];
    }
    for (; count > 0; count--, at++) state_ = tables[0][(state_ ^ *at) & 255] ^ (state_ >> 8);
  }
  std::uint64_t value() const { return ~state_; }

 private:
  /// tables[k][b]: the checksum of byte b followed by k zero bytes.
  static constexpr auto tables = [] {
    std::array<std::array<std::uint64_t, 256>, 8> t{};
    for (std::uint64_t b = 0; b < 256; b++) {
      std::uint64_t v = b;
      for (int bit = 0; bit < 8; bit++) v = (v >> 1) ^ (v & 1 ? 0xC96C5795D7870F42u : 0);
      t[0][b] = v;
    }
    for (std::size_t k = 1; k < 8; k++)
      for (std::size_t b = 0; b < 256; b++) t[k][b] = t[0][t[k - 1][b] & 255] ^ (t[k - 1][b] >> 8);
    return t;
  }();
  std::uint64_t state_ = ~std::uint64_t(0);
};

}  // namespace tcnca::training
