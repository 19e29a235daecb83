// Dropout by a counter-based generator: the mask is a function of a seed and of an element's indices, so it is computed
// where it is needed and never stored.
#pragma once
#include "pack.hpp"
#include "philox.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Dropout of a tensor [sequences, positions, columns]. One Philox4x32-10 draw, with key `seed` and counter (position +
/// offset, 64 bits; column / 4; sequence), gives four random words, one for each of four neighbouring columns. An
/// element whose word is below drop_threshold becomes 0; the others are multiplied by keep_scale. Every function is
/// called by one thread and needs no barrier.
template <class A>
struct dropout_params {
  uint32 drop_threshold = 0;  ///< 2^32 times the probability, rounded down
  A keep_scale = A(1);        ///< 1 / (1 - probability)
  uint64 seed = 0;
  uint64 offset = 0;  ///< added to every position

  /// For a probability in [0, 1). Any other value disables dropout: the argument checks refuse it.
  TCNCA_HOST_DEVICE static constexpr dropout_params of(double probability, uint64 seed, uint64 offset) {
    if (!(probability > 0 && probability < 1)) return {.seed = seed, .offset = offset};
    return {.drop_threshold = uint32(probability * 4294967296.0),
            .keep_scale = A(1 / (1 - probability)),
            .seed = seed,
            .offset = offset};
  }

  /// The random words of the columns [column, column + 4); column is a multiple of 4.
  TCNCA_HOST_DEVICE constexpr philox_words words(index_t sequence, index_t position, int column) const {
    uint64 const at = uint64(position) + offset;
    return philox(seed, {{uint32(at), uint32(at >> 32), uint32(column / 4), uint32(sequence)}});
  }
  /// Whether the element with this random word is kept.
  TCNCA_HOST_DEVICE constexpr bool keeps(uint32 word) const { return word >= drop_threshold; }
  /// The factor of the element with this random word: 0 or keep_scale.
  TCNCA_HOST_DEVICE constexpr A factor(uint32 word) const { return keeps(word) ? keep_scale : A(0); }

  /// The factors of the columns [column, column + W); column is a multiple of W, a power of two. W = 1: one element.
  template <int W>
  TCNCA_HOST_DEVICE pack<A, W> factors(index_t sequence, index_t position, int column) const {
    pack<A, W> factors = broadcast<W>(A(1));
    philox_words random{};
    TCNCA_UNROLL
    for (int w = 0; w < W; w++) {
      if (w % 4 == 0) random = words(sequence, position, (column + w) / 4 * 4);
      factors.set_lane(w, factor(random.of(W % 4 == 0 ? w : column + w)));
    }
    return factors;
  }
};

}  // namespace tcnca
