// PyTorch as a contender of conv_vs_fft: the protocol with a stand-in for Python, and the real program, which either
// computes what direct sums give or says that PyTorch is not there.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../bench/baselines/fft_pytorch.hpp"

namespace tcnca::bench {
namespace {

std::string const script =
    (std::filesystem::path(__FILE__).parent_path().parent_path() / "bench/baselines/fft_pytorch.py").string();

/// A program that answers as `answer` does, a shell command that sees the request in $1 to $5.
std::string stand_in(std::string const& first, std::string const& answer) {
  std::string const file = ::testing::TempDir() + "pytorch_stand_in";
  std::ofstream(file) << "#!/bin/sh\necho '" << first << "'\nwhile read -r line; do set -- $line\n"
                      << answer << "\ndone\n";
  std::filesystem::permissions(file, std::filesystem::perms::owner_all);
  return file;
}

struct sequences_of_ones {
  problem p{1, 2, 3, 1};
  std::vector<float> x = std::vector<float>(6, 1), kappa = std::vector<float>(6, 1);
};

TEST(pytorch, times_are_of_the_named_call_and_results_come_in_a_file) {
  sequences_of_ones s;
  pytorch torch(stand_in("ready PyTorch 9", R"(case $1 in
    data) [ $(wc -c <$5) = 72 ] && echo ok || echo no wrong size;;
    stack) [ "$2 $3 $4" = "4 4 6" ] && echo ok || echo no wrong stack;;
    time) case "$2 $3" in "fft forward") echo 0.25;; "conv1d backward") echo inf;; *) echo 7;; esac;;
    result) head -c 32 /dev/zero >$4; echo ok;;
  esac)"),
                "script", "cpu", 2);
  EXPECT_EQ(torch.reason(), "");
  EXPECT_EQ(torch.version(), "PyTorch 9");
  torch.load(s.p, s.x, s.x, s.kappa);
  auto const fft = torch.fft(pass::forward, 1);
  ASSERT_TRUE(bool(fft.run)) << fft.skip_reason;
  EXPECT_EQ(fft.run(), 0.25);
  EXPECT_EQ(fft.result().sequence, std::vector<float>(6)) << "as many as x has";
  EXPECT_EQ(fft.result().parameters, std::vector<float>(2)) << "the others";

  conv_stack_shape const shape{.taps = 4, .depth = 6, .dilation_base = 4};
  EXPECT_TRUE(std::isinf(torch.conv1d(shape, {1}, pass::backward, 1).run())) << "every call was disturbed";
  EXPECT_EQ(torch.conv1d(shape, {1}, pass::forward, 1).skip_reason, "one call takes more seconds than the limit");
  EXPECT_EQ(torch.conv1d(shape, {1}, pass::forward, 10).skip_reason, "");
}

TEST(pytorch, a_refusal_is_the_reason) {
  sequences_of_ones s;
  pytorch torch(stand_in("ready PyTorch 9", "[ $1 = time ] && echo no out of memory || echo ok"), "script", "cpu", 2);
  torch.load(s.p, s.x, s.x, s.kappa);
  EXPECT_EQ(torch.fft(pass::forward, 1).skip_reason, "out of memory");
}

TEST(pytorch, what_is_not_there_has_a_reason) {
  EXPECT_EQ(pytorch("/no/python3", script, "cpu", 1).reason(),
            "/no/python3 could not be started: No such file or directory");
  EXPECT_EQ(pytorch("false", script, "cpu", 1).reason(), "false has ended");
  EXPECT_EQ(pytorch(stand_in("no module", ":"), script, "cpu", 1).reason(), "module");
  pytorch absent("false", script, "cpu", 1);
  sequences_of_ones s;
  absent.load(s.p, s.x, s.x, s.kappa);
  EXPECT_EQ(absent.fft(pass::forward, 1).skip_reason, "false has ended");
  EXPECT_EQ(absent.conv1d({.taps = 4, .depth = 6, .dilation_base = 4}, {1}, pass::forward, 1).skip_reason,
            "false has ended");
}

TEST(pytorch, a_process_that_ends_or_hangs_is_an_error) {
  child_process ends({stand_in("ready", "exit")}, {}), hangs({"sleep", "1000"}, {});
  EXPECT_EQ(ends.answer(10), "ready");
  EXPECT_THROW(ends.ask("anything", 10), std::runtime_error);
  EXPECT_THROW(hangs.ask("anything", 0.05), std::runtime_error);
}

TEST(pytorch, variables_replace_those_of_the_environment) {
  child_process shell({"sh", "-c", "echo \"$HOME,$TCNCA_ONE\""}, {"HOME=/nowhere", "TCNCA_ONE=1"});
  EXPECT_EQ(shell.answer(10), "/nowhere,1");
}

// The CPU time of a child is not that of other programs.
TEST(process_clock, does_not_count_a_child_as_another_program) {
  process_clock const clock;
  child_process busy({"sh", "-c", "while :; do :; done"}, {});
  clockid_t of_child{};
  ASSERT_EQ(clock_getcpuclockid(busy.id(), &of_child), 0);
  timespec used{};
  while (used.tv_nsec < 200'000'000 && used.tv_sec == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_EQ(clock_gettime(of_child, &used), 0);
  }
  double const with_child = clock.others();
  process_clock::add_child(busy.id());
  EXPECT_LT(clock.others(), with_child - 0.1);
}

TEST(pytorch, computes_what_direct_sums_give) {
  pytorch torch("python3", script, "cpu", 2);
  if (!torch.reason().empty()) {
    bool const no_python = torch.reason().find("python3 could not be started") == 0;
    EXPECT_TRUE(no_python || torch.reason().find("torch") != std::string::npos) << torch.reason();
    return;  // as the report of conv_vs_fft, which says why
  }
  problem const p{1, 1, 4, 2};
  torch.load(p, {1, 2, 3, 4}, {1, 0, 0, 1}, {1, 10, 0, 0});
  auto const expect_close = [](std::vector<float> const& a, std::vector<float> const& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); i++) EXPECT_NEAR(a[i], b[i], 1e-4f) << i;
  };
  expect_close(torch.fft(pass::forward, 10).result().sequence, {1, 12, 23, 34});
  auto const of_fft = torch.fft(pass::backward, 10).result();
  expect_close(of_fft.sequence, {1, 0, 10, 1});
  expect_close(of_fft.parameters, {5, 3, 2, 1});
  // y[t] = h[t] + 7 h[t - 2], h[t] = x[t] + 10 x[t - 1]
  conv_stack_shape const shape{.taps = 2, .depth = 2, .dilation_base = 2};
  std::vector<float> const weight{1, 10, 1, 7};
  expect_close(torch.conv1d(shape, weight, pass::forward, 10).result().sequence, {1, 12, 30, 118});
  auto const of_stack = torch.conv1d(shape, weight, pass::backward, 10).result();
  // gradients of h: {1, 7, 0, 1}
  expect_close(of_stack.sequence, {71, 7, 10, 1});
  expect_close(of_stack.parameters, {1 + 14 + 4, 7 + 3, 1 + 34, 12});
}

}  // namespace
}  // namespace tcnca::bench
