// The command line that training programs share. A program adds its own options and its presets.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstdio>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "settings.hpp"

namespace tcnca::training {

/// A named set of defaults; options that are given win over it.
struct preset {
  std::string name, description;
  std::function<void()> apply;
};

/// What numbers must be; CLI11's own validators answer with the largest number there is, and let nan through.
inline CLI::Validator number(std::string const& name, std::string const& what, bool (*holds)(double)) {
  return {[=](std::string& text) { return holds(std::strtod(text.c_str(), nullptr)) ? std::string() : "must be " + what; }, name};
}
inline CLI::Validator const above_zero = number("POSITIVE", "above 0", [](double v) { return v > 0 && v <= 1e300; });
inline CLI::Validator const not_negative = number("NONNEGATIVE", "0 or above", [](double v) { return v >= 0 && v <= 1e300; });

class command_line {
  static inline std::vector<std::pair<std::string, models::norm_kind>> const norms{
      {"layer", models::norm_kind::layer}, {"scale", models::norm_kind::scale}, {"rms", models::norm_kind::rms}, {"batch", models::norm_kind::batch}};
  static inline std::vector<std::pair<std::string, models::bias_kind>> const biases{{"simple", models::bias_kind::simple},
                                                                                    {"rotary", models::bias_kind::rotary}};
  static inline std::vector<std::pair<std::string, models::attention_kind>> const attentions{{"softmax", models::attention_kind::softmax},
                                                                                             {"laplace", models::attention_kind::laplace}};

 public:
  CLI::App app;

  /// The options stay where they are: `o` must outlive this.
  command_line(std::string const& program, std::string const& description, options& o, std::vector<preset> presets = {})
      : app(description +
                "\nProgress goes to stderr. With --output a folder keeps configuration.json, log.jsonl (one line an evaluation), curves.svg and\n"
                "the checkpoint; without, the log goes to stdout. Exit status: 0 done, 1 failed, 2 wrong options or files, 130 interrupted.",
            program),
        options_(o), presets_(std::move(presets)) {
    o.program = program;
    app.option_defaults()->always_capture_default();
    add_model(), add_learning(), add_running();
  }

  /// An exit status where there is nothing more to do: 0 after --help, 2 after a sentence that says what is wrong.
  std::optional<int> parse(int argc, char const* const* argv) {
    try {
      choose_preset(argc, argv);
      app.parse(argc, argv);
      for (CLI::Option const* const option : app.get_options())
        if (option->get_type_name().starts_with("FLOAT"))
          for (std::string const& text : option->results()) require(!std::isnan(std::strtod(text.c_str(), nullptr)), option->get_name(), "must be a number");
      require_multiple("--key-dim", options_.config.key_dim, 8), require_multiple("--value-dim", options_.config.value_dim, 8);
      require(!options_.resume || !options_.output.empty(), "--resume", "needs --output, the folder with the checkpoint");
      require(options_.compare.empty() || !options_.output.empty(), "--compare", "needs --output, where the picture goes");
    } catch (CLI::ParseError const& e) {
      return app.exit(e) == 0 ? 0 : 2;
    } catch (std::invalid_argument const& e) {  // of a callback of the program's
      std::fprintf(stderr, "%s\nRun with --help for more information.\n", e.what());
      return 2;
    }
    choose_model(options_);
    return {};
  }

  /// For checks that CLI11 has no name for, such as in app.callback.
  static void require(bool holds, std::string const& option, std::string const& sentence) {
    if (!holds) throw std::invalid_argument(option + ": " + sentence);
  }
  static void require_multiple(std::string const& option, long value, long of) {
    require(value % of == 0, option, "must be a multiple of " + std::to_string(of));
  }

 private:
  void add_model() {
    auto& c = options_.config;
    std::string const g = "The model";
    app.add_option("--model", options_.model,
                   "tcnca, tcnca-simple (no gates: y = x + silu(o Wh)), mega (its moving average for the convolutions, as a scan), mega-fft (by FFT)")
        ->check(CLI::IsMember({"tcnca", "tcnca-simple", "mega", "mega-fft"}))->group(g);
    app.add_option("--layers", c.layers)->check(CLI::Range(1, 1000))->group(g);
    app.add_option("--channels", c.channels)->check(above_zero)->group(g);
    app.add_option("--value-dim", c.value_dim, "Of attention: a multiple of 8")->check(CLI::Range(16, 2048))->group(g);
    app.add_option("--key-dim", c.key_dim, "Of attention: a multiple of 8")->check(CLI::Range(16, 256))->group(g);
    app.add_option("--hidden", c.hidden, "Channels inside the feed-forward blocks")->check(above_zero)->group(g);
    app.add_option("--chunk", c.chunk, "Positions that attention sees together")->check(CLI::Range(1, 16384))->group(g);
    app.add_option("--stack", c.stack, "Taps x depth of the convolutions, whose dilations are powers of the taps")->group(g);
    choice("--norm", c.norm, norms, "layer, scale, rms or batch");
    choice("--bias", c.bias, biases, "Of attention: simple or rotary");
    choice("--attention", c.attention, attentions, "softmax or laplace");
    app.add_option("--pre-norm", c.pre_norm, "true: norms before the parts of a layer, false: after")->group(g);
    app.add_option("--dropout", c.dropout, "Of what layers and blocks add")->check(CLI::Range(0.0, 0.99))->group(g);
    app.add_option("--attention-dropout", c.attention_dropout)->check(CLI::Range(0.0, 0.99))->group(g);
    app.add_option("--hidden-dropout", c.hidden_dropout, "Inside the feed-forward blocks")->check(CLI::Range(0.0, 0.99))->group(g);
  }
  void add_learning() {
    auto& c = options_.config;
    auto& r = options_.rates;
    std::string const g = "Learning";
    app.add_option("--steps", r.steps)->check(CLI::Range(1L, 1L << 40))->group(g);
    app.add_option("--batch", c.batch, "Sequences a step")->check(CLI::Range(1L, 1L << 20))->group(g);
    app.add_option("--rate", r.rate, "Of learning, at its highest")->check(above_zero)->group(g);
    app.add_option("--warmup", r.warmup, "Steps while the rate rises")->check(CLI::Range(0L, 1L << 40))->group(g);
    app.add_option("--schedule", r.kind, "Of the rate after that: linear or cosine (to 0 at the last step), inverse-sqrt, constant")
        ->check(CLI::IsMember({"linear", "cosine", "inverse-sqrt", "constant"}))->group(g);
    app.add_option("--decay", c.decay, "Of weights")->check(not_negative)->group(g);
    app.add_option("--clip", c.clip, "Largest norm of the gradients, 0: any")->check(not_negative)->group(g);
    app.add_option("--beta1", c.beta1, "Of Adam")->check(CLI::Range(0.0, 0.9999))->group(g);
    app.add_option("--beta2", c.beta2, "Of Adam")->check(CLI::Range(0.0, 0.9999999))->group(g);
    app.add_option("--seed", c.seed, "Of data, parameters and dropout: the same seed and threads give the same bits")->group(g);
  }
  void add_running() {
    auto& o = options_;
    std::string const g = "Running";
    std::string text = "Defaults that other options override.";
    std::vector<std::string> names{"default"};
    for (preset const& p : presets_) text += " " + p.name + ": " + p.description + ".", names.push_back(p.name);
    app.add_option("--preset", o.preset, text)->check(CLI::IsMember(names))->group(g);
    app.add_option("--backend", o.config.backend, "Where the model runs")->check(CLI::IsMember({"cpu", "cuda"}))->group(g);
    app.add_option("--threads", o.config.threads, "Of the CPU")->check(CLI::Range(1, 4096))->group(g);
    app.add_option("--every", o.every, "Steps from evaluation to evaluation; each also saves a checkpoint")->check(CLI::Range(1L, 1L << 40))->group(g);
    app.add_option("--time-limit", o.time_limit, "Seconds after which training stops, evaluates and saves; 0: none")
        ->check(not_negative)->group(g);
    app.add_option("--output", o.output, "A folder for all results")->group(g);
    app.add_flag("--resume", o.resume, "Go on from the checkpoint in the folder of --output: the same bits as if it had never stopped")->group(g);
    app.add_option("--compare", o.compare, "Train nothing: draw the logs in these folders into comparison.svg")
        ->default_function([] { return std::string(); })->capture_default_str()->group(g);
    app.add_option("--expect-loss", o.expect_loss, "Fail unless the last training loss is below this; 0: any")->check(not_negative)->group(g);
  }
  /// An enumeration by the names of its values.
  template <class T>
  void choice(std::string const& name, T& value, std::vector<std::pair<std::string, T>> const& all, std::string const& description) {
    auto const given = [&value, &all] { return std::find_if(all.begin(), all.end(), [&](auto const& e) { return e.second == value; })->first; };
    std::vector<std::string> names;
    for (auto const& e : all) names.push_back(e.first);
    app.add_option_function<std::string>(
           name,
           [&value, &all](std::string const& text) {
             for (auto const& e : all)
               if (e.first == text) value = e.second;
           },
           description)->check(CLI::IsMember(names))->default_function(given)->capture_default_str()->group("The model");
  }
  /// Before all else is parsed, so that what is given wins and --help shows the preset's defaults.
  void choose_preset(int argc, char const* const* argv) {
    std::string const flag = "--preset";
    for (int i = 1; i < argc; i++) {
      std::string const word = argv[i];
      std::string const name = word == flag && i + 1 < argc ? argv[i + 1] : word.starts_with(flag + "=") ? word.substr(flag.size() + 1) : "";
      for (preset const& p : presets_)
        if (p.name == name) p.apply();
    }
    for (CLI::Option* const option : app.get_options()) option->capture_default_str();
  }

  options& options_;
  std::vector<preset> presets_;
};

}  // namespace tcnca::training
