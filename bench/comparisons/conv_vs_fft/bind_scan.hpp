// Binds the library's EMA, the recurrence as a scan, to memory, on any machine (device.hpp says what a Device is).
#pragma once
#include <array>
#include <memory>
#include <vector>

#include <tcnca/core/workspace.hpp>
#include <tcnca/ema.hpp>
#include "device.hpp"
#include "sequences.hpp"

namespace tcnca::bench {

/// States a channel, as in MEGA; without the skip connection and its SiLU: y is the convolution with kappa and nothing else.
inline constexpr ema_shape headline_ema{.states = 16, .skip = false, .order = headline_layout};

template <class T, class Device>
contender bind_scan(Device const& device, pass direction, sequences<T> const& s, ema_parameters const& parameters) {
  using average = ema<T, headline_ema>;
  using numbers = typename Device::template memory<float>;
  using bytes = typename Device::template memory<unsigned char>;
  problem const p = s.p;
  auto const count = static_cast<size_t>(p.elements());
  auto const view = [p](auto* data) { return sequence(data, headline_layout, p.batch, p.channels, p.length); };
  auto const matrix = [p](auto* data) { return contiguous(data, p.channels, headline_ema.states); };
  // delta, alpha, beta, gamma
  auto const values = std::make_shared<std::array<numbers, 4>>();
  std::array<std::vector<float> const*, 4> const given{&parameters.delta, &parameters.alpha, &parameters.beta,
                                                       &parameters.gamma};
  for (size_t i = 0; i < 4; i++) {
    (*values)[i] = numbers(parameters.count());
    device.write((*values)[i].data(), *given[i]);
  }
  auto const value = [&](size_t i) { return matrix(static_cast<float const*>((*values)[i].data())); };
  if (direction == pass::forward) {
    typename average::forward_args const args{
        .x = view(s.x), .delta = value(0), .alpha = value(1), .beta = value(2), .gamma = value(3), .y = view(s.y)};
    auto const scratch = std::make_shared<bytes>(average::forward_workspace(device.executor, args));
    return {[=] {
              return (void)values, device.time([&] {
                require(average::forward(device.executor, args, {scratch->data(), scratch->size()}));
              });
            },
            [=] {
              return outcome{device.read(s.y, count), {}};
            },
            {}};
  }
  auto const grads = std::make_shared<std::array<numbers, 4>>();
  for (auto& g : *grads) g = numbers(parameters.count());
  typename average::backward_args const args{.x = view(s.x),
                                             .delta = value(0),
                                             .alpha = value(1),
                                             .beta = value(2),
                                             .gamma = value(3),
                                             .grad_y = view(s.grad_y),
                                             .grad_x = view(s.grad_x),
                                             .grad_delta = matrix((*grads)[0].data()),
                                             .grad_alpha = matrix((*grads)[1].data()),
                                             .grad_beta = matrix((*grads)[2].data()),
                                             .grad_gamma = matrix((*grads)[3].data())};
  auto const scratch = std::make_shared<bytes>(average::backward_workspace(device.executor, args));
  return {[=] {
            return (void)values, device.time([&] {
              require(average::backward(device.executor, args, {scratch->data(), scratch->size()}));
            });
          },
          [=] {
            outcome o{device.read(s.grad_x, count), {}};
            for (auto& g : *grads) {
              auto const part = device.read(g.data(), g.size());
              o.parameters.insert(o.parameters.end(), part.begin(), part.end());
            }
            return o;
          },
          {}};
}

}  // namespace tcnca::bench
