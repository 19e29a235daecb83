// The gates on the CPU, and for comparison the update as five element-wise operations, as a framework executes it.
#include "gated_fusion.hpp"

#include <cmath>

#include "../support/op_backend_cpu.hpp"

namespace tcnca::bench {
namespace {

/// y = x + sigmoid(u) (silu(hx + h) - x) in five operations, each a vectorized pass on all threads.
void unfused(benchmark::State& state) {
  index_t const rows = state.range(0), columns = state.range(1), n = rows * columns;
  int const threads = static_cast<int>(state.range(2));
  auto const backend = cpu_backend();
  gate_tensors<cpu_device, float> t(backend.device(threads), rows, columns, 7);
  auto const all = [&](auto f) {
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
  double const bytes = static_cast<double>(n) * sizeof(float) * 5;  // as the fused update: five tensors
  count_bytes(state, bytes, backend.copy_rate(threads, static_cast<size_t>(bytes)));
}

/// The passes whose columns have parameters, and the update with dropout. Arguments of a benchmark: rows, columns,
/// threads.
void add_passes_of_columns(std::vector<std::vector<std::int64_t>> const& sizes) {
  using dropout = gated_fusion<float, gated_fusion_shape{.dropout = true}>;
  using gates = gated_fusion<float, gated_fusion_shape{}>;
  using tensors = gate_tensors<cpu_device, float>;
  auto const add = [&](char const* name, int count, auto const& call) {
    auto* const b = benchmark::RegisterBenchmark((std::string(name) + "/fp32").c_str(), [=](benchmark::State& state) {
      index_t const rows = state.range(0), columns = state.range(1);
      int const threads = static_cast<int>(state.range(2));
      auto const backend = cpu_backend();
      cpu_device const device = backend.device(threads);
      tensors t(device, rows, columns, count);
      buffer<float> parameters(static_cast<size_t>(8 * columns));
      auto const parameter = [&](int i) { return contiguous(parameters.data() + i * columns, columns); };
      time_calls(state, device, [&] { return call(t, parameter, device.executor); });
      double const bytes = static_cast<double>(rows * columns) * sizeof(float) * count;
      count_bytes(state, bytes, backend.copy_rate(threads, static_cast<size_t>(bytes)));
    });
    b->ArgNames({"rows", "columns", "threads"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes) b->Args(s);
  };
  add("mix", 3, [](tensors& t, auto const& p, cpu e) {
    return gates::mix(e, {t.view(0), p(0), p(1), p(2), p(3), t.view(1), t.view(2)});
  });
  add("mix_backward", 4, [](tensors& t, auto const& p, cpu e) {
    gates::mix_backward_args const a{t.view(0), p(0), p(1), t.view(1), t.view(2), t.view(3), p(4), p(5), p(6), p(7)};
    static buffer<unsigned char> scratch;
    if (size_t const bytes = gates::mix_backward_workspace(e, a); scratch.size() != bytes)
      scratch = buffer<unsigned char>(bytes);
    return gates::mix_backward(e, a, {scratch.data(), scratch.size()});
  });
  add("update_dropout", 5, [](tensors& t, auto const&, cpu e) {
    return dropout::update(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4), 0.1, 3});
  });
}

}  // namespace
}  // namespace tcnca::bench

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  auto const backend = cpu_backend();
  // In main memory, in a large last-level cache, in the second-level caches.
  std::vector<std::vector<std::int64_t>> const sizes{{65536, 512, 1}, {65536, 512, 2}, {16384, 512, 1},
                                                     {16384, 512, 2}, {512, 512, 1},   {128, 512, 1}};
  add_gated_fusion<float>(backend, sizes);
  add_gated_fusion<tcnca::bf16>(backend, sizes);
  tcnca::bench::add_passes_of_columns(sizes);
  benchmark::RegisterBenchmark("update_unfused/fp32", unfused)
      ->ArgNames({"rows", "columns", "threads"})
      ->Unit(benchmark::kMillisecond)
      ->UseManualTime()
      ->Args({16384, 512, 1})
      ->Args({16384, 512, 2});
#if defined(TCNCA_BENCH_CUDA)
  add_cuda_gated_fusion();
#endif
  return run_benchmarks(argc, argv);
}
