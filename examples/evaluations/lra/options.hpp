// The command line of lra.
#pragma once
#include "../training/options.hpp"
#include "dataset.hpp"
#include "listops.hpp"
#include "tasks.hpp"

namespace lra {

struct options : training::options {
  std::string task = "listops", data;
  counts examples;         ///< per part; 0 means all (files only)
  listops::shape listops;  ///< of generated expressions
  long show = 0, speed_batch = 4;
  bool speed = false;
  double expect_accuracy = 0;

  task_info const& info() const { return *find_task(task); }
};

/// MEGA's model for a task, with the numbers of examples of the Long Range Arena.
inline void set_table(options& o) {
  task_info const& t = o.info();
  auto& c = o.config;
  c.head = t.head, c.embedding = t.embedding, c.vocabulary = t.vocabulary, c.classes = t.classes, c.length = t.length;
  c.layers = t.layers, c.channels = t.channels, c.value_dim = t.value_dim, c.key_dim = t.key_dim, c.hidden = t.hidden;
  c.norm = t.norm, c.attention = t.attention, c.pre_norm = t.pre_norm, c.bias = models::bias_kind::simple;
  c.dropout = t.dropout, c.decay = t.decay, c.clip = 1, c.beta1 = 0.9, c.beta2 = 0.98, c.batch = t.batch;
  c.chunk = 128, c.stack = t.stack;
  o.rates = {.kind = "linear", .rate = t.rate, .warmup = t.warmup, .steps = t.steps};
  o.every = 1000;
  if (t.generated) o.examples = t.images() ? counts{160000, 20000, 20000} : counts{96000, 2000, 2000};
}

/// Small enough to learn within minutes on two cores; not comparable with published accuracies.
inline void set_quick(options& o) {
  auto& c = o.config;
  c.layers = 2, c.channels = 64, c.value_dim = 128, c.key_dim = 32, c.hidden = 128, c.dropout = 0, c.batch = 32,
  c.pre_norm = true;
  o.rates.rate = 4e-3, o.rates.warmup = 100, o.rates.steps = 2000, o.every = 250;
  o.examples = {20000, 1000, 1000};
  if (o.task == "listops")
    o.listops.shortest = 20, o.listops.longest = c.length = 100, c.stack = "4x4", o.examples.training = 96000,
    o.rates.steps = 4000;
  if (o.task == "text" || o.task == "retrieval") c.length = 1024, o.rates.steps = 1000;
  if (o.task == "image" || o.task == "pathfinder") o.rates.steps = 1000;
  if (o.task == "pathx") o.examples = {2000, 200, 200}, c.batch = 4, o.rates.steps = 200, o.every = 100;
}

/// Learned in seconds. The same model trained on shuffled tokens reaches 38 %.
inline void set_tiny(options& o) {
  set_quick(o);
  auto& c = o.config;
  c.channels = c.value_dim = c.hidden = 32, c.key_dim = 16;
  o.rates.rate = 5e-3, o.rates.warmup = 50, o.rates.steps = 3000, o.every = 1000;
  o.examples = {50000, 500, 1000};
  if (o.task == "listops")
    o.listops = {.depth = 3, .arguments = 4, .shortest = 8, .longest = 24}, c.length = c.chunk = 24;
}

/// Checks the options. Throws std::invalid_argument.
inline void check(options const& o) {
  using line = training::command_line;
  task_info const& t = o.info();
  bool const generated = o.data.empty();
  line::require(
      t.generated || !generated || o.speed, "--task",
      "names " + o.task + ", which is not generated: give --data, the folder with its files (--speed needs none)");
  line::require(!t.images() || o.config.length == t.length, "--length",
                "must be " + std::to_string(t.length) + ", for the images of " + o.task + " have that many pixels");
  if (generated && o.task == "listops")
    line::require(
        o.listops.longest <= o.config.length, "--longest",
        "must not be more than --length, the " + std::to_string(o.config.length) + " tokens that the model takes");
  if (generated && !o.speed)
    line::require(o.examples.training > 0 && o.examples.validation > 0 && o.examples.test > 0, "--train",
                  "must be above 0 where examples are generated, as must --validation and --test");
  line::require(o.show == 0 || !t.images() || !o.output.empty(), "--show", "needs --output, the folder for the images");
}

class command_line : public training::command_line {
 public:
  /// For the task of `o`, whose table must be set. Keeps a reference: `o` must outlive this object.
  explicit command_line(options& o)
      : training::command_line(
            "lra",
            "Long Range Arena: classes of long sequences. ListOps and Pathfinder are generated, or read like the "
            "others from the files of --data.\n"
            "Accuracies are shares of examples; `majority` is that of who always names the most frequent class,\n"
            "`first_token` (listops) that of who names the most frequent one for the outermost operator.\n"
            "Without a preset the model is MEGA's for the task, with attention in chunks of 128 as MEGA-chunk's.",
            o, presets(o)) {
    using namespace training;
    std::string const g = "The task", s = "Instead of training";
    std::string text = "The defaults of all other options are those of the task.";
    std::vector<std::string> names;
    for (task_info const& t : tasks())
      text += std::string(" ") + t.name + ": " + t.description + ".", names.push_back(t.name);
    app.add_option("--task", o.task, text)->check(one_of(names))->group(g);
    app.add_option("--data", o.data,
                   "This folder has files as they are released: listops-1000, pathfinder32, pathfinder128, tsv_data of "
                   "lra_release, aclImdb,\n"
                   "cifar-10-batches-bin. Without it, listops, pathfinder and pathx are generated")
        ->group(g);
    app.add_option("--length", o.config.length, "Maximum length in tokens; texts are truncated")
        ->check(whole(2L, most_length))
        ->group(g);
    app.add_option("--train", o.examples.training, "Number of training examples; from files the first ones, 0: all")
        ->check(whole(0L, most_examples))
        ->group(g);
    app.add_option("--validation", o.examples.validation, "So many examples are tested at every evaluation")
        ->check(whole(0L, most_examples))
        ->group(g);
    app.add_option("--test", o.examples.test, "So many examples are tested at the end")
        ->check(whole(0L, most_examples))
        ->group(g);
    app.add_option("--depth", o.listops.depth, "Generated expressions have at most this depth")
        ->check(whole(1, 100))
        ->group(g);
    app.add_option("--arguments", o.listops.arguments, "Maximum number of arguments of an operator")
        ->check(whole(2, listops::most_arguments))
        ->group(g);
    app.add_option("--shortest", o.listops.shortest, "Minimum length of generated expressions in tokens")
        ->check(whole(1L, most_length))
        ->group(g);
    app.add_option("--longest", o.listops.longest, "Maximum length of generated expressions in tokens")
        ->check(whole(1L, most_length))
        ->group(g);
    app.add_option("--expect-accuracy", o.expect_accuracy, "Fail unless the test accuracy is at least this")
        ->check(real(0, 1))
        ->group(g);
    app.add_option("--show", o.show,
                   "Show this many training examples: texts on stdout, images in --output as PGM, "
                   "where they replace older ones")
        ->check(whole(0L, 1000000L))
        ->group(s);
    flag("--speed", o.speed,
         "Measure how fast tcnca and mega (scan, and FFT) of this configuration infer and learn, with random sequences "
         "of full length, and\n"
         "write a table to stdout, and speed.md and speed.json to --output")
        ->group(s);
    app.add_option("--speed-batch", o.speed_batch, "So many examples are measured side by side")
        ->check(whole(1L, 1L << 20))
        ->group(s);
    app.callback([this, &o] {
      if (!o.compare.empty()) return;
      check(o);
      if (o.show > 0)
        return only("with --show", {"--show", "--task", "--preset", "--data", "--length", "--depth", "--arguments",
                                    "--shortest", "--longest", "--seed", "--output"});
      if (o.speed)
        return unused("with --speed", {"--data", "--train", "--validation", "--test", "--steps", "--every", "--resume",
                                       "--expect-accuracy", "--expect-loss"});
      unused("without --speed", {"--speed-batch"});
      if (!o.data.empty() || o.task != "listops")
        unused("where no expressions are generated", {"--depth", "--arguments", "--shortest", "--longest"});
    });
  }

 private:
  static constexpr long most_length = 1L << 24, most_examples = 1L << 32;

  static std::vector<training::preset> presets(options& o) {
    return {
        {"full", "the same with attention over the whole sequence", [&o] { o.config.chunk = o.config.length; }},
        {"quick",
         "a smaller model and shorter training, listops with expressions of 20 to 100 tokens (not 500 to 2000), texts "
         "cut at 1024, which takes "
         "minutes on two cores",
         [&o] { set_quick(o); }},
        {"tiny", "smaller still, listops of depth 3 with 8 to 24 tokens, which takes seconds", [&o] { set_tiny(o); }}};
  }
};

/// Returns an exit status if the program should end.
inline std::optional<int> parse(int argc, char const* const* argv, options& o) {
  // The task is parsed first: presets and the defaults shown by --help depend on it.
  for (int i = 1; i < argc; i++) {
    std::string_view const word = argv[i];
    std::string_view const name = word == "--task" && i + 1 < argc ? argv[i + 1]
                                  : word.starts_with("--task=")    ? word.substr(7)
                                                                   : "";
    if (find_task(name) != nullptr) o.task = name;
  }
  set_table(o);
  return command_line(o).parse(argc, argv);
}

}  // namespace lra
