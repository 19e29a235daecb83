// Binds a stack of compared_stacks to memory of a Device (support/device.hpp).
#pragma once
#include <memory>
#include <utility>

#include <tcnca/conv_stack.hpp>
#include <tcnca/core/workspace.hpp>
#include "../../support/device.hpp"
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
            return device.time([&] {
              require(stack::backward(device.executor, args, {device.data(*scratch), scratch->size()}));
            });
          },
          [=] {
            return outcome{device.read(s.grad_x, count), device.read(device.data(*grad_weight), grad_weight->size())};
          },
          {}};
}

template <class T, class Device>
contender bind_compared_stack(Device const& device, size_t which, pass direction, sequences<T> const& s,
                              T const* weight) {
  contender chosen;
  [&]<size_t... I>(std::index_sequence<I...>) {
    ((I == which ? void(chosen = bind_stack<T, compared_stacks[I]>(device, direction, s, weight)) : void()), ...);
  }
  (std::make_index_sequence<compared_stacks.size()>());
  return chosen;
}

}  // namespace tcnca::bench
