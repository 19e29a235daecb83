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

/// A chunk length of at most `most` such that the last chunk, which holds the query, is as long as possible.
inline long chunk_for(long positions, long most) {
  if (positions <= most) return positions;
  long best = most, last = 0;
  for (long chunk = most; chunk > most / 2; chunk--)
    if (long const rest = (positions - 1) % chunk + 1; rest > last) best = chunk, last = rest;
  return best;
}

/// The task that the options describe. Throws std::invalid_argument.
inline problem problem_of(options const& o) {
  problem p = o.data;
  p.kind = o.form == "single" ? form::single : form::multi_query;
  p.pairs = o.pairs > 0 ? o.pairs : p.length / 4;
  training::command_line::require_multiple("--length", p.length, 2);
  if (p.kind == form::multi_query) {
    training::command_line::require(
        p.pairs >= 1 && 4 * p.pairs <= p.length, "--pairs",
        "must be a whole number from 1 to a quarter of --length, not " + std::to_string(p.pairs));
    training::command_line::require(
        p.vocabulary > p.length, "--vocabulary",
        "must be more than --length for multi-query recall, not " + std::to_string(p.vocabulary));
  }
  return p;
}

class command_line : public training::command_line {
 public:
  /// Keeps a reference: `o` must outlive this object.
  explicit command_line(options& o)
      : training::command_line(
            "associative_recall",
            "Associative recall: a model reads pairs of keys and values and is asked for the values of keys.", o,
            presets(o)) {
    using namespace training;
    std::string const g = "The task", s = "Many tasks at once";
    app.add_option("--form", o.form,
                   "single: one key is asked for, at the end; multi-query: all keys are asked for, anywhere")
        ->check(one_of({"single", "multi-query"}))
        ->group(g);
    app.add_option("--vocabulary", o.data.vocabulary, "Number of tokens: keys, values and (single) two special ones")
        ->check(whole(4, most_vocabulary))
        ->group(g);
    app.add_option("--length", o.data.length,
                   "Length of a sequence in tokens, even; with single, the length of its pairs")
        ->check(whole(2L, most_length))
        ->group(g);
    app.add_option("--pairs", o.pairs,
                   "multi-query: number of pairs, each queried once, at most a quarter of --length; 0 stands for "
                   "this quarter")
        ->check(whole(0L, most_length / 4))
        ->group(g);
    app.add_option("--train", o.train, "Number of training sequences; 0: new ones at every step")
        ->check(whole(0L, most_sequences))
        ->group(g);
    app.add_option("--test", o.test, "Number of test sequences")->check(whole(1L, most_sequences))->group(g);
    app.add_option("--until", o.until, "Training ends once the test accuracy is at least this; 0: never")
        ->check(real(0, 1))
        ->group(g);
    app.add_option("--expect-accuracy", o.expect_accuracy, "Fail unless the last test accuracy is at least this")
        ->check(real(0, 1))
        ->group(g);
    flag("--sweep", o.sweep,
         "Train every model on every length and vocabulary, and write results.md, results.json and accuracy.svg to "
         "--output. The other options\n"
         "hold for each, but --batch and --test, which are for short sequences, become smaller with length. A run ends "
         "when all tests are\n"
         "answered right, or by --until, --steps or --time-limit. --resume keeps what is finished")
        ->group(s);
    app.add_option("--lengths", o.lengths, "The default is 40 200 1000; for multi-query it is 32 64 128 256")
        ->check(whole(2L, most_length))
        ->group(s);
    app.add_option("--vocabularies", o.vocabularies, "The default is 10 20 30; for multi-query it is 512")
        ->check(whole(4, most_vocabulary))
        ->group(s);
    app.add_option("--longest-chunk", o.longest_chunk,
                   "Each run has a chunk of at most this, such that the last one is as full as can be")
        ->check(whole(2L, 16384L))
        ->group(s);
    app.add_option("--models", o.models, "These models are trained")
        ->check(one_of({"tcnca", "tcnca-simple", "mega", "mega-fft"}))
        ->group(s);
    app.callback([this, &o] {
      require(!o.sweep || !o.output.empty(), "--sweep", "needs --output, a folder for its results");
      if (!o.compare.empty()) return;
      if (o.form == "single") unused("with --form single", {"--pairs"});
      if (o.sweep)
        return unused("with --sweep", {"--model", "--vocabulary", "--chunk", "--expect-loss", "--expect-accuracy"});
      unused("without --sweep", {"--lengths", "--vocabularies", "--longest-chunk", "--models"});
      o.data = problem_of(o);
    });
  }

 private:
  static constexpr int most_vocabulary = 1 << 20;
  static constexpr long most_length = 1L << 24, most_sequences = 1000000000;

  static std::vector<training::preset> presets(options& o) {
    auto& c = o.config;
    return {{"small", "vocabulary 8, length 16, a model of 32 channels, which takes seconds",
             [&o, &c] {
               o.data.vocabulary = 8, o.data.length = 16, o.train = 1000, o.test = 200;
               o.rates.rate = 0.01, o.rates.steps = 600, o.rates.warmup = 30, o.every = 200;
               c.channels = c.value_dim = c.hidden = 32, c.key_dim = 16;
             }},
            {"paper",
             "vocabulary 30, length 131072, the longest of the paper, one sequence a step, of which there are no two "
             "the same",
             [&o, &c] {
               o.data.vocabulary = 30, o.data.length = 131072, o.train = 0, o.test = 20, o.rates.steps = 600,
               o.rates.warmup = 30, o.every = 20;
               c.batch = 1, c.chunk = chunk_for(o.data.length + 2, 256);
             }}};
  }
};

/// Returns an exit status if the program should end.
inline std::optional<int> parse(int argc, char const* const* argv, options& o) {
  return command_line(o).parse(argc, argv);
}

}  // namespace recall
