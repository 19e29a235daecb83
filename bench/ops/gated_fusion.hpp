// Benchmarks of the gates on a Device. Counters: bytes that must cross memory, and their share of the copy bandwidth.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <tcnca/gated_fusion.hpp>
#include "../support/op_benchmark.hpp"

namespace tcnca::bench {

/// The tensors of a pass, all [rows, columns].
template <class Device, class T>
class gate_tensors {
 public:
  gate_tensors(Device const& device, index_t rows, index_t columns, int count) : rows_(rows), columns_(columns) {
    for (int i = 0; i < count; i++)
      all_.push_back(gaussian_memory<T>(device, rows * columns, static_cast<std::uint64_t>(i + 1)));
  }
  T* data(int i) { return Device::data(all_[static_cast<size_t>(i)]); }
  auto view(int i) { return contiguous(data(i), 1, rows_, columns_); }

 private:
  index_t rows_, columns_;
  std::vector<typename Device::template memory<T>> all_;
};

/// Registers all passes. Arguments of a benchmark: rows, columns, threads.
template <class T, class Device>
void add_gated_fusion(op_backend<Device> const& backend, std::vector<std::vector<std::int64_t>> const& sizes) {
  using gates = gated_fusion<T, gated_fusion_shape{}>;
  using tensors = gate_tensors<Device, T>;
  auto const add = [&](std::string const& name, int count, auto const& call) {
    auto* const b = benchmark::RegisterBenchmark(
        (backend.prefix + name + "/" + type_name<T>()).c_str(), [=](benchmark::State& state) {
          index_t const rows = state.range(0), columns = state.range(1);
          int const threads = static_cast<int>(state.range(2));
          Device const device = backend.device(threads);
          tensors t(device, rows, columns, count);
          time_calls(state, device, [&] { return call(t, device.executor); });
          double const bytes = static_cast<double>(rows * columns) * static_cast<double>(sizeof(T)) * count;
          count_bytes(state, bytes, backend.copy_rate(threads, static_cast<size_t>(bytes)));
        });
    b->ArgNames({"rows", "columns", "threads"})->Unit(benchmark::kMillisecond)->UseManualTime();
    for (auto const& s : sizes) b->Args(s);
  };
  add("update", 5, [](tensors& t, auto const& e) {
    return gates::update(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4)});
  });
  add("update_backward", 9, [](tensors& t, auto const& e) {
    return gates::update_backward(
        e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4), t.view(5), t.view(6), t.view(7), t.view(8)});
  });
  add("reset", 3, [](tensors& t, auto const& e) { return gates::reset(e, {t.view(0), t.view(1), t.view(2)}); });
  add("reset_backward", 5, [](tensors& t, auto const& e) {
    return gates::reset_backward(e, {t.view(0), t.view(1), t.view(2), t.view(3), t.view(4)});
  });
}

/// Registers the benchmarks of a CUDA GPU, if there is one; in gated_fusion.cu.
void add_cuda_gated_fusion();

}  // namespace tcnca::bench
