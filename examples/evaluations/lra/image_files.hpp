// Image: CIFAR-10 as grey levels, one token per pixel, from the binary files of the University of Toronto.
#pragma once
#include "dataset.hpp"
#include "files.hpp"

namespace lra::image {

constexpr long side = 32, classes = 10;

/// Same result as TensorFlow's rgb_to_grayscale for bytes.
inline std::uint8_t grey(std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  float const level = (0.2989f * float(red) + 0.587f * float(green) + 0.114f * float(blue)) / 255;
  return std::uint8_t(level * 255.5f);
}

/// Reads records of a class and three planes of 32 x 32 bytes (red, green, blue), beginning with record `first`, until
/// the result has `most`.
inline void read(std::filesystem::path const& file, long first, long most, dataset& result) {
  constexpr std::size_t plane = side * side, record = 1 + 3 * plane;
  std::string const bytes = contents(file);
  if (bytes.empty() || bytes.size() % record != 0)
    malformed(file, long(bytes.size() / record) + 1,
              "the file has " + std::to_string(bytes.size()) + " bytes, but must have records of " +
                  std::to_string(record) + " (records are counted here)");
  std::vector<std::uint8_t> pixels(plane);
  for (std::size_t r = std::size_t(first); r < bytes.size() / record && result.examples() != most; r++) {
    auto const* const from = reinterpret_cast<std::uint8_t const*>(bytes.data()) + r * record;
    if (from[0] >= classes)
      malformed(file, long(r) + 1,
                "the class is " + std::to_string(from[0]) + ", but must be 0 to 9 (records are counted here)");
    for (std::size_t i = 0; i < plane; i++) pixels[i] = grey(from[1 + i], from[1 + plane + i], from[1 + 2 * plane + i]);
    result.add(pixels, from[0]);
  }
}

/// The last half of the fifth batch, a tenth of the training data, is used for validation.
inline splits read(std::filesystem::path const& data, counts const& most) {
  auto const folder =
      folder_with(data, {"", "cifar-10-batches-bin"}, "data_batch_1.bin", "CIFAR-10, cifar-10-binary.tar.gz unpacked");
  splits s;
  dataset last;
  for (int b = 1; b <= 4; b++)
    read(folder / ("data_batch_" + std::to_string(b) + ".bin"), 0, most.training, s.training);
  read(folder / "data_batch_5.bin", 0, -1, last);
  long const half = last.examples() / 2;
  for (long i = 0; i < half && s.training.examples() != most.training; i++) s.training.add(last, i);
  for (long i = half; i < last.examples() && s.validation.examples() != most.validation; i++) s.validation.add(last, i);
  read(folder / "test_batch.bin", 0, most.test, s.test);
  return s;
}

}  // namespace lra::image
