// Streaming: a sequence processed in pieces of any size, down to one token, gives the same bits as one call.
#include <tcnca/conv_stack.hpp>

#include <cstdio>
#include <cstring>
#include <vector>

#include "scratch.hpp"

// A token costs layers * taps multiply-adds per channel, whatever the receptive field (here 4096 samples).
using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 4,
                                                               .depth = 6,
                                                               .dilation_base = 4,
                                                               .act = tcnca::activation::gelu_tanh,
                                                               .order = tcnca::layout::batch_length_channels}>;

int main() {
  constexpr auto order = tcnca::layout::batch_length_channels;
  constexpr long channels = 32, length = 5000;
  std::vector<float> x(channels * length), whole(x.size()), pieces(x.size()), weight(stack::layers * 4 * channels);
  for (std::size_t i = 0; i < x.size(); i++) x[i] = float(i * 7919 % 1000) / 500 - 1;
  for (std::size_t i = 0; i < weight.size(); i++) weight[i] = float(i * 104729 % 1000) / 1000 - 0.4f;
  std::vector<float> state(channels * stack::state_length);  // zero: the sequence begins here

  tcnca::cpu const cpu;
  stack::forward_args args{.x = tcnca::sequence<float const>(x.data(), order, 1, channels, length),
                           .weight = tcnca::contiguous<float const>(weight.data(), stack::layers, 4, channels),
                           .y = tcnca::sequence(whole.data(), order, 1, channels, length)};
  scratch_memory const scratch(stack::forward_workspace(cpu, args));
  if (!stack::forward(cpu, args, scratch).ok()) return 1;

  auto const ring = tcnca::sequence(state.data(), order, 1, channels, stack::state_length);
  long at = 0;
  for (long piece : {1L, 1L, 1L, 700L, 3L, 1000L, 1L, length}) {
    piece = tcnca::min_of(piece, length - at);
    args.x = tcnca::sequence<float const>(x.data() + at * channels, order, 1, channels, piece);
    args.y = tcnca::sequence(pieces.data() + at * channels, order, 1, channels, piece);
    args.state_in = ring, args.state_out = ring;  // in place
    args.position = at;
    scratch_memory const piece_scratch(stack::forward_workspace(cpu, args));
    if (!stack::forward(cpu, args, piece_scratch).ok()) return 1;
    at += piece;
  }
  bool const same = std::memcmp(whole.data(), pieces.data(), whole.size() * sizeof(float)) == 0;
  std::printf("%ld tokens in pieces gave %s bits as one call\n", at, same ? "the same" : "DIFFERENT");
  return same ? 0 : 1;
}
