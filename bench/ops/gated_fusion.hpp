// The benchmarks of the gates, on any machine (headline/device.hpp says what a Device is).
#pragma once
#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <tcnca/gated_fusion.hpp>
#include "support/text.hpp"

namespace tcnca::bench {

/// The tensors of a pass, all alike.
template <class Device, class T>
class gate_tensors {
 public:
  gate_tensors(Device const& device, index_t rows, index_t columns, int count) : rows_(rows), columns_(columns) {
    std::vector<T> host(static_cast<size_t>(rows * columns));
    for (int i = 0; i < count; i++) {
      text::noise(sequence(host.data(), layout::batch_length_channels, 1, columns, rows),
                  static_cast<std::uint64_t>(i + 1));
      all_.emplace_back(host.size());
      device.write(all_.back().data(), host);
    }
  }
  T* data(int i) { return all_[static_cast<size_t>(i)].data(); }
  auto view(int i) { return contiguous(data(i), 1, rows_, columns_); }

 private:
  index_t rows_, columns_;
  std::vector<typename Device::template memory<T>> all_;
};

/// Bytes that must cross memory, and their share of the copy bandwidth.
inline void count_gate_bytes(benchmark::State& state, double bytes, double copy_rate) {
  state.counters["bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["of_copy"] = benchmark::Counter(bytes / copy_rate, benchmark::Counter::kIsIterationInvariantRate);
}

/// Registers all passes. `make_device` takes the number of threads, an argument of a run; copy_rate that, and the bytes that are moved.
template <class Device, class T>
void add_gates(std::string const& name, std::vector<std::vector<std::int64_t>> const& sizes,
               std::function<Device(int)> const& make_device, std::function<double(int, size_t)> const& copy_rate) {
  using gates = gated_fusion<T, gated_fusion_shape{}>;
  using tensors = gate_tensors<Device, T>;
  auto const pass = [&](std::string const& what, int passed, auto const& call) {
    auto* const b = benchmark::RegisterBenchmark((what + "/" + name).c_str(), [=](benchmark::State& state) {
      index_t const rows = state.range(0), columns = state.range(1);
      int const threads = static_cast<int>(state.range(2));
      Device const device = make_device(threads);
      tensors t(device, rows, columns, passed);
      bool ok = true;
      for (auto _ : state) state.SetIterationTime(device.time([&] { ok = call(t, device.executor).ok() && ok; }));
      if (!ok) state.SkipWithError("The operation returned an error.");
      double const bytes = static_cast<double>(rows * columns) * static_cast<double>(sizeof(T)) * passed;
      count_gate_bytes(state, bytes, copy_rate(threads, static_cast<size_t>(bytes)));
    });
    b->ArgNames({"rows", "columns", "threads"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes) b->Args(s);
  };
  pass("update", 5, [](tensors& t, auto e) {
    return gates::update(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4)});
  });
  pass("update_backward", 9, [](tensors& t, auto e) {
    return gates::update_backward(
        e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4), t.view(5), t.view(6), t.view(7), t.view(8)});
  });
  pass("reset", 3, [](tensors& t, auto e) { return gates::reset(e, {t.view(0), t.view(1), t.view(2)}); });
  pass("reset_backward", 5, [](tensors& t, auto e) {
    return gates::reset_backward(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4)});
  });
}

/// On a CUDA device, where there is one: in gated_fusion.cu.
void add_cuda_gates();

}  // namespace tcnca::bench
