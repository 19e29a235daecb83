// Text and Retrieval: bytes of film reviews (class: positive or not) and of pairs of papers (class: does one cite the
// other).
#pragma once
#include "dataset.hpp"
#include "files.hpp"

namespace lra {

inline std::span<std::uint8_t const> bytes_of(std::string_view text, long longest) {
  return {reinterpret_cast<std::uint8_t const*>(text.data()), std::min(text.size(), std::size_t(longest))};
}

namespace text {

/// Reads the reviews of aclImdb/<part>/neg and pos alternately, the first `longest` bytes of each. `wanted` selects
/// reviews by number.
inline void read(std::filesystem::path const& part, long longest, long most, auto const& wanted, dataset& result) {
  auto const bad = files_in(part / "neg", ".txt"), good = files_in(part / "pos", ".txt");
  for (std::size_t i = 0; i < std::max(bad.size(), good.size()); i++) {
    if (!wanted(i)) continue;
    for (int liked = 0; liked < 2 && result.examples() != most; liked++) {
      auto const& from = liked == 1 ? good : bad;
      if (i >= from.size()) continue;
      std::string const review = contents(from[i]);
      if (review.empty()) malformed(from[i], 1, "the review is empty");
      result.add(bytes_of(review, longest), liked);
    }
  }
}

/// Stanford's aclImdb. It has no validation part: every tenth review of `train` is used (the Long Range Arena validates
/// on the test part).
inline splits read(std::filesystem::path const& data, long longest, counts const& most) {
  auto const folder = folder_with(data, {"", "aclImdb"}, "train/pos", "the IMDB reviews, aclImdb_v1.tar.gz unpacked");
  splits s;
  read(
      folder / "train", longest, most.training, [](std::size_t i) { return i % 10 != 9; }, s.training);
  read(
      folder / "train", longest, most.validation, [](std::size_t i) { return i % 10 == 9; }, s.validation);
  read(
      folder / "test", longest, most.test, [](std::size_t) { return true; }, s.test);
  return s;
}

}  // namespace text

namespace retrieval {

/// Lines of five tab-separated fields: 0 or 1 (or 0.0, 1.0), the names of two papers, their texts, cut to the first
/// `longest` bytes.
inline dataset read(std::filesystem::path const& file, long longest, long most = -1) {
  lines in(file);
  std::string line;
  dataset result;
  result.sequences_an_example = 2;
  while (result.examples() != most && in.next(line)) {
    auto const fields = split(line, '\t');
    if (fields.size() != 5)
      in.wrong("the line has " + std::to_string(fields.size()) +
               " fields between tabs, but must have a label, two names and two texts");
    auto const is = [&](char const* a, char const* b) { return fields[0] == a || fields[0] == b; };
    if (!is("0", "0.0") && !is("1", "1.0"))
      in.wrong("the label is \"" + std::string(fields[0]) + "\", but must be 0 or 1");
    for (std::size_t const f : {3u, 4u}) {
      if (fields[f].empty()) in.wrong("a text is empty");
      result.add(bytes_of(fields[f], longest));
    }
    result.targets.push_back(is("1", "1.0") ? 1 : 0);
  }
  if (result.examples() == 0 && most != 0) in.wrong("there is no example");
  return result;
}

inline splits read(std::filesystem::path const& data, long longest, counts const& most) {
  auto const folder = folder_with(data, {"", "tsv_data", "lra_release/tsv_data"}, "new_aan_pairs.train.tsv",
                                  "Retrieval of the Long Range Arena's release");
  return {read(folder / "new_aan_pairs.train.tsv", longest, most.training),
          read(folder / "new_aan_pairs.eval.tsv", longest, most.validation),
          read(folder / "new_aan_pairs.test.tsv", longest, most.test)};
}

}  // namespace retrieval
}  // namespace lra
