// Layers in fp64 whose mixers are small, for the tests.
#pragma once
#include "../../layer.hpp"

namespace tcnca::testing {

/// What a layer is made of beside its configuration.
struct layer_kind {
  models::mixer_kind mixer = models::mixer_kind::convolution;
  bool gates = true, causal = true, laplace = false;
};

/// Convolutions: 2 levels of 3 taps, dilations 1 and 3, silu, a residual a level, a skip connection, and causal ones biases. Averages: 2 states a channel.
std::unique_ptr<models::any_layer<double, cpu>> make_layer(models::context<double, cpu>&, models::layer_config const&,
                                                           layer_kind);

}  // namespace tcnca::testing
