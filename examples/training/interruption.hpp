// SIGINT and SIGTERM as a question: has anyone asked to stop? A second signal ends the program as it would without this.
#pragma once
#include <csignal>

namespace tcnca::training {

class interruption {
 public:
  interruption() {
    asked_ = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { asked_ = 1; };
    action.sa_flags = int(SA_RESETHAND) | SA_RESTART;
    sigaction(SIGINT, &action, &old_[0]);
    sigaction(SIGTERM, &action, &old_[1]);
  }
  ~interruption() {
    sigaction(SIGINT, &old_[0], nullptr);
    sigaction(SIGTERM, &old_[1], nullptr);
  }
  interruption(interruption const&) = delete;
  interruption& operator=(interruption const&) = delete;

  static bool asked() { return asked_ != 0; }

 private:
  static inline std::sig_atomic_t volatile asked_ = 0;
  struct sigaction old_[2];
};

}  // namespace tcnca::training
