// Progress of a long run on stderr: one line rewritten in place on a terminal, else one line per step.
#pragma once
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace tcnca::bench {

class progress {
 public:
  explicit progress(int steps) : steps_(steps), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~progress() { clear(); }
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;

  /// Seconds since the start.
  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  int remaining() const { return steps_ - done_; }

  /// Call it before a step.
  void begin(std::string const& what) {
    int const percent = steps_ == 0 ? 100 : 100 * done_ / steps_;
    if (terminal_) std::fprintf(stderr, "\r\033[K[%3d%%, %3.0f s] %s", percent, elapsed(), what.c_str());
    else std::fprintf(stderr, "[%3d%%, %3.0f s] %s\n", percent, elapsed(), what.c_str());
    std::fflush(stderr);
  }
  void end() { done_++; }
  void clear() const {
    if (terminal_) std::fputs("\r\033[K", stderr);
  }

 private:
  int steps_, done_ = 0;
  bool terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace tcnca::bench
