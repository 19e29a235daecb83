// The exponential moving average for its developers: both layouts, element types, forward and backward, with and without a state; and
// the generation of its kernel. Counters: what a second does in operations, a multiply-add two of them, and in bytes that must cross memory, with their
// share of the copy bandwidth of the same run.
#include "ema.hpp"

#include <map>

#include "baselines/ceilings.hpp"
#include "headline/device_cpu.hpp"
#include "support/commit.hpp"

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  using tcnca::bf16, tcnca::direction, tcnca::ema_shape, tcnca::layout;
  std::map<int, cpu_ceilings> ceilings;
  bench_machine<cpu_device> const machine{
      [](int threads) { return cpu_device{tcnca::cpu{threads}}; },
      [&](int threads, tcnca::size_t bytes) {
        return ceilings.try_emplace(threads, threads).first->second.copy_rate(bytes);
      }};
  std::vector<std::vector<std::int64_t>> sizes;
  for (int const threads : {1, 2})
    for (std::int64_t const length : {1000, 16384, 131072}) sizes.push_back({2, 64, length, threads, 0});
  sizes.push_back({2, 64, 16384, 1, 1}), sizes.push_back({2, 64, 1, 1, 1});  // the second: one token
  constexpr layout blc = layout::batch_length_channels;
  add_ema<cpu_device, float, ema_shape{}>("", machine, sizes);
  add_ema<cpu_device, float, ema_shape{.skip = false}>("", machine, sizes);
  add_ema<cpu_device, float, ema_shape{.skip = false, .order = blc}>("", machine, sizes);
  add_ema<cpu_device, float, ema_shape{.dir = direction::bidirectional}>("", machine, sizes);
  add_ema<cpu_device, bf16, ema_shape{}>("", machine, sizes);
  add_ema<cpu_device, double, ema_shape{.skip = false}>("", machine, sizes);
  add_kernel<cpu_device>("", machine, {{64, 1000, 1}, {64, 131072, 1}});
#if defined(TCNCA_BENCH_CUDA)
  add_cuda_ema();
#endif
  benchmark::AddCustomContext("commit", built_commit());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
