// The benchmarks of the exponential moving average, on any machine (headline/device.hpp says what a Device is).
#pragma once
#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include <tcnca/core/workspace.hpp>
#include <tcnca/ema.hpp>
#include "headline/problem.hpp"
#include "support/text.hpp"

namespace tcnca::bench {

inline std::string name_of(ema_shape const& s) {
  std::string name = std::to_string(s.states);
  if (s.dir == direction::bidirectional) name += "_both_ways";
  if (s.skip) name += "_skip";
  return name + (s.order == layout::batch_channels_length ? "/bcl" : "/blc");
}

/// Gaussian numbers in a Device's memory.
template <class Device, class T>
typename Device::template memory<T> drawn(Device const& device, index_t count, std::uint64_t stream) {
  std::vector<T> host(static_cast<size_t>(count));
  text::noise(contiguous(host.data(), 1, 1, count), stream);
  typename Device::template memory<T> memory(host.size());
  device.write(memory.data(), host);
  return memory;
}

/// The parameters, or numbers of their size.
template <class Device, class A>
struct parameters {
  typename Device::template memory<A> delta, alpha, beta, gamma;
  index_t rows;
  int states;

  parameters(Device const& device, index_t r, int n)
      : delta(drawn<Device, A>(device, r * n, 10)),
        alpha(drawn<Device, A>(device, r * n, 11)),
        beta(drawn<Device, A>(device, r * n, 12)),
        gamma(drawn<Device, A>(device, r * n, 13)),
        rows(r),
        states(n) {}
  auto view(typename Device::template memory<A>& m) const { return contiguous(m.data(), rows, states); }
};

/// Who makes a Device of a number of threads, and the bytes a second of a copy that moves as many bytes with them.
template <class Device>
struct bench_machine {
  std::function<Device(int)> device;
  std::function<double(int, size_t)> copy_rate;
};

/// Arguments of a run: batch, channels, length, threads, whether there is a state.
template <class Device, class T, ema_shape Shape>
void run_ema(benchmark::State& state, bench_machine<Device> const& machine, pass way) {
  using average = ema<T, Shape>;
  using A = accumulate_t<T>;
  using numbers = typename Device::template memory<A>;
  using bytes = typename Device::template memory<unsigned char>;
  problem const p{state.range(0), state.range(1), state.range(2), static_cast<int>(state.range(3))};
  bool const stateful = state.range(4) != 0;
  Device const device = machine.device(p.threads);
  auto const executor = device.executor;
  auto x = drawn<Device, T>(device, p.elements(), 1), y = drawn<Device, T>(device, p.elements(), 2),
       grad_y = drawn<Device, T>(device, p.elements(), 3), grad_x = drawn<Device, T>(device, p.elements(), 4);
  auto const view = [&](auto& m) { return sequence(m.data(), Shape.order, p.batch, p.channels, p.length); };
  parameters<Device, A> value(device, Shape.directions() * p.channels, Shape.states),
      grad(device, Shape.directions() * p.channels, Shape.states);
  numbers omega(static_cast<size_t>(p.channels)), grad_omega(omega.size());
  numbers h(static_cast<size_t>(p.batch * p.channels * Shape.states)), grad_h(h.size());
  auto const states = [&](numbers& m) { return contiguous(m.data(), p.batch, p.channels, Shape.states); };

  bool ok = true;
  auto const time = [&](auto const& call) {
    for (auto _ : state) state.SetIterationTime(device.time([&] { ok = call().ok() && ok; }));
  };
  if (way == pass::forward) {
    typename average::forward_args args{.x = view(x),
                                        .delta = value.view(value.delta),
                                        .alpha = value.view(value.alpha),
                                        .beta = value.view(value.beta),
                                        .gamma = value.view(value.gamma),
                                        .y = view(y)};
    if (Shape.skip) args.omega = contiguous(omega.data(), p.channels);
    if (stateful) args.state_in = states(h), args.state_out = states(h);
    bytes scratch(average::forward_workspace(executor, args));
    time([&] { return average::forward(executor, args, {scratch.data(), scratch.size()}); });
  } else {
    typename average::backward_args args{.x = view(x),
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
    if (Shape.skip)
      args.omega = contiguous(omega.data(), p.channels), args.grad_omega = contiguous(grad_omega.data(), p.channels);
    if (stateful) args.state_in = states(h), args.grad_state_out = states(h), args.grad_state_in = states(grad_h);
    bytes scratch(average::backward_workspace(executor, args));
    time([&] { return average::backward(executor, args, {scratch.data(), scratch.size()}); });
  }
  if (!ok) state.SkipWithError("The operation returned an error.");
  // Forward h and y; backward l, e, grad_x and two sums a state, and both of the forward pass again where the SiLU needs y.
  int const multiply_adds = way == pass::forward ? 2 : Shape.skip ? 7 : 5;
  double const elements = static_cast<double>(p.elements()),
               moved = elements * (way == pass::forward ? 2 : 3) * sizeof(T);
  using benchmark::Counter;
  state.counters["flops"] =
      Counter(elements * 2 * multiply_adds * Shape.states * Shape.directions(), Counter::kIsIterationInvariantRate);
  state.counters["bytes"] = Counter(moved, Counter::kIsIterationInvariantRate, Counter::kIs1024);
  state.counters["of_copy"] =
      Counter(moved / machine.copy_rate(p.threads, static_cast<size_t>(moved)), Counter::kIsIterationInvariantRate);
}

/// Registers both passes of a shape: batch, channels, length, threads, state.
template <class Device, class T, ema_shape Shape>
void add_ema(std::string const& prefix, bench_machine<Device> const& machine,
             std::vector<std::vector<std::int64_t>> const& sizes) {
  std::string const type = std::is_same_v<T, float> ? "fp32" : std::is_same_v<T, double> ? "fp64" : "bf16";
  for (pass const way : {pass::forward, pass::backward}) {
    std::string const name = prefix + "ema/" + to_string(way) + "/" + type + "/" + name_of(Shape);
    auto* const b = benchmark::RegisterBenchmark(
        name.c_str(), [=](benchmark::State& s) { run_ema<Device, T, Shape>(s, machine, way); });
    b->ArgNames({"batch", "channels", "length", "threads", "state"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes)
      if (s[4] == 0 || Shape.dir == direction::causal) b->Args(s);
  }
}

/// Arguments of a run: channels, length, threads.
template <class Device>
void run_kernel(benchmark::State& state, bench_machine<Device> const& machine, pass way) {
  using average = ema<float, ema_shape{}>;
  using bytes = typename Device::template memory<unsigned char>;
  index_t const channels = state.range(0), length = state.range(1);
  Device const device = machine.device(static_cast<int>(state.range(2)));
  parameters<Device, float> value(device, channels, 16), grad(device, channels, 16);
  auto kappa = drawn<Device, float>(device, channels * length, 3);
  typename average::kernel_args const args{.delta = value.view(value.delta),
                                           .alpha = value.view(value.alpha),
                                           .beta = value.view(value.beta),
                                           .gamma = value.view(value.gamma),
                                           .kappa = contiguous(kappa.data(), channels, length)};
  typename average::kernel_backward_args const back{.delta = args.delta,
                                                    .alpha = args.alpha,
                                                    .beta = args.beta,
                                                    .gamma = args.gamma,
                                                    .grad_kappa = args.kappa,
                                                    .grad_delta = grad.view(grad.delta),
                                                    .grad_alpha = grad.view(grad.alpha),
                                                    .grad_beta = grad.view(grad.beta),
                                                    .grad_gamma = grad.view(grad.gamma)};
  auto const executor = device.executor;
  bytes scratch(way == pass::forward ? average::kernel_workspace(executor, args)
                                     : average::kernel_backward_workspace(executor, back));
  bool ok = true;
  for (auto _ : state)
    state.SetIterationTime(device.time([&] {
      workspace const w{scratch.data(), scratch.size()};
      ok = (way == pass::forward ? average::kernel(executor, args, w) : average::kernel_backward(executor, back, w))
               .ok() &&
           ok;
    }));
  if (!ok) state.SkipWithError("The operation returned an error.");
  state.counters["flops"] =
      benchmark::Counter(static_cast<double>(channels * length) * (way == pass::forward ? 2 : 4) * 16,
                         benchmark::Counter::kIsIterationInvariantRate);
}

template <class Device>
void add_kernel(std::string const& prefix, bench_machine<Device> const& machine,
                std::vector<std::vector<std::int64_t>> const& sizes) {
  for (pass const way : {pass::forward, pass::backward}) {
    std::string const name = prefix + "ema_kernel/" + to_string(way);
    auto* const b =
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& s) { run_kernel<Device>(s, machine, way); });
    b->ArgNames({"channels", "length", "threads"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes) b->Args(s);
  }
}

/// On a CUDA device, where there is one: in ema.cu.
void add_cuda_ema();

}  // namespace tcnca::bench
