// Some examples for the eye.
#pragma once
#include <cstdio>
#include <string>

#include "load.hpp"
#include "../training/files.hpp"

namespace lra {

/// Expressions and texts go to stdout, a line each; images become PGM files in --output, named by their number and class.
inline void show(options o) {
  long const count = o.show;
  o.examples.training = count;
  if (o.data.empty()) o.examples.validation = o.examples.test = 0;
  dataset const d = load(o).training;
  if (!o.output.empty()) std::filesystem::create_directories(o.output);
  for (long i = 0; i < std::min(count, d.examples()); i++) {
    int const target = d.targets[std::size_t(i)];
    if (o.info().images()) {
      auto const pixels = d.sequence(i);
      std::string const side = std::to_string(o.info().side());
      std::string file = "P5\n" + side + " " + side + "\n255\n";
      file.append(pixels.begin(), pixels.end());
      training::replace_file(std::filesystem::path(o.output) / (std::to_string(i) + "_class_" + std::to_string(target) + ".pgm"), file);
      continue;
    }
    std::printf("%d", target);
    for (long s = i * d.sequences_an_example; s < (i + 1) * d.sequences_an_example; s++) {
      std::putchar('\t');
      if (o.task == "listops")
        std::fputs(listops::text(d.sequence(s)).c_str(), stdout);
      else
        for (std::uint8_t const c : d.sequence(s)) std::putchar(c == '\n' || c == '\t' ? ' ' : c);
    }
    std::putchar('\n');
  }
}

}  // namespace lra
