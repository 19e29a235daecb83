// The command line of attention_vs_gemm.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "arena.hpp"

namespace tcnca::bench {

struct attention_options {
  index batch = 0, heads = 0, length = 0;  ///< 0: what suits the machine
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<index> chunks{128, 512, 2048}, key_dims{128}, value_dims{1024};
  std::vector<std::string> functions{"softmax", "laplace"}, masks{"full", "causal"}, directions{"forward", "backward"},
      dtypes, backends;
  std::string filter, output = "attention.json";
  double min_time = 0.3;
  bool check = false, all = false;

  std::vector<std::string> dtypes_on(std::string const& backend) const {
    if (!dtypes.empty()) return dtypes;
    return all || backend == "cuda" ? std::vector<std::string>{"fp32", "bf16"} : std::vector<std::string>{"fp32"};
  }
  /// A GPU needs more chunks to be busy than a CPU.
  attention_problem problem_on(std::string const& backend, index chunk, index key_dim, index value_dim) const {
    bool const gpu = backend == "cuda";
    attention_problem p;
    p.batch = batch != 0 ? batch : gpu ? 4 : 1, p.heads = heads != 0 ? heads : gpu ? 2 : 1;
    p.length = length != 0 ? length : gpu ? 32768 : 4096;
    p.chunk = std::min(chunk, p.length), p.key_dim = key_dim, p.value_dim = value_dim;
    p.threads = threads;
    return p;
  }
};

/// Throws CLI::ParseError (also for --help).
inline attention_options parse_attention(int argc, char** argv, std::vector<std::string> const& backends) {
  attention_options o;
  o.backends = backends;
  CLI::App app{
      "Chunked attention against the same of matrix products and a pass over the scores, forward and backward.\n"
      "Prints a table and writes a summary (JSON)."};
  auto const list = [&](char const* name, auto& to, char const* what) {
    return app.add_option(name, to, what)->delimiter(',')->capture_default_str();
  };
  app.add_option("--batch", o.batch, "Sequences (default: 1 on a CPU, 4 on a GPU)")->check(CLI::PositiveNumber);
  app.add_option("--heads", o.heads, "Heads (default: 1 on a CPU, 2 on a GPU)")->check(CLI::PositiveNumber);
  app.add_option("--length", o.length, "Rows of a sequence (default: 4096 on a CPU, 32768 on a GPU)")
      ->check(CLI::PositiveNumber);
  list("--chunks", o.chunks, "Rows of a chunk")->check(CLI::Range(1, 16384));
  list("--key-dims", o.key_dims, "Length of q and k")->check(CLI::Range(16, 256));
  list("--value-dims", o.value_dims, "Length of v and o")->check(CLI::Range(16, 2048));
  list("--functions", o.functions, "Functions of the scores")->check(CLI::IsMember({"softmax", "laplace"}));
  list("--masks", o.masks, "Masks")->check(CLI::IsMember({"full", "causal"}));
  list("--directions", o.directions, "Passes")->check(CLI::IsMember({"forward", "backward"}));
  list("--dtype", o.dtypes, "Element types (default: fp32 on a CPU, fp32,bf16 on a GPU)")->check(CLI::IsMember({"fp32", "bf16"}));
  list("--backend", o.backends, "Machines (all that are here)")->check(CLI::IsMember(backends));
  app.add_option("--threads", o.threads, "Threads of the CPU, for every contender")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--filter", o.filter, "Only rows whose name contains this: 'cpu, fp32, softmax, causal, backward, C 512'");
  app.add_option("--min-time", o.min_time, "Seconds that each measurement takes at least")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--output", o.output, "The summary to write")->capture_default_str();
  app.add_flag("--check", o.check, "Only compare every contender with the definition in fp64, in sampled chunks");
  app.add_flag("--all", o.all,
               "The whole grid: chunks 128,512,2048, key dimensions 64,128, value dimensions 256,1024,2048, fp32 and bf16");
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& e) {
    app.exit(e);
    throw;
  }
  if (o.all) o.chunks = {128, 512, 2048}, o.key_dims = {64, 128}, o.value_dims = {256, 1024, 2048};
  return o;
}

}  // namespace tcnca::bench
