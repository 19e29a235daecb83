// OpenBLAS selects its kernels when it is loaded, and environment variables can restrict it to an older processor: with
// OPENBLAS_CORETYPE=Haswell it was half as fast. The benchmarks remove such restrictions.
#pragma once
#include <string>

#if defined(TCNCA_BENCH_OPENBLAS)
#include <cblas.h>
#endif
#if defined(__linux__) && defined(TCNCA_BENCH_OPENBLAS)
#include <unistd.h>

#include <cstdlib>
#endif

namespace tcnca::bench {

/// Restarts the program without these variables; and, if OpenBLAS does not know a processor that has AVX-512, with
/// the kernels of a known one. Call it first in main.
inline void unrestrict_openblas([[maybe_unused]] char** argv) {
#if defined(__linux__) && defined(TCNCA_BENCH_OPENBLAS)
  char const* const mark = "TCNCA_BENCH_OPENBLAS_CORE";
  auto const value = [](char const* name) {
    return std::string(std::getenv(name) == nullptr ? "" : std::getenv(name));
  };
  std::string const given = value("OPENBLAS_CORETYPE"), cache = value("OPENBLAS_L2_SIZE");
  if (value(mark).empty() && !(given + cache).empty()) {
    unsetenv("OPENBLAS_CORETYPE"), unsetenv("OPENBLAS_L2_SIZE");
    setenv(mark, ("the environment's wish for " + (given.empty() ? "another cache" : given) + " was ignored").c_str(),
           1);
    execv("/proc/self/exe", argv);
  }
#if defined(__x86_64__)
  std::string const core = openblas_get_corename();
  bool const wide =
      core == "SkylakeX" || core == "Cooperlake" || core == "SapphireRapids" || core == "Zen4" || core == "Zen5";
  if (given.empty() && !wide && __builtin_cpu_supports("avx512f")) {
    setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
    setenv(mark, ("it chose " + core + " itself").c_str(), 1);
    execv("/proc/self/exe", argv);
  }
#endif
#endif
}

/// "OpenBLAS 0.3.21 ..., kernels for Cooperlake"
inline std::string openblas_description() {
#if defined(TCNCA_BENCH_OPENBLAS)
  std::string text = openblas_get_config();
  text = text.substr(0, text.find(' ', text.find(' ') + 1)) + ", kernels for " + openblas_get_corename();
#if defined(__linux__)
  if (char const* const mark = std::getenv("TCNCA_BENCH_OPENBLAS_CORE")) text += std::string(" (") + mark + ")";
#endif
  return text;
#else
  return "OpenBLAS was not found when this program was built";
#endif
}

}  // namespace tcnca::bench
