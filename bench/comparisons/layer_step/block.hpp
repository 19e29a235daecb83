// One layer and its feed-forward block with all mixers in the same memory; the mixer can be exchanged.
#pragma once
#include <memory>
#include <vector>

#include "../../../examples/models/feed_forward.hpp"
#include "../../../examples/models/parts.hpp"
#include "problem.hpp"

namespace tcnca::bench {

using step_context = models::context<float, cpu>;

/// All mixers, of which one is active, or none: then the outputs keep their values, at no cost.
class mixer_choice final : public models::mixer<float, cpu> {
 public:
  explicit mixer_choice(step_mixer const& chosen) : chosen_(chosen) {}
  void add(std::unique_ptr<models::mixer<float, cpu>> m) { all_.push_back(std::move(m)); }
  models::mixer<float, cpu> const& at(step_mixer m) const { return *all_[size_t(m)]; }

  void reserve(step_context& c, float const* x, float* y) const override {
    for (auto const& m : all_) m->reserve(c, x, y);
  }
  void forward(step_context const& c, float const* x, float* y) const override {
    if (chosen_ != step_mixer::nothing) at(chosen_).forward(c, x, y);
  }
  void backward(step_context const& c, float const* x, float const* grad_y, float* grad_x) const override {
    if (chosen_ != step_mixer::nothing) at(chosen_).backward(c, x, grad_y, grad_x);
  }

 private:
  step_mixer const& chosen_;
  std::vector<std::unique_ptr<models::mixer<float, cpu>>> all_;
};

class step_block {
 public:
  explicit step_block(step_problem const&);

  /// The step with a mixer. Call backward after forward.
  void forward(step_mixer);
  void backward(step_mixer);
  /// The mixer alone, on tensors of the size that it has in the layer.
  void mix(step_mixer);
  void mix_backward(step_mixer);
  /// A part of the step alone.
  void run(step_part);
  void run_backward(step_part);

  /// The largest difference of y and grad_x between the EMA by FFT and as a scan, with the same parameters, relative
  /// to the largest value.
  double fft_difference();

 private:
  static constexpr layout order = layout::batch_length_channels;
  static constexpr gated_fusion_shape gates_shape{};
  static constexpr chunked_attention_shape attention_shape{.causal = true, .bias = true};
  using layer = models::layer<float, cpu, gates_shape, attention_shape>;
  using attention = chunked_attention<float, attention_shape>;
  using gates = gated_fusion<float, gates_shape>;

  tensor_view<float, 3> rows(models::region r, index_t first, index_t columns, index_t stride) const;
  attention::forward_args attention_forward() const;
  attention::backward_args attention_backward() const;
  gates::mix_backward_args gates_mix_backward() const;

  step_problem p_;
  step_context c_;
  step_mixer chosen_ = step_mixer::nothing;
  mixer_choice* mixers_ = nullptr;  ///< owned by the layer
  size_t scan_parameters_ = 0, fft_parameters_ = 0;
  std::unique_ptr<layer> layer_;
  std::unique_ptr<models::feed_forward<float, cpu>> feed_forward_;
  std::vector<models::linear<float, cpu>> products_;
  models::region x_, middle_, y_, grad_;                          // tensors of the step
  models::region normed_, mixed_, grad_mixed_, grad_normed_;      // of the mixer alone
  models::region hidden_, grad_hidden_, columns_, grad_columns_;  // of the products and gates alone
  models::region q_, k_, v_, o_, lse_, bias_, grad_q_, grad_k_, grad_v_, grad_o_, grad_bias_;
  models::region vectors_, grad_vectors_;  // gains and means of q and k
};

}  // namespace tcnca::bench
