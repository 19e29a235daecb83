// A line on stderr that says how far training is, how fast and how long it will take: rewritten in place on a terminal, else one line a test.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace recall {

class progress {
 public:
  progress(long steps, double time_limit) : steps_(steps), limit_(time_limit), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~progress() {
    if (terminal_) std::fputs("\n", stderr);
  }
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;

  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  /// After `done` steps of `tokens` tokens each; `tested`: a line of its own where lines stay.
  void report(long done, double loss, double accuracy, double tokens, bool tested) {
    double const now = elapsed();
    if (!tested && (!terminal_ || now - last_ < 0.5)) return;
    last_ = now;
    double const speed = double(done) / std::max(now, 1e-9), left = std::min(double(steps_ - done) / speed, std::max(0.0, limit_ - now));
    std::fprintf(stderr, "%s[%3ld%%, %.0f s, %.0f s left, %.0f k tokens/s] step %ld  loss %.4f  test accuracy %.1f %%%s", terminal_ ? "\r\033[K" : "",
                 100 * done / steps_, now, left, speed * tokens / 1000, done, loss, 100 * accuracy, terminal_ ? "" : "\n");
    std::fflush(stderr);
  }

 private:
  long steps_;
  double limit_, last_ = -1;
  bool terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace recall
