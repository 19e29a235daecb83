// Language modelling: texts and their parts, blocks, streams, the baseline, sampling.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "../language/program.hpp"
#include "support/empty_model.hpp"

namespace {

using namespace tcnca;
using namespace std::string_literals;

TEST(language, alphabet_numbers_occurring_bytes) {
  language::alphabet const a("hello\n\xff");
  EXPECT_EQ(a.bytes(), "\nehlo\xff");
  EXPECT_EQ(a.ids("hole\xff"), (std::vector<std::uint8_t>{2, 4, 3, 1, 5}));
  EXPECT_EQ(a.symbol(4), 'o');
  EXPECT_FALSE(a.has('x'));
  try {
    a.ids("hex");
    FAIL() << "an unknown byte passed";
  } catch (std::invalid_argument const& e) {
    EXPECT_STREQ(e.what(), "byte 120 at 2 of the text is not one of the 6 that the model knows");
  }
}

TEST(language, alphabet_from_ranges) {
  language::alphabet const a("\n abcd~\xfe\xff");
  EXPECT_EQ(a.ranges(), "10 32 97-100 126 254-255");
  EXPECT_EQ(language::alphabet::of_ranges(a.ranges()).bytes(), a.bytes());
  for (auto const* wrong : {"", "x", "1-", "5-4", "256", "-1"})
    EXPECT_THROW(language::alphabet::of_ranges(wrong), std::invalid_argument) << wrong;
}

TEST(language, enwik8_is_split_90_5_5) {
  auto const s = language::split_of(100'000'000);
  EXPECT_EQ(s.train.size(), 90'000'000);
  EXPECT_EQ(s.validation.size(), 5'000'000);
  EXPECT_EQ(s.test.size(), 5'000'000);
  auto const odd = language::split_of(39);
  EXPECT_EQ(odd.train.begin, 0);
  EXPECT_EQ(odd.train.end, odd.validation.begin);
  EXPECT_EQ(odd.validation.end, odd.test.begin);
  EXPECT_EQ(odd.test.end, 39);
}

// Characters that encode their position, so that a block shows where it was cut.
std::vector<std::uint8_t> numbered(long size) {
  std::vector<std::uint8_t> text(std::size_t(size), 0);
  for (long i = 0; i < size; i++) text[std::size_t(i)] = std::uint8_t(i);
  return text;
}

TEST(language, blocks_are_a_function_of_seed_and_step) {
  long const size = 200;
  auto const text = numbered(size);
  language::block_config const config{.sequences = 3, .chunk = 8, .least = 2, .most = 4, .seed = 5};
  language::blocks one(text.data(), size, config), other(text.data(), size, config);
  std::set<long> lengths;
  std::set<int> starts;
  for (long step = 1; step <= 400; step++) {
    auto const e = one.at(step);
    lengths.insert(e.length);
    for (long s = 0; s < e.sequences; s++) {
      int const start = e.tokens[s * e.length];
      starts.insert(start);
      ASSERT_LE(start + e.length, size - 1);  // the last target lies within the text
      for (long t = 0; t < e.length; t++) {
        ASSERT_EQ(e.tokens[s * e.length + t], start + t);
        ASSERT_EQ(e.targets[s * e.length + t], start + t + 1);
      }
    }
  }
  EXPECT_EQ(lengths, (std::set<long>{16, 24, 32}));
  // 1200 samples of about 175 positions: some position is missed with probability below 200 e^(-1200 / 184) = 0.3; a
  // few may be missed.
  EXPECT_GT(starts.size(), 165u);

  auto const again = other.at(7);  // without the earlier ones
  std::vector<int> const tokens(again.tokens, again.tokens + again.sequences * again.length);
  auto const there = one.at(7);
  EXPECT_EQ(tokens, std::vector<int>(there.tokens, there.tokens + there.sequences * there.length));
}

/// Records what it reads and returns a loss that reveals its state: the last character read by the first stream.
class witness final : public tcnca::testing::empty_model {
 public:
  std::vector<int> tokens, targets;  ///< of all streams, in reading order
  std::vector<long> lengths;
  long memories = 0;

  void reset_state() override { memories = 0; }
  double evaluate_continued(models::examples const& e, int*) override {
    double sum = 0, count = 0;
    for (long i = 0; i < e.sequences * e.length; i++)
      if (e.targets[i] >= 0) {
        tokens.push_back(e.tokens[i]), targets.push_back(e.targets[i]);
        sum += double(memories + e.targets[i]), count++;
      }
    lengths.push_back(e.length);
    memories++;
    return sum / count;
  }
};

TEST(language, streams_read_each_character_once_in_order) {
  auto const text = numbered(250);
  for (language::span const part : {language::span{0, 100}, {100, 201}, {249, 250}, {3, 4}})
    for (long count : {1L, 3L, 7L})
      for (long length : {1L, 16L, 1000L}) {
        witness m;
        double const loss = language::streamed_loss(m, text.data(), part, count, length);
        std::set<int> seen(m.targets.begin(), m.targets.end());
        long const first = std::max(part.begin, 1L);
        EXPECT_EQ(m.targets.size(), seen.size());
        EXPECT_EQ(long(seen.size()), part.end - first);
        EXPECT_EQ(*seen.begin(), first);
        EXPECT_EQ(*seen.rbegin(), part.end - 1);
        double sum = 0;
        for (std::size_t i = 0; i < m.targets.size(); i++) EXPECT_EQ(m.tokens[i], m.targets[i] - 1);
        // A loss of m + c for character c in the m-th block: the expected mean for any block sizes.
        long const streams = std::min(count, part.end - first), each = (part.end - first) / streams,
                   longer = (part.end - first) % streams;
        for (long s = 0, at = first; s < streams; s++)
          for (long t = 0; t < each + (s < longer); t++, at++) sum += double(t / length) + double(at);
        // Sums of at most 250 terms below 2^9 in fp64, and a division.
        EXPECT_NEAR(loss, sum / double(part.end - first), 250 * 0x1p-53 * 512 * 2);
        EXPECT_EQ(m.memories, 0) << "the model keeps the state of a text that has been read";
      }
}

TEST(language, n_grams_match_hand_counts) {
  // Counts in "aba": a 2, b 1 of 3; after a: b; after b: a; after ab: a. Predicted: a after ba (unseen), b after aa
  // (unseen).
  std::vector<std::uint8_t> const text{0, 1, 0, 0, 1};
  auto const bits = language::n_gram_bits(text.data(), {0, 3}, {3, 5}, 2);
  double const a = (2 + 2 * 0.5) / 5, b = (1 + 2 * 0.5) / 5, aa = (0 + a) / 2, ab = (1 + b) / 2;
  double const rounding = 16 * 0x1p-52;  // a few operations and a logarithm, on values below 4
  EXPECT_NEAR(bits[0], -(std::log2(a) + std::log2(b)) / 2, rounding);
  EXPECT_NEAR(bits[1], -(std::log2(aa) + std::log2(ab)) / 2, rounding);
  EXPECT_NEAR(bits[2], bits[1], rounding);
}

TEST(language, samples_follow_the_logits) {
  std::vector<float> const logits{0, 3, 1, 3, -1};
  std::mt19937_64 random(1);
  auto const uniform = [&] { return training::uniform(random); };
  for (unsigned i = 0; i < 50; i++) EXPECT_EQ(language::sample(logits, {.temperature = 0}, uniform()), 1);
  long const draws = 20000;
  for (long k : {0L, 3L})
    for (double temperature : {0.5, 1.0, 2.0}) {
      std::vector<long> counts(logits.size());
      for (long i = 0; i < draws; i++)
        counts[std::size_t(language::sample(logits, {.temperature = temperature, .top_k = k}, uniform()))]++;
      double total = 0;
      for (std::size_t i = 0; i < logits.size(); i++)
        total += k == 3 && logits[i] < 1 ? 0 : std::exp(double(logits[i]) / temperature);
      for (std::size_t i = 0; i < logits.size(); i++) {
        double const p = k == 3 && logits[i] < 1 ? 0 : std::exp(double(logits[i]) / temperature) / total;
        // Five standard deviations of a binomial distribution, and one sample.
        EXPECT_NEAR(double(counts[i]), p * double(draws), 5 * std::sqrt(p * (1 - p) * double(draws)) + 1)
            << "top " << k << " at " << temperature;
      }
    }
}

}  // namespace
