// Compiled for any processor. Runs the code compiled for a level of x86-64 if the processor supports that level.
#include <cstdio>

bool stacks_are_right();  // stack.cpp

static bool is_supported(int level) {
  __builtin_cpu_init();
  bool const level_2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  bool const level_3 =
      level_2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  bool const level_4 = level_3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512vl");
  return level == 1 || (level == 2 && level_2) || (level == 3 && level_3) || (level == 4 && level_4);
}

int main() {
  if (!is_supported(LEVEL))
    return std::printf("compiled but not run: this processor does not support level %d\n", LEVEL), 0;
  bool const right = stacks_are_right();
  std::printf("level %d: the results are %s\n", LEVEL, right ? "right" : "wrong");
  return right ? 0 : 1;
}
