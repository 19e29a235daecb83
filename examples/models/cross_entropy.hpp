// What a prediction of the next token costs.
#pragma once
#include <cmath>

#include "memory.hpp"

namespace tcnca::models {

/// The mean over the positions whose target is not negative of -log softmax(logits)[target]. With `grad`, its gradient by the logits, which may stand
/// in the same memory. `costs` has room for one number a position.
template <class T, class E>
double cross_entropy(context<T, E> const& c, index vocabulary, T const* logits, int const* targets, T* costs, T* grad) {
  index const rows = c.rows();
  index counted = 0;
  for (index r = 0; r < rows; r++) counted += targets[r] >= 0;
  T const share = counted > 0 ? 1 / T(counted) : T(0);
#pragma omp parallel for num_threads(c.threads) schedule(static)
  for (index r = 0; r < rows; r++) {
    T const* const in = logits + r * vocabulary;
    T most = in[0], sum = 0;
    for (index k = 1; k < vocabulary; k++) most = std::max(most, in[k]);
    for (index k = 0; k < vocabulary; k++) sum += std::exp(in[k] - most);
    int const target = targets[r];
    costs[r] = target >= 0 ? most + std::log(sum) - in[target] : T(0);
    if (grad == nullptr) continue;
    T const weight = target >= 0 ? share : T(0);
    for (index k = 0; k < vocabulary; k++) grad[r * vocabulary + k] = weight * (std::exp(in[k] - most) / sum - (k == target ? T(1) : T(0)));
  }
  double total = 0;  // in the order of positions
  for (index r = 0; r < rows; r++) total += double(costs[r]);
  return counted > 0 ? total / double(counted) : 0;
}

}  // namespace tcnca::models
