// The convolution kernel of MEGA's damped EMA, kappa[c, l] = sum_n gamma s p beta q^l, and its gradient.
//
// No exponential per element: in blocks of B positions, q^(b B + i) = q^(b B) q^i, so a channel is a product of two
// small matrices, one FMA per element and state. The powers of q are computed in fp64.
#pragma once
#include <array>

#include "../support/vector.hpp"
#include "ema_parameters.hpp"

namespace tcnca::bench {

namespace detail {
/// Positions of a block: four vectors.
inline constexpr int block = 4 * lanes;
struct block_powers {
  alignas(64) float power[ema_channel::max_states][block];  // decay^i
  double step[ema_channel::max_states];                     // decay^block
  explicit block_powers(ema_channel const& channel) {
    for (int n = 0; n < channel.states; n++) {
      double power_of_decay = 1;
      for (int i = 0; i < block; i++, power_of_decay *= channel.decay[static_cast<size_t>(n)])
        power[n][i] = static_cast<float>(power_of_decay);
      step[n] = power_of_decay;
    }
  }
};
}  // namespace detail

/// Writes kappa[0, length), and up to 4 * lanes - 1 floats after it.
inline void generate_kernel(ema_channel const& channel, float* kappa, index_t length) {
  detail::block_powers const powers(channel);
  std::array<double, ema_channel::max_states> anchor = channel.scale;
  for (index_t first = 0; first < length; first += detail::block) {
    floats s0{}, s1{}, s2{}, s3{};
    for (int n = 0; n < channel.states; n++) {
      floats const scale = splat(static_cast<float>(anchor[static_cast<size_t>(n)]));
      s0 += scale * load(powers.power[n]);
      s1 += scale * load(powers.power[n] + lanes);
      s2 += scale * load(powers.power[n] + 2 * lanes);
      s3 += scale * load(powers.power[n] + 3 * lanes);
      anchor[static_cast<size_t>(n)] *= powers.step[n];
    }
    store(kappa + first, s0), store(kappa + first + lanes, s1), store(kappa + first + 2 * lanes, s2),
        store(kappa + first + 3 * lanes, s3);
  }
}

/// Computes the gradients of the channel's delta, alpha, beta and gamma from grad_kappa[0, length). The buffer must
/// extend to a multiple of 4 * lanes floats; those from `length` on are overwritten with 0.
inline void differentiate_kernel(ema_parameters const& parameters, index_t c, float* grad_kappa, index_t length,
                                 ema_parameters& grad) {
  ema_channel const channel(parameters, c);
  detail::block_powers const powers(channel);
  for (index_t i = length; i % detail::block != 0; i++) grad_kappa[i] = 0;
  // sum_l grad q^l and sum_l grad l q^l, per position within a block; multiplied by the power of that position at the
  // end
  alignas(64) float power_sum[ema_channel::max_states][detail::block] = {},
                    moment[ema_channel::max_states][detail::block] = {};
  std::array<double, ema_channel::max_states> anchor;
  anchor.fill(1);
  for (index_t first = 0; first < length; first += detail::block) {
    floats g[4];
    for (int j = 0; j < 4; j++) g[j] = load(grad_kappa + first + j * lanes);
    for (int n = 0; n < channel.states; n++) {
      floats const one = splat(static_cast<float>(anchor[static_cast<size_t>(n)]));
      floats const position = splat(static_cast<float>(anchor[static_cast<size_t>(n)] * static_cast<double>(first)));
      for (int j = 0; j < 4; j++) {
        store(power_sum[n] + j * lanes, load(power_sum[n] + j * lanes) + one * g[j]);
        store(moment[n] + j * lanes, load(moment[n] + j * lanes) + position * g[j]);
      }
      anchor[static_cast<size_t>(n)] *= powers.step[n];
    }
  }
  double const s = std::sqrt(1.0 / channel.states);
  for (int n = 0; n < channel.states; n++) {
    double of_scale = 0, of_log_decay = 0;
    for (int i = 0; i < detail::block; i++) {
      of_scale += double{powers.power[n][i]} * double{power_sum[n][i]};
      of_log_decay += double{powers.power[n][i]} * (double{moment[n][i]} + i * double{power_sum[n][i]});
    }
    auto const m = static_cast<size_t>(n);
    size_t const i = static_cast<size_t>(c) * static_cast<size_t>(channel.states) + m;
    double const p = channel.p[m], a = channel.a[m], beta = double{parameters.beta[i]},
                 gamma = double{parameters.gamma[i]};
    double const of_decay = channel.scale[m] * of_log_decay / channel.decay[m];
    grad.gamma[i] = static_cast<float>(of_scale * s * p * beta);
    grad.beta[i] = static_cast<float>(of_scale * s * p * gamma);
    grad.delta[i] = static_cast<float>((of_scale * s * beta * gamma - of_decay * a) * p * (1 - p));
    grad.alpha[i] = static_cast<float>(-of_decay * p * a * (1 - a));
  }
}

}  // namespace tcnca::bench
