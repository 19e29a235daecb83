// The clocks that detect disturbed calls: wall time, CPU time of each thread of this process, involuntary context
// switches, and the CPU time of other programs.
#pragma once
#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>
#endif
#include <sys/types.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace tcnca::bench {

/// A reading of the clocks; only differences are meaningful.
struct clock_reading {
  double wall = 0;    ///< seconds
  double cpu = 0;     ///< seconds, the sum over the threads of this process
  long switches = 0;  ///< involuntary context switches of this process
};

/// Processors that this process may use.
inline int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// The clock of this process. Call refresh() after new threads were started.
class process_clock {
 public:
  process_clock() { refresh(); }

  /// Finds the threads of this process. The clock of the process would not suffice: it includes threads that run on
  /// other processors only up to their last scheduler tick, milliseconds ago. The clock of a thread is exact.
  void refresh() {
    threads_.clear();
#if defined(__linux__)
    std::error_code failed;
    for (std::filesystem::directory_iterator i("/proc/self/task", failed), end; !failed && i != end;
         i.increment(failed)) {
      long const thread = std::strtol(i->path().filename().c_str(), nullptr, 10);
      threads_.push_back(
          static_cast<clockid_t>((~static_cast<unsigned long>(thread) << 3) | 6u));  // as pthread_getcpuclockid does
    }
#endif
    if (threads_.empty()) threads_.push_back(CLOCK_PROCESS_CPUTIME_ID);
  }

  clock_reading read() const {
    clock_reading r;
    for (clockid_t const t : threads_) r.cpu += seconds(t);
#if defined(__linux__)
    rusage use{};
    getrusage(RUSAGE_SELF, &use);
    r.switches = use.ru_nivcsw;
#endif
    r.wall = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    return r;
  }

  /// From now on others() does not count the CPU time of this child process. It must exist until the last call.
  static void add_child(pid_t process) {
    clockid_t clock{};
    if (clock_getcpuclockid(process, &clock) == 0) children_.push_back(clock);
  }
  /// CPU seconds of other programs since boot, with the time that a hypervisor gave to other machines; NaN if the
  /// system does not count them. The resolution is 10 ms.
  double others() const {
    double total = std::numeric_limits<double>::quiet_NaN();
#if defined(__linux__)
    std::ifstream in("/proc/stat");
    std::string name;
    double user = 0, niced = 0, system = 0, idle = 0, waiting = 0, interrupts = 0, soft = 0, stolen = 0;
    if (in >> name >> user >> niced >> system >> idle >> waiting >> interrupts >> soft >> stolen)
      total = (user + niced + system + interrupts + soft + stolen) / static_cast<double>(sysconf(_SC_CLK_TCK)) -
              seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (clockid_t const child : children_) total -= seconds(child);
#endif
    return total;
  }
  /// Processors of the machine, to which others() refers.
  int processors() const { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

 private:
  static double seconds(clockid_t clock) {
    timespec t{};
    return clock_gettime(clock, &t) == 0 ? static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec) : 0;
  }
  std::vector<clockid_t> threads_;
  static inline std::vector<clockid_t> children_;
};

}  // namespace tcnca::bench
