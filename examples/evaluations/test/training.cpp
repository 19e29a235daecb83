// The parts shared by training programs (evaluations/training), except the loop: atomic files, records, schedules,
// orders.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <string>
#include <vector>

#include "../training/checkpoint.hpp"
#include "../training/log.hpp"
#include "../training/random.hpp"
#include "../training/schedule.hpp"
#include "support/training.hpp"

namespace {

using namespace tcnca;
using namespace tcnca::training;
namespace fs = std::filesystem;
using tcnca::testing::training_test;

using checkpoint_file = training_test;

checkpoint small_checkpoint() {
  checkpoint c;
  c.configuration.set("model", "tcnca").set("rate", 0.1).set("layers", 2);
  c.step = 7;
  c.parts = {{"weights", {'a', '\0', char(255), 'd', 'e', 'f', 'g', 'h', 'i'}},
             {"nothing", {}},
             {"loop", std::vector<char>(16, 'x')}};
  return c;
}

TEST_F(checkpoint_file, round_trips) {
  fs::path const path = folder / "c";
  checkpoint const c = small_checkpoint();
  write_checkpoint(path, c);
  checkpoint const d = read_checkpoint(path);
  EXPECT_EQ(d.configuration, c.configuration);
  EXPECT_EQ(d.step, c.step);
  ASSERT_EQ(d.parts.size(), c.parts.size());
  for (std::size_t i = 0; i < c.parts.size(); i++) {
    EXPECT_EQ(d.parts[i].name, c.parts[i].name);
    EXPECT_EQ(d.parts[i].bytes, c.parts[i].bytes);
  }
  EXPECT_FALSE(fs::exists(folder / "c.new"));
}

TEST_F(checkpoint_file, with_any_flipped_bit_is_refused) {
  fs::path const path = folder / "c", bad = folder / "bad";
  write_checkpoint(path, small_checkpoint());
  std::string const good = content(path);
  for (std::size_t i = 0; i < good.size(); i++)
    for (int bit = 0; bit < 8; bit++) {
      std::string bytes = good;
      bytes[i] = char(bytes[i] ^ (1 << bit));
      put(bad, bytes);
      EXPECT_THROW(read_checkpoint(bad), checkpoint_error) << "byte " << i << ", bit " << bit;
    }
}

TEST_F(checkpoint_file, of_another_size_is_refused) {
  fs::path const path = folder / "c", bad = folder / "bad";
  write_checkpoint(path, small_checkpoint());
  std::string const good = content(path);
  for (std::size_t size = 0; size < good.size(); size++) {
    put(bad, good.substr(0, size));
    EXPECT_THROW(read_checkpoint(bad), checkpoint_error) << size << " bytes";
  }
  put(bad, good + '\0');
  EXPECT_THROW(read_checkpoint(bad), checkpoint_error);
}

TEST_F(checkpoint_file, names_the_problem) {
  fs::path const path = folder / "c";
  auto const why = [&] { return sentence<checkpoint_error>([&] { read_checkpoint(path); }); };
  EXPECT_NE(why().find("No such file"), std::string::npos) << why();
  put(path, "A text that is longer than the head of a checkpoint, but is none.");
  EXPECT_NE(why().find("not a checkpoint"), std::string::npos) << why();
  write_checkpoint(path, small_checkpoint());
  std::string bytes = content(path);
  bytes[12]++;  // the next version, complete
  checksum sum;
  sum.add(bytes.data(), bytes.size() - 8);
  std::uint64_t const value = sum.value();
  std::memcpy(&bytes[bytes.size() - 8], &value, 8);
  put(path, bytes);
  EXPECT_NE(why().find("version 2"), std::string::npos) << why();
  bytes.back() ^= 1, bytes[12]--;
  put(path, bytes);
  EXPECT_NE(why().find("damaged"), std::string::npos) << why();
  fs::remove(path);
  fs::create_directory(path);
  EXPECT_NE(why(), "");
}

TEST_F(checkpoint_file, of_another_configuration_is_refused) {
  checkpoint const c = small_checkpoint();
  EXPECT_NO_THROW(require_same(c, c.configuration, "c"));
  auto const why = [&](auto const& change) {
    record other = c.configuration;
    change(other);
    return sentence<checkpoint_error>([&] { require_same(c, other, "c"); });
  };
  EXPECT_EQ(why([](record& r) { r.set("layers", 3); }), "cannot use c: its layers was 2, now it is 3");
  EXPECT_EQ(why([](record& r) { r.set("more", "x"); }), "cannot use c: its more was not given, now it is x");
  EXPECT_EQ(why([](record& r) { r.erase("rate"); }), "cannot use c: its rate was 0.1, now it is not given");
}

TEST_F(checkpoint_file, survives_a_failed_replacement) {
  fs::path const path = folder / "c", aside = folder / "c.new";
  checkpoint c = small_checkpoint();
  write_checkpoint(path, c);
  std::string const good = content(path);
  // The process is killed before the new file replaces the old one.
  EXPECT_EQ(in_child([&] {
              replacement file(path);
              file.write(good.substr(0, good.size() / 2));
              return ::raise(SIGKILL);
            }),
            -SIGKILL);
  EXPECT_EQ(content(path), good);
  EXPECT_TRUE(fs::exists(aside));  // the child had started to write
  // A full disk, simulated by a limit on file sizes.
  c.parts.push_back({"more", std::vector<char>(5000, 'y')});
  EXPECT_EQ(in_child([&] {
              rlimit const small{4000, 4000};
              ::signal(SIGXFSZ, SIG_IGN);
              if (::setrlimit(RLIMIT_FSIZE, &small) != 0) return 1;
              auto const why = sentence<std::runtime_error>([&] { write_checkpoint(path, c); });
              return why.find("File too large") != std::string::npos ? 7 : 2;
            }),
            7);
  EXPECT_EQ(content(path), good);
  EXPECT_FALSE(fs::exists(aside));
  // A folder is in the place of the temporary file.
  fs::create_directory(aside);
  EXPECT_THROW(write_checkpoint(path, c), std::runtime_error);
  EXPECT_EQ(content(path), good);
  fs::remove(aside);
  write_checkpoint(path, c);
  EXPECT_EQ(read_checkpoint(path).parts.size(), c.parts.size());
}

TEST(checksum, is_crc_64) {
  checksum whole, pieces;
  whole.add("123456789", 9);
  EXPECT_EQ(whole.value(), 0x995DC9BBDF1939FAu);  // check value of CRC-64/XZ
  std::string const text(1000, 'q');
  for (std::size_t i = 0, n = 1; i < text.size(); i += n, n = n % 13 + 1)
    pieces.add(text.data() + i, std::min(n, text.size() - i));
  checksum again;
  again.add(text.data(), text.size());
  EXPECT_EQ(pieces.value(), again.value());
}

TEST(record, round_trips) {
  record r;
  r.set("text", "a \"quoted\" \\ line\n\t\x01")
      .set("number", 0.1 + 0.2)
      .set("whole", 1L << 40)
      .set("flag", false)
      .set("", "")
      .set("nan", std::nan(""));
  record const s = record::parse(r.line());
  EXPECT_EQ(s, r);
  EXPECT_EQ(s.text("text"), "a \"quoted\" \\ line\n\t\x01");
  EXPECT_EQ(s.number("number"), 0.1 + 0.2);
  EXPECT_EQ(s.number("whole"), 1L << 40);
  EXPECT_EQ(s.text("nan"), "null");
  EXPECT_TRUE(std::isnan(s.number("none")));
  EXPECT_EQ(record::parse("  { }\r").entries().size(), 0u);
  for (char const* const bad : {"", "{", "}", "{\"a\"}", "{\"a\": }", "{\"a\": 1", "{\"a\": \"x}", "{\"a\": 1} 2",
                                "{a: 1}", "{\"a\": 1 \"b\": 2}", "[1]"})
    EXPECT_THROW(record::parse(bad), std::invalid_argument) << bad;
}

TEST(schedule, rises_and_falls) {
  using all = std::vector<double>;
  auto const rates = [](schedule const& s, std::vector<long> const& steps) {
    all r;
    for (long const step : steps) r.push_back(s.at(step));
    return r;
  };
  schedule s{.kind = "linear", .rate = 8, .warmup = 3, .steps = 7};
  EXPECT_EQ(rates(s, {1, 2, 3, 4, 5, 6, 7}), (all{2, 4, 6, 8, 6, 4, 2}));
  s.kind = "inverse-sqrt";
  EXPECT_EQ(rates(s, {1, 2, 3, 4, 16, 64}), (all{2, 4, 6, 8, 4, 2}));
  s.kind = "constant";
  EXPECT_EQ(rates(s, {1, 2, 3, 4, 5, 1000}), (all{2, 4, 6, 8, 8, 8}));
  s.kind = "cosine";
  EXPECT_EQ(rates(s, {1, 2, 3, 4}), (all{2, 4, 6, 8}));
  EXPECT_NEAR(s.at(6), 4, 1e-14);
  EXPECT_NEAR(s.at(7), 4 * (1 - std::sqrt(0.5)), 1e-14);
  for (char const* const kind : {"linear", "cosine", "inverse-sqrt", "constant"}) {
    EXPECT_EQ((schedule{.kind = kind, .rate = 1, .warmup = 0, .steps = 1}.at(1)), 1);
    EXPECT_EQ((schedule{.kind = kind, .rate = 1, .warmup = 9, .steps = 5}.at(5)),
              0.5);  // the warm-up is longer than the training
  }
}

TEST(passes, contain_each_example_once) {
  passes a(50, 3), b(50, 3), other(50, 4);
  std::vector<std::vector<std::size_t>> pass(3);
  bool differs = false;
  for (std::uint64_t i = 0; i < 150; i++)
    pass[std::size_t(i / 50)].push_back(a(i)), differs = differs || a(i) != other(i);
  for (std::uint64_t i = 150; i-- > 0;)
    EXPECT_EQ(b(i), pass[std::size_t(i / 50)][std::size_t(i % 50)]);  // independent of earlier calls
  EXPECT_NE(pass[0], pass[1]);
  EXPECT_NE(pass[1], pass[2]);
  EXPECT_TRUE(differs);
  for (auto& p : pass) {
    std::sort(p.begin(), p.end());
    for (std::size_t i = 0; i < 50; i++) EXPECT_EQ(p[i], i);
  }
}

using training_log = training_test;

TEST_F(training_log, has_each_step_once) {
  fs::path const path = folder / "log";
  {
    training::log l(path, 0);
    for (int step = 1; step <= 5; step++) l.write(record().set("step", step).set("value", 10 * step));
    record stopped;
    l.write(stopped.set("step", 3).set("stopped", true));
  }
  put(path, content(path) + "{\"step\": 3, \"va");  // truncated
  training::log(path, 3).write(record().set("step", 4).set("value", 0));
  auto const all = read_log(path);
  ASSERT_EQ(all.size(), 4u);
  for (std::size_t i = 0; i < 3; i++) {
    EXPECT_EQ(all[i].number("step"), double(i + 1));
    EXPECT_EQ(all[i].number("value"), 10 * double(i + 1));
  }
  EXPECT_EQ(all[3].number("value"), 0);
  training::log(path, 0);
  EXPECT_EQ(content(path), "");
  put(path, "{\"step\": 1}\nnonsense\n{\"step\": 2}\n");
  EXPECT_NE(sentence<std::invalid_argument>([&] { read_log(path); }).find("line 2"), std::string::npos);
}

}  // namespace
