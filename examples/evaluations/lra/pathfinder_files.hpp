// Pathfinder files of the Long Range Arena release: pathfinder32 or pathfinder128; image lists as text, images as PNG.
#pragma once
#include "files.hpp"
#include "pathfinder.hpp"
#include "png.hpp"

namespace lra::pathfinder {

/// Reads <side>/curv_contour_length_14: each line of metadata/*.npy names a folder, an image, a number, and the class.
/// Empty image files, which the release contains, are skipped. The rest is split in a fixed random order: 80 %
/// training, 10 % validation, 10 % test.
inline splits read(std::filesystem::path const& data, long side, counts const& most) {
  std::string const name = "pathfinder" + std::to_string(side) + "/curv_contour_length_14";
  auto const folder =
      folder_with(data, {"", "lra_release"}, name + "/metadata", "Pathfinder of the Long Range Arena's release") / name;
  struct entry {
    std::filesystem::path image;
    int connected;
  };
  std::vector<entry> entries;
  for (auto const& list : files_in(folder / "metadata", ".npy")) {
    lines in(list);
    for (std::string line; in.next(line);) {
      auto const fields = words(line);
      if (fields.size() < 4)
        in.wrong("the line has " + std::to_string(fields.size()) +
                 " words, but must have a folder, an image, a number, and the class");
      if (fields[3] != "0" && fields[3] != "1")
        in.wrong("the class is \"" + std::string(fields[3]) + "\", but must be 0 or 1");
      auto const image = folder / fields[0] / fields[1];
      std::error_code missing;
      auto const bytes = std::filesystem::file_size(image, missing);
      if (missing) in.wrong("there is no image " + image.string());
      if (bytes > 0) entries.push_back({image, fields[3] == "1" ? 1 : 0});
    }
  }
  random_source(1).shuffle(entries);
  std::size_t const tenth = entries.size() / 10, learn = entries.size() - 2 * tenth;
  std::vector<std::uint8_t> pixels(std::size_t(side * side));
  auto const take = [&](std::size_t first, std::size_t last, long limit, dataset& part) {
    for (std::size_t i = first; i < last && part.examples() != limit; i++) {
      read_png(entries[i].image, side, pixels);
      part.add(pixels, entries[i].connected);
    }
  };
  splits s;
  take(0, learn, most.training, s.training);
  take(learn, learn + tenth, most.validation, s.validation);
  take(learn + tenth, entries.size(), most.test, s.test);
  return s;
}

}  // namespace lra::pathfinder
