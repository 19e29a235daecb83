// The command line of lra.
#pragma once
#include "../training/options.hpp"
#include "dataset.hpp"
#include "listops.hpp"
#include "tasks.hpp"

namespace lra {

struct options : training::options {
  std::string task = "listops", data;
  counts examples;         ///< of each part; of files 0 stands for all
  listops::shape listops;  ///< of what is generated
  long show = 0, speed_batch = 4;
  bool speed = false;
  double expect_accuracy = 0;

  task_info const& info() const { return *find_task(task); }
};

/// MEGA's model for a task, and the numbers of examples of the Long Range Arena's release.
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

/// Small enough to learn something in minutes on two cores; not what the table's accuracies are about.
inline void set_quick(options& o) {
  auto& c = o.config;
  c.layers = 2, c.channels = 64, c.value_dim = 128, c.key_dim = 32, c.hidden = 128, c.dropout = 0, c.batch = 32, c.pre_norm = true;
  o.rates.rate = 4e-3, o.rates.warmup = 100, o.rates.steps = 2000, o.every = 250;
  o.examples = {20000, 1000, 1000};
  if (o.task == "listops")
    o.listops.shortest = 20, o.listops.longest = c.length = 100, c.stack = "4x4", o.examples.training = 96000, o.rates.steps = 4000;
  if (o.task == "text" || o.task == "retrieval") c.length = 1024, o.rates.steps = 1000;
  if (o.task == "image" || o.task == "pathfinder") o.rates.steps = 1000;
  if (o.task == "pathx") o.examples = {2000, 200, 200}, c.batch = 4, o.rates.steps = 200, o.every = 100;
}

/// Learned in seconds. A model that does not see the order of the tokens gets 38 % of these expressions (the same model, on shuffled tokens).
inline void set_tiny(options& o) {
  set_quick(o);
  auto& c = o.config;
  c.channels = c.value_dim = c.hidden = 32, c.key_dim = 16;
  o.rates.rate = 5e-3, o.rates.warmup = 50, o.rates.steps = 3000, o.every = 1000;
  o.examples = {50000, 500, 1000};
  if (o.task == "listops") o.listops = {.depth = 3, .arguments = 4, .shortest = 8, .longest = 24}, c.length = c.chunk = 24;
}

/// What the options say, checked. Throws std::invalid_argument.
inline void check(options const& o) {
  using training::command_line;
  task_info const& t = o.info();
  bool const generated = o.data.empty();
  command_line::require(t.generated || !generated || o.speed, "--task",
                        o.task + " is not generated: give --data, the folder with its files (--speed needs none)");
  command_line::require(!t.images() || o.config.length == t.length, "--length",
                        o.task + " has images of " + std::to_string(t.length) + " pixels, which cannot be cut");
  if (generated && o.task == "listops")
    command_line::require(o.listops.longest <= o.config.length, "--longest",
                          "expressions are longer than the " + std::to_string(o.config.length) + " tokens that the model takes (--length)");
  if (generated && !o.speed)
    command_line::require(o.examples.training > 0 && o.examples.validation > 0 && o.examples.test > 0, "--train",
                          "what is generated needs numbers of examples above 0, as do --validation and --test");
  command_line::require(o.show == 0 || !t.images() || !o.output.empty(), "--show", "needs --output, the folder for the images");
}

/// An exit status where there is nothing more to do.
inline std::optional<int> parse(int argc, char const* const* argv, options& o) {
  // The task comes first: what a preset means, and the defaults that --help shows, depend on it.
  for (int i = 1; i < argc; i++) {
    std::string_view const word = argv[i];
    std::string_view const name = word == "--task" && i + 1 < argc ? argv[i + 1] : word.starts_with("--task=") ? word.substr(7) : "";
    if (find_task(name) != nullptr) o.task = name;
  }
  set_table(o);
  auto& c = o.config;
  training::command_line line(
      "lra",
      "Long Range Arena: classes of long sequences. ListOps and Pathfinder are generated, or read like the others from the files of --data.\n"
      "Accuracies are shares of examples; `majority` is that of who always names the most frequent class,\n"
      "`first_token` (listops) that of who names the most frequent one for the outermost operator.\n"
      "Without a preset: MEGA's model for the task, with attention in chunks of 128 as MEGA-chunk's.",
      o,
      {{"full", "the same with attention over the whole sequence", [&c] { c.chunk = c.length; }},
       {"quick",
        "a smaller model and shorter training, listops with expressions of 20 to 100 tokens (not 500 to 2000), texts cut at 1024: minutes on two "
        "cores",
        [&o] { set_quick(o); }},
       {"tiny", "smaller still, listops of depth 3 with 8 to 24 tokens: seconds", [&o] { set_tiny(o); }}});
  auto& app = line.app;
  std::string const g = "The task", s = "Instead of training";
  std::string text = "Defaults of all other options are those of the task.";
  std::vector<std::string> names;
  for (task_info const& t : tasks()) text += std::string(" ") + t.name + ": " + t.description + ".", names.push_back(t.name);
  app.add_option("--task", o.task, text)->check(CLI::IsMember(names))->group(g);
  app.add_option("--data", o.data,
                 "A folder with files as they are released: listops-1000, pathfinder32, pathfinder128, tsv_data of lra_release, aclImdb,\n"
                 "cifar-10-batches-bin. Without it, listops, pathfinder and pathx are generated")->group(g);
  app.add_option("--length", c.length, "The longest sequence; texts are cut there")->check(CLI::Range(2L, 1L << 24))->group(g);
  app.add_option("--train", o.examples.training, "Examples to learn from; of files the first, 0: all")->check(CLI::Range(0L, 1L << 32))->group(g);
  app.add_option("--validation", o.examples.validation, "Examples tested at every evaluation")->check(CLI::Range(0L, 1L << 32))->group(g);
  app.add_option("--test", o.examples.test, "Examples tested at the end")->check(CLI::Range(0L, 1L << 32))->group(g);
  app.add_option("--depth", o.listops.depth, "Of generated expressions, at most")->check(CLI::Range(1, 100))->group(g);
  app.add_option("--arguments", o.listops.arguments, "Of an operator, at most")->check(CLI::Range(2, listops::most_arguments))->group(g);
  app.add_option("--shortest", o.listops.shortest, "Tokens of a generated expression, at least")->check(CLI::Range(1L, 1L << 24))->group(g);
  app.add_option("--longest", o.listops.longest, "At most")->check(CLI::Range(1L, 1L << 24))->group(g);
  app.add_option("--expect-accuracy", o.expect_accuracy, "Fail unless the test accuracy is at least this")->check(CLI::Range(0.0, 1.0))->group(g);
  app.add_option("--show", o.show, "So many examples of what would be learned from: texts to stdout, images to --output as PGM")
      ->check(CLI::Range(0L, 1000000L))->group(s);
  app.add_flag("--speed", o.speed,
               "How fast tcnca and mega (scan, and FFT) of this configuration infer and learn, with random sequences of full length:\n"
               "a table to stdout, and speed.md and speed.json to --output")->group(s);
  app.add_option("--speed-batch", o.speed_batch, "Examples side by side for that")->check(CLI::Range(1L, 1L << 20))->group(s);
  app.callback([&o] {
    if (o.compare.empty()) check(o);
  });
  return line.parse(argc, argv);
}

}  // namespace lra
