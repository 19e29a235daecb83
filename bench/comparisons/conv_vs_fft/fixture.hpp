// What conv_vs_fft compares: the stacks, and the fixture that binds all contenders to the same sequences.
#pragma once
#include <array>
#include <string>
#include <vector>

#include "../../baselines/ema_parameters.hpp"
#include "../../support/sequences.hpp"

namespace tcnca::bench {

/// The compared stacks, by receptive field: 4096, 32768, 69905, 132651 and twice 262144 positions. The last two see all
/// of the longest sequence, as the FFT does, with the fewest taps: 36 and 48 where K 51 has 153. Plain convolutions
/// without activation, bias or residual, as a long convolution is; in the layout that the FFT prefers too.
inline constexpr layout compared_layout = layout::batch_channels_length;
inline constexpr std::array<conv_stack_shape, 6> compared_stacks{
    conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4, .order = compared_layout},
    conv_stack_shape{.taps = 8, .depth = 5, .dilation_base = 8, .order = compared_layout},
    conv_stack_shape{.taps = 17, .depth = 4, .dilation_base = 16, .order = compared_layout},
    conv_stack_shape{.taps = 51, .depth = 3, .dilation_base = 51, .order = compared_layout},
    conv_stack_shape{.taps = 4, .depth = 9, .dilation_base = 4, .order = compared_layout},
    conv_stack_shape{.taps = 8, .depth = 6, .dilation_base = 8, .order = compared_layout},
};

// The library's operations are compiled once per backend and element type: in stack_cpu_*.cpp, scan_cpu.cpp and
// conv_vs_fft.cu.

/// Stack `which` of compared_stacks with weights [layers, taps, channels].
template <class T>
contender make_cpu_stack(size_t which, pass direction, sequences<T> const& s, T const* weight);

/// The library's EMA.
template <class T>
contender make_cpu_scan(pass direction, sequences<T> const& s, ema_parameters const& ema);

/// All contenders at one length with one element type on one device. They share x and grad_y and write the same y and
/// grad_x; all other memory belongs to the contender and is freed with it.
class conv_fixture {
 public:
  virtual ~conv_fixture() = default;
  virtual contender fft(pass direction, bool generated) = 0;
  virtual contender scan(pass direction) = 0;
  /// With a number of CPU threads, which a GPU ignores.
  virtual contender stack(size_t which, pass direction, int threads) = 0;
  /// The device's convolution library, one call per level; not available where a call takes more than `limit_seconds`.
  virtual contender levels(size_t which, pass direction, double limit_seconds) = 0;
  /// Peak fp32 FMA rate in operations per second (an FMA counts as 2).
  virtual double fma_rate(int threads) = 0;
  /// Bytes read plus bytes written per second by a copy that moves `moved_bytes` in total.
  virtual double copy_rate(int threads, size_t moved_bytes) = 0;
  /// Which transforms the FFT contender uses.
  virtual std::string fft_variant() const = 0;

  /// Overwrites y and grad_x with values that no contender computes.
  virtual void clear_outputs() = 0;

  // Inputs in fp32, for the check.
  virtual std::vector<float> x() = 0;
  virtual std::vector<float> grad_y() = 0;
  /// kappa [channels, length], the given kernel.
  virtual std::vector<float> kernel() = 0;
  /// The parameters that generate the kernel.
  virtual ema_parameters const& ema() = 0;
  /// [layers, taps, channels]; tap 0 is the newest sample.
  virtual std::vector<float> weight(size_t which) = 0;
};

}  // namespace tcnca::bench
