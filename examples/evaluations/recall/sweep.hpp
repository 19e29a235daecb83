// Models on tasks of several lengths and vocabularies: a table, a chart, and a folder per run, so that an interrupted
// sweep can continue.
#pragma once
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "experiment.hpp"

namespace recall {

class sweep {
 public:
  explicit sweep(options const& o) : o_(o), folder_(o.output) {
    bool const single = o.form == "single";
    if (o_.lengths.empty())
      o_.lengths = single ? std::vector<long>{40, 200, 1000} : std::vector<long>{32, 64, 128, 256};
    if (o_.vocabularies.empty()) o_.vocabularies = single ? std::vector<int>{10, 20, 30} : std::vector<int>{512};
    for (int const vocabulary : o_.vocabularies)
      for (long const length : o_.lengths)
        for (std::string const& model : o_.models) cells_.push_back(cell(model, vocabulary, length));
  }

  /// Returns an exit status.
  int run() {
    if (!o_.resume && std::filesystem::exists(folder_ / "results.json"))
      throw std::invalid_argument("there are results in " + o_.output +
                                  ": use --resume to continue from them, or another --output");
    for (options& c : cells_) {
      std::string const name =
          c.model + ", vocabulary " + std::to_string(c.data.vocabulary) + ", length " + std::to_string(c.data.length);
      std::fprintf(stderr, "%s: run %zu of %zu is %s\n", o_.program.c_str(), results_.size() + 1, cells_.size(),
                   name.c_str());
      auto const kept = std::filesystem::path(c.output) / "result.json";
      experiment e(c);
      if (std::filesystem::exists(kept)) {
        auto const lines = training::read_log(kept);
        if (lines.size() != 2)
          throw std::invalid_argument(kept.string() + " does not hold a result and its configuration");
        require_same({lines[1], 0, {}}, e.configuration(), kept);
        results_.push_back(lines[0]);
        continue;
      }
      c.resume = std::filesystem::exists(training::run_files(c.output).checkpoint);
      training::outcome const r = e.run();
      if (r.how == training::ending::interrupted) {
        std::fprintf(stderr, "%s: %zu of %zu runs are finished; --resume continues from there\n", o_.program.c_str(),
                     results_.size(), cells_.size());
        return r.status();
      }
      training::record line;
      line.set("model", c.model)
          .set("vocabulary", c.data.vocabulary)
          .set("length", c.data.length)
          .set("pairs", c.data.pairs);
      line.set("chunk", c.config.chunk)
          .set("stack", c.config.stack)
          .set("batch", c.config.batch)
          .set("parameters", e.model().parameter_count());
      line.set("finite", r.how != training::ending::not_finite)
          .set("step", r.step)
          .set("loss", r.loss)
          .set(r.evaluation)
          .set("seconds", r.seconds);
      training::replace_file(kept, line.line() + "\n" + e.configuration().line() + "\n");
      results_.push_back(line);
      write();
    }
    write();
    std::printf("%s", table().c_str());
    return 0;
  }

 private:
  options cell(std::string const& model, int vocabulary, long length) const {
    options c = o_;
    c.model = model, c.data.vocabulary = vocabulary, c.data.length = length, c.sweep = false;
    c.data = problem_of(c);
    // The same number of tokens per step, but a minimum number of sequences, because each has only one map of keys to
    // values.
    c.config.batch = std::max(std::min(8L, o_.config.batch), (o_.config.batch * o_.data.length + length - 1) / length);
    c.config.chunk = chunk_for(c.data.positions(), o_.longest_chunk);
    c.test = std::min(o_.test, std::max(100L, 100000 / length));
    if (c.until == 0) c.until = 1;
    c.output =
        (folder_ / "runs" / (model + "-v" + std::to_string(vocabulary) + "-t" + std::to_string(length))).string();
    choose_model(c);
    return c;
  }

  void write() const {
    std::string json;
    for (auto const& r : results_) json += (json.empty() ? "[" : ",\n ") + r.line();
    training::replace_file(folder_ / "results.json", json + "]\n");
    training::replace_file(folder_ / "results.md", table());
    training::chart picture("Associative recall (" + o_.form + "): test accuracy");
    for (int const vocabulary : o_.vocabularies) {
      training::chart_panel panel{"vocabulary " + std::to_string(vocabulary), "length", {}, true, true};
      for (std::string const& model : o_.models) {
        training::chart_line line{model, {}};
        for (auto const& r : results_)
          if (r.text("model") == model && r.number("vocabulary") == vocabulary)
            line.points.emplace_back(r.number("length"), r.number("test_accuracy"));
        panel.lines.push_back(std::move(line));
      }
      picture.add(std::move(panel));
    }
    training::replace_file(folder_ / "accuracy.svg", picture.svg());
  }
  /// One row per task; a cell holds test accuracy, steps and seconds.
  std::string table() const {
    std::string out = "| vocabulary | length | chunk | batch |", rule = "|---|---|---|---|";
    for (std::string const& model : o_.models) out += " " + model + " |", rule += "---|";
    out += "\n" + rule + "\n";
    for (std::size_t i = 0; i < results_.size(); i++) {
      auto const& r = results_[i];
      char text[96];
      if (i % o_.models.size() == 0) {
        std::snprintf(text, sizeof text, "| %.0f | %.0f | %.0f | %.0f |", r.number("vocabulary"), r.number("length"),
                      r.number("chunk"), r.number("batch"));
        out += text;
      }
      if (r.text("finite") == "false")
        std::snprintf(text, sizeof text, " not finite at step %.0f |", r.number("step") + 1);
      else
        std::snprintf(text, sizeof text, " %.1f %%, %.0f steps, %.0f s |", 100 * r.number("test_accuracy"),
                      r.number("step"), r.number("seconds"));
      out += text;
      if ((i + 1) % o_.models.size() == 0 || i + 1 == results_.size()) out += "\n";
    }
    return out;
  }

  options o_;
  std::filesystem::path folder_;
  std::vector<options> cells_;
  std::vector<training::record> results_;
};

}  // namespace recall
