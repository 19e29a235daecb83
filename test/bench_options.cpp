// The command lines of the benchmarks: whatever is wrong is one sentence that names the option, the value and what is
// permitted.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "../bench/comparisons/attention_vs_gemm/options.hpp"
#include "../bench/comparisons/conv_extents/options.hpp"
#include "../bench/comparisons/conv_vs_fft/options.hpp"
#include "../bench/comparisons/layer_step/options.hpp"

namespace tcnca::bench {
namespace {

enum class program { conv_vs_fft, conv_extents, attention_vs_gemm, layer_step };

/// What the program says of these arguments; empty if it takes them.
std::string complaint(program which, std::vector<std::string> arguments) {
  std::vector<char const*> argv{"program"};
  for (auto const& a : arguments) argv.push_back(a.c_str());
  int const argc = int(argv.size());
  try {
    if (which == program::conv_vs_fft) parse(argc, argv.data(), {"cpu", "cuda"});
    if (which == program::conv_extents) parse_extents(argc, argv.data());
    if (which == program::attention_vs_gemm) parse_attention(argc, argv.data(), {"cpu", "cuda"});
    if (which == program::layer_step) parse_step(argc, argv.data());
  } catch (usage_error const& e) {
    EXPECT_NE(e.status, 0);
    return e.what();
  }
  return {};
}

struct wrong {
  program of;
  std::vector<std::string> arguments;
  std::string sentence;
};

TEST(bench_options, what_is_wrong_is_said_in_a_sentence) {
  constexpr auto conv = program::conv_vs_fft, extents = program::conv_extents, attention = program::attention_vs_gemm,
                 step = program::layer_step;
  std::string const length = " is not a whole number from 1 to 16777216.", huge = "99999999999999999999999999";
  std::vector<wrong> const table{
      // zero, negative, out of range, huge, no number, another notation, nothing
      {conv, {"--lengths", "0"}, "--lengths: 0" + length},
      {conv, {"--lengths", "1024,-1"}, "--lengths: -1" + length},
      {conv, {"--lengths", "16777217"}, "--lengths: 16777217" + length},
      {conv, {"--lengths", huge}, "--lengths: " + huge + length},
      {conv, {"--lengths", "1e3"}, "--lengths: 1e3" + length},
      {conv, {"--lengths", "0x400"}, "--lengths: 0x400" + length},
      {conv, {"--lengths", "many"}, "--lengths: many" + length},
      {conv, {"--lengths", ""}, "--lengths: an empty value" + length},
      {conv, {"--lengths=,"}, "--lengths needs a value."},
      {conv, {"--lengths"}, "--lengths needs a value."},
      {conv, {"--lengths", "1024,4096,1024"}, "--lengths: 1024 is given twice."},
      {conv, {"--batch", "0"}, "--batch: 0 is not a whole number from 1 to 4096."},
      {conv, {"--batch", "010"}, "--batch: 010 is not a whole number from 1 to 4096."},
      {conv, {"--batch", "1.5"}, "--batch: 1.5 is not a whole number from 1 to 4096."},
      {conv, {"--batch", "2", "--batch", "3"}, "--batch is given more than once."},
      {conv, {"--channels", "65537"}, "--channels: 65537 is not a whole number from 1 to 65536."},
      {conv, {"--threads", "1025"}, "--threads: 1025 is not a whole number from 1 to 1024."},
      {conv, {"--threads", "-1"}, "--threads: -1 is not a whole number from 1 to 1024."},
      {conv, {"--time-limit", "0"}, "--time-limit: 0 is not a number from 0.01 to 86400."},
      {conv, {"--time-limit", "nan"}, "--time-limit: nan is not a number from 0.01 to 86400."},
      {conv, {"--time-limit", "inf"}, "--time-limit: inf is not a number from 0.01 to 86400."},
      {conv, {"--time-limit", "-3"}, "--time-limit: -3 is not a number from 0.01 to 86400."},
      {conv, {"--time-limit", "1e9"}, "--time-limit: 1e9 is not a number from 0.01 to 86400."},
      {conv, {"--time-limit", "10s"}, "--time-limit: 10s is not a number from 0.01 to 86400."},
      {conv, {"--levels-limit", "-1"}, "--levels-limit: -1 is not a number from 0 to 86400."},
      {conv, {"--stacks", "K4"}, "--stacks: K4 is not one of K4f4D6, K8f8D5, K17f16D4, K51f51D3, K4f4D9, K8f8D6."},
      {conv, {"--stacks", "K4f4D6,K4f4D6"}, "--stacks: K4f4D6 is given twice."},
      {conv, {"--dtype", "fp64"}, "--dtype: fp64 is not one of fp32, bf16."},
      {conv, {"--backend", "tpu"}, "--backend: tpu is not one of cpu, cuda."},
      {conv,
       {"--backend", "cuda", "--channels", "65536"},
       "--channels: 65536 channels of 4 sequences are more than the 65535 rows that the FFT on CUDA has."},
      {conv, {"--input", "/no/such/file"}, "--input: /no/such/file is not a file that can be read."},
      {conv, {"--output", "/"}, "--output: / is a folder, and must be a file."},
      {conv, {"--output", "/proc/no/summary.json"}, "--output: /proc/no/summary.json cannot be written."},
      {conv, {"--bogus"}, "--bogus is not an option of this program."},
      {conv, {"1024"}, "1024 is not an option of this program."},
      {conv, {"--check=maybe"}, "--check: maybe is not a value of this flag."},
      {conv, {"--huge-pages=maybe"}, "--huge-pages: maybe is not a value of this flag."},
      {conv, {"--python"}, "--python needs a value."},
      {extents, {"--tables", "long"}, "--tables: long is not one of layouts, tokens, short, pages."},
      {extents, {"--tables", "short,short"}, "--tables: short is given twice."},
      {extents, {"--threads", "0"}, "--threads: 0 is not a whole number from 1 to 1024."},
      {extents, {"--row-seconds", "0"}, "--row-seconds: 0 is not a number from 0.001 to 3600."},
      {extents, {"--output", "/"}, "--output: / is a folder, and must be a file."},
      {attention, {"--length", "0"}, "--length: 0" + length},
      {attention, {"--heads", "4097"}, "--heads: 4097 is not a whole number from 1 to 4096."},
      {attention, {"--chunks", "16385"}, "--chunks: 16385 is not a whole number from 1 to 16384."},
      {attention, {"--chunks", "128,128"}, "--chunks: 128 is given twice."},
      {attention, {"--key-dims", "15"}, "--key-dims: 15 is not a whole number from 16 to 256."},
      {attention, {"--value-dims", "2049"}, "--value-dims: 2049 is not a whole number from 16 to 2048."},
      {attention, {"--masks", "half"}, "--masks: half is not one of full, causal."},
      {attention, {"--min-time", "0"}, "--min-time: 0 is not a number from 0.001 to 3600."},
      {attention, {"--time-limit", "0"}, "--time-limit: 0 is not a number from 0.01 to 86400."},
      {step, {"--widths", "65"}, "--widths: 65 is not one of 64, 128, 256, 512."},
      {step, {"--lengths", "0"}, "--lengths: 0" + length},
      {step, {"--batch", "abc"}, "--batch: abc is not a whole number from 1 to 4096."},
      {step, {"--chunk", "0"}, "--chunk: 0 is not a whole number from 1 to 16384."},
      {step, {"--min-time", "-1"}, "--min-time: -1 is not a number from 0.001 to 3600."},
      {step,
       {"--processor-time", "--threads", "2"},
       "--processor-time: one thread only is counted, and --threads is 2."},
  };
  for (auto const& w : table) EXPECT_EQ(complaint(w.of, w.arguments), w.sentence) << w.arguments.front();
}

// More than any machine has, although each option alone is in its range.
TEST(bench_options, what_memory_cannot_hold_is_refused) {
  for (auto const& said : {complaint(program::conv_vs_fft, {"--backend", "cpu", "--batch", "4096", "--channels",
                                                            "65536", "--lengths", "16777216"}),
                           complaint(program::attention_vs_gemm, {"--backend", "cpu", "--batch", "4096", "--heads",
                                                                  "4096", "--length", "16777216"}),
                           complaint(program::layer_step, {"--batch", "4096", "--lengths", "16777216"})}) {
    EXPECT_NE(said.find("--length"), std::string::npos) << said;
    EXPECT_NE(said.find("would need about"), std::string::npos) << said;
  }
}

TEST(bench_options, what_is_right_is_taken) {
  std::string const folder = std::filesystem::path(::testing::TempDir()) / "bench_options",
                    file = folder + "/summary.json";
  EXPECT_EQ(complaint(program::conv_vs_fft, {"--backend", "cpu", "--lengths", "1,1048576", "--batch", "1", "--channels",
                                             "1", "--time-limit", "0.5", "--output", file}),
            "");
  EXPECT_FALSE(std::filesystem::exists(file)) << "tried, not left behind";
  std::filesystem::remove_all(folder);
  EXPECT_EQ(
      complaint(program::attention_vs_gemm, {"--chunks", "1,16384", "--functions", "laplace", "--time-limit", "86400"}),
      "");
  EXPECT_EQ(complaint(program::layer_step, {"--widths", "64,512", "--lengths", "1024", "--processor-time"}), "");
}

TEST(bench_options, smoke_replaces_defaults_only) {
  char const* const argv[] = {"program", "--smoke", "--lengths", "257"};
  auto const o = parse(4, argv, {"cpu"});
  EXPECT_EQ(o.lengths, std::vector<index_t>{257});
  EXPECT_EQ(o.stacks.size(), 2u);
  EXPECT_EQ(o.dtypes, std::vector<std::string>{"fp32"});
  EXPECT_LT(o.time_limit, 60);
  EXPECT_LT(parse_extents(2, argv).row_seconds, extents_options().row_seconds);
}

TEST(bench_options, help_has_status_0) {
  char const* const argv[] = {"program", "--help"};
  ::testing::internal::CaptureStdout();
  try {
    parse(2, argv, {"cpu"});
    ADD_FAILURE() << "help ends the program";
  } catch (usage_error const& e) { EXPECT_EQ(e.status, 0); }
  EXPECT_NE(::testing::internal::GetCapturedStdout().find("--lengths"), std::string::npos);
}

}  // namespace
}  // namespace tcnca::bench
