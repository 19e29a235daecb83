// Layers in fp64 with small mixers, for tests.
#pragma once
#include "../../layer.hpp"

namespace tcnca::testing {

/// The compile-time choices of a layer.
struct layer_kind {
  models::mixer_kind mixer = models::mixer_kind::convolution;
  bool gates = true, causal = true, laplace = false;
};

/// Convolution stacks: 2 levels of 3 taps, dilations 1 and 3, silu, a residual per level, a skip connection, biases if
/// causal. EMAs: 2 states per channel.
std::unique_ptr<models::any_layer<double, cpu>> make_layer(models::context<double, cpu>&, models::layer_config const&,
                                                           layer_kind);

}  // namespace tcnca::testing
