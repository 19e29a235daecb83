// Shared by the tests of training: a folder for each test, and child processes that are killed.
#pragma once
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

namespace tcnca::testing {

/// A temporary folder for each test.
class training_test : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "tcnca_training_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  static std::string content(std::filesystem::path const& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void put(std::filesystem::path const& path, std::string const& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  /// The message that an action throws; empty if it does not throw.
  template <class Error>
  static std::string sentence(std::function<void()> const& action) {
    try {
      action();
    } catch (Error const& e) { return e.what(); }
    return "";
  }
  /// The exit status of a child process that runs an action; negative: the signal that ended it.
  static int in_child(std::function<int()> const& body) {
    pid_t const child = ::fork();
    if (child == 0) ::_exit(body());
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::filesystem::path folder;
};

}  // namespace tcnca::testing
