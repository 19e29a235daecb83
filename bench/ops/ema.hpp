// Benchmarks of the EMA on a Device: both layouts, element types, forward and backward, with and without state, and
// the generation of its convolution kernel. Counters: operations (an FMA counts as 2), bytes that must cross memory,
// and their share of the copy bandwidth.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <tcnca/core/workspace.hpp>
#include <tcnca/ema.hpp>
#include "../support/op_benchmark.hpp"
#include "../support/problem.hpp"

namespace tcnca::bench {

inline std::string shape_name(ema_shape const& s) {
  std::string name = std::to_string(s.states);
  if (s.dir == direction::bidirectional) name += "_bidirectional";
  if (s.skip) name += "_skip";
  return name + (s.order == layout::batch_channels_length ? "/bcl" : "/blc");
}

/// Values or gradients of the parameters, each [rows, states].
template <class Device, class A>
struct ema_tensors {
  typename Device::template memory<A> delta, alpha, beta, gamma;
  index_t rows;
  int states;

  ema_tensors(Device const& device, index_t r, int n)
      : delta(gaussian_memory<A>(device, r * n, 10)),
        alpha(gaussian_memory<A>(device, r * n, 11)),
        beta(gaussian_memory<A>(device, r * n, 12)),
        gamma(gaussian_memory<A>(device, r * n, 13)),
        rows(r),
        states(n) {}
  auto view(typename Device::template memory<A>& m) const { return contiguous(Device::data(m), rows, states); }
};

/// Arguments of a benchmark: batch, channels, length, threads, whether there is a state.
template <class T, ema_shape Shape, class Device>
void run_ema(benchmark::State& state, op_backend<Device> const& backend, pass direction) {
  using operation = ema<T, Shape>;
  using A = accumulate_t<T>;
  using numbers = typename Device::template memory<A>;
  using bytes = typename Device::template memory<unsigned char>;
  problem const p{state.range(0), state.range(1), state.range(2), static_cast<int>(state.range(3))};
  bool const stateful = state.range(4) != 0;
  Device const device = backend.device(p.threads);
  auto const executor = device.executor;
  auto x = gaussian_memory<T>(device, p.elements(), 1), y = gaussian_memory<T>(device, p.elements(), 2),
       grad_y = gaussian_memory<T>(device, p.elements(), 3), grad_x = gaussian_memory<T>(device, p.elements(), 4);
  auto const view = [&](auto& m) { return sequence(device.data(m), Shape.order, p.batch, p.channels, p.length); };
  ema_tensors<Device, A> value(device, Shape.directions() * p.channels, Shape.states),
      grad(device, Shape.directions() * p.channels, Shape.states);
  numbers omega(static_cast<size_t>(p.channels)), grad_omega(omega.size());
  numbers h(static_cast<size_t>(p.batch * p.channels * Shape.states)), grad_h(h.size());
  auto const states = [&](numbers& m) { return contiguous(device.data(m), p.batch, p.channels, Shape.states); };

  if (direction == pass::forward) {
    typename operation::forward_args args{.x = view(x),
                                          .delta = value.view(value.delta),
                                          .alpha = value.view(value.alpha),
                                          .beta = value.view(value.beta),
                                          .gamma = value.view(value.gamma),
                                          .y = view(y)};
    if (Shape.skip) args.omega = contiguous(device.data(omega), p.channels);
    if (stateful) args.state_in = states(h), args.state_out = states(h);
    bytes scratch(operation::forward_workspace(executor, args));
    time_calls(state, device, [&] {
      return operation::forward(executor, args, {device.data(scratch), scratch.size()});
    });
  } else {
    typename operation::backward_args args{.x = view(x),
                                           .delta = value.view(value.delta),
                                           .alpha = value.view(value.alpha),
                                           .beta = value.view(value.beta),
                                           .gamma = value.view(value.gamma),
                                           .grad_y = view(grad_y),
                                           .grad_x = view(grad_x),
                                           .grad_delta = grad.view(grad.delta),
                                           .grad_alpha = grad.view(grad.alpha),
                                           .grad_beta = grad.view(grad.beta),
                                           .grad_gamma = grad.view(grad.gamma)};
    if (Shape.skip) {
      args.omega = contiguous(device.data(omega), p.channels);
      args.grad_omega = contiguous(device.data(grad_omega), p.channels);
    }
    if (stateful) args.state_in = states(h), args.grad_state_out = states(h), args.grad_state_in = states(grad_h);
    bytes scratch(operation::backward_workspace(executor, args));
    time_calls(state, device, [&] {
      return operation::backward(executor, args, {device.data(scratch), scratch.size()});
    });
  }
  // FMAs per element and state. Forward: h and y. Backward: lambda, h, grad_x and two sums; with the SiLU also the
  // forward pass, which recomputes y.
  int const fmas = direction == pass::forward ? 2 : Shape.skip ? 7 : 5;
  double const moved = useful_bytes(p, direction, sizeof(T));
  count_operations(state, static_cast<double>(p.elements()) * 2 * fmas * Shape.states * Shape.directions());
  count_bytes(state, moved, backend.copy_rate(p.threads, static_cast<size_t>(moved)));
}

/// Registers both passes of a shape.
template <class T, ema_shape Shape, class Device>
void add_ema(op_backend<Device> const& backend, std::vector<std::vector<std::int64_t>> const& sizes) {
  for (pass const p : {pass::forward, pass::backward}) {
    std::string const name = backend.prefix + "ema/" + to_string(p) + "/" + type_name<T>() + "/" + shape_name(Shape);
    auto* const b =
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { run_ema<T, Shape>(s, backend, p); });
    b->ArgNames({"batch", "channels", "length", "threads", "state"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes)
      if (s[4] == 0 || Shape.dir == direction::causal) b->Args(s);
  }
}

/// Arguments of a benchmark: channels, length, threads.
template <class Device>
void run_ema_kernel(benchmark::State& state, op_backend<Device> const& backend, pass direction) {
  using operation = ema<float, ema_shape{}>;
  using bytes = typename Device::template memory<unsigned char>;
  index_t const channels = state.range(0), length = state.range(1);
  Device const device = backend.device(static_cast<int>(state.range(2)));
  ema_tensors<Device, float> value(device, channels, 16), grad(device, channels, 16);
  auto kappa = gaussian_memory<float>(device, channels * length, 3);
  typename operation::kernel_args const args{.delta = value.view(value.delta),
                                             .alpha = value.view(value.alpha),
                                             .beta = value.view(value.beta),
                                             .gamma = value.view(value.gamma),
                                             .kappa = contiguous(device.data(kappa), channels, length)};
  typename operation::kernel_backward_args const backward_args{.delta = args.delta,
                                                               .alpha = args.alpha,
                                                               .beta = args.beta,
                                                               .gamma = args.gamma,
                                                               .grad_kappa = args.kappa,
                                                               .grad_delta = grad.view(grad.delta),
                                                               .grad_alpha = grad.view(grad.alpha),
                                                               .grad_beta = grad.view(grad.beta),
                                                               .grad_gamma = grad.view(grad.gamma)};
  auto const executor = device.executor;
  bool const forward = direction == pass::forward;
  bytes scratch(forward ? operation::kernel_workspace(executor, args)
                        : operation::kernel_backward_workspace(executor, backward_args));
  time_calls(state, device, [&] {
    workspace const w{device.data(scratch), scratch.size()};
    return forward ? operation::kernel(executor, args, w) : operation::kernel_backward(executor, backward_args, w);
  });
  count_operations(state, static_cast<double>(channels * length) * (forward ? 2 : 4) * 16);
}

template <class Device>
void add_ema_kernel(op_backend<Device> const& backend, std::vector<std::vector<std::int64_t>> const& sizes) {
  for (pass const p : {pass::forward, pass::backward}) {
    std::string const name = backend.prefix + "ema_kernel/" + to_string(p);
    auto* const b =
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { run_ema_kernel(s, backend, p); });
    b->ArgNames({"channels", "length", "threads"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes) b->Args(s);
  }
}

/// Registers the benchmarks of a CUDA GPU, if there is one; in ema.cu.
void add_cuda_ema();

}  // namespace tcnca::bench
