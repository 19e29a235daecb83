// Builds a network from a configuration.
#pragma once
#include "network.hpp"
#include "parts.hpp"

namespace tcnca::models {

/// Throws std::invalid_argument with a message if a value is out of range.
inline void check(model_config const& m) {
  auto const require_that = [](bool holds, char const* sentence) {
    if (!holds) throw std::invalid_argument(sentence);
  };
  using limits = chunked_attention_limits;
  require_that(m.threads >= 1, "a model takes at least one thread");
  require_that(m.batch >= 1 && m.length >= 1, "a model takes at least one sequence of at least one token");
  require_that(m.vocabulary >= 1 && m.classes >= 1, "a model has at least one token and one class");
  require_that(m.layers >= 1 && m.channels >= 1 && m.hidden >= 1,
               "a model has at least one layer, one channel and one hidden channel");
  require_that(
      m.value_dim >= limits::value_dim_min && m.value_dim <= limits::value_dim && m.value_dim % limits::multiple == 0,
      "the value dimension is a multiple of 8 from 16 to 2048");
  require_that(m.key_dim >= limits::key_dim_min && m.key_dim <= limits::key_dim && m.key_dim % limits::multiple == 0,
               "the key dimension is a multiple of 8 from 16 to 256");
  require_that(m.chunk >= 1 && m.chunk <= limits::chunk, "a chunk has 1 to 16384 positions");
  for (double p : {m.dropout, m.attention_dropout, m.hidden_dropout})
    require_that(p >= 0 && p < 1, "a probability of dropout is at least 0 and below 1");
  require_that(m.beta1 >= 0 && m.beta1 < 1 && m.beta2 >= 0 && m.beta2 < 1, "Adam's betas are at least 0 and below 1");
  require_that(m.head != head_kind::pair_class || m.batch % 2 == 0,
               "a model of pairs takes an even number of sequences");
  // Rejects sizes beyond any memory, which would overflow the sums of sizes.
  double const widest = double(
      max_of(max_of(max_of(m.channels, m.hidden), max_of(m.value_dim, m.key_dim)), max_of(m.vocabulary, m.classes)));
  if (double(m.batch) * double(m.length) * widest * double(m.layers) > 0x1p50) throw std::bad_alloc();
  require_that(m.decay >= 0 && m.clip >= 0, "weight decay and the clipping of gradients are not negative");
}

/// The model on executor E.
template <class T, class E>
std::unique_ptr<model> make_network(model_config const& config) {
  check(config);
  return std::make_unique<network<T, E>>(
      config, [&](context<T, E>& c, layer_config const& l) { return make_layer<T, E>(config, c, l); });
}

/// Defined in models.cu.
std::unique_ptr<model> make_cuda_model(model_config const&);

}  // namespace tcnca::models
