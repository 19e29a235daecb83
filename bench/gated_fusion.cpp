// The gates for their developers: each pass against the copy bandwidth of the same run, and the update against the same arithmetic unfused, one
// element-wise operation after another as a framework runs it. Counters: bytes that must cross memory, and their share of the copy bandwidth.
#include <benchmark/benchmark.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "baselines/ceilings.hpp"
#include "headline/problem.hpp"
#include "support/buffer.hpp"
#include "support/text.hpp"
#include <tcnca/gated_fusion.hpp>

namespace {

using namespace tcnca::bench;
using tcnca::bf16, tcnca::contiguous;
using tcnca::index;
using tcnca::size;

/// Rows and columns of a pass, all tensors alike.
template <class T>
struct tensors {
  index rows, columns;
  std::vector<buffer<T>> all;
  tensors(index r, index c, int n) : rows(r), columns(c) {
    for (int i = 0; i < n; i++) {
      all.emplace_back(static_cast<size>(r * c));
      text::noise(tcnca::sequence(all.back().data(), tcnca::layout::batch_length_channels, 1, c, r), static_cast<std::uint64_t>(i + 1));
    }
  }
  auto view(int i) { return contiguous(all[static_cast<size>(i)].data(), 1, rows, columns); }
};

void count(benchmark::State& state, int tensors, size element, index rows, index columns, int threads) {
  double const bytes = static_cast<double>(rows * columns) * static_cast<double>(element) * tensors;
  state.counters["bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
  static std::map<int, cpu_ceilings> ceilings;
  double const copy = ceilings.try_emplace(threads, threads).first->second.copy_rate(static_cast<size>(bytes));
  state.counters["of_copy"] = benchmark::Counter(bytes / copy, benchmark::Counter::kIsIterationInvariantRate);
}

template <class T>
void add(std::string const& type) {
  using gates = tcnca::gated_fusion<T, tcnca::gated_fusion_shape{}>;
  using run = std::function<bool(tensors<T>&, tcnca::cpu)>;
  auto const pass = [&](std::string const& name, int passed, int held, run f) {
    benchmark::RegisterBenchmark((name + "/" + type).c_str(),
                                 [=](benchmark::State& state) {
                                   index const rows = state.range(0), columns = state.range(1);
                                   int const threads = static_cast<int>(state.range(2));
                                   tensors<T> t(rows, columns, held);
                                   bool ok = true;
                                   for (auto _ : state) ok = f(t, tcnca::cpu{threads}) && ok;
                                   if (!ok) state.SkipWithError("the operation returned an error");
                                   count(state, passed, sizeof(T), rows, columns, threads);
                                 })
        ->ArgNames({"rows", "columns", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime()
        ->Args({16384, 512, 1})->Args({16384, 512, 2})->Args({512, 512, 1});
  };
  pass("update", 5, 5, [](auto& t, auto e) { return gates::update(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4)}).ok(); });
  pass("update_backward", 9, 9, [](auto& t, auto e) {
    return gates::update_backward(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4), t.view(5), t.view(6), t.view(7), t.view(8)}).ok();
  });
  pass("reset", 3, 3, [](auto& t, auto e) { return gates::reset(e, {t.view(0), t.view(1), t.view(2)}).ok(); });
  pass("reset_backward", 5, 5, [](auto& t, auto e) { return gates::reset_backward(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4)}).ok(); });
}

/// y = x + sigmoid(u) (silu(hx + h) - x) in five operations, each a vectorised pass over both threads: what fusion saves.
void unfused(benchmark::State& state) {
  index const rows = state.range(0), columns = state.range(1);
  int const threads = static_cast<int>(state.range(2));
  tensors<float> t(rows, columns, 7);
  auto const all = [&](auto f) {
    index const n = rows * columns;
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (index i = 0; i < n; i++) f(i);
  };
  float *const x = t.all[0].data(), *const u = t.all[1].data(), *const hx = t.all[2].data(), *const h = t.all[3].data(), *const y = t.all[4].data();
  float *const gate = t.all[5].data(), *const candidate = t.all[6].data();
  for (auto _ : state) {
    all([=](index i) { gate[i] = 1 / (1 + std::exp(-u[i])); });
    all([=](index i) { candidate[i] = hx[i] + h[i]; });
    all([=](index i) { candidate[i] = candidate[i] / (1 + std::exp(-candidate[i])); });
    all([=](index i) { candidate[i] = candidate[i] - x[i]; });
    all([=](index i) { y[i] = x[i] + gate[i] * candidate[i]; });
  }
  count(state, 5, sizeof(float), rows, columns, threads);
}

}  // namespace

int main(int argc, char** argv) {
  add<float>("fp32");
  add<bf16>("bf16");
  benchmark::RegisterBenchmark("update_unfused/fp32", unfused)
      ->ArgNames({"rows", "columns", "threads"})->Unit(benchmark::kMillisecond)->UseRealTime()->Args({16384, 512, 1})->Args({16384, 512, 2});
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
