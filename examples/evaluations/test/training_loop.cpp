// The training loop (evaluations/training/trainer.hpp): it continues with the same bits wherever it stopped, and ends
// with a message where it must.
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "support/training_loop.hpp"

namespace {

using namespace tcnca;
using namespace tcnca::training;
namespace fs = std::filesystem;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

using tcnca::testing::number_model;
using tcnca::testing::training_loop;

TEST_F(training_loop, records_each_evaluation) {
  number_model m;
  auto const [text, r] = said(m);
  EXPECT_EQ(r.how, ending::finished);
  EXPECT_EQ(r.status(), 0);
  EXPECT_EQ(r.step, 20);
  EXPECT_EQ(r.evaluation, (measures{{"value", m.value}}));
  auto const log = read_log(file("log.jsonl"));
  ASSERT_EQ(log.size(), 5u);
  // The same training, step by step.
  double value = 1, sum = 0;
  for (long step = 1; step <= 20; step++) {
    double const off = value - double(mix(5, std::uint64_t(step)) % 7) / double(step);
    value -= o.rates.at(step) * off, sum += off * off;
    if (step % 4 != 0) continue;
    record const& row = log[std::size_t(step / 4 - 1)];
    EXPECT_EQ(row.number("step"), double(step));
    EXPECT_DOUBLE_EQ(row.number("loss"), sum / 4);  // rounding differs where products and sums are fused
    EXPECT_DOUBLE_EQ(row.number("grad_norm"), std::abs(off));
    EXPECT_EQ(row.number("rate"), o.rates.at(step));
    EXPECT_DOUBLE_EQ(row.number("value"), value);
    sum = 0;
  }
  EXPECT_EQ(r.loss, log.back().number("loss"));
  EXPECT_NE(text.find("100% step 20"), std::string::npos) << text;
  EXPECT_EQ(record::parse(content(file("configuration.json")).substr(0, content(file("configuration.json")).find('\n')))
                .text("parameters"),
            "1");
  EXPECT_NE(content(file("curves.svg")).find("</svg>"), std::string::npos);
}

TEST_F(training_loop, continues_with_the_same_bits) {
  number_model whole;
  double pieces = 0;
  train(o, whole, t);
  fs::path const first = o.output;
  o.output = folder / "pieces";
  o.time_limit = 1e-9;  // ends after each step
  for (long step = 1; step <= 20; step++) {
    number_model m;
    auto const [text, r] = said(m);
    pieces = m.value;
    EXPECT_EQ(r.step, step);
    EXPECT_EQ(r.how, step == 20 ? ending::finished : ending::out_of_time);
    EXPECT_EQ(text.find("--resume continues") != std::string::npos, step < 20) << text;
    o.resume = true;
  }
  EXPECT_EQ(pieces, whole.value);
  EXPECT_EQ(log_of(o.output), log_of(first));
  // Another resume has nothing to do and returns the result again.
  number_model again;
  auto const [text, r] = said(again);
  EXPECT_EQ(r.how, ending::finished);
  EXPECT_EQ(r.evaluation, (measures{{"value", whole.value}}));
  EXPECT_EQ(r.loss, read_log(file("log.jsonl")).back().number("loss"));
  EXPECT_EQ(log_of(o.output), log_of(first));
}

TEST_F(training_loop, of_a_real_model_continues_with_the_same_bits) {
  auto& c = o.config;
  c.vocabulary = 5, c.length = 12, c.batch = 2, c.layers = 2, c.channels = 16, c.value_dim = 16, c.key_dim = 16,
  c.hidden = 16, c.chunk = 8;
  c.dropout = 0.1, c.threads = 2;
  o.rates.steps = 9, o.every = 2, o.time_limit = 0;
  std::vector<int> tokens(24), targets(24);
  t.next = [&](long step) {
    for (std::size_t i = 0; i < 24; i++) {
      tokens[i] = int(mix(std::uint64_t(step), i) % 5);
      targets[i] = (tokens[i] + 1) % 5;
    }
    return models::examples{2, 12, tokens.data(), targets.data(), nullptr};
  };
  t.evaluate = [&](models::model& m) { return measures{{"held_out", m.evaluate(t.next(1000))}}; };
  for (char const* const name : {"tcnca", "tcnca-simple", "mega"}) {
    o.model = name, choose_model(o), t.configuration = configuration(o);
    auto const run = [&](char const* where, int stops) {
      std::vector<models::saved_part> parts;
      o.output = folder / (std::string(name) + where), o.resume = false;
      for (int piece = 0; piece <= stops; piece++) {
        o.time_limit = piece < stops ? 1e-9 : 0;  // immediately, or never
        auto const m = models::make_model(c);
        said(*m);
        parts = m->save(), o.resume = true;
      }
      return parts;
    };
    auto const whole = run("-whole", 0), again = run("-again", 0), pieces = run("-pieces", 3);
    ASSERT_EQ(whole.size(), pieces.size());
    for (std::size_t i = 0; i < whole.size(); i++) {
      EXPECT_EQ(whole[i].bytes, again[i].bytes) << name << ", " << whole[i].name;
      EXPECT_EQ(whole[i].bytes, pieces[i].bytes) << name << ", " << whole[i].name;
    }
    std::string const log = log_of(folder / (std::string(name) + "-whole"));
    EXPECT_EQ(log, log_of(folder / (std::string(name) + "-again")));
    EXPECT_EQ(log, log_of(folder / (std::string(name) + "-pieces")));
    EXPECT_NE(log.find("held_out"), std::string::npos);
  }
}

TEST_F(training_loop, saves_on_interruption) {
  number_model whole;
  train(o, whole, t);
  fs::path const first = o.output;
  for (int const signal : {SIGHUP, SIGINT, SIGTERM}) {
    o.output = folder / std::to_string(signal), o.resume = false;
    auto const next = t.next;
    t.next = [&](long step) {
      if (step == 6) ::raise(signal);
      return next(step);
    };
    number_model m, rest;
    auto const [text, r] = said(m);
    EXPECT_EQ(r.how, ending::interrupted);
    EXPECT_EQ(r.status(), 128 + signal);
    EXPECT_EQ(r.step, 6);
    EXPECT_NE(text.find(" interrupted training after step 6 of 20; the checkpoint is saved"), std::string::npos)
        << text;
    t.next = next, o.resume = true;
    EXPECT_EQ(train(o, rest, t).step, 20);
    EXPECT_EQ(rest.value, whole.value);
    EXPECT_EQ(log_of(o.output), log_of(first));
  }
}

TEST_F(training_loop, stops_at_non_finite_values) {
  for (bool const loss : {true, false}) {
    number_model m;
    o.output = folder / (loss ? "loss" : "gradient");
    (loss ? m.loss_fails : m.gradient_fails) = 11;
    auto const [text, r] = said(m);
    EXPECT_EQ(r.how, ending::not_finite);
    EXPECT_EQ(r.status(), 1);
    EXPECT_NE(text.find(std::string("the ") + (loss ? "loss" : "gradient") +
                        " is not finite at step 11, first in layer 3 (attention)"),
              std::string::npos)
        << text;
    EXPECT_EQ(read_checkpoint(file("checkpoint")).step, 8);  // the last evaluation before it
    EXPECT_EQ(read_log(file("log.jsonl")).size(), 2u);
  }
  number_model m;
  o.output = folder / "evaluation";
  t.evaluate = [](models::model& n) { return measures{{"value", static_cast<number_model&>(n).value}, {"bad", nan}}; };
  auto const [text, r] = said(m);
  EXPECT_EQ(r.how, ending::not_finite);
  EXPECT_NE(text.find("the evaluation is not finite at step 4; there is no checkpoint"), std::string::npos) << text;
  EXPECT_FALSE(fs::exists(file("checkpoint")));
}

TEST_F(training_loop, of_a_real_model_stops_at_non_finite_values) {
  auto& c = o.config;
  c.vocabulary = 3, c.length = 4, c.batch = 1, c.layers = 1, c.channels = 8, c.value_dim = 16, c.key_dim = 16,
  c.hidden = 8, c.clip = 0;
  o.rates = {.kind = "constant", .rate = 1e30, .warmup = 0, .steps = 50}, o.every = 1;
  int const tokens[] = {0, 1, 2, 0}, targets[] = {1, 2, 0, 1};
  t.next = [&](long) { return models::examples{1, 4, tokens, targets, nullptr}; };
  t.evaluate = [](models::model&) { return measures{}; };
  auto const m = models::make_model(c);
  auto const [text, r] = said(*m);
  EXPECT_EQ(r.how, ending::not_finite) << text;
  EXPECT_LT(r.step, 50);
  EXPECT_NE(text.find(" is not finite at step " + std::to_string(r.step + 1) + ", first in "), std::string::npos)
      << text;
  if (r.step > 0) { EXPECT_EQ(read_checkpoint(file("checkpoint")).step, r.step); }
}

TEST_F(training_loop, ends_early) {
  number_model m;
  t.enough = [](measures const&) { return true; };
  EXPECT_EQ(train(o, m, t).step, 4);
  o.resume = true;
  outcome const r = train(o, m, t);
  EXPECT_EQ(r.how, ending::finished);
  EXPECT_EQ(r.step, 4);
}

TEST_F(training_loop, decides_again_whether_to_end_early) {
  number_model whole, first, rest;
  train(o, whole, t);
  o.output = folder / "enough";
  t.enough = [](measures const&) { return true; };
  EXPECT_EQ(train(o, first, t).step, 4);
  o.resume = true, t.enough = {};
  EXPECT_EQ(train(o, rest, t).step, 20);
  EXPECT_EQ(rest.value, whole.value);
}

TEST_F(training_loop, reports_only_measured_values) {
  auto const line = [&](outcome const& r) {
    ::testing::internal::CaptureStdout();
    conclude(o, r);
    return record::parse(::testing::internal::GetCapturedStdout());
  };
  auto const next = t.next;
  for (long const stop : {0L, 1L, 3L, 4L, 6L}) {
    o.output = folder / std::to_string(stop), o.resume = false;
    double sum = 0;
    struct : number_model {
      double* sum;
      long stop;
      models::step_result learn(models::examples const& e, long step, double rate) override {
        auto const l = number_model::learn(e, step, rate);
        *sum = (step == 5 ? 0 : *sum) + l.loss;  // step 4 is followed by an evaluation
        if (step == stop) ::raise(SIGTERM);
        return l;
      }
      std::size_t parameter_count() const override {
        if (stop == 0 && interruption::asked() == 0) ::raise(SIGTERM);
        return 1;
      }
    } m;
    m.sum = &sum, m.stop = stop;
    auto const r = said(m).second;
    EXPECT_EQ(r.how, ending::interrupted);
    record const written = line(r);
    EXPECT_EQ(written.number("step"), double(stop));
    if (stop == 0) {
      EXPECT_EQ(written.text("loss"), "null");
    } else {
      EXPECT_DOUBLE_EQ(written.number("loss"), sum / double(stop > 4 ? stop - 4 : stop));
    }
    EXPECT_EQ(written.has("value"), stop >= 4);
    EXPECT_EQ(written.text("evaluated_at_step"), stop > 4 ? "4" : "");
    // The checkpoint restores the same values.
    number_model again;
    o.resume = true;
    t.next = [&](long step) { return ::raise(SIGTERM), next(step); };
    record const after = line(said(again).second);
    t.next = next;
    EXPECT_EQ(after.number("step"), double(stop + 1));
    EXPECT_FALSE(after.has("value") && stop + 1 != 4);
  }
  number_model fails;
  o.output = folder / "fails", o.resume = false, fails.loss_fails = 1;
  EXPECT_EQ(line(said(fails).second).text("loss"), "null");
}

TEST_F(training_loop, counts_tokens_of_each_step) {
  t.next = [this](long step) { return models::examples{1, step, &token, &token, nullptr}; };
  number_model m;
  said(m);
  record const first = read_log(file("log.jsonl")).front();
  EXPECT_NEAR(first.number("tokens_per_second") * first.number("seconds"), 1 + 2 + 3 + 4,
              0.02);  // both are rounded to four digits
}

TEST_F(training_loop, of_a_finished_run_continues_with_more_steps) {
  for (char const* const kind : {"linear", "constant"}) {
    bool const depends = kind[0] == 'l';
    o.rates.kind = kind, o.rates.steps = 20, o.output = folder / kind, o.resume = false,
    t.configuration = configuration(o);
    number_model first, rest, whole;
    EXPECT_EQ(said(first).second.step, 20);
    o.rates.steps = 30, o.resume = true, t.configuration = configuration(o);
    auto const [text, r] = said(rest);
    EXPECT_EQ(r.how, ending::finished);
    EXPECT_EQ(r.step, 30);
    EXPECT_EQ(text.find("the run of 20 steps is finished, and now continues to 30") != std::string::npos, depends)
        << text;
    for (long step = 21; step <= 30; step++) first.learn(t.next(step), step, o.rates.at(step));
    EXPECT_EQ(rest.value, first.value);
    o.output = folder / (std::string(kind) + "-whole"), o.resume = false;
    said(whole);
    EXPECT_EQ(rest.value == whole.value, !depends);
    if (!depends) {
      EXPECT_EQ(log_of(o.output).substr(log_of(o.output).find("\"step\": 24")),
                log_of(folder / kind).substr(log_of(folder / kind).find("\"step\": 24")));
    }
  }
  // An unfinished run may not change its schedule.
  o.rates = {.kind = "linear", .rate = 0.1, .warmup = 3, .steps = 20}, o.output = folder / "stopped", o.resume = false,
  t.configuration = configuration(o);
  o.time_limit = 1e-9;
  number_model m;
  said(m);
  o.rates.steps = 30, o.resume = true, t.configuration = configuration(o);
  EXPECT_NE(refusal(m).find("its --schedule depends on --steps, which was 20: give --steps 20"), std::string::npos)
      << refusal(m);
}

TEST_F(training_loop, refuses_mismatches_and_changes_nothing) {
  number_model m;
  o.resume = true;
  EXPECT_NE(refusal(m).find("nothing to resume"), std::string::npos);
  EXPECT_FALSE(fs::exists(o.output));
  o.resume = false;
  train(o, m, t);
  auto const all = [&] {
    return content(file("checkpoint")) + content(file("log.jsonl")) + content(file("configuration.json"));
  };
  std::string const before = all();
  number_model n;
  EXPECT_NE(refusal(n).find("there is a checkpoint"), std::string::npos);
  o.resume = true;
  {
    folder_lock const other(o.output);
    EXPECT_NE(refusal(n).find("another run"), std::string::npos);
  }
  t.configuration.set("channels", 3);
  EXPECT_NE(refusal(n).find("its channels was 64, now it is 3"), std::string::npos);
  t.configuration = configuration(o);
  o.rates.steps = 19;
  EXPECT_NE(refusal(n).find("has done 20 steps"), std::string::npos);
  checkpoint c = read_checkpoint(file("checkpoint"));
  c.parts.insert(c.parts.begin(), {"foreign", {}});
  o.rates.steps = 20;
  EXPECT_EQ(n.value, 1);
  EXPECT_EQ(all(), before);
  write_checkpoint(file("checkpoint"), c);
  EXPECT_NE(refusal(n).find("not those of this model"), std::string::npos);
  EXPECT_EQ(n.value, 1);
}

TEST_F(training_loop, compares_runs) {
  std::vector<std::string> runs;
  for (char const* const name : {"first", "second"}) {
    o.output = folder / name;
    number_model m;
    train(o, m, t);
    runs.push_back(o.output);
  }
  runs.back() += "/";
  compare(runs, folder / "picture");
  std::string const svg = content(folder / "picture" / "comparison.svg");
  for (char const* const word : {">first<", ">second<", ">loss<", ">value<", "</svg>"})
    EXPECT_NE(svg.find(word), std::string::npos) << word;
  EXPECT_EQ(svg.find(">seconds<"), std::string::npos);
  EXPECT_THROW(compare({folder / "none"}, folder / "picture"), std::invalid_argument);
}

TEST_F(training_loop, checks_the_expected_loss) {
  outcome r;
  EXPECT_TRUE(std::isnan(r.loss));
  r.loss = 0.5;
  EXPECT_EQ(conclude(o, r), 0);
  o.expect_loss = 0.5;
  EXPECT_EQ(conclude(o, r), 1);
  r.loss = nan;
  EXPECT_EQ(conclude(o, r), 1);
  r.how = ending::interrupted, r.signal = SIGINT;
  EXPECT_EQ(conclude(o, r), 130);
  EXPECT_EQ(guarded(o, [] { return throw std::invalid_argument("a wrong option"), 0; }), 2);
  EXPECT_EQ(guarded(o, [] { return throw std::runtime_error("a full disk"), 0; }), 1);
  EXPECT_EQ(guarded(o, [] { return 5; }), 5);
}

}  // namespace
