// Sums over the positions of a sequence, for the gradients of an EMA's coefficients.
#pragma once
#include "../block/pack.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// `kinds` sums for each channel of an item. Every thread adds to partial sums of its own, in A. At the end they are
/// added in a fixed order. In a long sequence the partial sums are regularly added to fp64 totals, so that each has at
/// most max_terms terms and the error does not grow with the length.
template <class Group, class Tiling>
struct ema_gradient_sums {
  using A = typename Tiling::A;
  static constexpr int W = Tiling::width, channels = Tiling::channels, segments = Tiling::segments;
  static constexpr int kind_elements = Group::size() * W;  // partial sums of one kind: [thread][W] = [segment][channel]
  static constexpr int max_terms = 1024;
  static constexpr int tiles_per_sum = max_of(1, max_terms / (Tiling::outputs_per_thread * Tiling::rounds));

  TCNCA_HOST_DEVICE static constexpr bool needs_totals(index_t length) {
    return length > index_t(tiles_per_sum) * Tiling::tile;
  }
  /// Elements of A for the totals [kind][channel], in global scratch.
  TCNCA_HOST_DEVICE static constexpr size_t total_elements(int kinds, index_t length) {
    return needs_totals(length) ? size_t(kinds * channels) * (sizeof(double) / sizeof(A)) : 0;
  }

  Group group;
  A* partial;      // kinds * kind_elements, in shared memory
  double* totals;  // null for short sequences
  int kinds;
  int tiles = 0;  // since the last addition to the totals

  /// This thread's partial sums of one kind: W elements, one for each channel that it processes.
  TCNCA_HOST_DEVICE A* own(int kind) const { return partial + kind * kind_elements + group.rank() * W; }

  /// Sets all sums to zero. Called by all threads; does not sync.
  TCNCA_HOST_DEVICE void clear() {
    for (int i = 0; i < kinds; i++) store<W>(own(i), broadcast<W>(A(0)));
    for (int j = group.rank(); totals && j < kinds * channels; j += group.size()) totals[j] = 0;
    tiles = 0;
  }
  /// Called by all threads after each tile, with a barrier before the call and one before the next addition to own().
  TCNCA_HOST_DEVICE void end_tile() {
    if (totals && ++tiles % tiles_per_sum == 0) add_to_totals();
  }
  /// Adds up the partial sums. Called by all threads, with a barrier before and after; then sum() is valid in all
  /// threads.
  TCNCA_HOST_DEVICE void finish() const {
    if (totals) {
      add_to_totals();
    } else {
      for (int j = group.rank(); j < kinds * channels; j += group.size()) {
        int const c = j % channels, i = j / channels;
        partial[i * kind_elements + c] = sum_of_segments(i, c, j);  // no other thread reads this element
      }
    }
  }
  TCNCA_HOST_DEVICE double sum(int kind, int channel) const {
    return totals ? totals[kind * channels + channel] : double(partial[kind * kind_elements + channel]);
  }

 private:
  /// Adds the partial sums to the totals and sets them to zero.
  TCNCA_HOST_DEVICE void add_to_totals() const {
    if constexpr (Group::size() == 1) {
      A* const p = own(0);
      for (int j = 0; j < kinds * W; j++) totals[j] += double(p[j]), p[j] = A(0);
    } else {
      for (int j = group.rank(); j < kinds * channels; j += group.size()) {
        int const c = j % channels, i = j / channels;
        totals[j] += double(sum_of_segments(i, c, j));
        for (int s = 0; s < segments; s++) partial[i * kind_elements + c + s * channels] = A(0);
      }
    }
  }
  /// The sum of one channel over the threads, from segment `start` on, cyclically: neighbouring threads begin at
  /// different segments to avoid bank conflicts.
  TCNCA_HOST_DEVICE A sum_of_segments(int kind, int channel, int start) const {
    A const* const p = partial + kind * kind_elements + channel;
    A sum = 0;
    for (int i = 0, s = start % segments; i < segments; i++, s = s + 1 < segments ? s + 1 : 0) sum += p[s * channels];
    return sum;
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
