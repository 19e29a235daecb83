// The gates for their developers: each pass against the copy bandwidth of the same run, and the update against the same arithmetic unfused, one
// element-wise operation after another as a framework runs it. Counters: bytes that must cross memory, and their share of the copy bandwidth.
#include "gated_fusion.hpp"

#include <cmath>
#include <map>

#include "baselines/ceilings.hpp"
#include "headline/device_cpu.hpp"
#include "support/commit.hpp"

namespace tcnca::bench {
namespace {

double copy_rate(int threads, size_t bytes) {
  static std::map<int, cpu_ceilings> ceilings;
  return ceilings.try_emplace(threads, threads).first->second.copy_rate(bytes);
}
cpu_device make_device(int threads) { return {cpu{threads}}; }

/// y = x + sigmoid(u) (silu(hx + h) - x) in five operations, each a vectorised pass over both threads: what fusion saves.
void unfused(benchmark::State& state) {
  index_t const rows = state.range(0), columns = state.range(1);
  int const threads = static_cast<int>(state.range(2));
  gate_tensors<cpu_device, float> t(make_device(threads), rows, columns, 7);
  auto const all = [&](auto f) {
    index_t const n = rows * columns;
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (index_t i = 0; i < n; i++) f(i);
  };
  float *const x = t.data(0), *const u = t.data(1), *const hx = t.data(2), *const h = t.data(3), *const y = t.data(4);
  float *const gate = t.data(5), *const candidate = t.data(6);
  for (auto _ : state)
    state.SetIterationTime(cpu_device::time([&] {
      all([=](index_t i) { gate[i] = 1 / (1 + std::exp(-u[i])); });
      all([=](index_t i) { candidate[i] = hx[i] + h[i]; });
      all([=](index_t i) { candidate[i] = candidate[i] / (1 + std::exp(-candidate[i])); });
      all([=](index_t i) { candidate[i] = candidate[i] - x[i]; });
      all([=](index_t i) { y[i] = x[i] + gate[i] * candidate[i]; });
    }));
  double const bytes = static_cast<double>(rows * columns) * sizeof(float) * 5;
  count_gate_bytes(state, bytes, copy_rate(threads, static_cast<size_t>(bytes)));
}

}  // namespace
}  // namespace tcnca::bench

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  std::vector<std::vector<std::int64_t>> const sizes{{16384, 512, 1}, {16384, 512, 2}, {512, 512, 1}};
  add_gates<cpu_device, float>("fp32", sizes, make_device, copy_rate);
  add_gates<cpu_device, tcnca::bf16>("bf16", sizes, make_device, copy_rate);
  benchmark::RegisterBenchmark("update_unfused/fp32", unfused)
      ->ArgNames({"rows", "columns", "threads"})
      ->Unit(benchmark::kMillisecond)
      ->UseManualTime()
      ->Args({16384, 512, 1})
      ->Args({16384, 512, 2});
#if defined(TCNCA_BENCH_CUDA)
  add_cuda_gates();
#endif
  benchmark::AddCustomContext("commit", built_commit());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
