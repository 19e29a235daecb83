// Packed sequences: a batch of sequences of different lengths without padding, as cu_seqlens of other libraries; then
// one token for each sequence, whose states are rows of a pool.
#include <tcnca/conv_stack.hpp>

#include <cstdio>
#include <cstring>
#include <vector>

#include "scratch.hpp"

using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 4,
                                                               .depth = 5,
                                                               .dilation_base = 2,
                                                               .act = tcnca::activation::silu,
                                                               .order = tcnca::layout::batch_length_channels}>;

int main() {
  constexpr auto order = tcnca::layout::batch_length_channels;
  constexpr long channels = 16, pool_rows = 8;
  std::vector<tcnca::int32> const offsets{0, 5, 5, 405, 431};  // lengths 5, 0, 400, 26
  std::vector<tcnca::int32> const slots{6, 2, 0, 7};           // the state of sequence s is row slots[s] of the pool
  long const total = offsets.back(), sequences = long(slots.size());

  std::vector<float> x(total * channels), y(x.size()), weight(stack::layers * 4 * channels);
  for (std::size_t i = 0; i < x.size(); i++) x[i] = float(i * 7919 % 1000) / 500 - 1;
  for (std::size_t i = 0; i < weight.size(); i++) weight[i] = float(i * 104729 % 1000) / 1000 - 0.4f;
  std::vector<float> pool(pool_rows * channels * stack::state_length);  // zero: the sequences begin here
  auto const states = tcnca::sequence(pool.data(), order, pool_rows, channels, stack::state_length);
  std::vector<tcnca::index_t> positions(sequences);

  tcnca::cpu const cpu;
  auto const run = [&](stack::forward_args const& args) {
    scratch_memory const scratch(stack::forward_workspace(cpu, args));
    return stack::forward(cpu, args, scratch).ok();
  };

  // All sequences in one call. x has a batch of 1.
  stack::forward_args args{.x = tcnca::sequence<float const>(x.data(), order, 1, channels, total),
                           .weight = tcnca::contiguous<float const>(weight.data(), stack::layers, 4, channels),
                           .state_in = states,
                           .y = tcnca::sequence(y.data(), order, 1, channels, total),
                           .state_out = states,  // in place
                           .offsets = tcnca::contiguous(offsets.data(), sequences + 1),
                           .max_length = 400,
                           .slots = tcnca::contiguous(slots.data(), sequences),
                           .positions = tcnca::contiguous<tcnca::index_t const>(positions.data(), sequences)};
  if (!run(args)) return 1;

  // The next token of each sequence: a batch of rows of one position. Only the positions differ from call to call.
  std::vector<float> tokens(sequences * channels, 0.25f), next(tokens.size());
  for (long s = 0; s < sequences; s++) positions[s] = offsets[s + 1] - offsets[s];
  auto step = args;
  step.x = tcnca::sequence<float const>(tokens.data(), order, sequences, channels, 1);
  step.y = tcnca::sequence(next.data(), order, sequences, channels, 1);
  step.offsets = {}, step.max_length = 0;
  if (!run(step)) return 1;

  // Each sequence with its token in a call of its own, from the beginning: the same bits.
  bool same = true;
  for (long s = 0; s < sequences; s++) {
    long const length = offsets[s + 1] - offsets[s];
    std::vector<float> whole(x.begin() + offsets[s] * channels, x.begin() + offsets[s + 1] * channels);
    whole.insert(whole.end(), tokens.begin() + s * channels, tokens.begin() + (s + 1) * channels);
    std::vector<float> expected(whole.size());
    if (!run({.x = tcnca::sequence<float const>(whole.data(), order, 1, channels, length + 1),
              .weight = args.weight,
              .y = tcnca::sequence(expected.data(), order, 1, channels, length + 1)}))
      return 1;
    same = same && std::memcmp(expected.data(), &y[offsets[s] * channels], length * channels * sizeof(float)) == 0 &&
           std::memcmp(&expected[length * channels], &next[s * channels], channels * sizeof(float)) == 0;
  }
  std::printf("%ld packed sequences, then a token each, gave %s bits as separate calls\n", sequences,
              same ? "the same" : "DIFFERENT");
  return same ? 0 : 1;
}
