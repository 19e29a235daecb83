// The command line of conv_vs_fft.
#pragma once
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "../../support/command_line.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

struct options {
  index_t batch = 0, channels = 0;  ///< 0: the default of the backend
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<index_t> lengths{1024, 4096, 16384, 131072};
  std::vector<std::string> stacks, dtypes{"fp32", "bf16"}, backends;
  std::string input, output = "summary.json", python = "python3";
  double time_limit = 150, levels_limit = 5;
  bool check = false, smoke = false, huge_pages = false;

  /// A GPU needs more rows than a CPU to be occupied. At length 131072 a tensor in fp32 has 64 MiB on a CPU, 512 MiB
  /// on a GPU.
  index_t batch_on(std::string const& backend) const { return batch != 0 ? batch : backend == "cuda" ? 4 : 2; }
  index_t channels_on(std::string const& backend) const {
    return channels != 0 ? channels : backend == "cuda" ? 256 : 64;
  }
  /// Indices into compared_stacks.
  std::vector<size_t> chosen_stacks() const {
    std::vector<size_t> chosen;
    for (size_t s = 0; s < compared_stacks.size(); s++)
      if (stacks.empty() || std::find(stacks.begin(), stacks.end(), stack_name(compared_stacks[s])) != stacks.end())
        chosen.push_back(s);
    return chosen;
  }
};

/// Throws usage_error (also for --help).
inline options parse(int argc, char const* const* argv, std::vector<std::string> const& backends) {
  options o;
  o.backends = backends;
  command_line line(
      "conv_vs_fft",
      "Dilated convolution stacks against the FFT recurrence, forward and backward.\n"
      "Prints a table; writes a summary (JSON) and, in the same folder, a Markdown table and a plot (speedup.svg).");
  std::vector<std::string> names;
  for (auto const& s : compared_stacks) names.push_back(stack_name(s));
  line.option("--batch", o.batch, "Sequences (default: 2 on a CPU, 4 on a GPU)", whole_number(1, 4096), false);
  line.option("--channels", o.channels, "Channels (default: 64 on a CPU, 256 on a GPU)", whole_number(1, 65536), false);
  line.option("--threads", o.threads, "CPU threads of every contender", whole_number(1, 1024));
  line.list("--lengths", o.lengths, "Sequence lengths", whole_number(1, index_t{1} << 24));
  line.list("--stacks", o.stacks, "Stacks (all)", one_of(names));
  line.list("--dtype", o.dtypes, "Element types", one_of({"fp32", "bf16"}));
  line.list("--backend", o.backends, "Backends (default: all that are available)", one_of(backends));
  line.option("--input", o.input,
              "A text whose bytes are embedded as input (default: one that is found on this machine)", readable_file(),
              false);
  line.option("--output", o.output, "The summary to write; table and plot are written to its folder", writable_file());
  line.option("--time-limit", o.time_limit,
              "Time limit of the measurements in seconds; repetitions are reduced to meet it", number(0.01, 86400));
  line.option("--levels-limit", o.levels_limit, "Skip a convolution library where one call takes more seconds",
              number(0, 86400));
  line.text("--python", o.python, "Python with PyTorch, one more contender");
  line.flag("--huge-pages", o.huge_pages, "Place large buffers in 2 MB pages (madvise)");
  line.flag("--smoke", o.smoke, "A short run of under a minute: other defaults for lengths, stacks, types and time");
  line.flag("--check", o.check, "Only compare every contender with the fp64 reference, at small lengths");
  line.parse(argc, argv);
  if (o.smoke) {
    if (!line.given("--lengths")) o.lengths = {1024, 16384};
    if (!line.given("--stacks")) o.stacks = {"K4f4D6", "K17f16D4"};
    if (!line.given("--dtype")) o.dtypes = {"fp32"};
    if (!line.given("--time-limit")) o.time_limit = 20;
  }
  for (auto const& backend : o.backends) {
    index_t const rows = o.batch_on(backend) * o.channels_on(backend),
                  longest = *std::max_element(o.lengths.begin(), o.lengths.end());
    if (backend == "cuda" && rows > 65535)
      throw usage_error("--channels: " + std::to_string(o.channels_on(backend)) + " channels of " +
                        std::to_string(o.batch_on(backend)) +
                        " sequences are more than the 65535 rows that the FFT on CUDA has.");
    // The sequences, the FFT's spectra and the inputs that oneDNN saves for each level.
    if (backend == "cpu" && !o.check)
      require_memory("--lengths: " + std::to_string(longest) + " with batch " + std::to_string(o.batch_on(backend)) +
                         " and " + std::to_string(o.channels_on(backend)) + " channels",
                     24. * sizeof(float) * static_cast<double>(rows) * static_cast<double>(longest));
  }
  return o;
}

}  // namespace tcnca::bench
