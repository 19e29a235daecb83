// The extents of the measured layers, the mixers and parts, and the times of a row.
#pragma once
#include <tcnca/core/config.hpp>

#include <array>
#include <string>
#include <vector>

namespace tcnca::bench {

struct step_problem {
  index_t channels = 0, value_dim = 0, key_dim = 0, hidden = 0,
          chunk = 0;  ///< d, h, z, width of the feed-forward block, chunk of attention
  index_t batch = 1, length = 0;
  int threads = 1;

  /// Columns of the product that computes all gates.
  index_t columns() const { return 2 * channels + key_dim + value_dim; }
};

/// Models by width: the paper's model for EnWik8 (512), and smaller ones with the same proportions.
inline std::vector<step_problem> const step_models{
    {64, 128, 32, 128, 128}, {128, 256, 64, 256, 128}, {256, 512, 64, 512, 512}, {512, 1024, 128, 1024, 2048}};

/// Operations that mix along the sequence.
enum class step_mixer { stack_4x6, stack_17x4, scan, fft, nothing };
inline constexpr std::array step_mixers{step_mixer::stack_4x6, step_mixer::stack_17x4, step_mixer::scan,
                                        step_mixer::fft, step_mixer::nothing};

inline char const* to_string(step_mixer m) {
  constexpr char const* names[] = {"TCNCA 4x6", "TCNCA 17x4", "MEGA scan", "MEGA FFT", "no mixer"};
  return names[int(m)];
}

/// The parts of a step besides the mixer.
enum class step_part { products, attention, gates };
inline constexpr std::array step_parts{step_part::products, step_part::attention, step_part::gates};

/// Best times of both passes in milliseconds.
struct step_times {
  double forward = 1e300, backward = 1e300;

  double of(bool backward_pass) const { return backward_pass ? backward : forward; }
};

struct step_row {
  step_problem p;
  std::array<step_times, step_mixers.size()> step, mixer;  ///< of the whole step, and of the mixer alone
  std::array<step_times, step_parts.size()> part;
  double fma_rate = 0;

  double ms(step_mixer m, bool backward) const { return step[size_t(m)].of(backward); }
  double mixer_ms(step_mixer m, bool backward) const {
    return m == step_mixer::nothing ? 0 : mixer[size_t(m)].of(backward);
  }
  double part_ms(step_part q, bool backward) const { return part[size_t(q)].of(backward); }
  /// Norms, activations, sums and biases; and cache misses that the parts do not have when they are timed alone.
  double rest_ms(step_mixer m, bool backward) const {
    double rest = ms(m, backward) - mixer_ms(m, backward);
    for (step_part const q : step_parts) rest -= part_ms(q, backward);
    return rest;
  }
  /// Speed-ups over MEGA with the EMA by FFT: of the step, of a step whose mixer takes no time, of the mixer alone.
  double over_fft(step_mixer m, bool backward) const { return ms(step_mixer::fft, backward) / ms(m, backward); }
  double attainable(bool backward) const { return ms(step_mixer::fft, backward) / ms(step_mixer::nothing, backward); }
  double mixer_over_fft(step_mixer m, bool backward) const {
    return mixer_ms(step_mixer::fft, backward) / mixer_ms(m, backward);
  }
  /// Operations of the matrix products: five, each one product forward and two backward.
  double product_operations(bool backward) const {
    index_t const weights =
        p.channels * (p.value_dim + p.columns()) + p.value_dim * p.channels + 2 * p.channels * p.hidden;
    return (backward ? 4. : 2.) * double(p.batch * p.length) * double(weights);
  }
};

}  // namespace tcnca::bench
