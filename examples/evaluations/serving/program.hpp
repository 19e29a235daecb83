// The body of serving.
#pragma once
#include <unistd.h>

#include <cstdio>
#include <new>

#include "../language/options.hpp"
#include "../training/trainer.hpp"
#include "check.hpp"
#include "options.hpp"
#include "server.hpp"

namespace serving {

/// Progress on stderr once a second: one line that is replaced on a terminal, otherwise a line each.
class progress {
  using clock = std::chrono::steady_clock;

 public:
  explicit progress(options const& o) : o_(o), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~progress() {
    if (open_) std::fputs("\n", stderr);
  }
  double elapsed() const { return std::chrono::duration<double>(clock::now() - start_).count(); }

  void operator()(server const& s, language::alphabet const& known) {
    double const now = elapsed(), since = now - last_;
    if (since < 1) return;
    std::string text;  // the end of what the oldest sequence has
    if (!s.active().empty()) {
      auto const& tokens = s.active().front().tokens;
      for (std::size_t i = tokens.size() - std::min(tokens.size(), std::size_t(24)); i < tokens.size(); i++) {
        char const c = known.symbol(tokens[i]);
        text += c >= ' ' && c <= '~' ? c : ' ';
      }
    }
    std::fprintf(stderr,
                 "%s%.0f s: %zu of %ld slots, %ld served, %ld wait, %.4g k tokens/s, token after %s, 99 %% within %s  "
                 "|%s|%s",
                 terminal_ ? "\r\033[K" : "", now, s.active().size(), o_.sequences, s.served(), s.waiting(),
                 double(s.tokens - tokens_) / since / 1000, milliseconds(s.between_tokens.percentile(0.5)).c_str(),
                 milliseconds(s.between_tokens.percentile(0.99)).c_str(), text.c_str(), terminal_ ? "" : "\n");
    std::fflush(stderr);
    last_ = now, tokens_ = s.tokens, open_ = terminal_;
  }

 private:
  options const& o_;
  bool terminal_, open_ = false;
  clock::time_point start_ = clock::now();
  double last_ = 0;
  long tokens_ = 0;
};

inline int serve(options const& o) {
  auto from = tcnca::training::read_checkpoint(o.checkpoint);
  auto config = language::model_of(from.configuration);
  config.threads = o.config.threads;
  long const prompts = std::min({o.admit, o.sequences, o.requests}) * o.longest_prompt;  // tokens of a call
  config.length = std::max({o.sequences, o.longest_prompt + o.longest_reply, prompts});
  auto const known = language::alphabet::of_ranges(from.configuration.text("alphabet"));
  request_source const source(known.ids(language::read_file(o.text)), o.longest_prompt, o.longest_reply, o.config.seed);
  auto const model = tcnca::models::make_model(config);
  tcnca::training::restore(*model, std::move(from), o.checkpoint);

  server_config const how{.slots = o.sequences,
                          .requests = o.requests,
                          .admit = o.admit,
                          .vocabulary = known.size(),
                          .temperature = o.temperature,
                          .keep_every = o.check > 0 ? std::max(1L, o.requests / o.check) : 0,
                          .threads = o.config.threads};
  server s = [&] {
    try {
      return server(*model, source, how);
    } catch (std::bad_alloc const&) {
      throw std::runtime_error("there is not enough memory for the states of " + std::to_string(o.sequences) +
                               " sequences; fewer --sequences need less");
    }
  }();
  std::fprintf(stderr, "%s: %ld slots of %.4g KB, %.4g MB\n", o.program.c_str(), o.sequences,
               double(model->state_bytes()) / 1e3, double(model->state_bytes()) * double(o.sequences) / 1e6);
  tcnca::training::interruption const signals;
  {
    progress show(o);
    s.run([&] {
      show(s, known);
      return tcnca::training::interruption::asked() != 0 || (o.time_limit > 0 && show.elapsed() >= o.time_limit);
    });
  }

  comparison compared{.terms =
                          config.layers * std::max({config.channels, config.value_dim, config.hidden, config.chunk})};
  auto check = s.kept();
  for (request const& r : s.active())  // if serving was stopped
    if (s.keeps(r)) check.push_back(r);
  for (request const& r : check) compare(*model, source, r, known.size(), o.temperature, compared);
  for (std::size_t i = 0; i < std::min(check.size(), std::size_t(o.show)); i++) {
    request const& r = check[i];
    std::string text;
    for (int const token : r.tokens) text += known.symbol(token);
    std::printf("request %ld: %s[%s]\n", r.id, text.substr(0, std::size_t(r.prompt)).c_str(),
                text.substr(std::size_t(r.prompt)).c_str());
  }

  auto const& between = s.between_tokens;
  double const steady = s.steady_seconds > 0 ? double(s.steady_tokens) / s.steady_seconds : 0;
  std::fprintf(stderr, "%s: %ld sequences served, %ld tokens written and %ld read in %.3g s\n", o.program.c_str(),
               s.served(), s.tokens, s.prompt_tokens, s.seconds);
  if (steady > 0)
    std::fprintf(stderr, "%s: steady state, %.3g s with a request waiting for each slot: %.0f tokens per second\n",
                 o.program.c_str(), s.steady_seconds, steady);
  std::fprintf(
      stderr, "%s: from token to token %s (median), %s (90 %%), %s (99 %%); a prompt %s (median), %s (99 %%)\n",
      o.program.c_str(), milliseconds(between.percentile(0.5)).c_str(), milliseconds(between.percentile(0.9)).c_str(),
      milliseconds(between.percentile(0.99)).c_str(), milliseconds(s.first_token.percentile(0.5)).c_str(),
      milliseconds(s.first_token.percentile(0.99)).c_str());
  if (o.check > 0)
    std::fprintf(
        stderr,
        "%s: %ld sequences compared with one call each: %ld of %ld tokens equal, logits differ by at most %.2g "
        "(allowed %.2g)\n",
        o.program.c_str(), compared.sequences, compared.tokens - compared.other_tokens, compared.tokens,
        compared.largest, compared.allowed());
  tcnca::training::record line;
  line.set("sequences", o.sequences).set("threads", o.config.threads).set("served", s.served());
  line.set("tokens", s.tokens).set("prompt_tokens", s.prompt_tokens).set("seconds", s.seconds);
  line.set("steady_tokens_per_second", steady).set("state_bytes", long(model->state_bytes()));
  line.set("token_seconds_median", between.percentile(0.5)).set("token_seconds_99", between.percentile(0.99));
  line.set("checked_sequences", compared.sequences).set("largest_difference", compared.largest);
  std::printf("%s\n", line.line().c_str());
  if (o.check > 0 && !compared.equal()) {
    std::fprintf(stderr, "%s: what was served is not what the model says of whole sequences\n", o.program.c_str());
    return 1;
  }
  int const signal = tcnca::training::interruption::asked();
  return signal == 0 ? 0 : 128 + signal;
}

/// Runs the program and returns an exit status.
inline int run(int argc, char const* const* argv) {
  options o;
  if (auto const status = parse(argc, argv, o)) return *status;
  return tcnca::training::guarded(o, [&] { return serve(o); });
}

}  // namespace serving
