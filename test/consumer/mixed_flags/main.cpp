// Runs the same job in two parts compiled with different flags: the results agree, and each part uses as many threads
// as its flags allow.
#include "part.hpp"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <vector>

run run_baseline, RUN_OTHER;

static constexpr long batch = 4, channels = 8, length = 1024;

/// The number of threads of this process. OpenMP does not end the threads that it started.
static long threads() { return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}); }

struct result {
  std::vector<float> y, z;
  std::size_t bytes;
  long threads;
  bool ok;
};
static result of(char const* name, run& part) {
  std::vector<float> x(batch * channels * length), y(x.size()), z(x.size());
  for (std::size_t i = 0; i < x.size(); i++) x[i] = static_cast<float>(i % 17) / 8 - 1;
  auto const view = [](auto* p) {
    return tcnca::sequence(p, tcnca::layout::batch_channels_length, batch, channels, length);
  };
  job j{view(static_cast<float const*>(x.data())), view(y.data()), view(z.data()), 0};
  tcnca::status const s = part(tcnca::cpu{.threads = 4}, j);
  std::printf("%s: %s, %zu bytes of workspace, %ld threads\n", name, s.ok() ? "success" : s.argument(), j.bytes,
              threads());
  return {y, z, j.bytes, threads(), s.ok()};
}
static bool equal(std::vector<float> const& a, std::vector<float> const& b) {
  for (std::size_t i = 0; i < a.size(); i++)
    if (!(std::abs(a[i] - b[i]) <= 1e-6f * (1 + std::abs(a[i])))) return false;
  return true;
}

int main() {
#if defined(NEEDS)
  if (!__builtin_cpu_supports(NEEDS)) return std::puts("skipped: this processor lacks " NEEDS), 0;
#endif
  result const baseline = of("baseline", run_baseline), other = of("other", RUN_OTHER);
  // Code for a later processor has wider packs and requests more workspace.
  bool const right = baseline.ok && other.ok && equal(baseline.y, other.y) && equal(baseline.z, other.z) &&
                     baseline.threads == 1 && other.threads == THREADS && (THREADS > 1 || other.bytes > baseline.bytes);
  return std::puts(right ? "right" : "wrong"), right ? 0 : 1;
}
