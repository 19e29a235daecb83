// What the Google Benchmark programs of the operations share: a backend, random inputs, names, and main.
#pragma once
#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "commit.hpp"
#include "machine.hpp"
#include "text.hpp"

namespace tcnca::bench {

/// Where an operation runs. Benchmarks pass the number of threads as an argument; a GPU ignores it.
template <class Device>
struct op_backend {
  std::string prefix;  ///< of the names of its benchmarks
  std::function<Device(int threads)> device;
  /// Bytes read plus written per second by a copy that moves `moved_bytes`, measured in this process.
  std::function<double(int threads, size_t moved_bytes)> copy_rate;
};

/// Gaussian numbers in memory of a device.
template <class T, class Device>
typename Device::template memory<T> gaussian_memory(Device const& device, index_t count, std::uint64_t stream,
                                                    float scale = 1) {
  std::vector<T> host(static_cast<size_t>(count));
  text::noise(contiguous(host.data(), 1, 1, count), stream, scale);
  typename Device::template memory<T> memory(host.size());
  device.write(memory, host);
  return memory;
}

template <class T>
char const* type_name() {
  return std::is_same_v<T, float> ? "fp32" : std::is_same_v<T, double> ? "fp64" : "bf16";
}

/// Times `call`, which returns a status, on the device.
template <class Device, class Call>
void time_calls(benchmark::State& state, Device const& device, Call const& call) {
  bool ok = true;
  for (auto _ : state) state.SetIterationTime(device.time([&] { ok = call().ok() && ok; }));
  if (!ok) state.SkipWithError("The operation returned an error.");
}

inline void count_operations(benchmark::State& state, double operations) {
  state.counters["flops"] = benchmark::Counter(operations, benchmark::Counter::kIsIterationInvariantRate);
}

/// Bytes that must cross memory per call, as a rate, and as a share of `copy_rate`.
inline void count_bytes(benchmark::State& state, double bytes, double copy_rate) {
  state.counters["bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_copy"] = benchmark::Counter(bytes / copy_rate, benchmark::Counter::kIsIterationInvariantRate);
}

/// The body of main, after the benchmarks are registered. The JSON output names commit, processor and compiler.
inline int run_benchmarks(int argc, char** argv) {
  benchmark::AddCustomContext("commit", built_commit());
  benchmark::AddCustomContext("processor", processor_name());
  benchmark::AddCustomContext("compiler", compiler_name());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace tcnca::bench
