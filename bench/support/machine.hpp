// Provenance of results: machine, commit, date, and how busy the machine was. It is the field "machine" of every JSON
// file.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "json.hpp"
#include "process_clock.hpp"

namespace tcnca::bench {

/// "AMD EPYC 9R14"
inline std::string processor_name() {
  std::ifstream cpu("/proc/cpuinfo");
  for (std::string line; std::getline(cpu, line);)
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "unknown processor";
}

/// "g++ 12.2.0"
inline std::string compiler_name() {
#if defined(__clang__)
  return "clang++ " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

/// The record of one run. Construct it before the measurements and call finish() after them.
class machine_record {
 public:
  /// `commit`: built_commit().
  machine_record(int threads, std::string commit)
      : threads_(threads),
        commit_(std::move(commit)),
        processor_(processor_name()),
        load_before_(load()),
        others_before_(clock_.others()) {
    start_ = clock_.read().wall;
    char text[32];
    std::time_t const now = std::time(nullptr);
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
    date_ = text;
  }

  void gpu(std::string name) { gpu_ = std::move(name); }
  /// Records a row that could not be measured.
  void drop(std::string row) { dropped_.push_back(std::move(row)); }
  /// Call it after the run; `rows` were measured.
  void finish(std::size_t rows) {
    rows_ = rows, load_after_ = load();
    others_ = (clock_.others() - others_before_) / ((clock_.read().wall - start_) * clock_.processors());
  }

  std::size_t dropped() const { return dropped_.size(); }
  /// A sentence if the machine was busy or rows were dropped, else empty.
  std::string warning() const {
    char text[200];
    std::string said;
    if (others_ > 0.05) {
      std::snprintf(text, sizeof text,
                    "Other programs used %.0f %% of the processor time during the run (load %.1f before, %.1f "
                    "after): times may be too long.",
                    100 * others_, load_before_, load_after_);
      said = text;
    }
    if (!dropped_.empty()) {
      std::snprintf(text, sizeof text,
                    "%s%zu of %zu rows could not be measured and were dropped: other programs disturbed their calls.",
                    said.empty() ? "" : " ", dropped_.size(), dropped_.size() + rows_);
      said += text;
    }
    return said;
  }
  /// "AMD EPYC, 2 processors, g++ 12.2.0, commit 3a5d911, 2026-11-29T19:44:19Z"
  std::string sentence() const {
    return (gpu_.empty() ? "" : gpu_ + ", ") + processor_ + ", " + std::to_string(clock_.processors()) +
           " processors, " + compiler_name() + ", commit " + commit_ + ", " + date_;
  }
  std::string to_json() const {
    using detail::json;
    std::string text =
        "{\"processor\": " + json(processor_) + ", \"processors\": " + json(index_t{clock_.processors()}) +
        ", \"threads\": " + json(index_t{threads_}) + ", \"gpu\": " + (gpu_.empty() ? "null" : json(gpu_)) +
        ", \"compiler\": " + json(compiler_name()) + ", \"commit\": " + json(commit_) + ", \"date\": " + json(date_) +
        ", \"load_before\": " + json(load_before_) + ", \"load_after\": " + json(load_after_) +
        ", \"others_share\": " + json(others_) + ", \"rows\": " + json(static_cast<index_t>(rows_)) +
        ", \"rows_dropped\": " + json(static_cast<index_t>(dropped_.size())) + ", \"dropped\": [";
    for (std::size_t i = 0; i < dropped_.size(); i++) text += (i == 0 ? "" : ", ") + json(dropped_[i]);
    return text + "]}";
  }

 private:
  static double load() {
    double load[1] = {};
    return getloadavg(load, 1) == 1 ? load[0] : std::numeric_limits<double>::quiet_NaN();
  }

  process_clock clock_;
  int threads_;
  std::string commit_, processor_, date_, gpu_;
  double load_before_, load_after_ = 0, others_before_, others_ = 0, start_ = 0;
  std::size_t rows_ = 0;
  std::vector<std::string> dropped_;
};

/// Writes {"machine": ..., <fields>, "rows": [...]}; fields and rows are JSON texts.
inline void write_json(std::ostream& out, machine_record const& machine,
                       std::vector<std::pair<std::string, std::string>> const& fields,
                       std::vector<std::string> const& rows) {
  out << "{\"machine\": " << machine.to_json();
  for (auto const& [key, value] : fields) out << ", \"" << key << "\": " << value;
  out << ", \"rows\": [";
  for (std::size_t i = 0; i < rows.size(); i++) out << (i == 0 ? "\n  " : ",\n  ") << rows[i];
  out << "\n]}\n";
}

}  // namespace tcnca::bench
