// Norms of every position's channels, and that of every channel's positions.
#pragma once
#include "batch_norm.hpp"
#include "model.hpp"
#include "row_norm.hpp"

namespace tcnca::models {

/// Of norm_kind; layer: gain (x - mean) / deviation + bias;  rms: gain x / sqrt(mean x^2), a gain a channel;  scale: the same with one gain for all;
/// batch: as layer, over the batch's positions instead of a position's channels.
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
  /// The forward pass with the same x came before. grad_x is overwritten (then it may be the memory of grad_y), or with `add` added to.
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add) const {
    for (auto const& n : batch_) n.backward(c, x, grad_y, grad_x, add);
    for (auto const& n : row_) n.backward(c, x, grad_y, grad_x, add);
  }

 private:
  // One of the two.
  std::vector<batch_norm<T, E>> batch_;
  std::vector<row_norm<T, E>> row_;
};

}  // namespace tcnca::models
