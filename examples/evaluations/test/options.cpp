// The command lines of the training programs: each option with a number refuses invalid values, with one message and
// before anything is done.
#include <gtest/gtest.h>

#include <functional>
#include <regex>
#include <string>
#include <vector>

#include "../language/options.hpp"
#include "../lra/show.hpp"
#include "../recall/options.hpp"
#include "support/training.hpp"

namespace {

using words = std::vector<std::string>;

/// The result of a command line: an exit status or none, and its output.
struct parsed {
  std::optional<int> status;
  std::string said;
};
template <class Options, class Parse>
parsed parse_with(Options& o, Parse const& parse, words const& given, std::string const& program) {
  std::vector<char const*> argv{program.c_str()};
  for (auto const& w : given) argv.push_back(w.c_str());
  ::testing::internal::CaptureStdout(), ::testing::internal::CaptureStderr();
  parsed p{parse(int(argv.size()), argv.data(), o), ""};
  p.said = ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr();
  return p;
}

/// An option and its displayed type, such as "INT:1..1000".
struct described {
  std::string name, type, description;
};
struct program {
  std::string name;
  words needed;  ///< required arguments
  std::function<parsed(words const&)> parse;
  std::vector<described> options;

  parsed operator()(words given) const {
    given.insert(given.end(), needed.begin(), needed.end());
    return parse(given);
  }
};

template <class Options, class Line>
program make_program(std::string const& name, words const& needed, auto const& parse) {
  program p{name,
            needed,
            [=](words const& given) {
              Options o;
              return parse_with(o, parse, given, name);
            },
            {}};
  Options o;
  Line line(o);
  for (CLI::Option const* const option : line.app.get_options())
    p.options.push_back({option->get_name(), option->get_type_name(), option->get_description()});
  return p;
}

std::vector<program> programs() {
  return {make_program<recall::options, recall::command_line>(
              "associative_recall", {}, [](int c, auto v, auto& o) { return recall::parse(c, v, o); }),
          make_program<language::options, language::command_line>(
              "language_model", {"--text", "none"}, [](int c, auto v, auto& o) { return language::parse(c, v, o); }),
          make_program<lra::options, lra::command_line>("lra", {},
                                                        [](int c, auto v, auto& o) { return lra::parse(c, v, o); })};
}

bool whole(described const& d) { return d.type.starts_with("INT") || d.type.starts_with("UINT"); }
bool number(described const& d) { return whole(d) || d.type.starts_with("FLOAT"); }

TEST(options, with_numbers_refuse_anything_else) {
  for (program const& p : programs()) {
    std::size_t count = 0;
    for (described const& d : p.options) {
      if (!number(d)) continue;
      count++;
      words wrong{"", "nan", "inf", "-inf", "-1", "+1", "12x", "0x10", " 1", "1 ", "1,5", "1e999", "one"};
      std::regex const range(":([0-9.]+)\\.\\.([0-9.]+)");
      std::smatch limits;
      bool const bounded = std::regex_search(d.type, limits, range);
      if (whole(d)) {
        ASSERT_TRUE(bounded) << p.name << " " << d.name << " shows no range: " << d.type;
        for (auto const* more :
             {"1.5", "1e3", "99999999999999999999", "18446744073709551616", "9223372036854775808000", "010", "-0"})
          wrong.emplace_back(more);
        wrong.push_back(std::to_string(std::stol(limits[1]) - 1)),
            wrong.push_back(limits[2] == "18446744073709551615" ? "18446744073709551617"
                                                                : std::to_string(std::stol(limits[2]) + 1));
        for (int const i : {1, 2}) {
          std::string const said = p({d.name, limits[std::size_t(i)]}).said;
          EXPECT_EQ(said.find("must be a whole number from"), std::string::npos) << said;
        }
      } else if (bounded) {
        wrong.emplace_back("1e9");
      } else {
        ASSERT_NE(d.type.find(":>"), std::string::npos) << p.name << " " << d.name << " shows no range: " << d.type;
      }
      std::string const permitted = whole(d)  ? "a whole number from " + limits[1].str() + " to " + limits[2].str()
                                    : bounded ? "a number from " + limits[1].str() + " to " + limits[2].str()
                                              : "a finite number ";
      for (std::string const& value : wrong) {
        auto const [status, said] = p({d.name, value});
        EXPECT_EQ(status, 2) << p.name << " " << d.name << " took " << value;
        EXPECT_TRUE(said.starts_with(p.name + ": " + d.name + " must be " + permitted)) << said;
        EXPECT_TRUE(said.ends_with(", not \"" + value + "\"\n")) << said;
        EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
      }
    }
    EXPECT_GE(count, 20u) << p.name;
  }
}

TEST(options, are_described) {
  for (program const& p : programs())
    for (described const& d : p.options) EXPECT_NE(d.description, "") << p.name << " " << d.name;
}

TEST(options, report_other_errors) {
  auto const all = programs();
  for (auto const& [given, sentence] : std::vector<std::pair<words, std::string>>{
           {{"--no-such"}, "\"--no-such\" was not expected; --help lists the options"},
           {{"word"}, "\"word\" was not expected; --help lists the options"},
           {{"--layers"}, "--layers needs a value"},
           {{"--layers="}, "--layers needs a value after \"=\""},
           {{"--layers", "1", "--layers", "2"}, "--layers was given more than once"},
           {{"--resume=1"}, "--resume takes no value"},
           {{"--pre-norm", "maybe"}, "--pre-norm must be one of true, false, not \"maybe\""},
           {{"--backend", "tpu"}, "--backend must be one of cpu, cuda, not \"tpu\""},
           {{"--key-dim", "17"}, "--key-dim must be a multiple of 8, not 17"}}) {
    auto const [status, said] = all[0](given);
    EXPECT_EQ(status, 2) << sentence;
    EXPECT_EQ(said, "associative_recall: " + sentence + "\n");
  }
}

TEST(options, without_effect_are_named) {
  auto const all = programs();
  EXPECT_EQ(
      all[1].parse({"--checkpoint", "c", "--generate", "3", "--layers", "3", "--steps", "9", "--seed", "2"}).said,
      "language_model: warning: --layers, --steps have no effect with --checkpoint, whose model is used as it is\n");
  EXPECT_EQ(all[1]({"--prompt", "x"}).said, "language_model: warning: --prompt has no effect without --generate\n");
  EXPECT_EQ(all[0]({"--models", "mega"}).said, "associative_recall: warning: --models has no effect without --sweep\n");
  EXPECT_EQ(all[0]({"--compare", "a", "--output", "b", "--seed", "4"}).said,
            "associative_recall: warning: --seed has no effect with --compare\n");
  EXPECT_EQ(all[2]({"--speed-batch", "3"}).said, "lra: warning: --speed-batch has no effect without --speed\n");
  for (auto const& p : all) EXPECT_EQ(p({"--layers", "3"}).said, "");
}

using pictures = tcnca::testing::training_test;

TEST_F(pictures, replace_those_of_an_earlier_call) {
  lra::options o;
  o.task = "pathfinder", o.output = folder / "p", o.examples = {1, 1, 1};
  lra::set_table(o);
  auto const files = [&] {
    std::vector<std::string> names;
    for (auto const& entry : std::filesystem::directory_iterator(o.output)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  };
  o.show = 3, lra::show(o);
  EXPECT_EQ(files(), (words{"0_class_0.pgm", "1_class_1.pgm", "2_class_0.pgm"}));
  put(std::filesystem::path(o.output) / "0_class_x.pgm", "mine"),
      put(std::filesystem::path(o.output) / "my_0_class_1.pgm", "mine");
  o.show = 1, lra::show(o);
  EXPECT_EQ(files(), (words{"0_class_0.pgm", "0_class_x.pgm", "my_0_class_1.pgm"}));
}

TEST(examples, report_progress_of_slow_generation) {
  auto const before = std::exchange(tcnca::training::notice::interval, std::chrono::milliseconds(0));
  for (char const* const task : {"listops", "pathfinder"}) {
    lra::options o;
    o.task = task;
    lra::set_table(o);
    o.examples = {600, 300, 300}, o.listops = {.depth = 4, .arguments = 4, .shortest = 8, .longest = 40};
    ::testing::internal::CaptureStderr();
    lra::load(o);
    std::string const said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find(task == std::string("listops") ? "lra: 1 of 1200 examples were generated\n"
                                                       : "lra: 600 of 1200 examples were generated\n"),
              std::string::npos)
        << said;
  }
  tcnca::training::notice::interval = before;
}

}  // namespace
