// The loop of training, whatever is learned: steps, evaluations, checkpoints, and the ways it can end.
#pragma once
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <new>
#include <optional>
#include <string>

#include "../models/model.hpp"
#include "checkpoint.hpp"
#include "interruption.hpp"
#include "log.hpp"
#include "settings.hpp"
#include "plot.hpp"
#include "progress.hpp"

namespace tcnca::training {

/// What a program gives the loop.
struct task {
  record configuration;  ///< all that determines what is learned: `configuration(options)` and the program's own
  /// What step `step` (from 1) learns from: a pure function of it and the seed, so that data need no checkpoint. It stays until the next call.
  std::function<models::examples(long step)> next;
  /// What the log says of the model, such as {{"test_accuracy", 0.5}}; it may not depend on earlier calls.
  std::function<measures(models::model&)> evaluate;
  /// Optional: after such an evaluation training ends early.
  std::function<bool(measures const&)> enough = {};
};

enum class ending { finished, out_of_time, interrupted, not_finite };

struct outcome {
  ending how = ending::finished;
  long step = 0;        ///< steps done
  double loss = 0;      ///< mean of the training loss since the evaluation before the last
  double seconds = 0;   ///< of all runs together
  measures evaluation;  ///< the last
  int status() const { return how == ending::interrupted ? 130 : how == ending::not_finite ? 1 : 0; }
};

/// What a run keeps in its folder.
struct run_files {
  explicit run_files(std::filesystem::path const& folder)
      : configuration(folder / "configuration.json"), log(folder / "log.jsonl"), checkpoint(folder / "checkpoint"), curves(folder / "curves.svg") {}
  std::filesystem::path configuration, log, checkpoint, curves;
};

namespace detail {
/// The loop's own part of a checkpoint.
struct loop_state {
  double loss_sum = 0, loss = 0, seconds = 0;
  std::int64_t losses = 0, ended = 0;
  static constexpr char const* name = "loop";
};
}  // namespace detail

/// Gives a model what a checkpoint has, and the steps done. Throws checkpoint_error, nothing changed, if it is not that of such a model.
inline long restore(models::model& model, checkpoint from, std::filesystem::path const& path, detail::loop_state* state = nullptr) {
  if (from.parts.empty() || from.parts.back().name != detail::loop_state::name || from.parts.back().bytes.size() != sizeof(detail::loop_state))
    throw checkpoint_error(path, "it lacks the state of training");
  models::saved_part const loop = std::move(from.parts.back());
  from.parts.pop_back();
  try {
    model.load(from.parts);
  } catch (std::invalid_argument const& e) {
    throw checkpoint_error(path, e.what());
  }
  if (state != nullptr) std::memcpy(state, loop.bytes.data(), sizeof *state);
  return from.step;
}
/// The same from what `train` saved, for programs that only use a model.
inline long restore(models::model& model, std::filesystem::path const& path, record const& configuration) {
  checkpoint from = read_checkpoint(path);
  require_same(from, configuration, path);
  return restore(model, std::move(from), path);
}

namespace detail {

class trainer {
 public:
  trainer(options const& o, models::model& model, task const& t) : o_(o), model_(model), task_(t), files_(o.output), step_(begin()), log_(make_log()) {}

  outcome run() {
    std::fprintf(stderr, "%s: %s, %zu parameters, %.0f MiB\n", o_.program.c_str(), o_.model.c_str(), model_.parameter_count(),
                 double(model_.memory_bytes()) / 0x1p20);
    interruption const signals;
    progress bar(step_, o_.rates.steps, o_.time_limit);
    seconds_before_ = state_.seconds;
    while (step_ < o_.rates.steps && state_.ended == 0) {
      long const step = step_ + 1;
      models::examples const batch = task_.next(step);
      double const rate = o_.rates.at(step);
      models::learned const l = model_.learn(batch, step, rate);
      if (!std::isfinite(l.loss) || !std::isfinite(l.grad_norm)) {
        bar.end_line();
        return not_finite(std::isfinite(l.loss) ? "gradient" : "loss", model_.not_finite());
      }
      step_ = step;
      state_.loss_sum += l.loss, state_.losses++;
      state_.seconds = seconds_before_ + bar.elapsed();
      forward_ += l.forward_seconds, backward_ += l.backward_seconds, update_ += l.update_seconds;
      bool const regular = step == o_.rates.steps || step % o_.every == 0, late = o_.time_limit > 0 && bar.elapsed() >= o_.time_limit;
      double const tokens = double(batch.sequences) * double(batch.length);
      if (regular || late) {
        if (!evaluate(l, rate, tokens, regular, bar)) return not_finite("evaluation", "");
      } else {
        bar.report(step, tokens, "loss " + fixed(state_.loss_sum / double(state_.losses)), false);
      }
      if (step_ == o_.rates.steps || state_.ended != 0) break;
      if (late || interruption::asked()) {
        if (!regular && !late) save();
        bar.end_line();
        std::fprintf(stderr, "%s: %s after step %ld of %ld%s\n", o_.program.c_str(), late ? "the time limit was reached" : "interrupted", step_,
                     o_.rates.steps, o_.output.empty() ? "; without --output nothing was saved" : "; saved: --resume goes on from here");
        return result(late ? ending::out_of_time : ending::interrupted);
      }
    }
    if (!evaluation_) evaluation_ = task_.evaluate(model_);  // resumed at its end
    return result(ending::finished);
  }

 private:
  /// Finds what there is in the folder, before anything is written there; gives the steps done.
  long begin() {
    if (o_.output.empty()) return 0;
    bool const there = std::filesystem::exists(files_.checkpoint);
    if (o_.resume && !there) throw std::invalid_argument("nothing to resume: there is no " + files_.checkpoint.string());
    if (!o_.resume && there)
      throw std::invalid_argument("there is a checkpoint in " + o_.output + ": give --resume to go on from it, or another --output");
    std::filesystem::create_directories(o_.output);
    lock_.emplace(o_.output);
    if (!o_.resume) return 0;
    checkpoint from = read_checkpoint(files_.checkpoint);
    require_same(from, task_.configuration, files_.checkpoint);
    if (from.step > o_.rates.steps)
      throw std::invalid_argument("the checkpoint has done " + std::to_string(from.step) + " steps, --steps asks for " + std::to_string(o_.rates.steps));
    return restore(model_, std::move(from), files_.checkpoint, &state_);
  }
  log make_log() {
    if (o_.output.empty()) return {};
    record all = task_.configuration;
    all.set("backend", o_.config.backend).set("threads", o_.config.threads).set("parameters", model_.parameter_count());
    replace_file(files_.configuration, all.line() + "\n");
    return {files_.log, step_};
  }

  /// Evaluates, records and saves; false, nothing saved, where the evaluation is not finite. What is not regular leaves the sums as they are, so that
  /// what is resumed goes on as if it had not been.
  bool evaluate(models::learned const& l, double rate, double tokens, bool regular, progress& bar) {
    evaluation_ = task_.evaluate(model_);
    for (auto const& m : *evaluation_)
      if (!std::isfinite(m.second)) return bar.end_line(), false;
    double const loss = state_.loss_sum / double(state_.losses), count = double(step_ - timed_from_.value_or(first_)), now = bar.elapsed();
    shown_loss_ = loss;
    record r;
    r.set("step", step_).set("loss", loss).set("grad_norm", l.grad_norm).set("rate", rate).set(*evaluation_);
    r.set("seconds", rounded(state_.seconds));
    r.set("tokens_per_second", rounded(tokens * count / std::max(1e-9, state_.seconds - seconds_before_ - timed_since_)));
    r.set("forward_seconds", rounded(forward_ / count)).set("backward_seconds", rounded(backward_ / count));
    r.set("update_seconds", rounded(update_ / count));
    if (!regular) r.set("stopped", true);
    log_.write(r);
    if (regular) {
      state_.loss = loss, state_.loss_sum = 0, state_.losses = 0;
      if (task_.enough && task_.enough(*evaluation_)) state_.ended = 1;
    }
    forward_ = backward_ = update_ = 0, timed_from_ = step_;
    state_.seconds += bar.elapsed() - now;
    save();
    timed_since_ = bar.elapsed();
    std::string text = "loss " + fixed(loss);
    for (auto const& [name, value] : *evaluation_) text += ", " + name + " " + fixed(value);
    bar.report(step_, tokens, text, true);
    if (!o_.output.empty()) replace_file(files_.curves, curves(o_.program + ", " + o_.model, {{o_.model, read_log(files_.log)}}));
    return true;
  }
  static std::string fixed(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", value);
    return text;
  }
  /// To four digits: times are not more exact.
  static double rounded(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", value);
    return std::strtod(text, nullptr);
  }
  void save() {
    if (o_.output.empty()) return;
    checkpoint c{task_.configuration, step_, model_.save()};
    char const* const bytes = reinterpret_cast<char const*>(&state_);
    c.parts.push_back({loop_state::name, {bytes, bytes + sizeof state_}});
    write_checkpoint(files_.checkpoint, c);
  }

  outcome not_finite(std::string const& what, std::string const& where) {
    bool const kept = !o_.output.empty() && std::filesystem::exists(files_.checkpoint);
    std::fprintf(stderr, "%s: the %s is not finite at step %ld%s; %s; a lower --rate may help\n", o_.program.c_str(), what.c_str(),
                 what == "evaluation" ? step_ : step_ + 1, where.empty() ? "" : (", first in " + where).c_str(),
                 kept ? "the last checkpoint stays" : "there is no checkpoint yet");
    return result(ending::not_finite);
  }
  outcome result(ending how) {
    return {how, step_, shown_loss_.value_or(state_.loss), state_.seconds, evaluation_.value_or(measures{})};
  }

  options const& o_;
  models::model& model_;
  task const& task_;
  run_files files_;
  std::optional<folder_lock> lock_;
  loop_state state_;
  long step_, first_ = step_;
  log log_;
  std::optional<measures> evaluation_;
  std::optional<double> shown_loss_;
  std::optional<long> timed_from_;
  double seconds_before_ = 0, timed_since_ = 0, forward_ = 0, backward_ = 0, update_ = 0;
};

}  // namespace detail

/// Trains until --steps, --time-limit, a signal, or a number that is not finite. Throws std::invalid_argument for a folder or a checkpoint that does
/// not fit, std::runtime_error where a file cannot be written.
inline outcome train(options const& o, models::model& model, task const& t) { return detail::trainer(o, model, t).run(); }

/// The end of a program: a line of JSON with the result, and the exit status. Fails, if training worked, where the loss is not below --expect-loss.
inline int conclude(options const& o, outcome const& r) {
  record line;
  line.set("model", o.model).set("step", r.step).set("loss", r.loss).set(r.evaluation).set("seconds", r.seconds);
  std::printf("%s\n", line.line().c_str());
  if (r.status() == 0 && o.expect_loss > 0 && !(r.loss < o.expect_loss)) {
    std::fprintf(stderr, "%s: the loss ended at %g, expected below %g\n", o.program.c_str(), r.loss, o.expect_loss);
    return 1;
  }
  return r.status();
}

/// Runs a program's body; an exception, or output that was lost, becomes a sentence and an exit status: 2 for what the user gave, 1 for what failed.
template <class Body>
int guarded(options const& o, Body const& body) {
  auto const say = [&](std::string const& sentence) { std::fprintf(stderr, "%s: %s\n", o.program.c_str(), sentence.c_str()); };
  try {
    int const status = o.compare.empty() ? body() : (compare(o.compare, o.output), 0);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return say("cannot write to the standard output"), 1;
    return status;
  } catch (std::invalid_argument const& e) {
    return say(e.what()), 2;
  } catch (std::filesystem::filesystem_error const& e) {
    return say(e.path1().string() + ": " + e.code().message()), 2;
  } catch (std::bad_alloc const&) {
    return say("there is not enough memory for a model and data of this size; fewer --channels or --layers, a smaller --batch or shorter sequences need less"), 1;
  } catch (std::exception const& e) {
    return say(e.what()), 1;
  }
}

}  // namespace tcnca::training
