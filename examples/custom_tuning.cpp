// Custom tuning: a type whose static functions return the policy for a target. Results have the same bits with any
// tuning.
#include <tcnca/conv_stack.hpp>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#include "scratch.hpp"

static constexpr tcnca::conv_stack_shape shape{.taps = 8, .depth = 4, .dilation_base = 8};

/// The library's tuning with shorter tiles on the CPU.
struct short_tiles : tcnca::default_conv_stack_tuning<float, shape> {
  static constexpr tcnca::conv_stack_policy forward(tcnca::target t) {
    auto policy = tcnca::default_conv_stack_tuning<float, shape>::forward(t);
    if (t.compute_capability == 0) policy.tile = 128, policy.tile_max = 128;
    return policy;
  }
};

template <class Stack>
static std::vector<float> run(char const* name) {
  long const channels = 16, length = 50000;
  auto const order = tcnca::layout::batch_channels_length;
  std::vector<float> x(channels * length, 0.5f), y(x.size()), weight(Stack::layers * 8 * channels, 0.1f);
  typename Stack::forward_args const args{
      .x = tcnca::sequence<float const>(x.data(), order, 1, channels, length),
      .weight = tcnca::contiguous<float const>(weight.data(), Stack::layers, 8, channels),
      .y = tcnca::sequence(y.data(), order, 1, channels, length)};
  scratch_memory const scratch(Stack::forward_workspace(tcnca::cpu{}, args));
  double best = 1e9;
  for (int i = 0; i < 10; i++) {
    auto const start = std::chrono::steady_clock::now();
    if (!Stack::forward(tcnca::cpu{}, args, scratch).ok()) return {};
    best = tcnca::min_of(best,
                         std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::printf("%-12s %.3f ms\n", name, best);
  return y;
}

int main() {
  auto const a = run<tcnca::conv_stack<float, shape>>("the default"),
             b = run<tcnca::conv_stack<float, shape, short_tiles>>("short tiles");
  bool const same =
      !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  if (a.empty() || b.empty()) std::fprintf(stderr, "a stack failed\n");
  else std::printf("both gave %s bits\n", same ? "the same" : "DIFFERENT");
  return same ? 0 : 1;
}
