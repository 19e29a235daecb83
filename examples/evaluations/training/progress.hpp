// Progress on stderr, with speed and remaining time: a bar on a terminal, otherwise one line per evaluation.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

namespace tcnca::training {

class progress {
 public:
  /// `first` steps were completed before. A time limit of 0 means none.
  progress(long first, long steps, double time_limit)
      : first_(first), steps_(steps), limit_(time_limit), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~progress() { end_line(); }
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;

  /// Seconds since construction.
  double elapsed() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  /// Reports `step` completed steps and `tokens` tokens since construction. `text` describes the training; `evaluated`:
  /// the line is kept.
  void report(long step, double tokens, std::string const& text, bool evaluated) {
    double const now = elapsed();
    if (!evaluated && (!terminal_ || now - last_ < 0.2)) return;
    last_ = now;
    double const speed = double(step - first_) / std::max(now, 1e-9);
    double left = double(steps_ - step) / std::max(speed, 1e-9);
    if (limit_ > 0) left = std::min(left, std::max(0.0, limit_ - now));
    std::string bar;
    if (terminal_) {
      for (int i = 0; i < width; i++) bar += double(i) < double(width) * double(step) / double(steps_) ? '#' : '.';
      bar = "\r\033[K" + bar + " ";
    }
    std::fprintf(stderr, "%s%3ld%% step %ld, %s, %s left, %.4g k tokens/s  %s%s", bar.c_str(), 100 * step / steps_,
                 step, duration(now).c_str(), duration(left).c_str(), tokens / std::max(now, 1e-9) / 1000, text.c_str(),
                 terminal_ ? "" : "\n");
    std::fflush(stderr);
    open_ = terminal_;
  }
  /// Clears the bar. Call before other output to stderr.
  void end_line() {
    if (open_) std::fputs("\n", stderr);
    open_ = false;
  }

  static std::string duration(double seconds) {
    char text[32];
    long const s = long(std::min(seconds, 1e9) + 0.5);
    if (s < 60) std::snprintf(text, sizeof text, "%ld s", s);
    else if (s < 3600) std::snprintf(text, sizeof text, "%ld:%02ld min", s / 60, s % 60);
    else std::snprintf(text, sizeof text, "%ld:%02ld h", s / 3600, s / 60 % 60);
    return text;
  }

 private:
  static constexpr int width = 24;
  long first_, steps_;
  double limit_, last_ = -1;
  bool terminal_, open_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Reports the progress of a long operation, such as generating examples, at growing intervals up to a minute.
/// Operations of less than two seconds report nothing.
class notice {
 public:
  /// `done` describes the completed work, such as "examples were generated".
  notice(std::string program, long total, std::string done)
      : program_(std::move(program)), done_(std::move(done)), total_(total) {}

  /// Not thread-safe.
  void operator()(long count) {
    auto const now = std::chrono::steady_clock::now();
    if (now - last_ < wait_ || count >= total_) return;
    last_ = now, wait_ = std::min(2 * wait_, 30 * interval);
    std::fprintf(stderr, "%s%s: %ld of %ld %s\n", isatty(STDERR_FILENO) != 0 ? "\r\033[K" : "", program_.c_str(), count,
                 total_, done_.c_str());
  }
  static inline std::chrono::milliseconds interval{2000};

 private:
  std::string program_, done_;
  long total_;
  std::chrono::milliseconds wait_ = interval;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace tcnca::training
