// What the headline benchmark measures: stacks, passes, a problem's extents, and a contender that can be timed.
#pragma once
#include <array>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <tcnca/conv_stack/shape.hpp>
#include "../baselines/ema_parameters.hpp"

namespace tcnca::bench {

/// The stacks, by receptive field: 4096, 32768, 69905 and 132651 positions. Plain convolutions: no activation, bias or residual, so that
/// they do what a long convolution does; in the layout that the FFT prefers too.
inline constexpr layout headline_layout = layout::batch_channels_length;
inline constexpr std::array<conv_stack_shape, 4> headline_stacks{
    conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4, .order = headline_layout},
    conv_stack_shape{.taps = 8, .depth = 5, .dilation_base = 8, .order = headline_layout},
    conv_stack_shape{.taps = 17, .depth = 4, .dilation_base = 16, .order = headline_layout},
    conv_stack_shape{.taps = 51, .depth = 3, .dilation_base = 51, .order = headline_layout},
};

/// "K4f4D6": taps, base of the dilations, depth.
inline std::string stack_name(conv_stack_shape const& s) {
  char name[64];
  std::snprintf(name, sizeof name, "K%df%dD%d", s.taps, s.dilation_base, s.levels());
  return name;
}

enum class pass { forward, backward };
inline char const* to_string(pass p) { return p == pass::forward ? "forward" : "backward"; }

struct problem {
  index_t batch = 0, channels = 0, length = 0;
  int threads = 1;
  index_t elements() const { return batch * channels * length; }
};

/// Operations that a plain evaluation of the stack needs: 2 for each tap that falls inside the sequence (taps before its start are not
/// counted, so that short sequences do not look fast). Backward is three times that: recompute, grad_x, grad_weight.
inline double useful_operations(conv_stack_shape const& s, problem const& p, pass direction) {
  double taps = 0;
  for (int layer = 0; layer < s.layers(); layer++)
    for (index_t k = 0; k < s.taps; k++)
      taps += static_cast<double>(max_of<index_t>(p.length - k * s.dilation(layer), 0));
  return (direction == pass::forward ? 2.0 : 6.0) * taps * static_cast<double>(p.batch * p.channels);
}
/// Bytes that must cross memory: x and y, or x, grad_y and grad_x.
inline double useful_bytes(problem const& p, pass direction, size_t element_bytes) {
  return (direction == pass::forward ? 2.0 : 3.0) * static_cast<double>(p.elements()) *
         static_cast<double>(element_bytes);
}

/// What a contender computed, for the check against the direct sum: a sequence [batch, channels, length] (y or grad_x) and, backward, the
/// gradient of what it has for weights.
struct outcome {
  std::vector<float> sequence, parameters;
};

/// An operation bound to its memory. run() does it once and says how many seconds it took; without run, `missing` says why.
struct contender {
  std::function<double()> run;
  std::function<outcome()> result;
  std::string missing;
};

inline constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

/// Everything that runs at one length with one element type on one machine. Its contenders share x and grad_y; a contender's memory is
/// its own and goes with it.
class arena {
 public:
  virtual ~arena() = default;
  virtual contender fft(pass direction, bool generated) = 0;
  virtual contender scan(pass direction) = 0;
  virtual contender stack(size_t which, pass direction) = 0;
  /// The machine's own library of convolutions, level by level.
  virtual contender levels(size_t which, pass direction, double limit_seconds) = 0;
  /// fp32 multiply-add operations a second, and bytes read plus written by a copy that moves this many.
  virtual double fma_rate() = 0;
  virtual double copy_rate(size_t moved_bytes) = 0;
  /// A word on how the FFT was done.
  virtual std::string fft_variant() const = 0;

  /// Overwrites y and grad_x with something that no contender computes.
  virtual void forget() = 0;

  // For the check: inputs as the contenders see them, in fp32.
  virtual std::vector<float> x() = 0;
  virtual std::vector<float> grad_y() = 0;
  /// kappa [channels, length], as it was given.
  virtual std::vector<float> kernel() = 0;
  /// The parameters that generate it.
  virtual ema_parameters const& ema() = 0;
  /// [layers, taps, channels], tap 0 the newest sample.
  virtual std::vector<float> weight(size_t which) = 0;
};

}  // namespace tcnca::bench
