// Dropout by a counter-based generator: the mask is a function of a seed and of an element's indices, so it is computed
// where it is needed and never stored.
#pragma once
#include "pack.hpp"
#include "philox.hpp"
#include "transpose.hpp"

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
    return words(philox_keys(seed), sequence, position, column);
  }
  /// The same with the keys of `seed`, for callers that keep them.
  TCNCA_HOST_DEVICE constexpr philox_words words(philox_keys const& keys, index_t sequence, index_t position,
                                                 int column) const {
    uint64 const at = uint64(position) + offset;
    return philox(keys, {{uint32(at), uint32(at >> 32), uint32(column / 4), uint32(sequence)}});
  }
  /// Whether the element with this random word is kept.
  TCNCA_HOST_DEVICE constexpr bool keeps(uint32 word) const { return word >= drop_threshold; }
  /// The factor of the element with this random word: 0 or keep_scale.
  TCNCA_HOST_DEVICE constexpr A factor(uint32 word) const { return keeps(word) ? keep_scale : A(0); }

  /// The factors of the columns [column, column + W); column is a multiple of W, a power of two. W = 1: one element.
  template <int W>
  TCNCA_HOST_DEVICE pack<A, W> factors(index_t sequence, index_t position, int column) const {
    return factors<W>(philox_keys(seed), sequence, position, column);
  }
  template <int W>
  TCNCA_HOST_DEVICE pack<A, W> factors(philox_keys const& keys, index_t sequence, index_t position, int column) const {
    pack<A, W> factors = broadcast<W>(A(1));
    philox_words random{};
    TCNCA_UNROLL
    for (int w = 0; w < W; w++) {
      if (w % 4 == 0) random = words(keys, sequence, position, (column + w) / 4 * 4);
      factors.set_lane(w, factor(random.of(W % 4 == 0 ? w : column + w)));
    }
    return factors;
  }

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
  /// The factors of the columns [column, column + 2 W), fp32, W >= 4; column is a multiple of 4. `generator` has key
  /// `seed`. For packs of a register's size ten times as fast as factors().
  template <int W>
  void factors_of_two(philox_vectors const& generator, index_t sequence, index_t position, int column,
                      detail::array<pack<A, W>, 2>& factors) const {
    constexpr int draws = W / 2;
    using counters = typename detail::vector_of<uint64, draws>::type;
    using words = typename detail::vector_of<uint32, W>::type;
    uint64 const at = uint64(position) + offset;
    counters c[4] = {counters{} + at, counters{} + (at >> 32),
                     lane_numbers<counters>(typename detail::first_lanes<draws>::type{}) + uint64(column / 4),
                     counters{} + uint64(sequence)};
    generator(c);
    // Pairs of words of each draw, then the pairs in the order of the columns.
    counters low = (c[0] & 0xffffffffu) | c[1] << 32, high = (c[2] & 0xffffffffu) | c[3] << 32;
    detail::exchange_rows<draws, &detail::exchange<draws, draws>::lanes>(low, high,
                                                                         typename detail::first_lanes<draws>::type{});
    auto const zero = broadcast<W>(A(0)).v, scale = broadcast<W>(keep_scale).v;
    factors[0].v = detail::bits_as<words>(low) >= drop_threshold ? scale : zero;
    factors[1].v = detail::bits_as<words>(high) >= drop_threshold ? scale : zero;
  }

 private:
  template <class V, int... Lanes>
  static V lane_numbers(detail::lane_list<Lanes...>) {
    return V{Lanes...};
  }
#endif
};

}  // namespace tcnca
