// Grey levels of PNG files, with libpng.
#pragma once
#include "files.hpp"

#include <png.h>

#include <cstdint>

namespace lra {

/// `pixels` has side * side bytes. Colors become grey, transparent pixels black.
inline void read_png(std::filesystem::path const& file, long side, std::vector<std::uint8_t>& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  auto const check = [&](int ok) {
    if (ok != 0 && !PNG_IMAGE_FAILED(image)) return;
    std::string const why = image.message;
    png_image_free(&image);
    malformed(file, 1, "this is no image that can be read: " + why);
  };
  check(png_image_begin_read_from_file(&image, file.c_str()));
  if (image.width != png_uint_32(side) || image.height != png_uint_32(side)) {
    std::string const size = std::to_string(image.width) + " x " + std::to_string(image.height);
    png_image_free(&image);
    malformed(
        file, 1,
        "the image has " + size + " pixels, but must have " + std::to_string(side) + " x " + std::to_string(side));
  }
  image.format = PNG_FORMAT_GRAY;
  png_color const black{};
  check(png_image_finish_read(&image, &black, pixels.data(), 0, nullptr));
}

}  // namespace lra
