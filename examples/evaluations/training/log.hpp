// What training has found, one record an evaluation: a line of JSON each, appended and flushed.
#pragma once
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "files.hpp"
#include "record.hpp"

namespace tcnca::training {

/// The records of a log; a last line that was cut off is left out. Throws std::invalid_argument where another line is not a record.
inline std::vector<record> read_log(std::filesystem::path const& path) {
  std::ifstream in(path);
  if (!in) throw std::invalid_argument("cannot read " + path.string() + ": " + std::strerror(errno));
  std::vector<record> all;
  long number = 0;
  for (std::string line; std::getline(in, line);) {
    number++;
    if (in.eof()) break;  // no line end: its writer was stopped
    try {
      all.push_back(record::parse(line));
    } catch (std::invalid_argument const& e) {
      throw std::invalid_argument(path.string() + ", line " + std::to_string(number) + ": " + e.what());
    }
  }
  return all;
}

/// The log of a run that grows.
class log {
 public:
  /// To stdout.
  log() : file_(stdout, [](std::FILE*) { return 0; }) {}
  /// To a file. What goes on after `step` steps keeps what was recorded up to there, so that no step appears twice; also what was recorded only because
  /// a run was stopped (it has an entry "stopped") goes, so that the log is that of a run which was not.
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
