// OpenBLAS selects its kernels at load time by the processor's name. Processors newer than OpenBLAS get kernels for old
// ones.
#pragma once
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

extern "C" char* openblas_get_corename();

namespace tcnca::training {

/// Restarts the program with OpenBLAS's AVX-512 kernels if the processor has AVX-512, OpenBLAS did not detect it, and
/// the environment does not select kernels. Call first in main. (OpenBLAS 0.3.21: on AMD EPYC Zen 5, which gets the
/// kernels of Haswell or Zen, a small model trains in a quarter less time. Xeons newer than it get those of Prescott.)
inline void choose_wide_kernels([[maybe_unused]] char** argv) {
#if defined(__linux__) && defined(__x86_64__)
  std::string const core = openblas_get_corename();
  if (core != "Haswell" && core != "Zen" && core != "Prescott") return;
  if (std::getenv("OPENBLAS_CORETYPE") != nullptr || !__builtin_cpu_supports("avx512f")) return;
  std::error_code none;
  auto const program = std::filesystem::read_symlink("/proc/self/exe", none);
  if (none) return;
  setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
  execv(program.c_str(), argv);  // returns only on failure; the program then continues
#endif
}

}  // namespace tcnca::training
