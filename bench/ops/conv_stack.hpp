// Benchmarks of the convolution stack on a Device: shapes, layouts, element types; forward, backward, and decoding,
// which is forward with the state in place. Counters: operations (an FMA counts as 2), bytes that must cross memory,
// and their share of the copy bandwidth.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <tcnca/conv_stack.hpp>
#include <tcnca/core/workspace.hpp>
#include "../support/op_benchmark.hpp"
#include "../support/problem.hpp"

namespace tcnca::bench {

inline std::string shape_name(conv_stack_shape const& s) {
  std::string name = stack_name(s);
  if (s.act == activation::relu) name += "_relu";
  if (s.act == activation::silu) name += "_silu";
  if (s.residuals == residual::level) name += "_residual";
  return name + (s.order == layout::batch_channels_length ? "/bcl" : "/blc");
}

/// Arguments of a benchmark: batch, channels, length, threads.
template <class T, conv_stack_shape Shape, class Device>
void run_conv_stack(benchmark::State& state, op_backend<Device> const& backend, pass direction) {
  using operation = conv_stack<T, Shape>;
  using bytes = typename Device::template memory<unsigned char>;
  problem const p{state.range(0), state.range(1), state.range(2), static_cast<int>(state.range(3))};
  Device const device = backend.device(p.threads);
  auto const executor = device.executor;
  index_t const weights = Shape.layers() * Shape.taps * p.channels;
  auto x = gaussian_memory<T>(device, p.elements(), 1), grad_y = gaussian_memory<T>(device, p.elements(), 2),
       weight = gaussian_memory<T>(device, weights, 3, 1 / std::sqrt(static_cast<float>(Shape.taps)));
  typename Device::template memory<T> y(x.size()), grad_x(x.size());
  typename Device::template memory<accumulate_t<T>> grad_weight(weight.size());
  auto const view = [&](auto& m) { return sequence(device.data(m), Shape.order, p.batch, p.channels, p.length); };
  auto const weight_view = [&](auto& m) { return contiguous(device.data(m), Shape.layers(), Shape.taps, p.channels); };

  if (direction == pass::forward) {
    typename operation::forward_args const args{.x = view(x), .weight = weight_view(weight), .y = view(y)};
    bytes scratch(operation::forward_workspace(executor, args));
    time_calls(state, device, [&] {
      return operation::forward(executor, args, {device.data(scratch), scratch.size()});
    });
  } else {
    typename operation::backward_args const args{.x = view(x),
                                                 .weight = weight_view(weight),
                                                 .grad_y = view(grad_y),
                                                 .grad_x = view(grad_x),
                                                 .grad_weight = weight_view(grad_weight)};
    bytes scratch(operation::backward_workspace(executor, args));
    time_calls(state, device, [&] {
      return operation::backward(executor, args, {device.data(scratch), scratch.size()});
    });
  }
  double const moved = useful_bytes(p, direction, sizeof(T));
  count_operations(state, useful_operations(Shape, p, direction));
  count_bytes(state, moved, backend.copy_rate(p.threads, static_cast<size_t>(moved)));
}

/// Forward with the state in place, as in decoding. Arguments: batch, channels, length, threads. Bytes: x and y, and of
/// the state what the calls of `length` samples use: (taps - 1) samples of a layer's ring for each, and its new input.
template <class T, conv_stack_shape Shape, class Device>
void run_conv_stack_decode(benchmark::State& state, op_backend<Device> const& backend) {
  using operation = conv_stack<T, Shape>;
  using accumulate = accumulate_t<T>;
  problem const p{state.range(0), state.range(1), state.range(2), static_cast<int>(state.range(3))};
  Device const device = backend.device(p.threads);
  auto const executor = device.executor;
  index_t const weights = Shape.layers() * Shape.taps * p.channels;
  auto x = gaussian_memory<T>(device, p.elements(), 1),
       weight = gaussian_memory<T>(device, weights, 3, 1 / std::sqrt(static_cast<float>(Shape.taps)));
  typename Device::template memory<T> y(x.size());
  typename Device::template memory<accumulate> history(
      static_cast<size_t>(p.batch * p.channels * operation::state_length));
  auto const view = [&](auto& m, index_t length) {
    return sequence(device.data(m), Shape.order, p.batch, p.channels, length);
  };
  auto const ring = view(history, operation::state_length);
  typename operation::forward_args args{
      .x = view(x, p.length),
      .weight = contiguous(device.data(weight), Shape.layers(), Shape.taps, p.channels),
      .state_in = ring,
      .y = view(y, p.length),
      .state_out = ring,
      .position = operation::receptive_field};
  typename Device::template memory<unsigned char> scratch(operation::forward_workspace(executor, args));
  time_calls(state, device, [&] {
    status const s = operation::forward(executor, args, {device.data(scratch), scratch.size()});
    args.position += p.length;
    return s;
  });
  double const samples = static_cast<double>(p.elements()),
               moved = samples * (2. * sizeof(T) + 1. * Shape.layers() * Shape.taps * sizeof(accumulate));
  count_operations(state, 2. * Shape.layers() * Shape.taps * samples);
  count_bytes(state, moved, backend.copy_rate(p.threads, static_cast<size_t>(moved)));
}

/// The name of a benchmark: "conv_stack/decode/bf16/K4f4D6/bcl" after the backend's prefix.
template <class T, conv_stack_shape Shape, class Device>
std::string conv_stack_name(op_backend<Device> const& backend, char const* what) {
  return backend.prefix + "conv_stack/" + what + "/" + type_name<T>() + "/" + shape_name(Shape);
}

template <class T, conv_stack_shape Shape, class Device>
void add_conv_stack_decode(op_backend<Device> const& backend, std::vector<std::vector<std::int64_t>> const& sizes) {
  auto* const b =
      benchmark::RegisterBenchmark(conv_stack_name<T, Shape>(backend, "decode").c_str(),
                                   [=](benchmark::State& s) { run_conv_stack_decode<T, Shape>(s, backend); });
  b->ArgNames({"batch", "channels", "length", "threads"})->Unit(benchmark::kMicrosecond)->UseManualTime();
  for (auto const& s : sizes) b->Args(s);
}

/// Registers both passes of a shape.
template <class T, conv_stack_shape Shape, class Device>
void add_conv_stack(op_backend<Device> const& backend, std::vector<std::vector<std::int64_t>> const& sizes) {
  for (pass const p : {pass::forward, pass::backward}) {
    auto* const b = benchmark::RegisterBenchmark(conv_stack_name<T, Shape>(backend, to_string(p)).c_str(),
                                                 [=](benchmark::State& s) { run_conv_stack<T, Shape>(s, backend, p); });
    b->ArgNames({"batch", "channels", "length", "threads"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes) b->Args(s);
  }
}

/// Registers the benchmarks of a CUDA GPU, if there is one; in conv_stack.cu.
void add_cuda_conv_stack();

}  // namespace tcnca::bench
