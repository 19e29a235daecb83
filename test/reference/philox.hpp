// Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror, Shaw 2011): four words from a counter and a key.
#pragma once
#include <array>
#include <cstdint>

namespace tcnca::reference {

inline std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; round++) {
    std::uint64_t const a = std::uint64_t(0xd2511f53u) * c[0], b = std::uint64_t(0xcd9e8d57u) * c[2];
    c = {std::uint32_t(b >> 32) ^ c[1] ^ k[0], std::uint32_t(b), std::uint32_t(a >> 32) ^ c[3] ^ k[1],
         std::uint32_t(a)};
    k[0] += 0x9e3779b9u, k[1] += 0xbb67ae85u;
  }
  return c;
}

}  // namespace tcnca::reference
