// Benchmarks of the convolution stack on a Device: shapes, layouts, element types; forward, backward, and decoding,
// which is forward with the state in place. Counters: operations (an FMA counts as 2), bytes that must cross memory,
// and their share of the copy bandwidth.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "../support/bind_stack.hpp"
#include "../support/op_benchmark.hpp"

namespace tcnca::bench {

inline std::string shape_name(conv_stack_shape const& s) {
  std::string name = stack_name(s);
  if (s.act == activation::relu) name += "_relu";
  if (s.act == activation::silu) name += "_silu";
  if (s.residuals == residual::level) name += "_residual";
  return name + (s.order == layout::batch_channels_length ? "/bcl" : "/blc");
}

/// A call of a benchmark with its tensors. Arguments: batch, channels, length, threads.
template <class T, conv_stack_shape Shape, class Device>
struct stack_call {
  Device device;
  problem p;
  typename Device::template memory<T> x, grad_y, weight, y, grad_x;

  stack_call(benchmark::State const& state, op_backend<Device> const& backend)
      : device(backend.device(static_cast<int>(state.range(3)))),
        p{state.range(0), state.range(1), state.range(2), static_cast<int>(state.range(3))},
        x(gaussian_memory<T>(device, p.elements(), 1)),
        grad_y(gaussian_memory<T>(device, p.elements(), 2)),
        weight(gaussian_memory<T>(device, Shape.layers() * Shape.taps * p.channels, 3,
                                  1 / std::sqrt(static_cast<float>(Shape.taps)))),
        y(x.size()),
        grad_x(x.size()) {}

  sequences<T> tensors() { return {p, device.data(x), device.data(grad_y), device.data(y), device.data(grad_x)}; }
  void run(benchmark::State& state, op_backend<Device> const& backend, contender const& c, double operations,
           double bytes) {
    for (auto _ : state) state.SetIterationTime(c.run());
    count_operations(state, operations);
    count_bytes(state, bytes, backend.copy_rate(p.threads, static_cast<size_t>(bytes)));
  }
};

template <class T, conv_stack_shape Shape, class Device>
void run_conv_stack(benchmark::State& state, op_backend<Device> const& backend, pass direction) {
  stack_call<T, Shape, Device> call(state, backend);
  T const* const weight = call.device.data(call.weight);
  call.run(state, backend, bind_stack<T, Shape>(call.device, direction, call.tensors(), weight),
           useful_operations(Shape, call.p, direction), useful_bytes(call.p, direction, sizeof(T)));
}

template <class T, conv_stack_shape Shape, class Device>
void run_conv_stack_decode(benchmark::State& state, op_backend<Device> const& backend) {
  stack_call<T, Shape, Device> call(state, backend);
  T const* const weight = call.device.data(call.weight);
  call.run(state, backend, bind_decode<T, Shape>(call.device, call.tensors(), weight),
           2. * Shape.layers() * Shape.taps * static_cast<double>(call.p.elements()), decode_bytes<T, Shape>(call.p));
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
