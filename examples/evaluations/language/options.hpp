// The command line of language_model.
#pragma once
#include <optional>
#include <stdexcept>
#include <string>

#include "../training/options.hpp"
#include "../training/record.hpp"

namespace language {

struct options : tcnca::training::options {
  options() { small(); }

  std::string text;  ///< path of the text
  long least_chunks = 1, most_chunks = 1;
  bool side_by_side = false;
  long rounds = 12;
  std::string checkpoint, prompt;
  long generate = 0, top_k = 0;
  double temperature = 0.8;

  void small() {
    preset = "small";
    config.layers = 2, config.channels = 64, config.value_dim = 64, config.key_dim = 16, config.hidden = 64,
    config.chunk = 128;
    config.stack = "4x6", config.bias = tcnca::models::bias_kind::simple, config.dropout = 0;
    config.batch = 1, least_chunks = 128, most_chunks = 128;
    config.beta2 = 0.98, config.clip = 1, config.decay = 0.01;
    rates = {.kind = "cosine", .rate = 2e-2, .warmup = 50, .steps = 2000};
    every = 200;
  }
  /// MEGA's configuration (arXiv 2209.10655) for EnWik8: 39 million parameters.
  void enwik8() {
    preset = "enwik8";
    config.layers = 12, config.channels = 512, config.value_dim = 1024, config.key_dim = 128, config.hidden = 1024,
    config.chunk = 2048;
    config.stack = "8x5", config.bias = tcnca::models::bias_kind::rotary, config.dropout = 0.1;
    config.batch = 2, least_chunks = 2, most_chunks = 6;
    config.beta2 = 0.98, config.clip = 0.25, config.decay = 0.1;
    rates = {.kind = "linear", .rate = 5e-3, .warmup = 24000, .steps = 400000};
    every = 2000;
  }
};

class command_line : public tcnca::training::command_line {
 public:
  /// Keeps a reference: `o` must outlive this object.
  explicit command_line(options& o)
      : tcnca::training::command_line(
            "language_model",
            "Language modelling by characters: a model reads a text and predicts each next byte. Of the text 90 % are "
            "learned from, 5 %\n"
            "validate and 5 % test, read as streams with all that the model remembers; results are bits per character "
            "(bpc).",
            o,
            {{"small", "a model that takes minutes on two cores", [&o] { o.small(); }},
             {"enwik8", "12 layers of 512 channels, 400000 steps, as MEGA's paper", [&o] { o.enwik8(); }}}) {
    using namespace tcnca::training;
    std::string g = "Text";
    app.add_option("--text", o.text,
                   "This is the text: EnWik8, what examples/evaluations/language/gather_corpus.sh makes, or any file")
        ->group(g);
    app.add_option("--least-chunks", o.least_chunks, "Minimum length of a training block in chunks")
        ->check(whole(1L, most_chunks))
        ->group(g);
    app.add_option("--most-chunks", o.most_chunks, "Maximum length; each step samples length and position")
        ->check(whole(1L, most_chunks))
        ->group(g);
    g = "Side by side";
    flag("--side-by-side", o.side_by_side,
         "Train tcnca, mega-fft and mega alike, each in a folder in that of --output, and write side_by_side.md, .json "
         "and .svg there")
        ->group(g);
    app.add_option("--rounds", o.rounds, "Steps of each model to time before training, in turn with the others")
        ->check(whole(1L, 10000L))
        ->group(g);
    g = "Generation";
    app.add_option("--generate", o.generate, "Number of characters to generate to stdout after training")
        ->check(whole(0L, 1000000000000L))
        ->group(g);
    app.add_option("--checkpoint", o.checkpoint,
                   "Train nothing, and generate with the model of this file, which training left in its folder")
        ->group(g);
    app.add_option("--prompt", o.prompt, "The model reads this before it writes")->group(g);
    app.add_option("--temperature", o.temperature,
                   "Below 1 the likely characters come more often; at 0 always the likeliest")
        ->check(real(0, 1000))
        ->group(g);
    app.add_option("--top-k", o.top_k, "Sample from the k most likely characters only; 0: all")
        ->check(whole(0L, 256L))
        ->group(g);
    app.callback([this, &o] {
      require(!o.text.empty() || !o.checkpoint.empty() || !o.compare.empty(), "--text",
              "is needed, or --checkpoint, or --compare");
      require(o.least_chunks <= o.most_chunks, "--least-chunks", "must not be more than --most-chunks");
      require(o.checkpoint.empty() || o.generate > 0, "--checkpoint", "needs --generate, which says how much to write");
      require(!o.side_by_side || !o.output.empty(), "--side-by-side", "needs --output, a folder for the results");
      if (!o.compare.empty()) return;
      if (!o.checkpoint.empty())
        return only(
            "with --checkpoint, whose model is used as it is",
            {"--checkpoint", "--generate", "--prompt", "--temperature", "--top-k", "--seed", "--backend", "--threads"});
      if (o.side_by_side)
        return unused("with --side-by-side",
                      {"--model", "--generate", "--prompt", "--temperature", "--top-k", "--expect-loss"});
      unused("without --side-by-side", {"--rounds"});
      if (o.generate == 0) unused("without --generate", {"--prompt", "--temperature", "--top-k"});
    });
  }

 private:
  static constexpr long most_chunks = 1L << 30;
};

/// Returns an exit status if the program should end.
inline std::optional<int> parse(int argc, char const* const* argv, options& o) {
  return command_line(o).parse(argc, argv);
}

/// Everything that determines the result, as stored in a checkpoint.
inline tcnca::training::record configuration(options const& o, std::string const& alphabet,
                                             std::string const& checksum) {
  auto r = tcnca::training::configuration(o);
  r.set("least_chunks", o.least_chunks)
      .set("most_chunks", o.most_chunks)
      .set("alphabet", alphabet)
      .set("text_checksum", checksum);
  return r;
}

/// The model of such a configuration, for reading one sequence in pieces of a chunk.
inline tcnca::models::model_config model_of(tcnca::training::record const& r) {
  options o;
  auto& c = o.config;
  auto const whole = [&](char const* name) {
    double const value = r.number(name);
    if (!(value >= 0 && value < 0x1p53)) throw std::invalid_argument(std::string("the configuration has no ") + name);
    return long(value);
  };
  o.model = r.text("model");
  choose_model(o);
  c.head = tcnca::models::head_kind::next_token;
  c.vocabulary = whole("vocabulary"), c.layers = whole("layers"), c.channels = whole("channels"),
  c.value_dim = whole("value_dim");
  c.key_dim = whole("key_dim"), c.hidden = whole("hidden"), c.chunk = whole("chunk"), c.stack = r.text("stack");
  c.norm = tcnca::models::norm_kind(whole("norm")), c.pre_norm = r.text("pre_norm") == "true";
  c.bias = tcnca::models::bias_kind(whole("bias")), c.attention = tcnca::models::attention_kind(whole("attention"));
  c.batch = 1, c.length = c.chunk;
  return c;
}

}  // namespace language
