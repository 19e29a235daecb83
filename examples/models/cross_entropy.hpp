// Cross entropy of predictions.
#pragma once
#include <tcnca/block/activation.hpp>

#include <cmath>

#include "sums.hpp"

namespace tcnca::models {

namespace detail {

/// 1 if the target is valid (not negative).
struct target_term {
  using value_type = double;
  int const* targets;
  TCNCA_HOST_DEVICE double operator()(index_t i) const { return targets[i] >= 0 ? 1 : 0; }
};

template <class T>
struct cross_entropy_rows {
  using value_type = T;
  static constexpr int shared_per_thread = 1;
  index_t classes;
  T const* logits;
  int const* targets;
  double const* counted;
  T *costs, *grad;
  int* predictions;

  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T* memory) const {
    T const* const in = logits + row * classes;
    int const target = out_of_range || targets == nullptr ? -1 : targets[row];
    T const most = greatest(threads, in, out_of_range, memory);
    if (predictions != nullptr) {
      int const first = first_of(threads, in, most, out_of_range, memory);
      if (!out_of_range && threads.lane() == 0) predictions[row] = first;
    }
    if (targets == nullptr) return;  // uniform: no barrier is skipped by some threads only
    T const at = target >= 0 ? in[target] : T(0);
    T const sum = threads.template sum<T>(out_of_range, classes, memory, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      return exp(load<W>(in + k) - broadcast<W>(most));
    });
    if (out_of_range) return;
    if (threads.lane() == 0) costs[row] = target >= 0 ? most - at + std::log(sum) : T(0);
    if (grad == nullptr) return;
    T const weight = target >= 0 ? T(1 / *counted) : T(0), scale = weight / sum;
    T* const out = grad + row * classes;
    threads.template each<T>(classes, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      auto const probability = exp(load<W>(in + k) - broadcast<W>(most)) * broadcast<W>(scale);
      store<W>(out + k, target >= 0 ? probability : broadcast<W>(T(0)));
      if (k <= target && target < k + W) out[target] -= weight;
    });
  }

 private:
  /// The maximum of a row. A NaN may be lost here; the sum of exponentials propagates it.
  template <class Threads>
  TCNCA_HOST_DEVICE T greatest(Threads const& threads, T const* in, bool out_of_range, T* memory) const {
    constexpr int W = Threads::template width<T>;
    auto packs = broadcast<W>(out_of_range ? T(0) : in[0]);
    auto rest = broadcast<1>(packs.lane(0));
    if (!out_of_range)
      threads.template each<T>(classes, [&](auto w, index_t k) TCNCA_INLINE {
        if constexpr (decltype(w)::value == W) {
          packs = max_or_second(packs, load<W>(in + k));
        } else {
          rest = max_or_second(rest, load<1>(in + k));
        }
      });
    T most = rest.lane(0);
    for (int i = 0; i < W; i++) most = max_of(most, packs.lane(i));
    return threads.reduce(most, memory, [](T a, T b) TCNCA_INLINE { return max_of(a, b); });
  }

  /// The first column that equals the maximum. Column indices are exact in fp32 up to 2^24 classes.
  template <class Threads>
  TCNCA_HOST_DEVICE int first_of(Threads const& threads, T const* in, T most, bool out_of_range, T* memory) const {
    T first = T(classes - 1);
    if (!out_of_range)
      threads.template each<T>(classes, [&](auto w, index_t k) TCNCA_INLINE {
        auto const v = load<decltype(w)::value>(in + k);
        for (int i = 0; i < decltype(w)::value; i++)
          if (v.lane(i) == most && T(k + i) < first) first = T(k + i);
      });
    return int(threads.reduce(first, memory, [](T a, T b) TCNCA_INLINE { return a < b ? a : b; }));
  }
};

}  // namespace detail

/// Mean of -log softmax(logits)[target] over the rows with a valid target (not negative). Logits are [rows, classes].
template <class T, class E>
class cross_entropy {
 public:
  cross_entropy(context<T, E>& c, index_t most_rows, index_t classes)
      : classes_(classes), costs_(c.kept.take(most_rows)), counted_(c.totals.take(1)), total_(c.totals.take(1)) {}

  /// `grad` (optional) receives the gradient with respect to the logits and may alias them. `predictions` (optional,
  /// one per row) receives the most likely class, the first one if several are equal. If targets is null, the loss is 0
  /// and only predictions are computed. All pointers are in the executor's memory. Waits for the result.
  double operator()(context<T, E> const& c, index_t rows, T const* logits, int const* targets, T* grad,
                    int* predictions = nullptr) const {
    double *const counted = c.totals[counted_], *const total = c.totals[total_];
    T* const costs = c.kept[costs_];
    if (targets != nullptr) detail::sum_terms(c.executor(), rows, detail::target_term{targets}, counted);
    each_row(c.executor(), rows, classes_,
             detail::cross_entropy_rows<T>{classes_, logits, targets, counted, costs, grad, predictions});
    if (targets == nullptr) return 0;
    detail::sum_terms(c.executor(), rows, detail::value_term<T>{costs}, total);
    double count = 0, sum = 0;
    c.download(counted, &count, 1), c.download(total, &sum, 1);
    return count > 0 ? sum / count : 0;
  }

 private:
  index_t classes_;
  region costs_, counted_, total_;
};

}  // namespace tcnca::models
