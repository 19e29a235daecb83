// The parts of a network that take longest to compile. Each is instantiated once per executor, in a source file of its
// own.
#pragma once
#include "layer.hpp"

namespace tcnca::models {

/// Throws std::invalid_argument if the configuration names something that was not compiled.
template <class T, class E, bool Causal>
std::unique_ptr<mixer<T, E>> make_mixer(model_config const&, context<T, E>&, index_t channels);
/// Causal for the next token, otherwise bidirectional.
template <class T, class E>
std::unique_ptr<any_layer<T, E>> make_layer(model_config const&, context<T, E>&, layer_config const&);

}  // namespace tcnca::models
