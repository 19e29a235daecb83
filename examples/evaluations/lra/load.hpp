// Loads or generates the data of the options.
#pragma once
#include "../training/progress.hpp"
#include "image_files.hpp"
#include "listops_files.hpp"
#include "options.hpp"
#include "pathfinder_files.hpp"
#include "text_files.hpp"

namespace lra {

/// Throws std::invalid_argument.
inline splits load(options const& o) {
  task_info const& t = o.info();
  if (o.data.empty()) {
    training::notice say("lra", o.examples.training + o.examples.validation + o.examples.test,
                         "examples were generated");
    return o.task == "listops" ? listops::generate(o.listops, o.examples, o.config.seed, say)
                               : pathfinder::generate(pathfinder::shape_of(t.side()), o.examples, o.config.seed, say);
  }
  auto const all = [](long n) { return n == 0 ? -1 : n; };
  counts const most{all(o.examples.training), all(o.examples.validation), all(o.examples.test)};
  splits s = o.task == "listops"     ? listops::read(o.data, o.config.length, most)
             : o.task == "text"      ? text::read(o.data, o.config.length, most)
             : o.task == "retrieval" ? retrieval::read(o.data, o.config.length, most)
             : o.task == "image"     ? image::read(o.data, most)
                                     : pathfinder::read(o.data, t.side(), most);
  if (s.training.examples() == 0 || s.validation.examples() == 0 || s.test.examples() == 0)
    throw file_error("the files in " + o.data + " leave nothing to learn from, to validate on, or to test on");
  return s;
}

}  // namespace lra
