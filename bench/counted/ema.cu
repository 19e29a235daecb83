// One exponential moving average of 16 states through the public API, for count_passes.py, as in conv_stack.cu.
// Arguments: forward or backward, batch, channels, length.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <tcnca/ema.hpp>

#include "address.hpp"

using namespace tcnca;

namespace {

using T = COUNTED_TYPE;
constexpr ema_shape shape{.order = layout::COUNTED_ORDER};
using average = ema<T, shape>;
using A = average::accumulate;

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  index_t const batch = std::atoll(argv[2]), channels = std::atoll(argv[3]), length = std::atoll(argv[4]);
  auto const sequence = [&]<class E>(E* data) -> sequence_view<E> {
    bool const last = shape.order == layout::batch_length_channels;
    return {data, {batch, channels, length}, {channels * length, last ? 1 : length, last ? channels : 1}};
  };
  auto const parameter = [&](std::uintptr_t i) { return contiguous(address<A const>(i), channels, shape.states); };
  auto const gradient = [&](std::uintptr_t i) { return contiguous(address<A>(i), channels, shape.states); };
  tcnca::cuda const e{};
  status result = status_code::invalid_value;
  if (std::strcmp(argv[1], "forward") == 0) {
    average::forward_args const a{.x = sequence(address<T const>(1)),
                                  .delta = parameter(2),
                                  .alpha = parameter(3),
                                  .beta = parameter(4),
                                  .gamma = parameter(5),
                                  .omega = contiguous(address<A const>(6), channels),
                                  .y = sequence(address<T>(7))};
    result = average::forward(e, a, {address<char>(20), average::forward_workspace(e, a)});
  } else if (std::strcmp(argv[1], "backward") == 0) {
    average::backward_args const a{.x = sequence(address<T const>(1)),
                                   .delta = parameter(2),
                                   .alpha = parameter(3),
                                   .beta = parameter(4),
                                   .gamma = parameter(5),
                                   .omega = contiguous(address<A const>(6), channels),
                                   .grad_y = sequence(address<T const>(7)),
                                   .grad_x = sequence(address<T>(8)),
                                   .grad_delta = gradient(9),
                                   .grad_alpha = gradient(10),
                                   .grad_beta = gradient(11),
                                   .grad_gamma = gradient(12),
                                   .grad_omega = contiguous(address<A>(13), channels)};
    result = average::backward(e, a, {address<char>(20), average::backward_workspace(e, a)});
  }
  if (!result.ok()) std::fprintf(stderr, "%s\n", to_string(result));
  return result.ok() ? 0 : 1;
}
