// Continuous batching: sequences with states in the slots of a pool. Between two steps complete sequences leave their
// slots and new ones enter; a step reads one token of each.
#pragma once
#include <chrono>
#include <functional>
#include <utility>

#include "../../models/model.hpp"
#include "latency.hpp"
#include "requests.hpp"

namespace serving {

struct server_config {
  long slots = 1;          ///< sequences at the same time
  long requests = 1;       ///< in all
  long admit = 1;          ///< at most so many prompts are read between two steps
  long vocabulary = 1;     ///< of the model
  double temperature = 1;  ///< see choose
  long keep_every = 0;     ///< keeps the logits of each so-many-th request; 0: of none
  int threads = 1;
};

class server {
  using clock = std::chrono::steady_clock;

 public:
  /// Keeps references. The model's `length` is at least the number of slots and of the tokens of `admit` prompts.
  server(tcnca::models::model& model, request_source const& source, server_config const& config)
      : model_(model), source_(source), config_(config), logits_(std::size_t(config.slots * config.vocabulary)) {
    model.make_slots(config.slots);
    for (long s = config.slots; s-- > 0;) free_.push_back(int(s));
  }

  /// Serves until all requests are complete or `stop`, which is called after each step, returns true.
  void run(std::function<bool()> const& stop) {
    auto last = clock::now();
    while (next_ < config_.requests || !active_.empty()) {
      long const prompts = admit(), count = step();
      auto const now = clock::now();
      double const taken = std::chrono::duration<double>(now - std::exchange(last, now)).count();
      between_tokens.add(taken, count);
      tokens += count + prompts, seconds += taken;
      if (steady_) steady_tokens += count + prompts, steady_seconds += taken;
      steady_ = next_ < config_.requests && (steady_ || free_.empty());
      drop();
      if (stop()) return;
    }
  }

  std::vector<request> const& active() const { return active_; }
  /// The complete requests whose logits were kept.
  std::vector<request> const& kept() const { return kept_; }
  long served() const { return served_; }
  long waiting() const { return config_.requests - next_; }
  bool keeps(request const& r) const { return config_.keep_every > 0 && r.id % config_.keep_every == 0; }

  latencies between_tokens, first_token;  ///< time from token to token; time from admission to the first token
  long tokens = 0, prompt_tokens = 0;     ///< generated and read
  double seconds = 0;
  /// The same from the first step with a sequence in each slot, while requests wait.
  long steady_tokens = 0;
  double steady_seconds = 0;

 private:
  /// Reads the prompts of new sequences in one call, packed; each gives the first token of its reply.
  long admit() {
    auto const start = clock::now();
    std::size_t const before = active_.size();
    std::vector<int> prompts, offsets{0};
    while (long(active_.size() - before) < config_.admit && !free_.empty() && next_ < config_.requests) {
      request r = source_(next_++);
      prompts.insert(prompts.end(), r.tokens.begin(), r.tokens.end());
      offsets.push_back(int(prompts.size()));
      slots_.push_back(free_.back()), positions_.push_back(0), active_.push_back(std::move(r));
      free_.pop_back();
    }
    auto const count = long(active_.size() - before);
    if (count == 0) return 0;
    auto const v = std::size_t(config_.vocabulary);
    if (logits_.size() < prompts.size() * v) logits_.resize(prompts.size() * v);
    model_.read_slots({.sequences = count,
                       .tokens = prompts.data(),
                       .slots = slots_.data() + before,
                       .positions = positions_.data() + before,
                       .offsets = offsets.data()},
                      logits_.data());
    for (std::size_t i = 0; i < std::size_t(count); i++) {
      request& r = active_[before + i];
      append(r, logits_.data() + std::size_t(offsets[i + 1] - 1) * v);
      positions_[before + i] = r.prompt;
    }
    prompt_tokens += long(prompts.size());
    first_token.add(std::chrono::duration<double>(clock::now() - start).count(), count);
    drop();
    return count;
  }
  /// Reads the newest token of each sequence and chooses the next.
  long step() {
    auto const count = long(active_.size());
    if (count == 0) return 0;
    newest_.clear();
    for (request const& r : active_) newest_.push_back(r.tokens.back());
    model_.read_slots({count, 1, newest_.data(), slots_.data(), positions_.data()}, logits_.data());
#pragma omp parallel for num_threads(config_.threads) schedule(static) if (config_.threads > 1)
    for (long s = 0; s < count; s++)
      append(active_[std::size_t(s)], logits_.data() + std::size_t(s * config_.vocabulary));
    for (auto& p : positions_) p++;
    return count;
  }
  void append(request& r, float const* logits) const {
    r.tokens.push_back(choose(logits, config_.vocabulary, config_.temperature, source_.draw(r.id, r.replied())));
    if (keeps(r)) r.logits.insert(r.logits.end(), logits, logits + config_.vocabulary);
  }
  /// Complete sequences leave: the last one takes the place in the batch; states do not move.
  void drop() {
    for (std::size_t s = active_.size(); s-- > 0;) {
      if (!active_[s].complete()) continue;
      served_++;
      free_.push_back(slots_[s]);
      if (keeps(active_[s])) kept_.push_back(std::move(active_[s]));
      if (s + 1 < active_.size()) active_[s] = std::move(active_.back());
      slots_[s] = slots_.back(), positions_[s] = positions_.back();
      active_.pop_back(), slots_.pop_back(), positions_.pop_back();
    }
  }

  tcnca::models::model& model_;
  request_source const& source_;
  server_config config_;
  // The batch of a step: sequence s is active_[s], in slot slots_[s]; its newest token has the position positions_[s].
  std::vector<request> active_;
  std::vector<int> slots_, newest_;
  std::vector<std::int64_t> positions_;
  std::vector<int> free_;
  std::vector<float> logits_;
  std::vector<request> kept_;
  long next_ = 0, served_ = 0;
  bool steady_ = false;
};

}  // namespace serving
