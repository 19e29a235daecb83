// Language modelling: complete runs of the program, and models that read a text in pieces.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "../language/program.hpp"

namespace {

using namespace tcnca;
using namespace std::string_literals;

/// Sentences whose second part depends on the distant first part: character bigrams say little about it.
std::string sentences(long size) {
  char const *const who[] = {"the miller", "a sailor", "my grandmother", "the old king"}, *const what[] = {
                                                                                              "grinds corn",
                                                                                              "crosses the sea",
                                                                                              "knits", "counts gold"};
  char const* const when[] = {"in the morning", "every winter", "at night"};
  std::mt19937_64 random(7);
  std::string text;
  while (long(text.size()) < size) {
    auto const i = std::size_t(random() % 4), j = std::size_t(random() % 3);
    text += std::string(when[j]) + ", " + who[i] + " " + what[i] + ".\n";
  }
  return text;
}

class language_runs : public ::testing::Test {
 protected:
  language_runs() {
    std::filesystem::create_directories(folder);
    std::ofstream(text) << sentences(12000);
  }
  ~language_runs() override { std::filesystem::remove_all(folder); }

  /// Runs the program with a tiny configuration by default; its output is in `out` and `err`.
  int run(std::vector<std::string> words) {
    std::vector<std::string> all{"language_model",
                                 "--layers",
                                 "1",
                                 "--channels",
                                 "32",
                                 "--value-dim",
                                 "32",
                                 "--key-dim",
                                 "16",
                                 "--hidden",
                                 "32",
                                 "--chunk",
                                 "16",
                                 "--stack",
                                 "4x4",
                                 "--batch",
                                 "4",
                                 "--least-chunks",
                                 "2",
                                 "--most-chunks",
                                 "4",
                                 "--threads",
                                 "1",
                                 "--warmup",
                                 "10"};
    all.insert(all.end(), words.begin(), words.end());
    std::vector<char const*> argv;
    for (auto const& w : all) argv.push_back(w.c_str());
    ::testing::internal::CaptureStdout(), ::testing::internal::CaptureStderr();
    int const status = language::run(int(argv.size()), argv.data());
    out = ::testing::internal::GetCapturedStdout(), err = ::testing::internal::GetCapturedStderr();
    return status;
  }
  bool said(std::string const& sentence) const { return err.find(sentence) != std::string::npos; }

  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("tcnca_language_" + std::to_string(::getpid()));
  std::string text = folder / "text", out, err;
};

TEST_F(language_runs, models_beat_the_baseline) {
  for (std::string const model : {"tcnca", "mega", "mega-fft"}) {
    language::options o;
    o.text = text, o.model = model;
    o.config.layers = 1, o.config.channels = 32, o.config.value_dim = 32, o.config.key_dim = 16, o.config.hidden = 32,
    o.config.chunk = 16;
    o.config.stack = "4x4", o.config.batch = 4, o.config.threads = 1, o.least_chunks = 2, o.most_chunks = 4;
    o.rates = {.kind = "linear", .rate = 0.02, .warmup = 10, .steps = 150}, o.every = 150;
    choose_model(o);
    language::corpus const c(o);
    o.config.vocabulary = c.known.size(), o.config.length = 64;
    auto const m = models::make_model(o.config);
    ::testing::internal::CaptureStdout(), ::testing::internal::CaptureStderr();
    auto const result = language::train(o, c, *m);
    ::testing::internal::GetCapturedStdout(), ::testing::internal::GetCapturedStderr();
    auto const counted = language::n_gram_bits(c.ids.data(), c.parts.train, c.parts.validation, c.known.size());
    ASSERT_EQ(result.evaluation.size(), 2u);
    // A prediction from the last two characters cannot be better than their frequencies.
    EXPECT_LT(result.evaluation[0].second, counted[2]) << model;
    EXPECT_LT(result.evaluation[1].second, counted[2]) << model;
  }
}

/// A partly trained model, with distinct predictions.
std::unique_ptr<models::model> a_model(models::model_config& c, std::string const& model) {
  c.layers = 2, c.channels = 24, c.value_dim = 32, c.key_dim = 16, c.hidden = 32, c.chunk = 16, c.vocabulary = 11,
  c.batch = 3, c.length = 100;
  c.mixer = model == "mega"       ? models::mixer_kind::ema
            : model == "mega-fft" ? models::mixer_kind::ema_by_fft
                                  : models::mixer_kind::convolution;
  auto m = models::make_model(c);
  std::vector<int> tokens(300), targets(300);
  for (std::size_t i = 0; i < 300; i++) tokens[i] = int(i * i % 11), targets[i] = int((i + 1) * (i + 1) % 11);
  for (long step = 1; step <= 5; step++) m->learn({3, 100, tokens.data(), targets.data(), nullptr}, step, 1e-2);
  return m;
}

/// Tolerance for losses summed in other groups: each term of a value rounds once, and summands are of order one (norms
/// ensure that). An EMA by FFT rounds with the logarithm of its length, which is less than the number of its taps.
double rounding(models::model_config const& c) {
  double const terms =
      double(c.layers) * double(3 * c.channels + 2 * c.value_dim + c.hidden + c.key_dim + c.chunk + 16) +
      double(c.channels + c.vocabulary);
  return terms * 0x1p-24 * 4;
}

TEST(language, pieces_have_the_loss_of_one_call) {
  for (auto const* name : {"tcnca", "mega", "mega-fft"}) {
    models::model_config c;
    auto const m = a_model(c, name);
    std::vector<std::uint8_t> text(101);
    for (std::size_t i = 0; i < text.size(); i++) text[i] = std::uint8_t((i * i + i / 7) % 11);
    std::vector<int> const tokens(text.begin(), text.end() - 1), targets(text.begin() + 1, text.end());
    double const whole = m->evaluate({1, 100, tokens.data(), targets.data(), nullptr});
    for (long length : {100L, 32L, 7L, 1L})
      EXPECT_NEAR(language::streamed_loss(*m, text.data(), {1, 101}, 1, length), whole, rounding(c)) << name << length;
    // The mean hardly changes if a stream loses its state, so the last character alone is compared, too.
    std::vector<int> last(100, -1);
    last.back() = targets.back();
    double const end = m->evaluate({1, 100, tokens.data(), last.data(), nullptr});
    m->reset_state();
    m->evaluate_continued({1, 60, tokens.data(), nullptr, nullptr});
    EXPECT_NEAR(m->evaluate_continued({1, 40, tokens.data() + 60, last.data() + 60, nullptr}), end, rounding(c))
        << name;
  }
}

TEST(language, read_agrees_with_evaluate) {
  for (auto const* name : {"tcnca", "mega", "mega-fft"}) {
    models::model_config c;
    auto const m = a_model(c, name);
    std::vector<int> tokens(70), one(70, -1);
    for (std::size_t i = 0; i < tokens.size(); i++) tokens[i] = int(i * 5 % 11);
    std::vector<float> logits(11);
    m->reset_state();
    m->read({1, 33, tokens.data(), nullptr, nullptr}, logits.data());
    for (long t = 33; t < 70; t++) {
      m->read({1, 1, &tokens[std::size_t(t)], nullptr, nullptr}, logits.data());
      double sum = 0;
      for (float const l : logits) sum += std::exp(double(l));
      for (int symbol : {0, 4, 10}) {
        one[std::size_t(t)] = symbol;
        // The loss of a single character, instead of the mean: its logit and the sum of all.
        double const expected = m->evaluate({1, t + 1, tokens.data(), one.data(), nullptr});
        ASSERT_NEAR(std::log(sum) - double(logits[std::size_t(symbol)]), expected, rounding(c)) << name << " at " << t;
      }
      one[std::size_t(t)] = -1;
    }
  }
}

TEST(language, generated_characters_are_read_back) {
  language::alphabet const known("abcdefghijk");
  models::model_config c;
  auto const m = a_model(c, "tcnca");
  std::string text = "facade";
  language::generate(*m, 4, known, "facade", 60, {.temperature = 0},
                     [&](char written) { return text += written, true; });
  ASSERT_EQ(text.size(), 66u);
  std::vector<int> tokens, predictions(text.size());
  for (char const t : text) tokens.push_back(known.id(t));
  m->evaluate({1, long(tokens.size()), tokens.data(), nullptr, nullptr}, predictions.data());
  for (std::size_t t = 5; t + 1 < tokens.size(); t++) EXPECT_EQ(tokens[t + 1], predictions[t]) << "at " << t;
}

TEST_F(language_runs, a_checkpoint_generates_the_same_text) {
  std::vector<std::string> const how{"--generate", "120", "--prompt", "in the ", "--top-k", "5"};
  auto words = how;
  for (auto const& w : {"--text"s, text, "--steps"s, "6"s, "--output"s, (folder / "run").string()}) words.push_back(w);
  ASSERT_EQ(run(words), 0) << err;
  std::string const written = out.substr(out.find('\n') + 1);  // after the line with the results
  EXPECT_EQ(written.size(), 7 + 120 + 1u);
  EXPECT_EQ(written.substr(0, 7), "in the ");
  EXPECT_TRUE(said("a second"));
  words = how;
  words.push_back("--checkpoint"), words.push_back((folder / "run/checkpoint").string());
  ASSERT_EQ(run(words), 0) << err;
  EXPECT_EQ(out, written);
  words.push_back("--seed"), words.push_back("2");
  ASSERT_EQ(run(words), 0) << err;
  EXPECT_NE(out, written);

  EXPECT_EQ(run({"--checkpoint", (folder / "run/checkpoint").string(), "--generate", "5", "--prompt", "Z"}), 2);
  EXPECT_TRUE(said("byte 90")) << err;
  EXPECT_EQ(run({"--checkpoint", text, "--generate", "5"}), 2);
  EXPECT_TRUE(said("it is not a checkpoint")) << err;
}

TEST_F(language_runs, compares_models_side_by_side) {
  std::string const results = folder / "all";
  ASSERT_EQ(
      run({"--text", text, "--steps", "4", "--every", "2", "--side-by-side", "--rounds", "2", "--output", results}), 0)
      << err;
  std::string const table = language::read_file(results + "/side_by_side.md"),
                    json = language::read_file(results + "/side_by_side.json");
  for (std::string const name : {"tcnca", "mega-fft", "mega"}) {
    EXPECT_NE(table.find("| " + name + " | "), std::string::npos) << table;
    EXPECT_NE(json.find("{\"model\": \"" + name + "\", \"parameters\": "), std::string::npos) << json;
  }
  EXPECT_NE(table.find("test_bpc"), std::string::npos);
  EXPECT_NE(language::read_file(results + "/side_by_side.svg").find("frequencies"), std::string::npos);
  EXPECT_EQ(out, table);
}

TEST(language, table_marks_missing_measurements) {
  language::contender a;
  a.name = "tcnca", a.parameters = 5, a.bytes = 1 << 20, a.forward = 1, a.backward = 2, a.update = 1;
  language::contender b = a;
  b.name = "mega", b.mixers = {0.5, 1}, b.trained.loss = 2;
  std::string const table = language::table({a, b}), json = language::json({a, b});
  EXPECT_NE(
      table.find(
          "| tcnca | 5 | 1.0 | 1000.00 | 2000.00 | 1000.00 | not measured | not measured | 0 | not measured | 0 |"),
      std::string::npos)
      << table;
  EXPECT_NE(table.find("tcnca is 1.00 times as fast as mega forward, 1.00 backward, 1.00 a step.\n"), std::string::npos)
      << table;
  EXPECT_NE(language::table({b, a}).find("; if its mixers took no time, it would be 2.00, 2.00, 1.60.\n"),
            std::string::npos)
      << language::table({b, a});
  b.mixers = {1.5, 1};  // longer than the step that contains them
  EXPECT_EQ(language::table({b, a}).find("if its mixers"), std::string::npos);
  EXPECT_NE(
      json.find("\"mixers_forward_seconds\": null, \"mixers_backward_seconds\": null, \"steps\": 0, \"loss\": null"),
      std::string::npos)
      << json;
}

TEST_F(language_runs, unsuitable_texts_are_refused) {
  EXPECT_EQ(run({}), 2);
  EXPECT_TRUE(said("--text")) << err;
  EXPECT_EQ(run({"--text", text + ".none"}), 2);
  EXPECT_TRUE(said("No such file")) << err;
  EXPECT_EQ(run({"--text", folder.string()}), 2);
  EXPECT_TRUE(said("it is a directory")) << err;
  std::ofstream(folder / "empty").close();
  EXPECT_EQ(run({"--text", (folder / "empty").string()}), 2);
  EXPECT_TRUE(said("it is empty")) << err;
  std::ofstream(folder / "short") << "too short";
  EXPECT_EQ(run({"--text", (folder / "short").string()}), 2);
  EXPECT_TRUE(said("too short: of its 9 bytes")) << err;
  EXPECT_EQ(run({"--text", text, "--prompt", "\x01"}), 2);
  EXPECT_TRUE(said("byte 1 at 0")) << err;
  EXPECT_EQ(run({"--text", text, "--least-chunks", "5"}), 2);
  EXPECT_TRUE(said("--least-chunks")) << err;
  EXPECT_EQ(run({"--text", text, "--side-by-side"}), 2);
  EXPECT_TRUE(said("needs --output")) << err;
}

}  // namespace
