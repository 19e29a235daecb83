// From what a configuration says to the parts that are compiled.
#pragma once
#include "network.hpp"

namespace tcnca::models {

namespace detail {

/// A stack as MEGA's average: linear levels, each with a residual, then silu(stack(x) + omega x). The dilations are powers of the taps, so that every lag up
/// to taps^depth is reached by one path.
constexpr conv_stack_shape stack_shape(int taps, int depth, bool causal) {
  conv_stack_shape s;
  s.taps = taps, s.depth = depth, s.dilation_base = taps;
  s.residuals = residual::level, s.skip = true;
  s.dir = causal ? direction::causal : direction::bidirectional;
  s.order = layout::batch_length_channels;
  return s;
}

template <class T, class E, bool Causal, int Taps, int Depth>
bool add_stack(std::string const& name, std::string& known, context<T, E>& c, index channels, std::unique_ptr<mixer<T, E>>& made) {
  std::string const own = std::to_string(Taps) + "x" + std::to_string(Depth);
  known += (known.empty() ? "" : ", ") + own;
  if (name == own) made = std::make_unique<conv_mixer<T, E, stack_shape(Taps, Depth, Causal)>>(c, channels);
  return name == own;
}

template <class T, class E, bool Causal>
std::unique_ptr<mixer<T, E>> make_mixer(model_config const& config, context<T, E>& c, index channels) {
  std::unique_ptr<mixer<T, E>> made;
  if (config.mixer == mixer_kind::average_by_fft) throw std::invalid_argument("the average by FFT has not been compiled");
  if (config.mixer == mixer_kind::average) {
    constexpr ema_shape shape{.states = 16, .dir = Causal ? direction::causal : direction::bidirectional, .order = layout::batch_length_channels};
    return std::make_unique<ema_mixer<T, E, shape>>(c, channels);
  }
  std::string known;
  std::string const& name = config.stack;
  add_stack<T, E, Causal, 4, 4>(name, known, c, channels, made) || add_stack<T, E, Causal, 4, 6>(name, known, c, channels, made) ||
      add_stack<T, E, Causal, 8, 4>(name, known, c, channels, made) || add_stack<T, E, Causal, 8, 5>(name, known, c, channels, made) ||
      add_stack<T, E, Causal, 17, 4>(name, known, c, channels, made);
  if (!made) throw std::invalid_argument("the stack " + name + " has not been compiled: there are " + known);
  return made;
}

template <class T, class E, bool Causal, attention_function Function>
std::unique_ptr<any_layer<T, E>> make_layer(model_config const& config, context<T, E>& c, layer_config const& l) {
  constexpr chunked_attention_shape attention{.function = Function, .causal = Causal, .bias = true};
  constexpr gated_fusion_shape simple{.update_gate = false, .reset_gate = false, .mixer_path = false};
  auto const mixing = [&](context<T, E>& context, index channels) { return make_mixer<T, E, Causal>(config, context, channels); };
  if (config.gates) return std::make_unique<layer<T, E, gated_fusion_shape{}, attention>>(c, l, mixing);
  return std::make_unique<layer<T, E, simple, attention>>(c, l, mixing);
}

}  // namespace detail

/// Throws std::invalid_argument with a sentence where the configuration makes no sense.
inline void check(model_config const& m) {
  auto const require_that = [](bool holds, char const* sentence) {
    if (!holds) throw std::invalid_argument(sentence);
  };
  using limits = chunked_attention_limits;
  require_that(m.threads >= 1, "a model takes at least one thread");
  require_that(m.batch >= 1 && m.length >= 1, "a model takes at least one sequence of at least one token");
  require_that(m.vocabulary >= 1 && m.classes >= 1, "a model has at least one token and one class");
  require_that(m.layers >= 1 && m.channels >= 1 && m.hidden >= 1, "a model has at least one layer, one channel and one hidden channel");
  require_that(m.value_dim >= limits::value_dim_min && m.value_dim <= limits::value_dim && m.value_dim % limits::multiple == 0,
               "the value dimension is a multiple of 8 from 16 to 2048");
  require_that(m.key_dim >= limits::key_dim_min && m.key_dim <= limits::key_dim && m.key_dim % limits::multiple == 0,
               "the key dimension is a multiple of 8 from 16 to 256");
  require_that(m.chunk >= 1 && m.chunk <= limits::chunk, "a chunk has 1 to 16384 positions");
  for (double p : {m.dropout, m.attention_dropout, m.hidden_dropout}) require_that(p >= 0 && p < 1, "a probability of dropout is at least 0 and below 1");
  require_that(m.beta1 >= 0 && m.beta1 < 1 && m.beta2 >= 0 && m.beta2 < 1, "Adam's betas are at least 0 and below 1");
  require_that(m.head == head_kind::next_token && m.embedding == embedding_kind::table, "there is no model of classes or of levels yet");
  require_that(m.decay >= 0 && m.clip >= 0, "weight decay and the clipping of gradients are not negative");
}

/// The model on an executor's machine.
template <class T, class E>
std::unique_ptr<model> make_network(model_config const& config) {
  check(config);
  using maker = std::unique_ptr<any_layer<T, E>> (*)(model_config const&, context<T, E>&, layer_config const&);
  bool const softmax = config.attention == attention_kind::softmax;
  maker const make = softmax ? detail::make_layer<T, E, true, attention_function::softmax> : detail::make_layer<T, E, true, attention_function::laplace>;
  return std::make_unique<network<T, E>>(config, [&](context<T, E>& c, layer_config const& l) { return make(config, c, l); });
}

}  // namespace tcnca::models
