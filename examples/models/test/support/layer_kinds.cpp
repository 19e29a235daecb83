#include "layer_kinds.hpp"

#include "../../fft_mixer.hpp"

namespace tcnca::testing {
namespace {

using namespace models;
using mixer_pointer = std::unique_ptr<mixer<double, cpu>>;

template <bool Causal>
mixer_pointer make_mixer(context<double, cpu>& c, index_t channels, mixer_kind kind) {
  constexpr direction dir = Causal ? direction::causal : direction::bidirectional;
  constexpr layout order = layout::batch_length_channels;
  constexpr conv_stack_shape stack{.taps = 3,
                                   .depth = 2,
                                   .dilation_base = 3,
                                   .act = activation::silu,
                                   .residuals = residual::level,
                                   .bias = Causal,  // padding must not meet a bias in bidirectional stacks
                                   .skip = true,
                                   .dir = dir,
                                   .order = order};
  constexpr ema_shape average{.states = 2, .dir = dir, .order = order};
  if (kind == mixer_kind::convolution) return std::make_unique<conv_mixer<double, cpu, stack>>(c, channels);
  if (kind == mixer_kind::ema_by_fft) return std::make_unique<fft_mixer<double, cpu, average>>(c, channels);
  return std::make_unique<ema_mixer<double, cpu, average>>(c, channels);
}

template <bool Causal, attention_function Function>
std::unique_ptr<any_layer<double, cpu>> make(context<double, cpu>& c, layer_config const& config, layer_kind kind) {
  constexpr chunked_attention_shape attention{.function = Function, .causal = Causal, .bias = true};
  constexpr gated_fusion_shape simple{.update_gate = false, .reset_gate = false, .mixer_path = false};
  auto const mixing = [&](context<double, cpu>& of, index_t channels) {
    return make_mixer<Causal>(of, channels, kind.mixer);
  };
  if (kind.gates) return std::make_unique<layer<double, cpu, gated_fusion_shape{}, attention>>(c, config, mixing);
  return std::make_unique<layer<double, cpu, simple, attention>>(c, config, mixing);
}

}  // namespace

std::unique_ptr<models::any_layer<double, cpu>> make_layer(models::context<double, cpu>& c,
                                                           models::layer_config const& config, layer_kind kind) {
  if (kind.laplace)
    return kind.causal ? make<true, attention_function::laplace>(c, config, kind)
                       : make<false, attention_function::laplace>(c, config, kind);
  return kind.causal ? make<true, attention_function::softmax>(c, config, kind)
                     : make<false, attention_function::softmax>(c, config, kind);
}

}  // namespace tcnca::testing
