// Ceilings of the CPU, measured in the same run as the benchmarks: the fp32 FMA rate and the copy bandwidth.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <limits>
#include <map>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../support/buffer.hpp"
#include "../support/paired.hpp"
#include "../support/vector.hpp"

namespace tcnca::bench {

namespace detail {
/// Optimization barrier on a register. Without it, or with the accumulators in an array, GCC keeps them in memory and
/// the loop below measures loads and stores: 100 instead of 272 GFLOP/s.
[[gnu::always_inline]] inline void barrier(floats& v) {
#if defined(__x86_64__)
  asm volatile("" : "+v"(v));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(v));
#else
  asm volatile("" : "+m"(v));
#endif
}

inline double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Twelve independent chains of FMAs, which cover the latency on two pipes; a call takes about 0.1 ms.
inline constexpr int fma_steps = 100000, fma_chains = 12;
inline void fma_loop() {
  floats m = splat(0.9999f), c = splat(0.5f);
  barrier(m), barrier(c);
  floats v0 = c, v1 = c, v2 = c, v3 = c, v4 = c, v5 = c, v6 = c, v7 = c, v8 = c, v9 = c, v10 = c, v11 = c;
  for (int i = 0; i < fma_steps; i++) {
    v0 = v0 * m + c, v1 = v1 * m + c, v2 = v2 * m + c, v3 = v3 * m + c, v4 = v4 * m + c, v5 = v5 * m + c;
    v6 = v6 * m + c, v7 = v7 * m + c, v8 = v8 * m + c, v9 = v9 * m + c, v10 = v10 * m + c, v11 = v11 * m + c;
    barrier(v0), barrier(v1), barrier(v2), barrier(v3), barrier(v4), barrier(v5), barrier(v6), barrier(v7), barrier(v8),
        barrier(v9), barrier(v10), barrier(v11);
  }
}

/// Copies with non-temporal stores.
inline void stream(unsigned char* to, unsigned char const* from, std::size_t bytes) {
#if defined(__AVX512F__)
  for (std::size_t i = 0; i < bytes; i += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_load_si512(from + i));
#elif defined(__AVX__)
  for (std::size_t i = 0; i < bytes; i += 32)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_load_si256(reinterpret_cast<__m256i const*>(from + i)));
#elif defined(__SSE2__)
  for (std::size_t i = 0; i < bytes; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_load_si128(reinterpret_cast<__m128i const*>(from + i)));
#else
  std::memcpy(to, from, bytes);
#endif
#if defined(__SSE2__)
  _mm_sfence();
#endif
}
}  // namespace detail

/// Ceilings of the CPU with a number of threads: the best of many short measurements.
class cpu_ceilings {
 public:
  explicit cpu_ceilings(int threads) : threads_(threads) { measure_fma(0.3); }

  /// FMA rate of all threads in operations per second, an FMA counting as 2; NaN if other programs disturbed every
  /// measurement.
  double fma_rate() const { return known(fma_rate_); }
  /// Measures again, because the machine may have been busy before; the best value counts.
  void measure_fma(double for_seconds) {
    double const end = detail::seconds() + for_seconds;
    clock_.refresh();
    do {
      double const time = undisturbed_seconds(clock_, threads_, [&] {
#pragma omp parallel num_threads(threads_)
        detail::fma_loop();
      });
      fma_rate_ = std::max(fma_rate_, 2.0 * lanes * detail::fma_steps * detail::fma_chains * threads_ / time);
    } while (detail::seconds() < end);
  }

  /// Bytes read plus written per second by a copy that moves `moved_bytes`, or by a copy in main memory if that is
  /// faster. So data that fit in a cache are compared with the bandwidth of that cache.
  double copy_rate(std::size_t moved_bytes) {
    constexpr std::size_t large = std::size_t{512} << 20;
    return known(std::max(measured(std::min(moved_bytes, large)), measured(large)));
  }

 private:
  static double known(double rate) { return rate > 0 ? rate : std::numeric_limits<double>::quiet_NaN(); }
  double measured(std::size_t moved_bytes) {
    double& rate = rates_[moved_bytes];
    if (rate == 0) rate = measure_copy(moved_bytes);  // 0 also if every call was disturbed
    return rate;
  }
  double measure_copy(std::size_t moved_bytes) const {
    auto const threads = static_cast<std::size_t>(threads_);
    std::size_t const part = std::max<std::size_t>(moved_bytes / 2 / threads / 64 * 64, 64);
    buffer<unsigned char> from(part * threads), to(part * threads);
    double best = detail::nothing;
    double const end = detail::seconds() + 0.15;
    int calls = 0;
    do {
      for (bool non_temporal : {false, true}) {
        best = std::min(best, undisturbed_seconds(clock_, threads_, [&] {
#pragma omp parallel for schedule(static, 1) num_threads(threads_)
                          for (std::size_t i = 0; i < threads; i++) {
                            if (non_temporal) detail::stream(to.data() + i * part, from.data() + i * part, part);
                            else std::memcpy(to.data() + i * part, from.data() + i * part, part);
                          }
                        }));
      }
    } while (++calls < 3 || detail::seconds() < end);
    return 2.0 * static_cast<double>(part * threads) / best;
  }

  int threads_;
  process_clock clock_;
  double fma_rate_ = 0;
  std::map<std::size_t, double> rates_;
};

/// The ceilings for each number of threads that was asked for.
class ceilings_by_threads {
 public:
  cpu_ceilings& of(int threads) { return all_.try_emplace(threads, threads).first->second; }
  /// Measures the FMA rates again.
  void measure_fma(double for_seconds) {
    for (auto& [threads, c] : all_) c.measure_fma(for_seconds);
  }

 private:
  std::map<int, cpu_ceilings> all_;
};

}  // namespace tcnca::bench
