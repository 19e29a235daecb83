// Atomic file replacement.
#pragma once
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>

namespace tcnca::training {

/// An error message for a file operation.
[[noreturn]] inline void fail(std::string const& what, std::filesystem::path const& path) {
  throw std::runtime_error(what + " " + path.string() + ": " + std::strerror(errno));
}

/// An open file, closed by the destructor.
class descriptor {
 public:
  descriptor(std::filesystem::path const& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&&) = delete;
  int get() const { return fd_; }
  bool open() const { return fd_ >= 0; }

 private:
  int fd_;
};

/// A replacement for a file: written next to it and renamed onto it by `commit`, after it has reached the disk. Until
/// then the old file stays unchanged.
class replacement {
 public:
  explicit replacement(std::filesystem::path path)
      : path_(std::move(path)), aside_(path_.string() + ".new"), file_(aside_, O_WRONLY | O_CREAT | O_TRUNC) {
    if (!file_.open()) fail("cannot write", aside_);
  }
  ~replacement() {
    if (!committed_) ::unlink(aside_.c_str());
  }
  replacement(replacement const&) = delete;
  replacement& operator=(replacement const&) = delete;

  void write(void const* data, std::size_t count) {
    for (auto at = static_cast<char const*>(data); count > 0;) {
      ssize_t const n = ::write(file_.get(), at, count);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("cannot write", aside_);
      at += n, count -= std::size_t(n);
    }
  }
  void write(std::string const& text) { write(text.data(), text.size()); }

  void commit() {
    if (::fsync(file_.get()) != 0) fail("cannot write", aside_);
    if (::rename(aside_.c_str(), path_.c_str()) != 0) fail("cannot replace", path_);
    committed_ = true;
    auto const folder = path_.parent_path();
    descriptor const d(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY);
    if (!d.open() || ::fsync(d.get()) != 0) fail("cannot write", folder);
  }

 private:
  std::filesystem::path path_, aside_;
  descriptor file_;
  bool committed_ = false;
};

/// Writes a complete file.
inline void replace_file(std::filesystem::path const& path, std::string const& text) {
  replacement file(path);
  file.write(text);
  file.commit();
}

/// A lock that keeps other runs out of a folder during its lifetime.
class folder_lock {
 public:
  explicit folder_lock(std::filesystem::path const& folder) : folder_(folder, O_RDONLY | O_DIRECTORY) {
    if (!folder_.open()) fail("cannot open the folder", folder);
    if (::flock(folder_.get(), LOCK_EX | LOCK_NB) != 0)
      throw std::invalid_argument("another run is writing to " + folder.string() +
                                  ": choose another --output, or wait");
  }

 private:
  descriptor folder_;
};

}  // namespace tcnca::training
