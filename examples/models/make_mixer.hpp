// The compiled mixers.
#pragma once
#include "fft_mixer.hpp"
#include "parts.hpp"

namespace tcnca::models {

namespace detail {

constexpr direction direction_of(bool causal) { return causal ? direction::causal : direction::bidirectional; }

/// A drop-in for MEGA's EMA: linear levels, each with a residual, then silu(stack(x) + omega x). Dilations are powers
/// of the taps, so each lag up to taps^depth is reached by one path of weights.
constexpr conv_stack_shape stack_shape(int taps, int depth, bool causal) {
  conv_stack_shape s;
  s.taps = taps, s.depth = depth, s.dilation_base = taps;
  s.residuals = residual::level, s.skip = true;
  s.dir = direction_of(causal);
  s.order = layout::batch_length_channels;
  return s;
}

template <class T, class E, bool Causal>
struct stack_choice {
  model_config const& config;
  context<T, E>& c;
  index_t channels;
  std::unique_ptr<mixer<T, E>> made = {};
  std::string known = {};

  template <int Taps, int Depth>
  void add() {
    std::string const name = std::to_string(Taps) + "x" + std::to_string(Depth);
    known += (known.empty() ? "" : ", ") + name;
    if (config.stack == name) made = std::make_unique<conv_mixer<T, E, stack_shape(Taps, Depth, Causal)>>(c, channels);
  }
};

}  // namespace detail

template <class T, class E, bool Causal>
std::unique_ptr<mixer<T, E>> make_mixer(model_config const& config, context<T, E>& c, index_t channels) {
  constexpr ema_shape shape{.states = 16, .dir = detail::direction_of(Causal), .order = layout::batch_length_channels};
  if (config.mixer == mixer_kind::ema) return std::make_unique<ema_mixer<T, E, shape>>(c, channels);
  if (config.mixer == mixer_kind::ema_by_fft) return std::make_unique<fft_mixer<T, E, shape>>(c, channels);
  detail::stack_choice<T, E, Causal> choice{config, c, channels};
  choice.template add<4, 4>(), choice.template add<4, 6>(), choice.template add<8, 5>();
  if constexpr (Causal) { choice.template add<8, 4>(), choice.template add<17, 4>(); }
  if (!choice.made)
    throw std::invalid_argument("the stack \"" + config.stack + "\" was not compiled: " +
                                (Causal ? "causal" : "bidirectional") + " stacks are " + choice.known);
  return std::move(choice.made);
}

}  // namespace tcnca::models
