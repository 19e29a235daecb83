// Training curves from logs: each quantity against the step, one panel per quantity, one line per run.
#pragma once
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "chart.hpp"
#include "log.hpp"

namespace tcnca::training {

/// A run in a chart: a name and its log.
struct plotted_run {
  std::string name;
  std::vector<record> log;
};

/// All quantities of the log except times.
inline std::string curves(std::string const& title, std::vector<plotted_run> const& runs) {
  std::vector<std::string> quantities;
  for (auto const& run : runs)
    for (auto const& r : run.log)
      for (auto const& [name, value] : r.entries())
        if (name != "step" && name != "stopped" && name.find("second") == std::string::npos &&
            std::find(quantities.begin(), quantities.end(), name) == quantities.end())
          quantities.push_back(name);
  chart picture(title);
  for (std::string const& q : quantities) {
    chart_panel panel{q, "step", {}};
    for (auto const& run : runs) {
      chart_line line{run.name, {}};
      for (auto const& r : run.log)
        if (r.has("step") && r.has(q)) line.points.emplace_back(r.number("step"), r.number(q));
      if (!line.points.empty()) panel.lines.push_back(std::move(line));
    }
    picture.add(std::move(panel));
  }
  return picture.svg();
}

/// Plots the logs of the runs in these folders to `output`/comparison.svg.
inline void compare(std::vector<std::string> const& folders, std::string const& output) {
  std::vector<plotted_run> runs;
  for (std::filesystem::path folder : folders) {
    auto log = read_log(folder / "log.jsonl");
    if (!folder.has_filename()) folder = folder.parent_path();  // a trailing slash, as in "runs/a/"
    runs.push_back({folder.filename().string(), std::move(log)});
  }
  std::filesystem::create_directories(output);
  replace_file(std::filesystem::path(output) / "comparison.svg",
               curves("Comparison of " + std::to_string(runs.size()) + " runs", runs));
}

}  // namespace tcnca::training
