// TCNCA and MEGA side by side: the same layers, text, steps and seed, with different mixers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "../training/chart.hpp"
#include "../training/trainer.hpp"
#include "blocks.hpp"
#include "mixer_time.hpp"
#include "options.hpp"

namespace language {

struct contender {
  std::string name;
  std::size_t parameters = 0, bytes = 0;
  double forward = 0, backward = 0, update = 0;  ///< seconds per step: minimum over the rounds
  mixer_seconds mixers;
  double step() const { return forward + backward + update; }
  tcnca::training::outcome trained;
};

/// Times steps of all models in turn, so that other load affects all alike, and takes the minimum of each. The models
/// are created for this and discarded.
inline std::vector<contender> timed(std::vector<options> const& all, blocks& data) {
  std::vector<contender> result;
  std::vector<std::unique_ptr<tcnca::models::model>> models;
  for (options const& o : all) {
    models.push_back(tcnca::models::make_model(o.config));
    result.push_back({o.model,
                      models.back()->parameter_count(),
                      models.back()->memory_bytes(),
                      INFINITY,
                      INFINITY,
                      INFINITY,
                      time_mixers(o.config, o.rounds),
                      {}});
  }
  for (long round = 0; round <= all.front().rounds; round++)  // the first round is warm-up
    for (std::size_t i = 0; i < all.size(); i++) {
      auto const l = models[i]->learn(data.at(round + 1), round + 1, all[i].rates.at(round + 1));
      if (round == 0) continue;
      auto& c = result[i];
      c.forward = std::min(c.forward, l.forward_seconds), c.backward = std::min(c.backward, l.backward_seconds);
      c.update = std::min(c.update, l.update_seconds);
    }
  return result;
}

/// A number of a table, or a placeholder if it was not measured.
inline std::string cell(char const* format, double value) {
  if (!std::isfinite(value)) return "not measured";
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// A Markdown table with one row per model, then the speedup of the first model and the share of the mixers in it.
inline std::string table(std::vector<contender> const& all) {
  std::string text =
                  "| model | parameters | memory MiB | forward ms | backward ms | update ms | of it mixers forward ms "
                  "| backward ms | steps | training loss |",
              rule = "|---|---|---|---|---|---|---|---|---|---|";
  auto const add = [&](std::string const& value) { text.append(" ").append(value).append(" |"); };
  for (auto const& m : all.front().trained.evaluation) add(m.first), rule += "---|";
  text += " seconds |\n" + rule + "---|\n";
  for (auto const& c : all) {
    text += "|";
    add(c.name), add(std::to_string(c.parameters)), add(cell("%.1f", double(c.bytes) / 0x1p20));
    for (double const s : {c.forward, c.backward, c.update, c.mixers.forward, c.mixers.backward})
      add(cell("%.2f", 1e3 * s));
    add(std::to_string(c.trained.step)), add(cell("%.4f", c.trained.loss));
    for (auto const& m : c.trained.evaluation) add(cell("%.4f", m.second));
    add(cell("%.0f", c.trained.seconds)), text += "\n";
  }
  auto const& first = all.front();
  for (std::size_t i = 1; i < all.size(); i++) {
    auto const& c = all[i];
    double const forward = first.forward - first.mixers.forward, backward = first.backward - first.mixers.backward,
                 rest = first.step() - first.mixers.forward - first.mixers.backward;  // the step without its mixers
    text += "\n" + first.name + " is " + cell("%.2f", c.forward / first.forward) + " times as fast as " + c.name +
            " forward, " + cell("%.2f", c.backward / first.backward) + " backward, " +
            cell("%.2f", c.step() / first.step()) + " a step";
    // On a busy machine the mixers alone may have taken longer than the step that contains them.
    if (forward > 0 && backward > 0)
      text += "; if its mixers took no time, it would be " + cell("%.2f", c.forward / forward) + ", " +
              cell("%.2f", c.backward / backward) + ", " + cell("%.2f", c.step() / rest);
    text += ".\n";
  }
  return text;
}

/// One JSON object per line.
inline std::string json(std::vector<contender> const& all) {
  std::string text;
  for (auto const& c : all) {
    tcnca::training::record r;
    r.set("model", c.name)
        .set("parameters", c.parameters)
        .set("memory_bytes", c.bytes)
        .set("forward_seconds", c.forward);
    r.set("backward_seconds", c.backward).set("update_seconds", c.update);
    r.set("mixers_forward_seconds", c.mixers.forward)
        .set("mixers_backward_seconds", c.mixers.backward)
        .set("steps", c.trained.step)
        .set("loss", c.trained.loss);
    r.set(c.trained.evaluation).set("seconds", c.trained.seconds);
    text += (text.empty() ? "[" : ",\n ") + r.line();
  }
  return text + "]\n";
}

/// Curves against steps and against time, with the baseline.
inline std::string picture(std::vector<options> const& all, double yardstick) {
  using namespace tcnca::training;
  chart_panel loss{"training loss (nats)", "step", {}}, steps{"validation bpc", "step", {}},
      time{"validation bpc", "seconds of training", {}};
  double last_step = 0, last_second = 0, first_step = INFINITY, first_second = INFINITY;
  for (options const& o : all) {
    chart_line a{o.model, {}}, b{o.model, {}}, c{o.model, {}};
    for (record const& r : read_log(run_files(o.output).log)) {
      double const step = r.number("step"), seconds = r.number("seconds"), bpc = r.number("validation_bpc");
      a.points.emplace_back(step, r.number("loss")), b.points.emplace_back(step, bpc),
          c.points.emplace_back(seconds, bpc);
      last_step = std::max(last_step, step), last_second = std::max(last_second, seconds);
      first_step = std::min(first_step, step), first_second = std::min(first_second, seconds);
    }
    loss.lines.push_back(a), steps.lines.push_back(b), time.lines.push_back(c);
  }
  std::string const name = "frequencies after two characters";
  steps.lines.push_back({name, {{first_step, yardstick}, {last_step, yardstick}}});
  time.lines.push_back({name, {{first_second, yardstick}, {last_second, yardstick}}});
  chart c("Language modelling: TCNCA beside MEGA", 3);
  c.add(loss), c.add(steps), c.add(time);
  return c.svg();
}

}  // namespace language
