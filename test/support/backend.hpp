// The machines that every test runs on: the CPU, fibers (the GPU's thread decomposition on the CPU), and, in a CUDA program, the GPU.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <tuple>

#include "tensor.hpp"

namespace tcnca::testing {

/// A backend has a name, an executor for a seed (which varies what a caller may vary), and finish(), after which results are there.
struct cpu_backend {
  static constexpr char const* name = "cpu";
  static constexpr bool is_fiber = false;
  using executor = cpu;
  static executor make(std::uint64_t seed) { return {int(seed % 3)}; }  // 0: as many threads as there are
  static void finish() {}
  static std::string unavailable() { return ""; }
};

/// Threads of a group; 0: as many as the policy says.
template <int Threads = 0>
struct fiber_backend {
  static constexpr char const* name = "fiber";
  static constexpr bool is_fiber = true;
  using executor = fibers<Threads>;
  static executor make(std::uint64_t seed) { return {seed, int(seed % 3) + 1}; }
  static void finish() {}
  static std::string unavailable() { return ""; }
};

#if defined(__CUDACC__)
struct cuda_backend {
  static constexpr char const* name = "cuda";
  static constexpr bool is_fiber = false;
  using executor = cuda;
  static executor make(std::uint64_t) { return {}; }
  static void finish() { EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess); }
  static std::string unavailable() {
    int devices = 0;
    cudaError_t const e = cudaGetDeviceCount(&devices);
    if (e == cudaSuccess && devices > 0) return "";
    (void)cudaGetLastError();
    return std::string("no CUDA device: ") + cudaGetErrorString(e);
  }
};
using backends = std::tuple<cuda_backend>;
#else
using backends = std::tuple<cpu_backend, fiber_backend<>>;
#endif

/// Where one machine will do.
using one_backend = std::tuple<std::tuple_element_t<0, backends>>;

/// Whether a test that cannot run has failed.
inline bool skip_is_failure() { return environment("TCNCA_REQUIRE_CUDA", 0) != 0; }

}  // namespace tcnca::testing

/// First line of a test body on backend B.
#define TCNCA_TEST_NEEDS(B)                                                                    \
  if (std::string const reason = B::unavailable(); !reason.empty()) {                          \
    if (::tcnca::testing::skip_is_failure()) FAIL() << reason;                                 \
    GTEST_SKIP() << reason;                                                                    \
  }
