// One convolution stack through the public API, for count.py: every call launches its kernels on addresses that nothing
// allocated, with the CUDA runtime of recorder.cpp. Arguments: forward or backward, batch, channels, length, and
// "state" to carry the state in place.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <tcnca/conv_stack.hpp>

#include "address.hpp"

using namespace tcnca;

namespace {

constexpr conv_stack_shape shape{
    .taps = COUNTED_TAPS, .depth = COUNTED_DEPTH, .dilation_base = COUNTED_BASE, .order = layout::COUNTED_ORDER};
using T = COUNTED_TYPE;
using stack = conv_stack<T, shape>;

template <class Element>
sequence_view<Element> sequence(std::uintptr_t which, index_t batch, index_t channels, index_t length) {
  bool const channels_last = shape.order == layout::batch_length_channels;
  return {address<Element>(which),
          {batch, channels, length},
          {channels * length, channels_last ? 1 : length, channels_last ? channels : 1}};
}

workspace scratch(size_t bytes) { return {address<char>(6), bytes}; }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  index_t const batch = std::atoll(argv[2]), channels = std::atoll(argv[3]), length = std::atoll(argv[4]);
  auto const weight = contiguous(address<T const>(3), shape.layers(), shape.taps, channels);
  status result;
  if (std::strcmp(argv[1], "forward") == 0) {
    stack::forward_args args{.x = sequence<T const>(1, batch, channels, length),
                             .weight = weight,
                             .y = sequence<T>(2, batch, channels, length)};
    result = stack::forward(cuda{}, args, scratch(stack::forward_workspace(cuda{}, args)));
  } else {
    stack::backward_args args{
        .x = sequence<T const>(1, batch, channels, length),
        .weight = weight,
        .grad_y = sequence<T const>(4, batch, channels, length),
        .grad_x = sequence<T>(2, batch, channels, length),
        .grad_weight = contiguous(address<accumulate_t<T>>(5), shape.layers(), shape.taps, channels)};
    result = stack::backward(cuda{}, args, scratch(stack::backward_workspace(cuda{}, args)));
  }
  if (!result.ok()) std::fprintf(stderr, "%s\n", to_string(result));
  return result.ok() ? 0 : 1;
}
