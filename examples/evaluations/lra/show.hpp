// Prints examples.
#pragma once
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "../training/files.hpp"
#include "load.hpp"

namespace lra {

/// Whether this is a file name of `show`: digits, "_class_", digits, ".pgm".
inline bool names_picture(std::string_view name) {
  auto const digits = [&] {
    std::size_t const count = std::min(name.find_first_not_of("0123456789"), name.size());
    name.remove_prefix(count);
    return count > 0;
  };
  constexpr std::string_view middle = "_class_";
  if (!digits() || !name.starts_with(middle)) return false;
  name.remove_prefix(middle.size());
  return digits() && name == ".pgm";
}

/// Writes expressions and texts to stdout, one per line; images as PGM files to --output, named by number and class.
/// Replaces files of an earlier call.
inline void show(options o) {
  long const count = o.show;
  o.examples.training = count;
  if (o.data.empty()) o.examples.validation = o.examples.test = 0;
  dataset const d = load(o).training;
  if (!o.output.empty()) std::filesystem::create_directories(o.output);
  if (o.info().images()) {
    std::vector<std::filesystem::path> older;
    for (auto const& entry : std::filesystem::directory_iterator(o.output))
      if (names_picture(entry.path().filename().string())) older.push_back(entry.path());
    for (auto const& path : older) std::filesystem::remove(path);
  }
  for (long i = 0; i < std::min(count, d.examples()); i++) {
    int const target = d.targets[std::size_t(i)];
    if (o.info().images()) {
      auto const pixels = d.sequence(i);
      std::string const side = std::to_string(o.info().side());
      std::string file = "P5\n" + side + " " + side + "\n255\n";
      file.append(pixels.begin(), pixels.end());
      training::replace_file(
          std::filesystem::path(o.output) / (std::to_string(i) + "_class_" + std::to_string(target) + ".pgm"), file);
      continue;
    }
    std::printf("%d", target);
    for (long s = i * d.sequences_an_example; s < (i + 1) * d.sequences_an_example; s++) {
      std::putchar('\t');
      if (o.task == "listops") std::fputs(listops::text(d.sequence(s)).c_str(), stdout);
      else
        for (std::uint8_t const c : d.sequence(s)) std::putchar(c == '\n' || c == '\t' ? ' ' : c);
    }
    std::putchar('\n');
  }
}

}  // namespace lra
