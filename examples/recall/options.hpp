// The command line of associative_recall.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <string>
#include <thread>

namespace recall {

struct options {
  std::string model = "tcnca-simple", output;
  int vocabulary = 20, threads = int(std::max(1u, std::thread::hardware_concurrency()));
  long length = 40, train = 5000, test = 500;
  long layers = 2, channels = 64, value_dim = 128, key_dim = 32, hidden = 128, chunk = 64;
  long steps = 1000, batch = 32, every = 100, warmup = 100;
  double rate = 1e-2, decay = 0.01, clip = 1, dropout = 0, time_limit = 3600, expect_loss = 0, expect_accuracy = 0;
  unsigned long seed = 1;
};

/// Throws CLI::ParseError (also for --help).
inline options parse(int argc, char** argv) {
  options o;
  CLI::App app{
      "Associative recall: a model reads pairs of keys and values and is asked for the value of one key.\n"
      "Trains on the CPU. Progress goes to stderr, results as JSON lines to stdout or a file."};
  app.option_defaults()->always_capture_default();
  app.add_option("--model", o.model, "tcnca-simple (no gates: y = x + silu(o Wh)), tcnca, or mega (the moving average for the stack)")
      ->check(CLI::IsMember({"tcnca-simple", "tcnca", "mega"}));
  app.add_option("--vocabulary", o.vocabulary, "Tokens: keys, values and two special ones")->check(CLI::Range(4, 1 << 20));
  app.add_option("--length", o.length, "Tokens of the pairs, even")->check(CLI::Range(2L, 1L << 24));
  app.add_option("--train", o.train, "Sequences to learn from")->check(CLI::PositiveNumber);
  app.add_option("--test", o.test, "Other sequences to test on")->check(CLI::PositiveNumber);
  app.add_option("--layers", o.layers)->check(CLI::Range(1, 1000));
  app.add_option("--channels", o.channels)->check(CLI::PositiveNumber);
  app.add_option("--value-dim", o.value_dim, "Of attention: a multiple of 8, 16 to 2048")->check(CLI::Range(16, 2048));
  app.add_option("--key-dim", o.key_dim, "Of attention: a multiple of 8, 16 to 256")->check(CLI::Range(16, 256));
  app.add_option("--hidden", o.hidden, "Of the feed-forward blocks")->check(CLI::PositiveNumber);
  app.add_option("--chunk", o.chunk, "Positions that attention sees together")->check(CLI::Range(1, 16384));
  app.add_option("--steps", o.steps)->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch)->check(CLI::PositiveNumber);
  app.add_option("--rate", o.rate, "Of learning, at its highest: it rises for --warmup steps, then falls to 0 at the last")->check(CLI::PositiveNumber);
  app.add_option("--warmup", o.warmup)->check(CLI::NonNegativeNumber);
  app.add_option("--decay", o.decay, "Of weights")->check(CLI::NonNegativeNumber);
  app.add_option("--clip", o.clip, "Largest norm of the gradients, 0: any")->check(CLI::NonNegativeNumber);
  app.add_option("--dropout", o.dropout)->check(CLI::Range(0.0, 0.99));
  app.add_option("--seed", o.seed, "Of data, parameters and dropout: the same seed and threads give the same numbers");
  app.add_option("--threads", o.threads)->check(CLI::Range(1, 4096));
  app.add_option("--every", o.every, "Steps from test to test")->check(CLI::PositiveNumber);
  app.add_option("--time-limit", o.time_limit, "Seconds after which training ends early")->check(CLI::PositiveNumber);
  app.add_option("--output", o.output, "A file for the JSON lines");
  app.add_option("--expect-loss", o.expect_loss, "Fail unless the last training loss is below this (0: no matter)");
  app.add_option("--expect-accuracy", o.expect_accuracy, "Fail unless the last test accuracy is at least this");
  try {
    app.parse(argc, argv);
    auto const multiple = [](char const* name, long v, long of) {
      if (v % of != 0) throw CLI::ValidationError(name, "must be a multiple of " + std::to_string(of));
    };
    multiple("--length", o.length, 2), multiple("--key-dim", o.key_dim, 8), multiple("--value-dim", o.value_dim, 8);
  } catch (CLI::ParseError const& e) {
    app.exit(e);
    throw;
  }
  return o;
}

}  // namespace recall
