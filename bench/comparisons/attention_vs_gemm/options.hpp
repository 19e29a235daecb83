// The command line of attention_vs_gemm.
#pragma once
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "../../support/command_line.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

struct attention_options {
  index_t batch = 0, heads = 0, length = 0;  ///< 0: the default of the backend
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<index_t> chunks{128, 512, 2048}, key_dims{128}, value_dims{1024};
  std::vector<std::string> functions{"softmax", "laplace"}, masks{"full", "causal"}, directions{"forward", "backward"},
      dtypes, backends;
  std::string filter, output = "attention.json";
  double min_time = 0.2, time_limit = 0;  ///< time_limit 0: none
  bool check = false, all = false;

  std::vector<std::string> dtypes_on(std::string const& backend) const {
    if (!dtypes.empty()) return dtypes;
    return all || backend == "cuda" ? std::vector<std::string>{"fp32", "bf16"} : std::vector<std::string>{"fp32"};
  }
  /// A GPU needs more chunks than a CPU to be occupied.
  attention_problem problem_on(std::string const& backend, index_t chunk, index_t key_dim, index_t value_dim) const {
    bool const gpu = backend == "cuda";
    attention_problem p;
    p.batch = batch != 0 ? batch : gpu ? 4 : 1, p.heads = heads != 0 ? heads : gpu ? 2 : 1;
    p.length = length != 0 ? length : gpu ? 32768 : 4096;
    p.chunk = std::min(chunk, p.length), p.key_dim = key_dim, p.value_dim = value_dim;
    p.threads = threads;
    return p;
  }
};

/// Throws usage_error (also for --help).
inline attention_options parse_attention(int argc, char const* const* argv, std::vector<std::string> const& backends) {
  attention_options o;
  o.backends = backends;
  command_line line("attention_vs_gemm",
                    "Chunked attention against matrix products and a pass over the scores, forward and backward.\n"
                    "Prints a table and writes a summary (JSON).");
  line.option("--batch", o.batch, "Sequences (default: 1 on a CPU, 4 on a GPU)", whole_number(1, 4096), false);
  line.option("--heads", o.heads, "Heads (default: 1 on a CPU, 2 on a GPU)", whole_number(1, 4096), false);
  line.option("--length", o.length, "Rows of a sequence (default: 4096 on a CPU, 32768 on a GPU)",
              whole_number(1, index_t{1} << 24), false);
  line.list("--chunks", o.chunks, "Rows of a chunk", whole_number(1, 16384));
  line.list("--key-dims", o.key_dims, "Length of q and k", whole_number(16, 256));
  line.list("--value-dims", o.value_dims, "Length of v and o", whole_number(16, 2048));
  line.list("--functions", o.functions, "Functions of the scores", one_of({"softmax", "laplace"}));
  line.list("--masks", o.masks, "Masks", one_of({"full", "causal"}));
  line.list("--directions", o.directions, "Passes", one_of({"forward", "backward"}));
  line.list("--dtype", o.dtypes, "Element types (default: fp32 on a CPU, fp32,bf16 on a GPU)",
            one_of({"fp32", "bf16"}));
  line.list("--backend", o.backends, "Backends (default: all that are available)", one_of(backends));
  line.option("--threads", o.threads, "CPU threads of every contender", whole_number(1, 1024));
  line.text("--filter", o.filter,
            "Only rows whose names contain this text: 'cpu, fp32, softmax, causal, backward, C 512'");
  line.option("--min-time", o.min_time, "Minimum measurement time of each contender of a row in seconds",
              number(0.001, 3600));
  line.option("--time-limit", o.time_limit, "Seconds after which remaining rows are skipped (default: none)",
              number(0.01, 86400), false);
  line.option("--output", o.output, "The summary to write", writable_file());
  line.flag("--check", o.check, "Only compare every contender with the fp64 reference, in sampled chunks");
  line.flag(
      "--all", o.all,
      "The whole grid: chunks 128,512,2048, key dimensions 64,128, value dimensions 256,1024,2048, fp32 and bf16");
  line.parse(argc, argv);
  if (o.all) o.chunks = {128, 512, 2048}, o.key_dims = {64, 128}, o.value_dims = {256, 1024, 2048};
  for (auto const& backend : o.backends) {
    auto const largest = [](std::vector<index_t> const& all) { return *std::max_element(all.begin(), all.end()); };
    auto const p = o.problem_on(backend, 1, largest(o.key_dims), largest(o.value_dims));
    // Eight tensors; for bf16, an fp32 baseline has its own copies.
    if (backend == "cpu" && !o.check)
      require_memory(
          "--length: " + std::to_string(p.length) + " with batch " + std::to_string(p.batch) + " and " +
              std::to_string(p.heads) + " heads",
          1.5 * 4 * sizeof(float) * (static_cast<double>(p.key_elements()) + static_cast<double>(p.value_elements())));
  }
  return o;
}

}  // namespace tcnca::bench
