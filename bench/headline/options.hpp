// The command line of conv_vs_fft.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "problem.hpp"

namespace tcnca::bench {

struct options {
  index batch = 0, channels = 0;  ///< 0: what suits the machine, see batch_on
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<index> lengths{1024, 4096, 16384, 65536, 131072};
  std::vector<std::string> stacks, dtypes{"fp32", "bf16"}, backends;
  std::string input, output = "summary.json";
  double time_limit = 150, levels_limit = 20;
  bool check = false;

  /// A GPU needs more rows to be busy than a CPU. At 131k positions a sequence in fp32 is then 64 MiB on a CPU, 512 MiB on a GPU.
  index batch_on(std::string const& backend) const { return batch != 0 ? batch : backend == "cuda" ? 4 : 2; }
  index channels_on(std::string const& backend) const {
    return channels != 0 ? channels : backend == "cuda" ? 256 : 64;
  }
  /// Indices into headline_stacks.
  std::vector<size> chosen_stacks() const {
    std::vector<size> chosen;
    for (size s = 0; s < headline_stacks.size(); s++)
      if (stacks.empty() || std::find(stacks.begin(), stacks.end(), stack_name(headline_stacks[s])) != stacks.end())
        chosen.push_back(s);
    return chosen;
  }
};

/// Throws CLI::ParseError (also for --help).
inline options parse(int argc, char** argv, std::vector<std::string> const& backends) {
  options o;
  o.backends = backends;
  CLI::App app{
      "Dilated convolution stacks against the FFT recurrence, forward and backward.\n"
      "Prints a table and writes a summary (JSON) and, beside it, its table in Markdown and a plot (speedup.svg)."};
  std::vector<std::string> names;
  for (auto const& s : headline_stacks) names.push_back(stack_name(s));
  app.add_option("--batch", o.batch, "Sequences (default: 2 on a CPU, 4 on a GPU)")->check(CLI::PositiveNumber);
  app.add_option("--channels", o.channels, "Channels (default: 64 on a CPU, 256 on a GPU)")->check(CLI::PositiveNumber);
  app.add_option("--threads", o.threads, "Threads of the CPU, for every contender")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--lengths", o.lengths, "Sequence lengths (1048576 is a good one more)")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--stacks", o.stacks, "Stacks (all)")->delimiter(',')->check(CLI::IsMember(names));
  app.add_option("--dtype", o.dtypes, "Element types")
      ->delimiter(',')
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  app.add_option("--backend", o.backends, "Machines (all that are here)")
      ->delimiter(',')
      ->check(CLI::IsMember(backends))
      ->capture_default_str();
  app.add_option("--input", o.input, "A text whose bytes are embedded as input (default: one found on this machine)")
      ->check(CLI::ExistingFile);
  app.add_option("--output", o.output, "The summary to write; table and plot go into the same folder")
      ->capture_default_str();
  app.add_option("--time-limit", o.time_limit, "Seconds the measurements should take; repetitions shrink to fit")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--levels-limit", o.levels_limit, "Skip the library of convolutions where one call takes more seconds")
      ->capture_default_str();
  app.add_flag("--check", o.check, "Only compare every contender with the direct sum, at small lengths");
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& e) {
    app.exit(e);
    throw;
  }
  return o;
}

}  // namespace tcnca::bench
