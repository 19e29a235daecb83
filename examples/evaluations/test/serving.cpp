// Serving: choosing tokens, latencies, the command line, and a server whose results a comparison accepts until one is
// changed.
#include <gtest/gtest.h>

#include "../serving/check.hpp"
#include "../serving/options.hpp"
#include "../serving/server.hpp"
#include "support/empty_model.hpp"

namespace {

using namespace tcnca::models;
using namespace serving;

TEST(serving, tokens_are_chosen_by_their_probabilities) {
  float const logits[] = {std::log(1.f), std::log(2.f), std::log(5.f), -1e30f};
  for (auto const& [draw, token] :
       std::vector<std::pair<double, int>>{{0.01, 0}, {0.124, 0}, {0.126, 1}, {0.374, 1}, {0.376, 2}, {0.999, 2}})
    EXPECT_EQ(choose(logits, 4, 1, draw), token) << draw;
  EXPECT_EQ(choose(logits, 4, 0.5, 1 / 30. - 0.001), 0);  // squares: 1, 4, 25 of 30
  EXPECT_EQ(choose(logits, 4, 0.5, 1 / 30. + 0.001), 1);
  EXPECT_EQ(choose(logits, 4, 0, 0.01), 2);
}

TEST(serving, percentiles_count_each_token) {
  latencies l;
  EXPECT_EQ(l.percentile(0.5), 0);
  l.add(3, 1), l.add(1, 98), l.add(2, 1), l.add(9, 0);
  EXPECT_EQ(l.percentile(0.5), 1);
  EXPECT_EQ(l.percentile(0.985), 2);
  EXPECT_EQ(l.percentile(1), 3);
}

TEST(serving, refuses_wrong_options) {
  auto const status = [](std::vector<char const*> words) {
    words.insert(words.begin(), "serving");
    options o;
    return parse(int(words.size()), words.data(), o);
  };
  std::vector<char const*> const good{"--checkpoint", "c", "--text", "t"};
  EXPECT_EQ(status(good), std::nullopt);
  EXPECT_EQ(status({"--help"}), 0);
  EXPECT_EQ(status({"--text", "t"}), 2);
  for (auto const& [name, value] : std::vector<std::pair<char const*, char const*>>{
           {"--sequences", "0"}, {"--requests", "x"}, {"--admit", "-1"}, {"--temperature", "-1"}, {"--threads", "0"}}) {
    auto words = good;
    words.push_back(name), words.push_back(value);
    EXPECT_EQ(status(words), 2) << name;
  }
}

/// A "model" whose logits are a function of all tokens that a sequence has read; its state is a hash of them.
class hashing_model final : public tcnca::testing::empty_model {
 public:
  static constexpr int vocabulary = 5;
  void make_slots(long slots) override { state_.assign(std::size_t(slots), {}); }
  void read_slots(slot_batch const& b, float* logits) override {
    for (long s = 0; s < b.sequences; s++) {
      state& now = state_.at(std::size_t(b.slots[s]));
      if (b.positions[s] == 0) now = {};
      EXPECT_EQ(now.position, b.positions[s]);
      long const begin = b.offsets ? b.offsets[s] : s * b.length, end = b.offsets ? b.offsets[s + 1] : begin + b.length;
      read(now, b.tokens + begin, end - begin, logits + begin * vocabulary);
    }
  }
  void logits(examples const& e, float* logits) override {
    state now;
    read(now, e.tokens, e.length, logits);
  }

 private:
  struct state {
    std::uint64_t hash = 0;
    std::int64_t position = 0;
  };
  static void read(state& s, int const* tokens, long count, float* logits) {
    for (long i = 0; i < count; i++, s.position++) {
      s.hash = tcnca::training::mix(s.hash, std::uint64_t(tokens[i]));
      for (int k = 0; k < vocabulary; k++) *logits++ = float(s.hash >> (8 * k) & 255) / 64;
    }
  }
  std::vector<state> state_;
};

TEST(serving, each_sequence_has_the_tokens_it_would_have_alone) {
  request_source const source(std::vector<std::uint8_t>{0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 0, 4}, 6, 9, 3);
  for (double const temperature : {0., 0.7}) {
    hashing_model m;
    server s(m, source,
             {.slots = 4,
              .requests = 50,
              .admit = 2,
              .vocabulary = m.vocabulary,
              .temperature = temperature,
              .keep_every = 1});
    std::size_t most = 0;
    s.run([&] { return most = std::max(most, s.active().size()), false; });
    EXPECT_EQ(s.served(), 50);
    EXPECT_EQ(s.waiting(), 0);
    EXPECT_TRUE(s.active().empty());
    EXPECT_GE(most, 3u);
    EXPECT_LE(most, 4u);
    EXPECT_GT(s.steady_tokens, 0);
    ASSERT_EQ(s.kept().size(), 50u);
    comparison c{.terms = 1};
    long written = 0;
    for (request const& r : s.kept()) {
      EXPECT_EQ(r.replied(), r.wanted);
      written += r.replied();
      compare(m, source, r, m.vocabulary, temperature, c);
    }
    EXPECT_TRUE(c.equal());
    EXPECT_EQ(c.tokens, written);
    EXPECT_EQ(s.tokens, written);
    EXPECT_EQ(c.largest, 0);

    request changed = s.kept().front();
    changed.logits[2] += 0.01f;
    comparison logit{.terms = 1};
    compare(m, source, changed, m.vocabulary, temperature, logit);
    EXPECT_FALSE(logit.equal());
    changed = s.kept().front();
    changed.tokens.back() = (changed.tokens.back() + 1) % m.vocabulary;
    comparison token{.terms = 1};
    compare(m, source, changed, m.vocabulary, temperature, token);
    EXPECT_EQ(token.other_tokens, 1);
    EXPECT_FALSE(token.equal());
  }
}

}  // namespace
