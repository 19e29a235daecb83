// The compiled layers: with and without gates, causal and bidirectional, softmax and laplace.
#pragma once
#include "parts.hpp"

namespace tcnca::models {

namespace detail {
template <class T, class E, bool Causal, attention_function Function>
std::unique_ptr<any_layer<T, E>> make_layer(model_config const& config, context<T, E>& c, layer_config const& l) {
  constexpr chunked_attention_shape attention{.function = Function, .causal = Causal, .bias = true};
  constexpr gated_fusion_shape simple{.update_gate = false, .reset_gate = false, .mixer_path = false};
  auto const mixing = [&](context<T, E>& of, index_t channels) {
    return models::make_mixer<T, E, Causal>(config, of, channels);
  };
  if (config.gates) return std::make_unique<layer<T, E, gated_fusion_shape{}, attention>>(c, l, mixing);
  return std::make_unique<layer<T, E, simple, attention>>(c, l, mixing);
}
}  // namespace detail

template <class T, class E>
std::unique_ptr<any_layer<T, E>> make_layer(model_config const& config, context<T, E>& c, layer_config const& l) {
  bool const causal = config.head == head_kind::next_token;
  if (config.attention == attention_kind::softmax)
    return causal ? detail::make_layer<T, E, true, attention_function::softmax>(config, c, l)
                  : detail::make_layer<T, E, false, attention_function::softmax>(config, c, l);
  return causal ? detail::make_layer<T, E, true, attention_function::laplace>(config, c, l)
                : detail::make_layer<T, E, false, attention_function::laplace>(config, c, l);
}

}  // namespace tcnca::models
