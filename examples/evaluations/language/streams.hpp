// Evaluation of a model on a text, read from beginning to end with carried state.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../models/model.hpp"
#include "text.hpp"

namespace language {

/// The mean loss, in nats, over all characters of a part of `text`, each predicted from all before it. The part is read
/// as `count` parallel streams of equal length (to within one character), in blocks of `length`; the model carries its
/// state from block to block. A stream begins with the character before it and no other context; the first character of
/// the whole text is not counted.
inline double streamed_loss(tcnca::models::model& model, std::uint8_t const* text, span part, long count, long length) {
  long const first = std::max(part.begin, 1L), size = part.end - first;
  count = std::min(count, size);
  auto const begin = [&](long stream) { return first + size / count * stream + std::min(stream, size % count); };
  long const longest = begin(1) - begin(0);
  std::vector<int> tokens, targets;
  double sum = 0;
  model.reset_state();
  for (long at = 0; at < longest; at += length) {
    long const now = std::min(length, longest - at);
    tokens.assign(std::size_t(count * now), 0), targets.assign(std::size_t(count * now), -1);
    long counted = 0;
    for (long s = 0; s < count; s++)
      for (long t = 0, there = begin(s) + at, end = begin(s + 1); t < now && there + t < end; t++, counted++) {
        auto const i = std::size_t(s * now + t);
        tokens[i] = text[there + t - 1], targets[i] = text[there + t];
      }
    sum += double(counted) * model.evaluate_continued({count, now, tokens.data(), targets.data(), nullptr});
  }
  model.reset_state();
  return sum / double(size);
}

}  // namespace language
