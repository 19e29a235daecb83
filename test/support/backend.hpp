// The backends that tests run on: the CPU, fibers (the GPU's thread decomposition on the CPU), and, in a CUDA program,
// the GPU.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <tuple>

#include "tensor.hpp"

namespace tcnca::testing {

/// A backend has a name, make(seed), an executor whose options depend on the seed, and finish(), which waits for the
/// results.
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
using fiber_or_cuda = std::tuple<cuda_backend>;  // for code that needs warps
#else
using fiber_or_cuda = std::tuple<fiber_backend<>>;
#if defined(__SANITIZE_THREAD__)
using backends = std::tuple<fiber_backend<>>;  // ThreadSanitizer sees each fiber as a thread
#else
using backends = std::tuple<cpu_backend, fiber_backend<>>;
#endif
#endif

/// For tests that need only one of them.
using one_backend = std::tuple<std::tuple_element_t<0, backends>>;

template <class Tuple>
struct list_of;
template <class... S>
struct list_of<std::tuple<S...>> {
  using type = ::testing::Types<S...>;
};
template <class Case, class... Backends>
using case_on = std::tuple<typename Case::template on<Backends>...>;
template <class Backends, class... Cases>
struct cases_on;
template <class... Backends, class... Cases>
struct cases_on<std::tuple<Backends...>, Cases...>
    : list_of<decltype(std::tuple_cat(case_on<Cases, Backends...>{}...))> {};

/// The types of a typed test suite: every case on every backend. A case says what is tested but for the backend: an
/// element type, a shape, a tuning; its on<Backend> is a subject, which has the members backend and name().
template <class Backends, class... Cases>
using subjects_on = typename cases_on<Backends, Cases...>::type;
template <class... Cases>
using subjects = subjects_on<backends, Cases...>;
template <class... Cases>
using subjects_on_one = subjects_on<one_backend, Cases...>;

/// Names in GoogleTest's output. A subject's starts with its backend: ctest's labels select by it.
struct subject_name {
  template <class S>
  static std::string GetName(int) {
    return S::name();
  }
};
struct backend_name {
  template <class B>
  static std::string GetName(int) {
    return B::name;
  }
};

/// Calls an operation with a workspace of exactly `bytes`, as its query asks for, and waits until the results are
/// there.
template <class Backend, class Call>
void run_with_workspace(std::size_t bytes, Call call) {
  scratch_memory const scratch(bytes);
  status const s = call(scratch.get());
  ASSERT_TRUE(s.ok()) << to_string(s) << ": " << s.argument();
  Backend::finish();
  EXPECT_TRUE(scratch.intact()) << "written outside of the workspace";
}

/// The combinations of types and shapes that a suite runs. Few of them execute every agent; all take about twice the
/// time to compile (CMake option TCNCA_TEST_ALL).
#if defined(TCNCA_TEST_FEW)
template <class All, class Few>
using all_or_few = Few;
#else
template <class All, class Few>
using all_or_few = All;
#endif

/// Whether a test that cannot run counts as failed.
inline bool skip_is_failure() { return environment("TCNCA_REQUIRE_CUDA", 0) != 0; }

}  // namespace tcnca::testing

/// First line of a test body on backend B.
#define TCNCA_TEST_NEEDS(B)                                           \
  if (std::string const reason = B::unavailable(); !reason.empty()) { \
    if (::tcnca::testing::skip_is_failure()) FAIL() << reason;        \
    GTEST_SKIP() << reason;                                           \
  }
