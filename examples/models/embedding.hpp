// Tokens to vectors.
#pragma once
#include "elementwise.hpp"

namespace tcnca::models {

/// A table [vocabulary, channels] that begins as N(0, 1 / channels).
template <class T, class E>
class embedding {
 public:
  embedding(context<T, E>& c, index vocabulary, index channels)
      : vocabulary_(vocabulary), channels_(channels), table_(c.parameter(vocabulary * channels, {.deviation = 1 / std::sqrt(double(channels))})) {}

  void forward(context<T, E> const& c, int const* tokens, T* y) const {
    T const* const table = c.values[table_];
    for (index r = 0; r < c.rows(); r++) std::copy_n(table + tokens[r] * channels_, channels_, y + r * channels_);
  }
  void backward(context<T, E> const& c, int const* tokens, T const* grad_y) const {
    T* const grad = c.gradients[table_];
    std::fill_n(grad, vocabulary_ * channels_, T(0));
    for (index r = 0; r < c.rows(); r++)
      for (index k = 0; k < channels_; k++) grad[tokens[r] * channels_ + k] += grad_y[r * channels_ + k];
  }

 private:
  index vocabulary_, channels_;
  region table_;
};

}  // namespace tcnca::models
