// The command line of serving.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <optional>
#include <string>

#include "../training/settings.hpp"
#include "../training/values.hpp"

namespace serving {

/// Threads, seed and time limit are those of the training programs.
struct options : tcnca::training::options {
  options() { program = "serving"; }

  std::string checkpoint, text;
  long sequences = 2000, requests = 6000, admit = 32;
  long longest_prompt = 64, longest_reply = 256;
  double temperature = 0.8;
  long check = 100, show = 1;
};

/// Returns an exit status if the program should end: 0 after --help, 2 after an error message.
inline std::optional<int> parse(int argc, char const* const* argv, options& o) {
  using namespace tcnca::training;
  CLI::App app(
      "Continuous batching: a language model writes many texts at the same time. Each has a state in a slot of a pool; "
      "complete texts leave and new\n"
      "prompts enter while the others go on. Progress, with tokens per second and latencies, goes to stderr once a "
      "second; the result is a line of\n"
      "JSON on stdout. At the end logits are compared with those of whole sequences. The exit status is 0 after "
      "success, 1 after a failure or a\n"
      "difference, 2 after wrong options or files, and 128 + the number of the signal after SIGHUP, SIGINT or SIGTERM.",
      o.program);
  app.option_defaults()->always_capture_default();
  app.add_option("--checkpoint", o.checkpoint, "The model: a checkpoint that language_model left in its folder")
      ->required();
  app.add_option("--text", o.text, "Prompts are pieces of this text; the model must know its characters")->required();
  app.add_option("--sequences", o.sequences, "Slots: so many sequences are served at the same time")
      ->check(whole(1L, 1L << 20));
  app.add_option("--requests", o.requests, "Number of sequences to serve")->check(whole(1L, 1L << 40));
  app.add_option("--longest-prompt", o.longest_prompt, "Prompts have 1 to so many characters")
      ->check(whole(1L, 1L << 20));
  app.add_option("--longest-reply", o.longest_reply, "Replies have 1 to this many characters")
      ->check(whole(1L, 1L << 20));
  app.add_option("--admit", o.admit, "Between two steps at most so many prompts are read")->check(whole(1L, 1L << 20));
  app.add_option("--temperature", o.temperature,
                 "Below 1 the likely characters come more often; at 0 always the likeliest")
      ->check(real(0, 1000));
  app.add_option("--check", o.check, "Compare about so many sequences with one call for the whole sequence; 0: none")
      ->check(whole(0L, 1L << 40));
  app.add_option("--show", o.show, "Print so many of the checked sequences, prompt and reply")
      ->check(whole(0L, 1L << 40));
  app.add_option("--time-limit", o.time_limit, "Stop after so many seconds; 0: when all requests are served")
      ->check(not_negative);
  app.add_option("--threads", o.config.threads, "Number of CPU threads")->check(whole(1L, 1024L));
  app.add_option("--seed", o.config.seed, "The seed of prompts, lengths and replies")->check(whole(0UL, ~0UL));
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    return std::fprintf(stderr, "%s: %s\n", o.program.c_str(), sentence(e).c_str()), 2;
  }
  return std::nullopt;
}

}  // namespace serving
