// The body of language_model.
#pragma once
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <numbers>

#include "../training/trainer.hpp"
#include "blocks.hpp"
#include "generation.hpp"
#include "n_grams.hpp"
#include "options.hpp"
#include "side_by_side.hpp"
#include "streams.hpp"
#include "text.hpp"

namespace language {

/// A prepared text. Throws std::invalid_argument with a message if the file is not suitable.
class corpus {
 public:
  explicit corpus(options const& o) : corpus(o, read_file(o.text)) {}

  alphabet known;
  std::vector<std::uint8_t> ids;
  split parts;
  std::string checksum;  ///< identifies the text

 private:
  corpus(options const& o, std::string const& text)
      : known(text), ids(known.ids(text)), parts(split_of(long(text.size()))) {
    long const longest = o.most_chunks * o.config.chunk;
    if (parts.train.size() <= longest || parts.validation.size() == 0)
      throw std::invalid_argument("the text " + o.text + " is too short: of its " + std::to_string(text.size()) +
                                  " bytes " + std::to_string(parts.train.size()) +
                                  " are to learn from, in blocks of up to " + std::to_string(longest));
    tcnca::training::checksum sum;
    sum.add(text.data(), text.size());
    char hex[20];
    std::snprintf(hex, sizeof hex, "%016" PRIx64, sum.value());
    checksum = hex;
  }
};

inline double bits(double nats) { return nats / std::numbers::ln2; }

inline blocks blocks_of(options const& o, corpus const& c) {
  return {
      c.ids.data(), c.parts.train.end, {o.config.batch, o.config.chunk, o.least_chunks, o.most_chunks, o.config.seed}};
}

/// A training run followed by the test.
inline tcnca::training::outcome train(options const& o, corpus const& c, tcnca::models::model& model) {
  auto data = blocks_of(o, c);
  auto const bpc = [&](tcnca::models::model& m, span part) {
    return bits(streamed_loss(m, c.ids.data(), part, o.config.batch, o.config.length));
  };
  tcnca::training::task const task{.configuration = configuration(o, c.known.ranges(), c.checksum),
                                   .next = [&](long step) { return data.at(step); },
                                   .evaluate = [&](tcnca::models::model& m) -> tcnca::training::measures {
                                     return {{"validation_bpc", bpc(m, c.parts.validation)}};
                                   }};
  auto result = tcnca::training::train(o, model, task);
  if (result.status() == 0) result.evaluation.emplace_back("test_bpc", bpc(model, c.parts.test));
  return result;
}

/// Writes the prompt and the generated text to stdout, the speed to stderr. Returns an exit status: that of a signal if
/// one ended it early.
inline int write_text(options const& o, tcnca::models::model& model, alphabet const& known, long longest_read) {
  std::fwrite(o.prompt.data(), 1, o.prompt.size(), stdout);
  written const w =
      generate(model, longest_read, known, o.prompt, o.generate, {o.temperature, o.top_k, o.config.seed}, [](char c) {
        std::putchar(c);
        if (c == '\n') std::fflush(stdout);
        return std::ferror(stdout) == 0;
      });
  std::printf("\n");
  if (w.characters > 0)
    std::fprintf(stderr, "%s: %ld characters were written, %.0f a second\n", o.program.c_str(), w.characters,
                 double(w.characters) / w.seconds);
  int const signal = tcnca::training::interruption::asked();
  if (signal == 0) return 0;
  std::fprintf(stderr, "%s: %s ended the writing after %ld of %ld characters\n", o.program.c_str(),
               tcnca::training::interruption::name(signal), w.characters, o.generate);
  return 128 + signal;
}

inline int generate_only(options const& o) {
  auto from = tcnca::training::read_checkpoint(o.checkpoint);
  auto config = model_of(from.configuration);
  config.backend = o.config.backend, config.threads = o.config.threads;
  auto const known = alphabet::of_ranges(from.configuration.text("alphabet"));
  known.ids(o.prompt);
  auto const model = tcnca::models::make_model(config);
  tcnca::training::restore(*model, std::move(from), o.checkpoint);
  return write_text(o, *model, known, config.length);
}

inline int train_side_by_side(options const& o, corpus const& c, double yardstick) {
  std::vector<options> all;
  for (std::string const name : {"tcnca", "mega-fft", "mega"}) {
    all.push_back(o);
    all.back().model = name, choose_model(all.back());
    all.back().output = (std::filesystem::path(o.output) / name).string();
    all.back().resume =
        o.resume && std::filesystem::exists(
                        tcnca::training::run_files(all.back().output).checkpoint);  // the last run may not have begun
  }
  options longest = o;
  longest.least_chunks = o.most_chunks;
  auto data = blocks_of(longest, c);
  std::vector<contender> result = timed(all, data);
  for (std::size_t i = 0; i < all.size(); i++) {
    std::fprintf(stderr, "%s: %s is trained\n", o.program.c_str(), all[i].model.c_str());
    auto const model = tcnca::models::make_model(all[i].config);
    result[i].trained = train(all[i], c, *model);
    if (result[i].trained.status() != 0) return result[i].trained.status();
  }
  std::filesystem::path const folder = o.output;
  tcnca::training::replace_file(folder / "side_by_side.md", table(result));
  tcnca::training::replace_file(folder / "side_by_side.json", json(result));
  tcnca::training::replace_file(folder / "side_by_side.svg", picture(all, yardstick));
  std::fputs(table(result).c_str(), stdout);
  return 0;
}

inline int train_one(options const& o, corpus const& c) {
  auto const model = tcnca::models::make_model(o.config);
  auto const result = train(o, c, *model);
  int const status = tcnca::training::conclude(o, result);
  return status == 0 && o.generate > 0 ? write_text(o, *model, c.known, o.config.length) : status;
}

/// Runs the program and returns an exit status.
inline int run(int argc, char const* const* argv) {
  options o;
  if (auto const status = parse(argc, argv, o)) return *status;
  return tcnca::training::guarded(o, [&] {
    if (!o.checkpoint.empty()) return generate_only(o);
    corpus const c(o);
    c.known.ids(o.prompt);  // reports an invalid prompt before training
    o.config.vocabulary = c.known.size(), o.config.length = o.most_chunks * o.config.chunk;
    o.config.head = tcnca::models::head_kind::next_token;
    auto const counted = n_gram_bits(c.ids.data(), c.parts.train, c.parts.validation, c.known.size());
    std::fprintf(stderr,
                 "%s: the text has %zu bytes and %ld symbols; by frequencies after 0, 1, 2 characters its validation "
                 "part takes %.3f, %.3f, %.3f bpc\n",
                 o.program.c_str(), c.ids.size(), c.known.size(), counted[0], counted[1], counted[2]);
    return o.side_by_side ? train_side_by_side(o, c, counted[2]) : train_one(o, c);
  });
}

}  // namespace language
