// Inputs: a text whose bytes are embedded by a fixed table, or Gaussian numbers if there is none. Never zeros.
#pragma once
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

#include <tcnca/core/tensor.hpp>
#include "convert.hpp"

namespace tcnca::bench {

/// Number i of a stream of Gaussian numbers, the same on every machine.
inline float gaussian(std::uint64_t stream, std::uint64_t i) {
  auto const mix = [](std::uint64_t z) {
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  std::uint64_t const a = mix(mix(stream) + i), b = mix(a);
  double const u = (static_cast<double>(a >> 11) + 0.5) * 0x1p-53, v = static_cast<double>(b >> 11) * 0x1p-53;
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

/// The source of input sequences.
class text {
 public:
  /// Reads the file; with an empty name, a text that is found on the machine, else Gaussian numbers.
  explicit text(std::string const& file) {
    for (std::string const& name :
         file.empty() ? std::vector<std::string>{"/usr/share/common-licenses/GPL-3", "/usr/share/dict/words"}
                      : std::vector{file}) {
      std::ifstream in(name, std::ios::binary);
      bytes_.assign(std::istreambuf_iterator<char>(in), {});
      if (bytes_.size() > 1) {
        description_ = name + " (" + std::to_string(bytes_.size()) + " bytes, repeated), embedded by a fixed table";
        return;
      }
    }
    if (!file.empty()) throw std::runtime_error("No text can be read from " + file + ".");
    description_ = "Gaussian numbers (no text was found)";
  }
  std::string const& description() const { return description_; }

  /// x[b, c, t] = table[byte b * length + t of the text][c].
  template <class T>
  void embed(tensor_view<T, 3> x) const {
    if (bytes_.empty()) return noise(x, 1);
    index_t const batch = x.extent[0], channels = x.extent[1], length = x.extent[2];
    std::vector<T> table(static_cast<size_t>(256 * channels));
    for (size_t i = 0; i < table.size(); i++) table[i] = from_float<T>(gaussian(0, i));
#pragma omp parallel for collapse(2) schedule(static)
    for (index_t b = 0; b < batch; b++)
      for (index_t c = 0; c < channels; c++)
        for (index_t t = 0; t < length; t++) {
          auto const byte = static_cast<unsigned char>(bytes_[static_cast<size_t>(b * length + t) % bytes_.size()]);
          *x.at(b, c, t) = table[static_cast<size_t>(byte * channels + c)];
        }
  }
  /// Gaussian numbers from a table of 65536, in pseudorandom order.
  template <class T>
  static void noise(tensor_view<T, 3> x, std::uint64_t stream, float scale = 1) {
    constexpr std::uint64_t count = 65536;
    std::vector<T> table(count);
    for (size_t i = 0; i < count; i++) table[i] = from_float<T>(scale * gaussian(stream, i));
    index_t const batch = x.extent[0], channels = x.extent[1], length = x.extent[2];
#pragma omp parallel for collapse(2) schedule(static)
    for (index_t b = 0; b < batch; b++)
      for (index_t c = 0; c < channels; c++)
        for (index_t t = 0; t < length; t++) {
          auto const i = static_cast<std::uint64_t>((b * channels + c) * length + t);
          *x.at(b, c, t) = table[(i * 0x9e3779b97f4a7c15u) >> 48];
        }
  }

 private:
  std::string bytes_, description_;
};

}  // namespace tcnca::bench
