// The tasks of associative recall (evaluations/recall), and the command line shared by the training programs.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "../recall/options.hpp"

namespace {

using namespace recall;

struct example {
  std::vector<int> tokens, targets;
};
example make(problem const& p, std::uint64_t seed, std::uint64_t number) {
  auto const n = static_cast<std::size_t>(p.positions());
  example e{std::vector<int>(n, -7), std::vector<int>(n, -7)};
  make_example(p, seed, number, e.tokens.data(), e.targets.data());
  return e;
}

TEST(recall_single, has_the_documented_form) {
  problem const p{.kind = form::single, .vocabulary = 13, .length = 30};
  int const keys = 5, arrow = 11;  // 5 keys, 6 values, "=>", "."
  ASSERT_EQ(p.positions(), 32);
  std::set<int> all_keys, all_values, asked;
  std::size_t maps_that_differ = 0, values_that_repeat = 0;
  std::map<int, int> before;
  for (std::uint64_t number = 0; number < 200; number++) {
    auto const [tokens, targets] = make(p, 3, number);
    std::map<int, int> value;
    for (std::size_t t = 0; t < 30; t += 2) {
      int const key = tokens[t], v = tokens[t + 1];
      ASSERT_TRUE(key >= 0 && key < keys) << key;
      ASSERT_TRUE(v >= keys && v < arrow) << v;
      EXPECT_EQ(value.emplace(key, v).first->second, v);  // a key has one value
      all_keys.insert(key), all_values.insert(v);
    }
    EXPECT_EQ(tokens[30], arrow);
    ASSERT_EQ(value.count(tokens[31]), 1u);     // the query is a key that is present
    EXPECT_EQ(targets[31], value[tokens[31]]);  // its target is the value
    asked.insert(tokens[31]);
    for (std::size_t t = 0; t < 31; t++) EXPECT_EQ(targets[t], tokens[t + 1]);
    maps_that_differ += value != before, before = value;
    std::set<int> distinct;
    for (auto const& [k, v] : value) distinct.insert(v);
    values_that_repeat += distinct.size() < value.size();
  }
  EXPECT_EQ(all_keys.size(), 5u);
  EXPECT_EQ(all_values.size(), 6u);
  EXPECT_EQ(asked.size(), 5u);
  EXPECT_GT(maps_that_differ, 190u);
  EXPECT_GT(values_that_repeat, 100u);  // sampled with replacement: 1 - 6!/6^5 = 91 % of the maps
}

TEST(recall_multi_query, has_the_documented_form) {
  problem const p{.kind = form::multi_query, .vocabulary = 101, .length = 80, .pairs = 12};
  int const keys = 50;
  ASSERT_EQ(p.positions(), 80);
  std::map<long, long> gaps;
  std::set<int> fillers, all_keys, all_values;
  for (std::uint64_t number = 0; number < 400; number++) {
    auto const [tokens, targets] = make(p, 3, number);
    std::map<int, int> value;
    std::set<int> values;
    for (std::size_t t = 0; t < 24; t += 2) {
      ASSERT_TRUE(tokens[t] >= 0 && tokens[t] < keys);
      ASSERT_TRUE(tokens[t + 1] >= keys && tokens[t + 1] < 101);
      EXPECT_TRUE(value.emplace(tokens[t], tokens[t + 1]).second);  // distinct keys
      EXPECT_TRUE(values.insert(tokens[t + 1]).second);             // distinct values
      all_keys.insert(tokens[t]), all_values.insert(tokens[t + 1]);
      EXPECT_LT(targets[t], 0);
      EXPECT_LT(targets[t + 1], 0);
    }
    std::set<int> asked;
    for (std::size_t t = 24; t < 80; t++) {
      bool const is_key = value.count(tokens[t]) > 0;
      EXPECT_EQ(targets[t] >= 0, is_key);  // targets count exactly at queries
      if (!is_key) {
        ASSERT_TRUE(tokens[t] >= 0 && tokens[t] < 101);
        fillers.insert(tokens[t]);
        continue;
      }
      EXPECT_EQ(t % 2, 0u);
      EXPECT_EQ(targets[t], value[tokens[t]]);
      asked.insert(tokens[t]);
      gaps[(long(t) - 24) / 2]++;
    }
    EXPECT_EQ(asked.size(), 12u);  // each key once
  }
  EXPECT_EQ(fillers.size(), 101u);
  EXPECT_EQ(all_keys.size(), 50u);
  EXPECT_EQ(all_values.size(), 51u);
  // The first position is used almost always, the last rarely: 12 of 28, with weights that fall as 1/g.
  EXPECT_GT(gaps[0], 380);
  EXPECT_GT(gaps[0], gaps[3]);
  EXPECT_GT(gaps[3], gaps[12]);
  EXPECT_GT(gaps[12], gaps[27]);
  EXPECT_GT(gaps[27], 0);
}

TEST(recall_multi_query, samples_places_by_weight) {
  problem const p{
      .kind = form::multi_query, .vocabulary = 64, .length = 8, .pairs = 1};  // one query in three positions
  double const w[] = {1, std::pow(2, -0.99), std::pow(3, -0.99)}, sum = w[0] + w[1] + w[2];
  long const draws = 20000;
  long at[3] = {};
  for (long i = 0; i < draws; i++) {
    auto const e = make(p, 9, std::uint64_t(i));
    for (std::size_t g = 0; g < 3; g++) at[g] += e.targets[2 + 2 * g] >= 0;
  }
  for (int g = 0; g < 3; g++) {
    double const share = w[g] / sum, deviation = std::sqrt(double(draws) * share * (1 - share));
    EXPECT_NEAR(double(at[g]), double(draws) * share, 5 * deviation) << g;
  }
}

TEST(recall, examples_are_functions_of_seed_and_number) {
  for (form const kind : {form::single, form::multi_query}) {
    problem const p{.kind = kind, .vocabulary = 70, .length = 64, .pairs = 16};
    auto const a = make(p, 1, 5), b = make(p, 1, 6), c = make(p, 2, 5), again = make(p, 1, 5);
    EXPECT_EQ(a.tokens, again.tokens);
    EXPECT_EQ(a.targets, again.targets);
    EXPECT_NE(a.tokens, b.tokens);
    EXPECT_NE(a.tokens, c.tokens);
  }
}

TEST(recall, last_chunk_is_long) {
  EXPECT_EQ(chunk_for(42, 256), 42);
  for (long const positions : {257L, 258L, 1002L, 5002L, 131074L}) {
    long const chunk = chunk_for(positions, 256), last = (positions - 1) % chunk + 1;
    EXPECT_LE(chunk, 256);
    EXPECT_GE(last, 128) << positions << " in chunks of " << chunk;
  }
}

/// The result of a command line: an exit status or none, and its output.
struct parsed {
  std::optional<int> status;
  options o;
  std::string text;
  explicit parsed(std::vector<char const*> words) {
    words.insert(words.begin(), "associative_recall");
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    status = parse(int(words.size()), words.data(), o);
    text = ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr();
  }
};

TEST(command_line, sets_given_options) {
  parsed const p({"--model", "mega", "--norm", "rms", "--rate", "0.5", "--layers", "3", "--form", "multi-query",
                  "--length", "64", "--vocabulary", "100"});
  EXPECT_FALSE(p.status) << p.text;
  EXPECT_EQ(p.o.config.mixer, tcnca::models::mixer_kind::ema);
  EXPECT_TRUE(p.o.config.gates);
  EXPECT_EQ(p.o.config.norm, tcnca::models::norm_kind::rms);
  EXPECT_EQ(p.o.rates.rate, 0.5);
  EXPECT_EQ(p.o.config.layers, 3);
  EXPECT_EQ(p.o.data.kind, form::multi_query);
  EXPECT_EQ(p.o.data.pairs, 16);
  EXPECT_FALSE(parsed({"--model", "tcnca-simple"}).o.config.gates);
}

TEST(command_line, explicit_options_override_presets) {
  parsed const p({"--channels", "48", "--preset", "small"}), q({"--preset=paper"});
  EXPECT_EQ(p.o.config.channels, 48);
  EXPECT_EQ(p.o.data.vocabulary, 8);
  EXPECT_EQ(q.o.data.length, 131072);
  parsed const help({"--preset", "small", "--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_NE(help.text.find("--channels INT:1..1048576=32"), std::string::npos) << help.text;
}

TEST(command_line, reports_errors) {
  std::vector<std::pair<std::vector<char const*>, char const*>> const wrong{
      {{"--no-such"}, "--no-such"},
      {{"--layers", "0"}, "--layers"},
      {{"--layers", "two"}, "--layers"},
      {{"--rate", "-1"}, "--rate"},
      {{"--model", "transformer"}, "--model"},
      {{"--preset", "none"}, "--preset"},
      {{"--backend", "tpu"}, "--backend"},
      {{"--key-dim", "17"}, "--key-dim must be a multiple of 8"},
      {{"--resume"}, "--resume needs --output"},
      {{"--compare", "a"}, "--compare needs --output"},
      {{"--sweep"}, "--sweep needs --output"},
      {{"--length", "41"}, "--length must be a multiple of 2"},
      {{"--form", "multi-query", "--length", "40", "--vocabulary", "40"}, "--vocabulary must be more than --length"},
      {{"--form", "multi-query", "--length", "40", "--vocabulary", "90", "--pairs", "11"},
       "--pairs must be a whole number from 1 to a quarter"}};
  for (auto const& [words, sentence] : wrong) {
    parsed const p(words);
    EXPECT_EQ(p.status, 2) << sentence;
    EXPECT_NE(p.text.find(sentence), std::string::npos) << p.text;
  }
}

}  // namespace
