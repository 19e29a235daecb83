// The parts of a network that cost most to compile: each kind is compiled once a machine, in a source of its own.
#pragma once
#include "layer.hpp"

namespace tcnca::models {

/// Of a configuration. Throws std::invalid_argument where something asked for was not compiled.
template <class T, class E, bool Causal>
std::unique_ptr<mixer<T, E>> make_mixer(model_config const&, context<T, E>&, index_t channels);
/// Causal for the next token, else in both directions.
template <class T, class E>
std::unique_ptr<any_layer<T, E>> make_layer(model_config const&, context<T, E>&, layer_config const&);

}  // namespace tcnca::models
