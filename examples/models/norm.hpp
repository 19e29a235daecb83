// Norms: over the channels of a position, or over the positions of a channel.
#pragma once
#include "batch_norm.hpp"
#include "model.hpp"
#include "row_norm.hpp"

namespace tcnca::models {

/// layer: gain (x - mean) / deviation + bias; rms: gain x / sqrt(mean x^2), one gain per channel; scale: the same with
/// one gain in all; batch: as layer, but mean and deviation over the positions of the batch.
template <class T, class E>
class norm {
 public:
  norm(context<T, E>& c, norm_kind kind, index_t channels) {
    if (kind == norm_kind::batch) batch_.emplace_back(c, channels);
    else row_.emplace_back(c, kind, channels);
  }

  void forward(context<T, E> const& c, T const* x, T* y) const {
    for (auto const& n : batch_) n.forward(c, x, y);
    for (auto const& n : row_) n.forward(c, x, y);
  }
  /// Call after forward with the same x. grad_x is overwritten and may alias grad_y, or is added to if `add`.
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add) const {
    for (auto const& n : batch_) n.backward(c, x, grad_y, grad_x, add);
    for (auto const& n : row_) n.backward(c, x, grad_y, grad_x, add);
  }

 private:
  // Exactly one of the two has an element.
  std::vector<batch_norm<T, E>> batch_;
  std::vector<row_norm<T, E>> row_;
};

}  // namespace tcnca::models
