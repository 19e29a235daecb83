// The command line shared by the training programs. Each program adds its own options and presets.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "settings.hpp"
#include "values.hpp"

namespace tcnca::training {

/// A named set of defaults; explicit options take precedence.
struct preset {
  std::string name, description;
  std::function<void()> apply;
};

class command_line {
  static inline std::vector<std::pair<std::string, models::norm_kind>> const norms{{"layer", models::norm_kind::layer},
                                                                                   {"scale", models::norm_kind::scale},
                                                                                   {"rms", models::norm_kind::rms},
                                                                                   {"batch", models::norm_kind::batch}};
  static inline std::vector<std::pair<std::string, models::bias_kind>> const biases{
      {"simple", models::bias_kind::simple}, {"rotary", models::bias_kind::rotary}};
  static inline std::vector<std::pair<std::string, models::attention_kind>> const attentions{
      {"softmax", models::attention_kind::softmax}, {"laplace", models::attention_kind::laplace}};

 public:
  CLI::App app;

  /// Keeps a reference: `o` must outlive this object.
  command_line(std::string const& program, std::string const& description, options& o, std::vector<preset> presets = {})
      : app(description +
                "\nProgress goes to stderr. With --output a folder keeps configuration.json, log.jsonl (one line for "
                "each evaluation), curves.svg and\n"
                "the checkpoint; without it the log goes to stdout. The exit status is 0 after success, 1 after a "
                "failure, 2 after wrong options or\n"
                "files, and 128 + the number of the signal after SIGHUP, SIGINT or SIGTERM, which save a checkpoint "
                "first.",
            program),
        options_(o),
        presets_(std::move(presets)) {
    o.program = program;
    app.option_defaults()->always_capture_default();
    add_model(), add_learning(), add_running();
  }

  command_line(command_line const&) = delete;
  command_line& operator=(command_line const&) = delete;

  /// Returns an exit status if the program should end: 0 after --help, 2 after an error message.
  std::optional<int> parse(int argc, char const* const* argv) {
    auto const refuse = [&](std::string const& why) {
      return std::fprintf(stderr, "%s: %s\n", options_.program.c_str(), why.c_str()), 2;
    };
    try {
      for (int i = 1; i < argc; i++)  // CLI11 would take the next argument as the value
        if (std::string const word = argv[i]; word.starts_with("--") && word.find('=') == word.size() - 1)
          require(false, word.substr(0, word.size() - 1), "needs a value after \"=\"");
      choose_preset(argc, argv);
      app.parse(argc, argv);
      require_multiple("--key-dim", options_.config.key_dim, 8),
          require_multiple("--value-dim", options_.config.value_dim, 8);
      require(!options_.resume || !options_.output.empty(), "--resume",
              "needs --output, the folder with the checkpoint");
      require(options_.compare.empty() || !options_.output.empty(), "--compare",
              "needs --output, where the picture goes");
    } catch (CLI::ParseError const& e) {
      return e.get_exit_code() == 0 ? app.exit(e) : refuse(sentence(e));
    } catch (std::invalid_argument const& e) {  // from a callback of the program
      return refuse(e.what());
    }
    if (!options_.compare.empty()) only("with --compare", {"--compare", "--output"});
    choose_model(options_);
    return {};
  }

  /// Reports an error from a check without a validator, such as app.callback.
  static void require(bool holds, std::string const& option, std::string const& sentence) {
    if (!holds) throw std::invalid_argument(option + " " + sentence);
  }
  static void require_multiple(std::string const& option, long value, long of) {
    require(value % of == 0, option, "must be a multiple of " + std::to_string(of) + ", not " + std::to_string(value));
  }

  /// Adds an option without a value.
  CLI::Option* flag(std::string const& name, bool& value, std::string const& description) {
    return app.add_flag(name, value, description)->disable_flag_override();
  }

  using option_names = std::vector<std::string>;
  /// Warns about those of the given options that have no effect.
  void unused(std::string const& when, option_names const& options) const {
    warn(when,
         [&](std::string const& name) { return std::find(options.begin(), options.end(), name) != options.end(); });
  }
  /// The same for all options except these.
  void only(std::string const& when, option_names const& used) const {
    warn(when, [&](std::string const& name) { return std::find(used.begin(), used.end(), name) == used.end(); });
  }

 private:
  static constexpr long most_channels = 1L << 20, most_steps = 1000000000000;

  void warn(std::string const& when, std::function<bool(std::string const&)> const& unused) const {
    std::string given;
    int count = 0;
    for (CLI::Option const* const option : app.get_options())
      if (option->count() > 0 && unused(option->get_name())) given += (count++ == 0 ? "" : ", ") + option->get_name();
    if (count > 0)
      std::fprintf(stderr, "%s: warning: %s %s no effect %s\n", options_.program.c_str(), given.c_str(),
                   count == 1 ? "has" : "have", when.c_str());
  }
  void add_model() {
    auto& c = options_.config;
    std::string const g = "The model";
    app.add_option("--model", options_.model,
                   "tcnca; tcnca-simple, which has no gates: y = x + silu(o Wh); mega, which has an EMA, "
                   "computed as a scan, in place of the\n"
                   "convolutions; mega-fft, which computes it by FFT")
        ->check(one_of({"tcnca", "tcnca-simple", "mega", "mega-fft"}))
        ->group(g);
    app.add_option("--layers", c.layers, "The number of layers")->check(whole(1L, 1000L))->group(g);
    app.add_option("--channels", c.channels, "The width of the model")->check(whole(1L, most_channels))->group(g);
    app.add_option("--value-dim", c.value_dim, "The values of attention have this width, a multiple of 8")
        ->check(whole(16L, 2048L))
        ->group(g);
    app.add_option("--key-dim", c.key_dim, "The keys of attention have this width, a multiple of 8")
        ->check(whole(16L, 256L))
        ->group(g);
    app.add_option("--hidden", c.hidden, "The width inside the feed-forward blocks")
        ->check(whole(1L, most_channels))
        ->group(g);
    app.add_option("--chunk", c.chunk, "Chunk length of attention in positions")->check(whole(1L, 16384L))->group(g);
    app.add_option("--stack", c.stack, "Convolutions: taps x levels; their dilations are powers of the taps")->group(g);
    choice("--norm", c.norm, norms, "The norm is one of these");
    choice("--bias", c.bias, biases, "The bias of attention is one of these");
    choice("--attention", c.attention, attentions, "Attention weights come from one of these");
    app.add_option("--pre-norm", c.pre_norm,
                   "true: norms stand before the parts of a layer; false: they stand after them")
        ->check(one_of({"true", "false"}))
        ->default_function([&c] { return std::string(c.pre_norm ? "true" : "false"); })
        ->capture_default_str()
        ->group(g);
    app.add_option("--dropout", c.dropout, "This share of what layers and blocks add is dropped")
        ->check(real(0, 0.99))
        ->group(g);
    app.add_option("--attention-dropout", c.attention_dropout, "This share of the attention weights is dropped")
        ->check(real(0, 0.99))
        ->group(g);
    app.add_option("--hidden-dropout", c.hidden_dropout, "This share is dropped inside the feed-forward blocks")
        ->check(real(0, 0.99))
        ->group(g);
  }
  void add_learning() {
    auto& c = options_.config;
    auto& r = options_.rates;
    std::string const g = "Learning";
    app.add_option("--steps", r.steps, "Number of training steps")->check(whole(1L, most_steps))->group(g);
    app.add_option("--batch", c.batch, "Batch size in sequences")->check(whole(1L, 1L << 20))->group(g);
    app.add_option("--rate", r.rate, "The highest rate of learning")->check(above_zero)->group(g);
    app.add_option("--warmup", r.warmup, "Warm-up in steps")->check(whole(0L, most_steps))->group(g);
    app.add_option("--schedule", r.kind,
                   "Learning rate after the warm-up: linear and cosine fall to 0 at the last step")
        ->check(one_of({"linear", "cosine", "inverse-sqrt", "constant"}))
        ->group(g);
    app.add_option("--decay", c.decay, "The decay of weights")->check(not_negative)->group(g);
    app.add_option("--clip", c.clip, "The gradients are scaled down to this norm where theirs is larger; 0 allows any")
        ->check(not_negative)
        ->group(g);
    app.add_option("--beta1", c.beta1, "The decay of the first moment in Adam")->check(real(0, 0.9999))->group(g);
    app.add_option("--beta2", c.beta2, "The decay of the second moment in Adam")->check(real(0, 0.9999999))->group(g);
    app.add_option("--seed", c.seed,
                   "The seed of data, parameters and dropout: the same seed and threads give the same bits")
        ->check(whole(0UL, ~0UL))
        ->group(g);
  }
  void add_running() {
    auto& o = options_;
    std::string const g = "Running";
    std::string text = "A preset sets defaults, which other options override.";
    std::vector<std::string> names{"default"};
    for (preset const& p : presets_) text += " " + p.name + ": " + p.description + ".", names.push_back(p.name);
    app.add_option("--preset", o.preset, text)->check(one_of(names))->group(g);
    app.add_option("--backend", o.config.backend, "The model runs there")->check(one_of({"cpu", "cuda"}))->group(g);
    app.add_option("--threads", o.config.threads, "Number of CPU threads")->check(whole(1L, 1024L))->group(g);
    app.add_option("--every", o.every, "Steps between evaluations, each followed by a checkpoint")
        ->check(whole(1L, most_steps))
        ->group(g);
    app.add_option("--time-limit", o.time_limit, "Time limit in seconds; training then evaluates and saves. 0: none")
        ->check(not_negative)
        ->group(g);
    app.add_option("--output", o.output, "This folder takes all results")->group(g);
    flag("--resume", o.resume,
         "Go on from the checkpoint in the folder of --output, with the same bits as if training had never stopped. A "
         "finished run continues with a\n"
         "larger --steps")
        ->group(g);
    app.add_option("--compare", o.compare, "Train nothing, and draw the logs in these folders into comparison.svg")
        ->default_function([] { return std::string(); })
        ->capture_default_str()
        ->group(g);
    app.add_option("--expect-loss", o.expect_loss, "Fail unless the last training loss is below this; 0 allows any")
        ->check(not_negative)
        ->group(g);
  }
  /// An enumeration, given by the names of its values.
  template <class T>
  void choice(std::string const& name, T& value, std::vector<std::pair<std::string, T>> const& all,
              std::string const& description) {
    auto const given = [&value, &all] {
      return std::find_if(all.begin(), all.end(), [&](auto const& e) { return e.second == value; })->first;
    };
    std::vector<std::string> names;
    for (auto const& e : all) names.push_back(e.first);
    app.add_option_function<std::string>(
           name,
           [&value, &all](std::string const& text) {
             for (auto const& e : all)
               if (e.first == text) value = e.second;
           },
           description)
        ->check(one_of(names))
        ->default_function(given)
        ->capture_default_str()
        ->group("The model");
  }
  /// Parsed first, so that explicit options take precedence and --help shows the preset's defaults.
  void choose_preset(int argc, char const* const* argv) {
    std::string const flag = "--preset";
    for (int i = 1; i < argc; i++) {
      std::string const word = argv[i];
      std::string const name = word == flag && i + 1 < argc   ? argv[i + 1]
                               : word.starts_with(flag + "=") ? word.substr(flag.size() + 1)
                                                              : "";
      for (preset const& p : presets_)
        if (p.name == name) p.apply();
    }
    for (CLI::Option* const option : app.get_options()) option->capture_default_str();
  }

  options& options_;
  std::vector<preset> presets_;
};

}  // namespace tcnca::training
