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
#elif defined(__SANITIZE_THREAD__)
using backends = std::tuple<fiber_backend<>>;  // each fiber is a thread to it
#else
using backends = std::tuple<cpu_backend, fiber_backend<>>;
#endif

/// Where one machine will do.
using one_backend = std::tuple<std::tuple_element_t<0, backends>>;

template <class Tuple>
struct listed;
template <class... S>
struct listed<std::tuple<S...>> {
  using type = ::testing::Types<S...>;
};
template <template <class> class On, class Backends>
struct on_each;
template <template <class> class On, class... Backends>
struct on_each<On, std::tuple<Backends...>> : listed<decltype(std::tuple_cat(On<Backends>{}...))> {};
/// The types of a typed test suite: those in the tuple On<Backend>, for every backend.
template <template <class> class On, class Backends = backends>
using everywhere = typename on_each<On, Backends>::type;

/// Under a sanitizer compilers and programs are several times slower: it sees few of the types and options, but every agent.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
template <class All, class Few>
using unless_sanitized = Few;
#else
template <class All, class Few>
using unless_sanitized = All;
#endif

/// Whether a test that cannot run has failed.
inline bool skip_is_failure() { return environment("TCNCA_REQUIRE_CUDA", 0) != 0; }

}  // namespace tcnca::testing

/// First line of a test body on backend B.
#define TCNCA_TEST_NEEDS(B)                                           \
  if (std::string const reason = B::unavailable(); !reason.empty()) { \
    if (::tcnca::testing::skip_is_failure()) FAIL() << reason;        \
    GTEST_SKIP() << reason;                                           \
  }
