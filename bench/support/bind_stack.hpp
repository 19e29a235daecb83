// Binds a stack to sequences in memory of a Device (support/device.hpp).
#pragma once
#include <memory>

#include <tcnca/conv_stack.hpp>
#include <tcnca/core/workspace.hpp>
#include "device.hpp"
#include "sequences.hpp"

namespace tcnca::bench {

template <class T, conv_stack_shape Shape, class Device>
contender bind_stack(Device const& device, pass direction, sequences<T> const& s, T const* weight) {
  using stack = conv_stack<T, Shape>;
  using bytes = typename Device::template memory<unsigned char>;
  problem const p = s.p;
  auto const view = [p](auto* data) { return sequence(data, Shape.order, p.batch, p.channels, p.length); };
  auto const count = static_cast<size_t>(p.elements());
  auto const weights = contiguous(weight, Shape.layers(), Shape.taps, p.channels);
  if (direction == pass::forward) {
    typename stack::forward_args const args{.x = view(s.x), .weight = weights, .y = view(s.y)};
    auto const scratch = std::make_shared<bytes>(stack::forward_workspace(device.executor, args));
    return {[=] {
              return device.time([&] {
                require(stack::forward(device.executor, args, {device.data(*scratch), scratch->size()}));
              });
            },
            [=] {
              return outcome{device.read(s.y, count), {}};
            },
            {}};
  }
  using grad = accumulate_t<T>;
  auto const grad_weight = std::make_shared<typename Device::template memory<grad>>(
      static_cast<size_t>(Shape.layers() * Shape.taps * p.channels));
  typename stack::backward_args const args{
      .x = view(s.x),
      .weight = weights,
      .grad_y = view(s.grad_y),
      .grad_x = view(s.grad_x),
      .grad_weight = contiguous(device.data(*grad_weight), Shape.layers(), Shape.taps, p.channels)};
  auto const scratch = std::make_shared<bytes>(stack::backward_workspace(device.executor, args));
  return {[=] {
            return (void)grad_weight, device.time([&] {
              require(stack::backward(device.executor, args, {device.data(*scratch), scratch->size()}));
            });
          },
          [=] {
            return outcome{device.read(s.grad_x, count), device.read(device.data(*grad_weight), grad_weight->size())};
          },
          {}};
}

/// Forward with the state in place, as in decoding: a stack whose history is full, `s.p.length` samples a call.
template <class T, conv_stack_shape Shape, class Device>
contender bind_decode(Device const& device, sequences<T> const& s, T const* weight) {
  using stack = conv_stack<T, Shape>;
  using accumulate = accumulate_t<T>;
  problem const p = s.p;
  auto const view = [p](auto* data, index_t length) {
    return sequence(data, Shape.order, p.batch, p.channels, length);
  };
  auto const history = std::make_shared<typename Device::template memory<accumulate>>(
      static_cast<size_t>(p.batch * p.channels * stack::state_length));
  auto const ring = view(device.data(*history), stack::state_length);
  auto const args = std::make_shared<typename stack::forward_args>(
      typename stack::forward_args{.x = view(s.x, p.length),
                                   .weight = contiguous(weight, Shape.layers(), Shape.taps, p.channels),
                                   .state_in = ring,
                                   .y = view(s.y, p.length),
                                   .state_out = ring,
                                   .position = stack::receptive_field});
  auto const scratch = std::make_shared<typename Device::template memory<unsigned char>>(
      stack::forward_workspace(device.executor, *args));
  return {[=] {
            double const seconds = ((void)history, device.time([&] {
              require(stack::forward(device.executor, *args, {device.data(*scratch), scratch->size()}));
            }));
            args->position += p.length;
            return seconds;
          },
          [=] {
            return outcome{device.read(s.y, static_cast<size_t>(p.elements())), {}};
          },
          {}};
}

/// Bytes that a call of bind_decode moves: x and y, and of the state (taps - 1) samples of a layer's ring for each
/// sample, and its new input.
template <class T, conv_stack_shape Shape>
double decode_bytes(problem const& p) {
  return static_cast<double>(p.elements()) *
         (2. * sizeof(T) + 1. * Shape.layers() * Shape.taps * sizeof(accumulate_t<T>));
}

}  // namespace tcnca::bench
