// Chunked attention for its developers: functions, masks, bias, dropout, element types, forward and backward.
// Counter: what a second does in operations of the products, for valid pairs of a query and a key.
#include <benchmark/benchmark.h>

#include <string>
#include <type_traits>

#include <tcnca/chunked_attention.hpp>
#include <tcnca/core/workspace.hpp>
#include "attention/problem.hpp"
#include "headline/problem.hpp"
#include "support/buffer.hpp"
#include "support/text.hpp"

namespace tcnca::bench {
namespace {

template <class T>
char const* name_of() {
  return std::is_same_v<T, float> ? "fp32" : std::is_same_v<T, double> ? "fp64" : "bf16";
}
std::string name_of(chunked_attention_shape const& s) {
  std::string name = s.function == attention_function::softmax   ? "softmax"
                     : s.function == attention_function::laplace ? "laplace"
                                                                 : "relu2";
  if (s.causal) name += "_causal";
  if (s.bias) name += "_bias";
  if (s.dropout) name += "_dropout";
  return name;
}

/// Arguments of a run: chunk, key dimension, value dimension, threads. Two chunks, or 512 rows of short ones.
template <class T, chunked_attention_shape Shape>
void run(benchmark::State& state, pass direction) {
  using attention = chunked_attention<T, Shape>;
  using accumulate = accumulate_t<T>;
  attention_problem p;
  p.chunk = state.range(0), p.key_dim = state.range(1), p.value_dim = state.range(2), p.causal = Shape.causal;
  p.length = std::max<index_t>(2 * p.chunk, 512);
  cpu const executor{static_cast<int>(state.range(3))};
  auto const keys = [&](auto* data) { return contiguous(data, 1, 1, p.length, p.key_dim); };
  auto const values = [&](auto* data) { return contiguous(data, 1, 1, p.length, p.value_dim); };
  auto const count = [](index_t n) { return static_cast<size_t>(n); };
  auto const noise = [](auto& b, std::uint64_t stream, float scale = 1) {
    text::noise(contiguous(b.data(), 1, 1, static_cast<index_t>(b.size())), stream, scale);
  };
  buffer<T> q(count(p.key_elements())), k(q.size()), v(count(p.value_elements())), o(v.size()), grad_o(v.size());
  buffer<accumulate> bias(count(2 * p.chunk - 1)), lse(count(2 * p.length));
  noise(q, 1), noise(k, 2), noise(v, 3), noise(grad_o, 4), noise(bias, 5, 0.02f);
  auto const common = [&](auto& args) {
    args.q = keys(static_cast<T const*>(q.data())), args.k = keys(static_cast<T const*>(k.data()));
    args.v = values(static_cast<T const*>(v.data())), args.chunk = p.chunk;
    if constexpr (Shape.bias) {
      args.bias = contiguous(static_cast<accumulate const*>(bias.data()), 1, static_cast<index_t>(bias.size()));
    }
    if constexpr (Shape.dropout) { args.dropout = 0.1, args.seed = 1; }
  };
  typename attention::forward_args forward{};
  common(forward), forward.o = values(o.data());
  constexpr bool softmax = Shape.function == attention_function::softmax;
  if constexpr (softmax) { forward.lse = contiguous(lse.data(), 1, 1, p.length, 2); }
  buffer<unsigned char> scratch(attention::forward_workspace(executor, forward));
  bool ok = true;
  if (direction == pass::forward) {
    for (auto _ : state) ok = attention::forward(executor, forward, {scratch.data(), scratch.size()}).ok() && ok;
  } else {
    ok = attention::forward(executor, forward, {scratch.data(), scratch.size()}).ok();
    buffer<T> grad_q(q.size()), grad_k(q.size()), grad_v(v.size());
    buffer<accumulate> grad_bias(bias.size());
    typename attention::backward_args backward{};
    common(backward), backward.grad_o = values(static_cast<T const*>(grad_o.data()));
    backward.grad_q = keys(grad_q.data()), backward.grad_k = keys(grad_k.data()),
    backward.grad_v = values(grad_v.data());
    if constexpr (softmax) {
      backward.o = values(static_cast<T const*>(o.data())),
      backward.lse = contiguous(static_cast<accumulate const*>(lse.data()), 1, 1, p.length, 2);
    }
    if constexpr (Shape.bias) {
      backward.grad_bias = contiguous(grad_bias.data(), 1, static_cast<index_t>(bias.size()));
    }
    buffer<unsigned char> more(attention::backward_workspace(executor, backward));
    for (auto _ : state) ok = attention::backward(executor, backward, {more.data(), more.size()}).ok() && ok;
  }
  if (!ok) state.SkipWithError("the operation returned an error");
  using benchmark::Counter;
  state.counters["flops"] =
      Counter(useful_operations(p, direction == pass::backward), Counter::kIsIterationInvariantRate);
}

template <class T, chunked_attention_shape Shape>
void add() {
  for (pass const direction : {pass::forward, pass::backward}) {
    std::string const name =
        std::string("chunked_attention/") + to_string(direction) + "/" + name_of<T>() + "/" + name_of(Shape);
    auto* const b =
        benchmark::RegisterBenchmark(name.c_str(), [direction](benchmark::State& s) { run<T, Shape>(s, direction); });
    b->ArgNames({"chunk", "key", "value", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime();
    for (int const threads : {1, 2}) {
      for (index_t const chunk : {128, 512, 2048}) b->Args({chunk, 128, 1024, threads});
      b->Args({512, 64, 256, threads});
      b->Args({1000, 128, 2048, threads});
    }
  }
}

}  // namespace
}  // namespace tcnca::bench

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  using enum tcnca::attention_function;
  add<float, {.function = softmax}>();
  add<float, {.function = softmax, .causal = true}>();
  add<float, {.function = softmax, .causal = true, .bias = true}>();
  add<float, {.function = softmax, .causal = true, .bias = true, .dropout = true}>();
  add<float, {.function = laplace, .causal = true, .bias = true}>();
  add<float, {.function = laplace}>();
  add<float, {.function = relu2, .causal = true}>();
  add<tcnca::bf16, {.function = softmax, .causal = true}>();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
