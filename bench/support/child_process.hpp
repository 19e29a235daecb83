// A child process that answers each line with a line.
#pragma once
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace tcnca::bench {

class child_process {
 public:
  /// Starts a command, a program of the PATH and its arguments, with environment variables ("NAME=value") that replace
  /// or join those of this process. Throws runtime_error if there is no such program.
  child_process(std::vector<std::string> command, std::vector<std::string> variables) : name_(command.front()) {
    // Both directions in one socket: writing to a process that has ended is an error and no signal.
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("no socket is left");
    socket_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::size_t const given = variables.size();
    for (char** v = environ; *v != nullptr; v++) {
      std::string const old = *v, name = old.substr(0, old.find('=') + 1);
      if (std::none_of(variables.begin(), variables.begin() + static_cast<std::ptrdiff_t>(given),
                       [&](std::string const& n) { return n.rfind(name, 0) == 0; }))
        variables.push_back(old);
    }
    auto argv = pointers(command), envp = pointers(variables);
    int const failed = posix_spawnp(&process_, argv[0], &actions, nullptr, argv.data(), envp.data());
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed == 0) return;
    close(socket_);
    throw std::runtime_error(name_ + " could not be started: " + std::strerror(failed));
  }
  child_process(child_process const&) = delete;
  child_process& operator=(child_process const&) = delete;
  /// Ends the process.
  ~child_process() {
    close(socket_);
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }

  pid_t id() const { return process_; }

  /// Sends a line and returns the answer, both without the newline. Throws runtime_error if the process has ended or
  /// does not answer in time.
  std::string ask(std::string line, double seconds) {
    line += '\n';
    for (std::size_t sent = 0; sent < line.size();) {
      ssize_t const n = send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) throw std::runtime_error(name_ + " has ended");
      sent += static_cast<std::size_t>(n);
    }
    return answer(seconds);
  }
  /// The next line that the process writes.
  std::string answer(double seconds) {
    using clock = std::chrono::steady_clock;
    auto const end = clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(seconds));
    for (;;) {
      if (auto const newline = received_.find('\n'); newline != std::string::npos) {
        std::string const line = received_.substr(0, newline);
        received_.erase(0, newline + 1);
        return line;
      }
      auto const left = std::chrono::duration_cast<std::chrono::milliseconds>(end - clock::now()).count();
      pollfd waiting{socket_, POLLIN, 0};
      if (left < 0 || poll(&waiting, 1, static_cast<int>(left)) == 0)
        throw std::runtime_error(name_ + " did not answer within " + std::to_string(static_cast<int>(seconds)) + " s");
      char text[4096];
      ssize_t const n = recv(socket_, text, sizeof text, 0);
      if (n <= 0) throw std::runtime_error(name_ + " has ended");
      received_.append(text, static_cast<std::size_t>(n));
    }
  }

 private:
  static std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> all;
    for (auto& t : texts) all.push_back(t.data());
    all.push_back(nullptr);
    return all;
  }

  std::string name_, received_;
  pid_t process_ = 0;
  int socket_ = -1;
};

}  // namespace tcnca::bench
