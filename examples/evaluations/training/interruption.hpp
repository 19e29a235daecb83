// Handling of SIGHUP, SIGINT and SIGTERM as requests to stop.
#pragma once
#include <csignal>
#include <initializer_list>

namespace tcnca::training {

/// During the lifetime of the object, the first signal only sets what `asked` returns; a later SIGINT or SIGTERM ends
/// the program. A later SIGHUP does not, because a terminal that closes often sends it twice, while a checkpoint is
/// being saved. A signal that was ignored before (nohup) stays ignored.
class interruption {
 public:
  interruption() {
    asked_ = 0;
    struct sigaction action {};
    action.sa_handler = answer;
    action.sa_flags = SA_RESTART;
    for (int const s : signals) sigaddset(&action.sa_mask, s);
    for (int i = 0; i < 3; i++) {
      sigaction(signals[i], nullptr, &old_[i]);
      if (old_[i].sa_handler != SIG_IGN) sigaction(signals[i], &action, nullptr);
    }
  }
  ~interruption() {
    for (int i = 0; i < 3; i++) sigaction(signals[i], &old_[i], nullptr);
  }
  interruption(interruption const&) = delete;
  interruption& operator=(interruption const&) = delete;

  /// The first signal; 0 if there was none. Keeps its value until the next object is created.
  static int asked() { return asked_; }
  static char const* name(int signal) { return signal == SIGHUP ? "SIGHUP" : signal == SIGINT ? "SIGINT" : "SIGTERM"; }

 private:
  static constexpr int signals[3] = {SIGHUP, SIGINT, SIGTERM};
  static void answer(int signal) {
    asked_ = signal;
    struct sigaction standard {
    }, now{};
    standard.sa_handler = SIG_DFL;
    for (int const s : {SIGINT, SIGTERM}) {
      sigaction(s, nullptr, &now);
      if (now.sa_handler == answer) sigaction(s, &standard, nullptr);
    }
  }

  static inline std::sig_atomic_t volatile asked_ = 0;
  struct sigaction old_[3];
};

}  // namespace tcnca::training
