// The command line of associative_recall.
#pragma once
#include "../training/options.hpp"
#include "data.hpp"

namespace recall {

namespace training = tcnca::training;

struct options : training::options {
  options() {
    model = "tcnca-simple";
    config.batch = 32, config.clip = 1, config.decay = 0.01, config.chunk = 64;
    rates.rate = 0.005, rates.steps = 1500, every = 50;
  }
  problem data;
  std::string form = "single";
  long train = 5000, test = 500, pairs = 0;
  double expect_accuracy = 0, until = 0;
  bool sweep = false;
  long longest_chunk = 256;
  std::vector<long> lengths;
  std::vector<int> vocabularies;
  std::vector<std::string> models{"tcnca-simple", "tcnca", "mega"};
};

/// A chunk of at most `most` positions such that the last one, from which the question is asked, is as long as can be.
inline long chunk_for(long positions, long most) {
  if (positions <= most) return positions;
  long best = most, last = 0;
  for (long chunk = most; chunk > most / 2; chunk--)
    if (long const rest = (positions - 1) % chunk + 1; rest > last) best = chunk, last = rest;
  return best;
}

/// What the options say of the data, checked. Throws std::invalid_argument.
inline problem problem_of(options const& o) {
  problem p = o.data;
  p.kind = o.form == "single" ? form::single : form::multi_query;
  p.pairs = o.pairs > 0 ? o.pairs : p.length / 4;
  training::command_line::require_multiple("--length", p.length, 2);
  if (p.kind == form::multi_query) {
    training::command_line::require(p.pairs >= 1 && 4 * p.pairs <= p.length, "--pairs", "must be 1 to a quarter of --length");
    training::command_line::require(p.vocabulary > p.length, "--vocabulary", "must be more than --length for multi-query recall");
  }
  return p;
}

/// An exit status where there is nothing more to do.
inline std::optional<int> parse(int argc, char const* const* argv, options& o) {
  auto& c = o.config;
  training::command_line line(
      "associative_recall",
      "Associative recall: a model reads pairs of keys and values and is asked for the values of keys.", o,
      {{"small", "vocabulary 8, length 16, a model of 32 channels: seconds",
        [&o, &c] {
          o.data.vocabulary = 8, o.data.length = 16, o.train = 1000, o.test = 200;
          o.rates.rate = 0.01, o.rates.steps = 600, o.rates.warmup = 30, o.every = 200;
          c.channels = c.value_dim = c.hidden = 32, c.key_dim = 16;
        }},
       {"paper", "vocabulary 30, length 131072, the longest of the paper: a sequence a step, of which there are no two the same",
        [&o, &c] {
          o.data.vocabulary = 30, o.data.length = 131072, o.train = 0, o.test = 20, o.rates.steps = 600, o.rates.warmup = 30, o.every = 20;
          c.batch = 1, c.chunk = chunk_for(o.data.length + 2, 256);
        }}});
  auto& app = line.app;
  std::string const g = "The task", s = "Many tasks at once";
  app.add_option("--form", o.form, "single: one key is asked for, at the end. multi-query: all keys are, anywhere")
      ->check(CLI::IsMember({"single", "multi-query"}))->group(g);
  app.add_option("--vocabulary", o.data.vocabulary, "Tokens: keys, values and (single) two special ones")->check(CLI::Range(4, 1 << 20))->group(g);
  app.add_option("--length", o.data.length, "Tokens, even; single: of the pairs")->check(CLI::Range(2L, 1L << 24))->group(g);
  app.add_option("--pairs", o.pairs, "multi-query: keys that are given and asked for, at most a quarter of --length; 0: so many")
      ->check(CLI::Range(0L, 1L << 22))->group(g);
  app.add_option("--train", o.train, "Sequences to learn from; 0: new ones at every step")->check(training::not_negative)->group(g);
  app.add_option("--test", o.test, "Other sequences to test on")->check(training::above_zero)->group(g);
  app.add_option("--until", o.until, "End once the test accuracy is at least this; 0: go on")->check(CLI::Range(0.0, 1.0))->group(g);
  app.add_option("--expect-accuracy", o.expect_accuracy, "Fail unless the last test accuracy is at least this")->check(CLI::Range(0.0, 1.0))->group(g);
  app.add_flag("--sweep", o.sweep,
               "Train every model on every length and vocabulary: results.md, results.json and accuracy.svg in --output. What else is given holds for\n"
               "each, but --batch and --test, which are for short sequences and become fewer with length. Each ends when all tests are answered\n"
               "right, or by --until, --steps or --time-limit. --resume keeps what is finished")->group(s);
  app.add_option("--lengths", o.lengths, "Default: 40 200 1000; multi-query: 32 64 128 256")->check(CLI::Range(2L, 1L << 24))->group(s);
  app.add_option("--vocabularies", o.vocabularies, "Default: 10 20 30; multi-query: 512")->check(CLI::Range(4, 1 << 20))->group(s);
  app.add_option("--longest-chunk", o.longest_chunk, "Each has a chunk of at most this, such that the last is as full as can be")
      ->check(CLI::Range(2, 16384))->group(s);
  app.add_option("--models", o.models)->check(CLI::IsMember({"tcnca", "tcnca-simple", "mega", "mega-fft"}))->group(s);
  app.callback([&o] {
    training::command_line::require(!o.sweep || !o.output.empty(), "--sweep", "needs --output, a folder for its results");
    if (!o.sweep) o.data = problem_of(o);
  });
  return line.parse(argc, argv);
}

}  // namespace recall
