// Binds the library's EMA, the recurrence as a scan, to memory of a Device (support/device.hpp).
#pragma once
#include <array>
#include <memory>
#include <vector>

#include <tcnca/core/workspace.hpp>
#include <tcnca/ema.hpp>
#include "../../support/device.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

/// 16 states per channel, as in MEGA. No skip connection and no SiLU: y is the convolution with kappa and nothing else.
inline constexpr ema_shape compared_ema{.states = 16, .skip = false, .order = compared_layout};

template <class T, class Device>
contender bind_scan(Device const& device, pass direction, sequences<T> const& s, ema_parameters const& parameters) {
  using operation = ema<T, compared_ema>;
  using numbers = typename Device::template memory<float>;
  using bytes = typename Device::template memory<unsigned char>;
  problem const p = s.p;
  auto const count = static_cast<size_t>(p.elements());
  auto const view = [p](auto* data) { return sequence(data, compared_layout, p.batch, p.channels, p.length); };
  auto const matrix = [p](auto* data) { return contiguous(data, p.channels, compared_ema.states); };
  // delta, alpha, beta, gamma
  auto const values = std::make_shared<std::array<numbers, 4>>();
  std::array<std::vector<float> const*, 4> const host{&parameters.delta, &parameters.alpha, &parameters.beta,
                                                      &parameters.gamma};
  for (size_t i = 0; i < 4; i++) {
    (*values)[i] = numbers(parameters.count());
    device.write((*values)[i], *host[i]);
  }
  auto const value = [&](size_t i) { return matrix(static_cast<float const*>(device.data((*values)[i]))); };
  if (direction == pass::forward) {
    typename operation::forward_args const args{
        .x = view(s.x), .delta = value(0), .alpha = value(1), .beta = value(2), .gamma = value(3), .y = view(s.y)};
    auto const scratch = std::make_shared<bytes>(operation::forward_workspace(device.executor, args));
    return {[=] {
              return (void)values, device.time([&] {
                require(operation::forward(device.executor, args, {device.data(*scratch), scratch->size()}));
              });
            },
            [=] {
              return outcome{device.read(s.y, count), {}};
            },
            {}};
  }
  auto const grads = std::make_shared<std::array<numbers, 4>>();
  for (auto& g : *grads) g = numbers(parameters.count());
  auto const grad = [&](size_t i) { return matrix(device.data((*grads)[i])); };
  typename operation::backward_args const args{.x = view(s.x),
                                               .delta = value(0),
                                               .alpha = value(1),
                                               .beta = value(2),
                                               .gamma = value(3),
                                               .grad_y = view(s.grad_y),
                                               .grad_x = view(s.grad_x),
                                               .grad_delta = grad(0),
                                               .grad_alpha = grad(1),
                                               .grad_beta = grad(2),
                                               .grad_gamma = grad(3)};
  auto const scratch = std::make_shared<bytes>(operation::backward_workspace(device.executor, args));
  return {[=] {
            return (void)values, device.time([&] {
              require(operation::backward(device.executor, args, {device.data(*scratch), scratch->size()}));
            });
          },
          [=] {
            outcome o{device.read(s.grad_x, count), {}};
            for (auto& g : *grads) {
              auto const part = device.read(device.data(g), g.size());
              o.parameters.insert(o.parameters.end(), part.begin(), part.end());
            }
            return o;
          },
          {}};
}

}  // namespace tcnca::bench
