// The training log: one JSON line per evaluation, appended and flushed.
#pragma once
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "files.hpp"
#include "record.hpp"

namespace tcnca::training {

/// Reads the records of a log; an incomplete last line is ignored. Throws std::invalid_argument if another line is not
/// a record.
inline std::vector<record> read_log(std::filesystem::path const& path) {
  std::ifstream in(path);
  if (!in) throw std::invalid_argument("cannot read " + path.string() + ": " + std::strerror(errno));
  std::vector<record> all;
  long number = 0;
  for (std::string line; std::getline(in, line);) {
    number++;
    if (in.eof()) break;  // no line end: the writer was stopped
    try {
      all.push_back(record::parse(line));
    } catch (std::invalid_argument const& e) {
      throw std::invalid_argument(path.string() + ", line " + std::to_string(number) + ": " + e.what());
    }
  }
  return all;
}

/// A log that is being written.
class log {
 public:
  /// Writes to stdout.
  log() : file_(stdout, [](std::FILE*) { return 0; }) {}
  /// Writes to a file. A run that continues after `step` steps keeps the records up to that step, so that no step
  /// appears twice, and drops records that exist only because a run was stopped (entry "stopped"); the log is then that
  /// of an uninterrupted run.
  log(std::filesystem::path const& path, long step) : file_(nullptr, std::fclose) {
    std::string kept;
    if (step > 0 && std::filesystem::exists(path))
      for (record const& r : read_log(path))
        if (r.number("step") <= double(step) && !r.has("stopped")) kept += r.line() + "\n";
    replace_file(path, kept);
    file_.reset(std::fopen(path.c_str(), "ae"));
    if (!file_) fail("cannot write", path);
  }

  void write(record const& r) {
    std::string const line = r.line() + "\n";
    if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0)
      throw std::runtime_error(std::string("cannot write the log: ") + std::strerror(errno));
  }

 private:
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

}  // namespace tcnca::training
