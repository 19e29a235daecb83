// The training loop: steps, evaluations, checkpoints, and the ways to end.
#pragma once
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <new>
#include <optional>
#include <string>

#include "../../models/model.hpp"
#include "checkpoint.hpp"
#include "interruption.hpp"
#include "log.hpp"
#include "plot.hpp"
#include "progress.hpp"
#include "settings.hpp"

namespace tcnca::training {

/// What a program provides to the loop.
struct task {
  record
      configuration;  ///< everything that determines the result: `configuration(options)` and the program's own options
  /// The batch of step `step` (from 1): a pure function of step and seed, so that a checkpoint stores no data state.
  /// Valid until the next call.
  std::function<models::examples(long step)> next;
  /// The quantities that the log records for the model, such as {{"test_accuracy", 0.5}}. Must not depend on earlier
  /// calls.
  std::function<measures(models::model&)> evaluate;
  /// Optional: ends training early after such an evaluation.
  std::function<bool(measures const&)> enough = {};
};

enum class ending { finished, out_of_time, interrupted, not_finite };

struct outcome {
  ending how = ending::finished;
  long step = 0;  ///< completed steps
  /// Mean training loss since the last evaluation; directly after one, over the steps before it. NaN before the first
  /// step.
  double loss = std::nan("");
  double seconds = 0;   ///< of all runs
  measures evaluation;  ///< the last one; empty if there was none
  long evaluated = 0;   ///< completed steps at that time
  int signal = 0;       ///< the signal that interrupted training
  int status() const { return how == ending::interrupted ? 128 + signal : how == ending::not_finite ? 1 : 0; }
};

/// The files of a run.
struct run_files {
  explicit run_files(std::filesystem::path const& folder)
      : configuration(folder / "configuration.json"),
        log(folder / "log.jsonl"),
        checkpoint(folder / "checkpoint"),
        curves(folder / "curves.svg") {}
  std::filesystem::path configuration, log, checkpoint, curves;
};

namespace detail {
/// The training loop's part of a checkpoint.
struct loop_state {
  double loss_sum = 0, loss = std::nan(""), seconds = 0;
  std::int64_t losses = 0, ended = 0;
  static constexpr char const* name = "loop";
};
}  // namespace detail

/// Loads a checkpoint into a model and returns the completed steps. Throws checkpoint_error and changes nothing if it
/// does not match.
inline long restore(models::model& model, checkpoint from, std::filesystem::path const& path,
                    detail::loop_state* state = nullptr) {
  if (from.parts.empty() || from.parts.back().name != detail::loop_state::name ||
      from.parts.back().bytes.size() != sizeof(detail::loop_state))
    throw checkpoint_error(path, "it lacks the state of training");
  models::saved_part const loop = std::move(from.parts.back());
  from.parts.pop_back();
  try {
    model.load(from.parts);
  } catch (std::invalid_argument const& e) { throw checkpoint_error(path, e.what()); }
  if (state != nullptr) std::memcpy(state, loop.bytes.data(), sizeof *state);
  return from.step;
}
/// The same from a file saved by `train`, for programs that only use a model.
inline long restore(models::model& model, std::filesystem::path const& path, record const& configuration) {
  checkpoint from = read_checkpoint(path);
  require_same(from, configuration, path);
  return restore(model, std::move(from), path);
}

namespace detail {

class trainer {
 public:
  trainer(options const& o, models::model& model, task const& t)
      : o_(o), model_(model), task_(t), files_(o.output), step_(begin()), log_(make_log()) {}

  outcome run() {
    std::fprintf(stderr, "%s: the model %s has %zu parameters and takes %.0f MiB\n", o_.program.c_str(),
                 o_.model.c_str(), model_.parameter_count(), double(model_.memory_bytes()) / 0x1p20);
    progress bar(step_, o_.rates.steps, o_.time_limit);
    seconds_before_ = state_.seconds;
    if (state_.ended != 0 && step_ < o_.rates.steps) {  // with more steps, the early end is decided again
      evaluation_ = task_.evaluate(model_), evaluated_ = step_;
      state_.ended = task_.enough && task_.enough(*evaluation_);
    }
    while (step_ < o_.rates.steps && state_.ended == 0) {
      if (interruption::asked() != 0) return stopped(ending::interrupted, bar);
      long const step = step_ + 1;
      models::examples const batch = task_.next(step);
      double const rate = o_.rates.at(step);
      models::step_result const l = model_.learn(batch, step, rate);
      if (!std::isfinite(l.loss) || !std::isfinite(l.grad_norm)) {
        bar.end_line();
        return not_finite(std::isfinite(l.loss) ? "gradient" : "loss", model_.not_finite());
      }
      step_ = step;
      state_.loss_sum += l.loss, state_.losses++;
      state_.seconds = seconds_before_ + bar.elapsed();
      forward_ += l.forward_seconds, backward_ += l.backward_seconds, update_ += l.update_seconds;
      double const tokens = double(batch.sequences) * double(batch.length);
      tokens_ += tokens, all_tokens_ += tokens;
      bool const regular = step == o_.rates.steps || step % o_.every == 0,
                 late = o_.time_limit > 0 && bar.elapsed() >= o_.time_limit;
      if (regular || late) {
        if (!evaluate(l, rate, regular, bar)) return not_finite("evaluation", "");
      } else {
        bar.report(step, all_tokens_, "loss " + fixed(mean_loss()), false);
      }
      if (late && step_ < o_.rates.steps && state_.ended == 0) return stopped(ending::out_of_time, bar);
    }
    if (!evaluation_ && interruption::asked() == 0)
      evaluation_ = task_.evaluate(model_), evaluated_ = step_;  // resumed at the end
    return interruption::asked() != 0 ? stopped(ending::interrupted, bar) : result(ending::finished);
  }

 private:
  /// Checks the folder before anything is written; returns the completed steps.
  long begin() {
    if (o_.output.empty()) return 0;
    bool const there = std::filesystem::exists(files_.checkpoint);
    if (o_.resume && !there)
      throw std::invalid_argument("there is nothing to resume: " + files_.checkpoint.string() + " does not exist");
    if (!o_.resume && there)
      throw std::invalid_argument("there is a checkpoint in " + o_.output +
                                  ": use --resume to continue from it, or another --output");
    std::filesystem::create_directories(o_.output);
    lock_.emplace(o_.output);
    if (!o_.resume) return 0;
    checkpoint from = read_checkpoint(files_.checkpoint);
    record const &had = from.configuration, &has = task_.configuration;
    if (had.has("steps") && has.has("steps") && had.text("steps") != has.text("steps")) {
      std::string const before = had.text("steps");
      if (!(double(from.step) == had.number("steps") && has.number("steps") > had.number("steps")))
        throw checkpoint_error(files_.checkpoint, "its --schedule depends on --steps, which was " + before +
                                                      ": give --steps " + before +
                                                      "; once that is finished, a larger --steps continues from there");
      std::fprintf(
          stderr,
          "%s: the run of %s steps is finished, and now continues to %ld with the rates of a run of that length\n",
          o_.program.c_str(), before.c_str(), o_.rates.steps);
      from.configuration.set("steps", o_.rates.steps);
    }
    require_same(from, task_.configuration, files_.checkpoint);
    if (from.step > o_.rates.steps)
      throw std::invalid_argument("the checkpoint has done " + std::to_string(from.step) +
                                  " steps, but --steps asks for " + std::to_string(o_.rates.steps));
    return saved_ = restore(model_, std::move(from), files_.checkpoint, &state_);
  }
  log make_log() {
    if (o_.output.empty()) return {};
    record all = task_.configuration;
    all.set("backend", o_.config.backend).set("threads", o_.config.threads).set("parameters", model_.parameter_count());
    replace_file(files_.configuration, all.line() + "\n");
    return {files_.log, step_};
  }

  /// Evaluates, records and saves; returns false and saves nothing if the evaluation is not finite. An evaluation that
  /// is not regular leaves the sums unchanged, so that a resumed run continues as if it had not happened.
  bool evaluate(models::step_result const& l, double rate, bool regular, progress& bar) {
    evaluation_ = task_.evaluate(model_), evaluated_ = step_;
    for (auto const& m : *evaluation_)
      if (!std::isfinite(m.second)) return bar.end_line(), false;
    double const loss = mean_loss(), count = double(step_ - timed_from_.value_or(first_)), now = bar.elapsed();
    record r;
    r.set("step", step_).set("loss", loss).set("grad_norm", l.grad_norm).set("rate", rate).set(*evaluation_);
    r.set("seconds", rounded(state_.seconds));
    r.set("tokens_per_second", rounded(tokens_ / std::max(1e-9, state_.seconds - seconds_before_ - timed_since_)));
    r.set("forward_seconds", rounded(forward_ / count)).set("backward_seconds", rounded(backward_ / count));
    r.set("update_seconds", rounded(update_ / count));
    if (!regular) r.set("stopped", true);
    log_.write(r);
    if (regular) {
      state_.loss = loss, state_.loss_sum = 0, state_.losses = 0;
      if (task_.enough && task_.enough(*evaluation_)) state_.ended = 1;
    }
    forward_ = backward_ = update_ = tokens_ = 0, timed_from_ = step_;
    state_.seconds += bar.elapsed() - now;
    save();
    timed_since_ = bar.elapsed();
    std::string text = "loss " + fixed(loss);
    for (auto const& [name, value] : *evaluation_) text += ", " + name + " " + fixed(value);
    bar.report(step_, all_tokens_, text, true);
    if (!o_.output.empty())
      replace_file(files_.curves, curves(o_.program + ", " + o_.model, {{o_.model, read_log(files_.log)}}));
    return true;
  }
  static std::string fixed(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", value);
    return text;
  }
  /// Rounds to four digits, the precision of the times.
  static double rounded(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", value);
    return std::strtod(text, nullptr);
  }
  double mean_loss() const { return state_.losses > 0 ? state_.loss_sum / double(state_.losses) : state_.loss; }
  void save() {
    saved_ = step_;
    if (o_.output.empty()) return;
    checkpoint c{task_.configuration, step_, model_.save()};
    char const* const bytes = reinterpret_cast<char const*>(&state_);
    c.parts.push_back({loop_state::name, {bytes, bytes + sizeof state_}});
    write_checkpoint(files_.checkpoint, c);
  }

  outcome stopped(ending how, progress& bar) {
    if (saved_ != step_) save();
    bar.end_line();
    std::string const why = how == ending::out_of_time
                                ? "the time limit was reached"
                                : std::string(interruption::name(interruption::asked())) + " interrupted training";
    std::fprintf(stderr, "%s: %s after step %ld of %ld; %s\n", o_.program.c_str(), why.c_str(), step_, o_.rates.steps,
                 o_.output.empty() ? "nothing was saved, because --output was not given"
                                   : "the checkpoint is saved, and --resume continues from it");
    return result(how);
  }
  outcome not_finite(std::string const& what, std::string const& where) {
    bool const kept = !o_.output.empty() && std::filesystem::exists(files_.checkpoint);
    std::fprintf(stderr, "%s: the %s is not finite at step %ld%s; %s; a lower --rate may help\n", o_.program.c_str(),
                 what.c_str(), what == "evaluation" ? step_ : step_ + 1,
                 where.empty() ? "" : (", first in " + where).c_str(),
                 kept ? "the last checkpoint stays" : "there is no checkpoint yet");
    return result(ending::not_finite);
  }
  outcome result(ending how) const {
    return {how,
            step_,
            mean_loss(),
            state_.seconds,
            evaluation_.value_or(measures{}),
            evaluated_,
            how == ending::interrupted ? interruption::asked() : 0};
  }

  options const& o_;
  models::model& model_;
  task const& task_;
  run_files files_;
  std::optional<folder_lock> lock_;
  interruption const signals_;
  loop_state state_;
  long saved_ = -1, step_, first_ = step_, evaluated_ = step_;
  log log_;
  std::optional<measures> evaluation_;
  std::optional<long> timed_from_;
  double seconds_before_ = 0, timed_since_ = 0, forward_ = 0, backward_ = 0,
         update_ = 0;                   // since the last evaluation, without the first two steps
  double tokens_ = 0, all_tokens_ = 0;  // since then, and in this run
};

}  // namespace detail

/// Trains until --steps, --time-limit, a signal, or a non-finite number. Throws std::invalid_argument if a folder or
/// checkpoint does not match, std::runtime_error if a file cannot be written.
inline outcome train(options const& o, models::model& model, task const& t) {
  return detail::trainer(o, model, t).run();
}

/// The end of a program: prints a line of JSON with the result and returns the exit status. Fails if the loss is not
/// below --expect-loss.
inline int conclude(options const& o, outcome const& r) {
  record line;
  line.set("model", o.model).set("step", r.step).set("loss", r.loss);
  if (!r.evaluation.empty() && r.evaluated != r.step) line.set("evaluated_at_step", r.evaluated);
  line.set(r.evaluation).set("seconds", r.seconds);
  std::printf("%s\n", line.line().c_str());
  if (r.status() == 0 && o.expect_loss > 0 && !(r.loss < o.expect_loss)) {
    std::fprintf(stderr, "%s: the loss ended at %g, but was expected below %g\n", o.program.c_str(), r.loss,
                 o.expect_loss);
    return 1;
  }
  return r.status();
}

/// Runs a program's body. An exception, or lost output, becomes a message and an exit status: 2 for invalid input, 1
/// for a failure.
template <class Body>
int guarded(options const& o, Body const& body) {
  auto const say = [&](std::string const& sentence) {
    std::fprintf(stderr, "%s: %s\n", o.program.c_str(), sentence.c_str());
  };
  std::signal(SIGPIPE, SIG_IGN);  // a closed output pipe must not end training before it is saved
  auto const too_large = [&] {
    return say("there is not enough memory for a model and data of this size; fewer --channels or --layers, a smaller "
               "--batch or shorter sequences need less"),
           1;
  };
  try {
    int const status = o.compare.empty() ? body() : (compare(o.compare, o.output), 0);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return say("the standard output cannot be written"), 1;
    return status;
  } catch (std::invalid_argument const& e) {
    return say(e.what()), 2;
  } catch (std::filesystem::filesystem_error const& e) {
    return say("cannot use " + e.path1().string() + ": " + e.code().message()), 2;
  } catch (std::bad_alloc const&) { return too_large(); } catch (std::length_error const&) {
    return too_large();
  } catch (std::exception const& e) { return say(e.what()), 1; }
}

}  // namespace tcnca::training
