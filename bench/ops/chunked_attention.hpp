// Benchmarks of chunked attention on a Device: functions, masks, bias, dropout, element types, forward and backward.
// Counter: operations of the matrix products for valid pairs of a query and a key.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <tcnca/chunked_attention.hpp>
#include <tcnca/core/workspace.hpp>
#include "../support/attention_problem.hpp"
#include "../support/contender.hpp"
#include "../support/op_benchmark.hpp"

namespace tcnca::bench {

inline std::string shape_name(chunked_attention_shape const& s) {
  std::string name = s.function == attention_function::softmax   ? "softmax"
                     : s.function == attention_function::laplace ? "laplace"
                                                                 : "relu2";
  if (s.causal) name += "_causal";
  if (s.bias) name += "_bias";
  if (s.dropout) name += "_dropout";
  return name;
}

/// Arguments of a benchmark: batch, length, chunk, key dimension, value dimension, threads. One head.
template <class T, chunked_attention_shape Shape, class Device>
void run_chunked_attention(benchmark::State& state, op_backend<Device> const& backend, pass direction) {
  using operation = chunked_attention<T, Shape>;
  using A = accumulate_t<T>;
  using bytes = typename Device::template memory<unsigned char>;
  attention_problem p;
  p.batch = state.range(0), p.length = state.range(1), p.chunk = state.range(2);
  p.key_dim = state.range(3), p.value_dim = state.range(4), p.causal = Shape.causal;
  Device const device = backend.device(static_cast<int>(state.range(5)));
  auto const executor = device.executor;
  auto const keys = [&](auto* data) { return contiguous(data, p.batch, 1, p.length, p.key_dim); };
  auto const values = [&](auto* data) { return contiguous(data, p.batch, 1, p.length, p.value_dim); };
  auto q = gaussian_memory<T>(device, p.key_elements(), 1), k = gaussian_memory<T>(device, p.key_elements(), 2),
       v = gaussian_memory<T>(device, p.value_elements(), 3),
       grad_o = gaussian_memory<T>(device, p.value_elements(), 4);
  auto bias = gaussian_memory<A>(device, 2 * p.chunk - 1, 5, 0.02f);
  typename Device::template memory<T> o(v.size());
  typename Device::template memory<A> lse(static_cast<size_t>(2 * p.batch * p.length));
  auto const set_inputs = [&](auto& args) {
    args.q = keys(device.data(q)), args.k = keys(device.data(k)), args.v = values(device.data(v));
    args.chunk = p.chunk;
    if constexpr (Shape.bias) { args.bias = contiguous(device.data(bias), 1, 2 * p.chunk - 1); }
    if constexpr (Shape.dropout) { args.dropout = 0.1, args.seed = 1; }
  };
  typename operation::forward_args forward{};
  set_inputs(forward), forward.o = values(device.data(o));
  constexpr bool softmax = Shape.function == attention_function::softmax;
  if constexpr (softmax) { forward.lse = contiguous(device.data(lse), p.batch, 1, p.length, 2); }
  bytes scratch(operation::forward_workspace(executor, forward));
  auto const run_forward = [&] {
    return operation::forward(executor, forward, {device.data(scratch), scratch.size()});
  };
  if (direction == pass::forward) {
    time_calls(state, device, run_forward);
  } else {
    if (!run_forward().ok()) return state.SkipWithError("The forward pass returned an error.");
    typename Device::template memory<T> grad_q(q.size()), grad_k(k.size()), grad_v(v.size());
    typename Device::template memory<A> grad_bias(bias.size());
    typename operation::backward_args backward{};
    set_inputs(backward), backward.grad_o = values(device.data(grad_o));
    backward.grad_q = keys(device.data(grad_q)), backward.grad_k = keys(device.data(grad_k));
    backward.grad_v = values(device.data(grad_v));
    if constexpr (softmax) {
      backward.o = values(device.data(o)), backward.lse = contiguous(device.data(lse), p.batch, 1, p.length, 2);
    }
    if constexpr (Shape.bias) { backward.grad_bias = contiguous(device.data(grad_bias), 1, 2 * p.chunk - 1); }
    bytes backward_scratch(operation::backward_workspace(executor, backward));
    time_calls(state, device, [&] {
      return operation::backward(executor, backward, {device.data(backward_scratch), backward_scratch.size()});
    });
  }
  count_operations(state, useful_operations(p, direction == pass::backward));
}

/// Registers both passes of a shape.
template <class T, chunked_attention_shape Shape, class Device>
void add_chunked_attention(op_backend<Device> const& backend, std::vector<std::vector<std::int64_t>> const& sizes) {
  for (pass const p : {pass::forward, pass::backward}) {
    std::string const name =
        backend.prefix + "chunked_attention/" + to_string(p) + "/" + type_name<T>() + "/" + shape_name(Shape);
    auto* const b = benchmark::RegisterBenchmark(
        name.c_str(), [=](benchmark::State& s) { run_chunked_attention<T, Shape>(s, backend, p); });
    b->ArgNames({"batch", "length", "chunk", "key", "value", "threads"});
    b->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes) b->Args(s);
  }
}

/// Registers the benchmarks of a CUDA GPU, if there is one; in chunked_attention.cu.
void add_cuda_chunked_attention();

}  // namespace tcnca::bench
