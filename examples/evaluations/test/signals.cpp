// Training and generation in a child process, ended by signals.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>

#include "../language/generation.hpp"
#include "support/training_loop.hpp"

namespace {

using namespace tcnca;
using namespace tcnca::training;
namespace fs = std::filesystem;
using tcnca::testing::number_model;

/// A child process that reports its progress on a pipe.
class child {
 public:
  explicit child(std::function<int(std::function<void(char)> const& say)> const& body) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("there is no pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::alarm(60);  // limits every wait
      ::_exit(body([&](char c) { (void)!::write(ends[1], &c, 1); }));
    }
    ::close(ends[1]), from_ = ends[0];
  }
  ~child() { ::close(from_); }
  child(child const&) = delete;
  child& operator=(child const&) = delete;

  /// The next report; 0 after its end.
  char hear() const {
    char c = 0;
    return ::read(from_, &c, 1) == 1 ? c : '\0';
  }
  void send(int signal) const { ::kill(pid_, signal); }
  /// Its exit status; negative: the signal that ended it.
  int end() const {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_;
  int from_;
};

void wait_until_asked() {
  while (interruption::asked() == 0) ::usleep(500);
}

/// Reports 'a' before a training step (0: before the first one begins), waits for a signal, then reports 'b'.
struct waiting_model : number_model {
  long at = 0;
  bool for_ever = false;  ///< keeps waiting after a signal
  std::function<void(char)> say;
  mutable bool stayed = false;
  void stay() const {
    if (std::exchange(stayed, true)) return;
    say('a'), wait_until_asked(), say('b');
    while (for_ever) ::pause();
  }
  models::step_result learn(models::examples const& e, long step, double rate) override {
    if (step == at) stay();
    return number_model::learn(e, step, rate);
  }
  std::size_t parameter_count() const override {
    if (at == 0) stay();
    return 1;
  }
};

class signals : public tcnca::testing::training_loop {
 protected:
  child start(long at, bool for_ever = false) {
    return child([this, at, for_ever](auto const& say) {
      if (std::freopen((folder / "said").c_str(), "w", stderr) == nullptr) return 99;
      std::signal(SIGHUP, [](int) {});  // a signal after the end of training changes nothing
      waiting_model m;
      m.at = at, m.for_ever = for_ever, m.say = say;
      int const status = train(o, m, t).status();
      return std::fflush(stderr) == 0 ? status : 98;
    });
  }
};

TEST_F(signals, end_training_with_a_checkpoint_that_gives_the_same_bits) {
  number_model whole;
  train(o, whole, t);
  fs::path const first = o.output;
  for (int const signal : {SIGHUP, SIGINT, SIGTERM})
    for (long const at : {0L, 1L, 6L, 8L, 20L}) {  // steps 8 and 20 are followed by an evaluation
      o.output = folder / (std::to_string(signal) + "-" + std::to_string(at)), o.resume = false;
      child const c = start(at);
      EXPECT_EQ(c.hear(), 'a');
      c.send(signal);
      EXPECT_EQ(c.hear(), 'b');
      EXPECT_EQ(c.end(), 128 + signal);
      std::string const said = content(folder / "said");
      EXPECT_NE(said.find(interruption::name(signal) + std::string(" interrupted training after step ") +
                          std::to_string(at) + " of 20; the checkpoint is saved"),
                std::string::npos)
          << said;
      EXPECT_EQ(read_checkpoint(file("checkpoint")).step, at);
      number_model rest;
      o.resume = true;
      EXPECT_EQ(train(o, rest, t).how, ending::finished);
      EXPECT_EQ(rest.value, whole.value);
      EXPECT_EQ(log_of(o.output), log_of(first));
    }
}

TEST_F(signals, second_one_ends_training_at_once) {
  for (int const first : {SIGHUP, SIGINT, SIGTERM})
    for (int const second : {SIGINT, SIGTERM}) {
      o.output = folder / (std::to_string(first) + "-" + std::to_string(second));
      child const c = start(6, true);
      EXPECT_EQ(c.hear(), 'a');
      c.send(first);
      EXPECT_EQ(c.hear(), 'b');
      c.send(second);
      EXPECT_EQ(c.end(), -second);
    }
}

TEST_F(signals, hangup_may_come_twice) {
  child const c = start(6);
  EXPECT_EQ(c.hear(), 'a');
  c.send(SIGHUP), c.send(SIGHUP);
  EXPECT_EQ(c.hear(), 'b');
  c.send(SIGHUP);
  EXPECT_EQ(c.end(), 128 + SIGHUP);
  EXPECT_EQ(read_checkpoint(file("checkpoint")).step, 6);
}

TEST_F(signals, ignored_ones_stay_ignored) {
  EXPECT_EQ(in_child([&] {
              if (std::freopen("/dev/null", "w", stderr) == nullptr) return 99;
              std::signal(SIGHUP, SIG_IGN);
              auto const next = t.next;
              t.next = [&](long step) { return ::raise(SIGHUP), next(step); };
              number_model m;
              return train(o, m, t).how == ending::finished ? 7 : 1;
            }),
            7);
}

TEST_F(signals, closed_pipe_does_not_end_training) {
  EXPECT_EQ(in_child([&] {
              int ends[2];
              if (::pipe(ends) != 0) return 99;
              ::dup2(ends[1], STDOUT_FILENO), ::dup2(ends[1], STDERR_FILENO);
              ::close(ends[0]), ::close(ends[1]);
              return guarded(o, [&] {
                number_model m;
                return conclude(o, train(o, m, t));
              });
            }),
            1);  // the result cannot be written
  EXPECT_EQ(read_checkpoint(file("checkpoint")).step, 20);
}

/// Predicts all characters equally.
struct fair_model : number_model {
  void read(models::examples const&, float* logits) override { logits[0] = logits[1] = 0; }
};

TEST_F(signals, end_generation_after_a_character) {
  for (int const signal : {SIGHUP, SIGINT, SIGTERM}) {
    child const c([](auto const& say) {
      fair_model m;
      long count = 0;
      auto const w = language::generate(m, 4, language::alphabet("ab"), "abab", 1L << 40, {}, [&](char) {
        if (++count == 3) say('a'), wait_until_asked();
        return true;
      });
      return w.characters == 3 && count == 3 ? interruption::asked() : 99;
    });
    EXPECT_EQ(c.hear(), 'a');
    c.send(signal);
    EXPECT_EQ(c.end(), signal);
  }
}

TEST(generation, ends_if_output_is_refused) {
  fair_model m;
  long count = 0;
  auto const w = language::generate(m, 4, language::alphabet("ab"), "", 100, {}, [&](char) { return ++count < 5; });
  EXPECT_EQ(w.characters, 5);
  EXPECT_EQ(count, 5);
  EXPECT_EQ(language::generate(m, 4, language::alphabet("ab"), "", 7, {}, [](char) { return true; }).characters, 7);
}

}  // namespace
