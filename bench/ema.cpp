// The exponential moving average for its developers: both layouts, element types, forward and backward, with and without a state; and
// the generation of its kernel. Counters: what a second does in operations, a multiply-add two of them, and in bytes that must cross memory.
#include <benchmark/benchmark.h>

#include <string>
#include <type_traits>

#include "headline/problem.hpp"
#include "support/buffer.hpp"
#include "support/text.hpp"
#include <tcnca/core/workspace.hpp>
#include <tcnca/ema.hpp>

namespace {

using namespace tcnca::bench;
using tcnca::bf16, tcnca::contiguous, tcnca::direction, tcnca::ema_shape, tcnca::layout, tcnca::sequence;
using tcnca::index;
using tcnca::size;

template <class T>
char const* name_of() {
  return std::is_same_v<T, float> ? "fp32" : std::is_same_v<T, double> ? "fp64" : "bf16";
}
std::string name_of(ema_shape const& s) {
  std::string name = std::to_string(s.states);
  if (s.dir == direction::bidirectional) name += "_both_ways";
  if (s.skip) name += "_skip";
  return name + (s.order == layout::batch_channels_length ? "/bcl" : "/blc");
}

/// Numbers of the parameters' size.
template <class A>
struct parameters {
  buffer<A> delta, alpha, beta, gamma;
  index rows;
  int states;
  parameters(index r, int n) : delta(count(r, n)), alpha(count(r, n)), beta(count(r, n)), gamma(count(r, n)), rows(r), states(n) {}
  static size count(index r, int n) { return static_cast<size>(r) * static_cast<size>(n); }
  tcnca::tensor_view<A, 2> view(buffer<A>& b) const { return contiguous(b.data(), rows, states); }
  void draw() {
    std::uint64_t seed = 10;
    for (auto* b : {&delta, &alpha, &beta, &gamma}) text::noise(contiguous(b->data(), 1, rows, static_cast<index>(states)), seed++);
  }
};

/// Arguments of a run: batch, channels, length, threads, whether there is a state.
template <class T, ema_shape Shape>
void run(benchmark::State& state, pass way) {
  using average = tcnca::ema<T, Shape>;
  using A = tcnca::accumulate_t<T>;
  problem const p{state.range(0), state.range(1), state.range(2), static_cast<int>(state.range(3))};
  bool const stateful = state.range(4) != 0;
  tcnca::cpu const executor{p.threads};
  auto const count = static_cast<size>(p.elements());
  buffer<T> x(count), y(count), grad_y(count), grad_x(count);
  auto const view = [&](buffer<T>& b) { return sequence(b.data(), Shape.order, p.batch, p.channels, p.length); };
  text::noise(view(x), 1);
  text::noise(view(grad_y), 2);
  parameters<A> value(Shape.halves() * p.channels, Shape.states), grad(Shape.halves() * p.channels, Shape.states);
  value.draw();
  buffer<A> omega(static_cast<size>(p.channels)), grad_omega(omega.size());
  buffer<A> h(static_cast<size>(p.batch * p.channels * Shape.states)), grad_h(h.size());
  auto const states = [&](buffer<A>& b) { return contiguous(b.data(), p.batch, p.channels, Shape.states); };

  bool ok = true;
  if (way == pass::forward) {
    typename average::forward_args args{.x = view(x), .delta = value.view(value.delta), .alpha = value.view(value.alpha),
                                        .beta = value.view(value.beta), .gamma = value.view(value.gamma), .y = view(y)};
    if (Shape.skip) args.omega = contiguous(omega.data(), p.channels);
    if (stateful) args.state_in = states(h), args.state_out = states(h);
    buffer<unsigned char> scratch(average::forward_workspace(executor, args));
    for (auto _ : state) ok = average::forward(executor, args, {scratch.data(), scratch.size()}).ok() && ok;
  } else {
    typename average::backward_args args{.x = view(x), .delta = value.view(value.delta), .alpha = value.view(value.alpha),
                                         .beta = value.view(value.beta), .gamma = value.view(value.gamma), .grad_y = view(grad_y),
                                         .grad_x = view(grad_x), .grad_delta = grad.view(grad.delta), .grad_alpha = grad.view(grad.alpha),
                                         .grad_beta = grad.view(grad.beta), .grad_gamma = grad.view(grad.gamma)};
    if (Shape.skip) args.omega = contiguous(omega.data(), p.channels), args.grad_omega = contiguous(grad_omega.data(), p.channels);
    if (stateful) args.state_in = states(h), args.grad_state_out = states(h), args.grad_state_in = states(grad_h);
    buffer<unsigned char> scratch(average::backward_workspace(executor, args));
    for (auto _ : state) ok = average::backward(executor, args, {scratch.data(), scratch.size()}).ok() && ok;
  }
  if (!ok) state.SkipWithError("the operation returned an error");
  // Forward h and y; backward l, e, grad_x and two sums a state, and both of the forward pass again where the SiLU needs y.
  int const multiply_adds = way == pass::forward ? 2 : Shape.skip ? 7 : 5;
  double const elements = static_cast<double>(p.elements());
  using benchmark::Counter;
  state.counters["flops"] = Counter(elements * 2 * multiply_adds * Shape.states * Shape.halves(), Counter::kIsIterationInvariantRate);
  state.counters["bytes"] = Counter(elements * (way == pass::forward ? 2 : 3) * sizeof(T), Counter::kIsIterationInvariantRate, Counter::kIs1024);
}

template <class T, ema_shape Shape>
void add() {
  for (pass const way : {pass::forward, pass::backward}) {
    std::string const name = std::string("ema/") + to_string(way) + "/" + name_of<T>() + "/" + name_of(Shape);
    auto* const b = benchmark::RegisterBenchmark(name.c_str(), [way](benchmark::State& s) { run<T, Shape>(s, way); });
    b->ArgNames({"batch", "channels", "length", "threads", "state"})->Unit(benchmark::kMillisecond)->UseRealTime();
    for (int const threads : {1, 2})
      for (index const length : {1000, 16384, 131072}) b->Args({2, 64, length, threads, 0});
    if (Shape.dir == direction::causal) b->Args({2, 64, 16384, 1, 1})->Args({2, 64, 1, 1, 1});  // the second: one token
  }
}

/// Arguments of a run: channels, length, threads.
void run_kernel(benchmark::State& state, pass way) {
  using average = tcnca::ema<float, ema_shape{}>;
  index const channels = state.range(0), length = state.range(1);
  tcnca::cpu const executor{static_cast<int>(state.range(2))};
  parameters<float> value(channels, 16), grad(channels, 16);
  value.draw();
  buffer<float> kappa(static_cast<size>(channels * length));
  text::noise(contiguous(kappa.data(), 1, channels, length), 3);
  typename average::kernel_args const args{.delta = value.view(value.delta), .alpha = value.view(value.alpha), .beta = value.view(value.beta),
                                           .gamma = value.view(value.gamma), .kappa = contiguous(kappa.data(), channels, length)};
  typename average::kernel_backward_args const back{.delta = args.delta, .alpha = args.alpha, .beta = args.beta, .gamma = args.gamma,
                                                    .grad_kappa = args.kappa, .grad_delta = grad.view(grad.delta),
                                                    .grad_alpha = grad.view(grad.alpha), .grad_beta = grad.view(grad.beta),
                                                    .grad_gamma = grad.view(grad.gamma)};
  buffer<unsigned char> scratch(way == pass::forward ? average::kernel_workspace(executor, args) : average::kernel_backward_workspace(executor, back));
  bool ok = true;
  for (auto _ : state) {
    if (way == pass::forward) ok = average::kernel(executor, args, {scratch.data(), scratch.size()}).ok() && ok;
    else ok = average::kernel_backward(executor, back, {scratch.data(), scratch.size()}).ok() && ok;
  }
  if (!ok) state.SkipWithError("the operation returned an error");
  state.counters["flops"] = benchmark::Counter(static_cast<double>(channels * length) * (way == pass::forward ? 2 : 4) * 16,
                                               benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

int main(int argc, char** argv) {
  constexpr layout blc = layout::batch_length_channels;
  add<float, ema_shape{}>();
  add<float, ema_shape{.skip = false}>();
  add<float, ema_shape{.skip = false, .order = blc}>();
  add<float, ema_shape{.dir = direction::bidirectional}>();
  add<bf16, ema_shape{}>();
  add<double, ema_shape{.skip = false}>();
  for (pass const way : {pass::forward, pass::backward}) {
    std::string const name = std::string("ema_kernel/") + to_string(way);
    benchmark::RegisterBenchmark(name.c_str(), [way](benchmark::State& s) { run_kernel(s, way); })
        ->ArgNames({"channels", "length", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime()->Args({64, 1000, 1})->Args({64, 131072, 1});
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
