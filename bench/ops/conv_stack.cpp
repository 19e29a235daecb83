// The convolution stack for its developers: shapes, both layouts, element types, forward and backward.
// Counters: what a second does in multiply-adds and in bytes that must cross memory.
#include <benchmark/benchmark.h>

#include <string>
#include <type_traits>
#include <vector>

#include <tcnca/conv_stack.hpp>
#include <tcnca/core/workspace.hpp>
#include "headline/problem.hpp"
#include "support/buffer.hpp"
#include "support/text.hpp"

namespace {

using namespace tcnca::bench;
using tcnca::activation, tcnca::bf16, tcnca::contiguous, tcnca::conv_stack_shape, tcnca::layout, tcnca::residual,
    tcnca::sequence;
using tcnca::index_t;
using tcnca::size_t;

template <class T>
char const* name_of() {
  return std::is_same_v<T, float> ? "fp32" : std::is_same_v<T, double> ? "fp64" : "bf16";
}
std::string name_of(conv_stack_shape const& s) {
  std::string name = stack_name(s);
  if (s.act == activation::relu) name += "_relu";
  if (s.act == activation::silu) name += "_silu";
  if (s.residuals == residual::level) name += "_residual";
  return name + (s.order == layout::batch_channels_length ? "/bcl" : "/blc");
}

/// Arguments of a run: batch, channels, length, threads.
template <class T, conv_stack_shape Shape>
void run(benchmark::State& state, pass direction) {
  using stack = tcnca::conv_stack<T, Shape>;
  using grad = tcnca::accumulate_t<T>;
  problem const p{state.range(0), state.range(1), state.range(2), static_cast<int>(state.range(3))};
  tcnca::cpu const executor{p.threads};
  auto const count = static_cast<size_t>(p.elements());
  buffer<T> x(count), y(count), grad_y(count), grad_x(count),
      weight(static_cast<size_t>(Shape.layers() * Shape.taps * p.channels));
  buffer<grad> grad_weight(weight.size());
  auto const view = [&](buffer<T>& b) { return sequence(b.data(), Shape.order, p.batch, p.channels, p.length); };
  text::noise(view(x), 1);
  text::noise(view(grad_y), 2);
  text::noise(contiguous(weight.data(), 1, 1, static_cast<index_t>(weight.size())), 3,
              1 / std::sqrt(static_cast<float>(Shape.taps)));
  auto const weights = contiguous(weight.data(), Shape.layers(), Shape.taps, p.channels);

  bool ok = true;
  if (direction == pass::forward) {
    typename stack::forward_args const args{.x = view(x), .weight = weights, .y = view(y)};
    buffer<unsigned char> scratch(stack::forward_workspace(executor, args));
    for (auto _ : state) ok = stack::forward(executor, args, {scratch.data(), scratch.size()}).ok() && ok;
  } else {
    typename stack::backward_args const args{
        .x = view(x),
        .weight = weights,
        .grad_y = view(grad_y),
        .grad_x = view(grad_x),
        .grad_weight = contiguous(grad_weight.data(), Shape.layers(), Shape.taps, p.channels)};
    buffer<unsigned char> scratch(stack::backward_workspace(executor, args));
    for (auto _ : state) ok = stack::backward(executor, args, {scratch.data(), scratch.size()}).ok() && ok;
  }
  if (!ok) state.SkipWithError("the operation returned an error");
  using benchmark::Counter;
  state.counters["flops"] = Counter(useful_operations(Shape, p, direction), Counter::kIsIterationInvariantRate);
  state.counters["bytes"] =
      Counter(useful_bytes(p, direction, sizeof(T)), Counter::kIsIterationInvariantRate, Counter::kIs1024);
}

template <class T, conv_stack_shape Shape>
void add() {
  for (pass const direction : {pass::forward, pass::backward}) {
    std::string const name =
        std::string("conv_stack/") + to_string(direction) + "/" + name_of<T>() + "/" + name_of(Shape);
    auto* const b =
        benchmark::RegisterBenchmark(name.c_str(), [direction](benchmark::State& s) { run<T, Shape>(s, direction); });
    b->ArgNames({"batch", "channels", "length", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime();
    for (int const threads : {1, 2})
      for (index_t const length : {1000, 16384, 131072}) b->Args({2, 64, length, threads});
  }
}

constexpr conv_stack_shape with(conv_stack_shape s, layout order, activation act = activation::none,
                                residual residuals = residual::none) {
  s.order = order, s.act = act, s.residuals = residuals;
  return s;
}
constexpr layout bcl = layout::batch_channels_length, blc = layout::batch_length_channels;
constexpr conv_stack_shape wide{.taps = 4, .depth = 6, .dilation_base = 4},
    heavy{.taps = 17, .depth = 4, .dilation_base = 16}, one{.taps = 4, .depth = 1};

}  // namespace

int main(int argc, char** argv) {
  add<float, with(wide, bcl)>();
  add<float, with(wide, blc)>();
  add<float, with(heavy, bcl)>();
  add<float, with(heavy, blc)>();
  add<float, with(one, bcl)>();
  add<bf16, with(wide, bcl)>();
  add<bf16, with(wide, blc)>();
  add<double, with(wide, bcl)>();
  add<float, with(wide, bcl, activation::relu, residual::level)>();
  add<float, with(wide, blc, activation::silu, residual::level)>();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
