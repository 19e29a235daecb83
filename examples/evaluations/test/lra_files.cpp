// The file readers of evaluations/lra: what they accept and what they refuse, on small files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <set>

#include "../lra/image_files.hpp"
#include "../lra/listops_files.hpp"
#include "../lra/pathfinder_files.hpp"
#include "../lra/text_files.hpp"

namespace lra {
namespace {

using bytes = std::vector<std::uint8_t>;
namespace fs = std::filesystem;

bytes sequence(dataset const& d, long i) { return {d.sequence(i).begin(), d.sequence(i).end()}; }

class lra_files : public ::testing::Test {
 protected:
  void SetUp() override {
    root = fs::temp_directory_path() /
           ("tcnca_lra_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "_" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name() + "_" + std::to_string(::getpid()));
    fs::create_directories(root);
  }
  void TearDown() override { fs::remove_all(root); }

  void write(std::string const& name, std::string const& text) const {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name, std::ios::binary) << text;
  }
  /// The message names the place and the problem.
  void refused(std::function<void()> const& read, std::string const& place, std::string const& what) const {
    try {
      read();
      ADD_FAILURE() << "accepted: " << what;
    } catch (file_error const& e) {
      EXPECT_NE(std::string(e.what()).find(place), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
    }
  }
  fs::path root;
};

TEST_F(lra_files, listops) {
  std::string const head = "Source\tTarget\r\n",
                    good = "( ( ( [MAX 4 ) 3 ) ] )\t4\r\n( ( ( [SM ( ( ( [MED 1 ) 4 ) ] ) ) 9 ) ] )\t1\r\n";
  for (char const* part : {"train", "val", "test"})
    write("listops-1000/basic_" + std::string(part) + ".tsv", head + good);
  auto const s = listops::read(root, 100, {-1, 1, 2});
  ASSERT_EQ(s.training.examples(), 2);
  EXPECT_EQ(s.validation.examples(), 1);
  EXPECT_EQ(s.test.examples(), 2);
  using namespace listops;
  EXPECT_EQ(sequence(s.training, 0), (bytes{maximum, digit + 4, digit + 3, close}));
  EXPECT_EQ(sequence(s.training, 1), (bytes{sum_modulo, median, digit + 1, digit + 4, close, digit + 9, close}));
  EXPECT_EQ(s.training.targets, (std::vector<int>{4, 1}));

  auto const wrong = [&](std::string const& text, int line, std::string const& what) {
    write("t.tsv", text);
    refused([&] { listops::read(root / "t.tsv", 7, -1); }, "t.tsv:" + std::to_string(line) + ": ", what);
  };
  wrong("", 1, "the first line must be");
  wrong("Source Target\n", 1, "the first line must be");
  wrong(head, 1, "there is no example");
  wrong(head + good + "( [MAX 4 ] )\n", 4, "has 1 fields");
  wrong(head + "( [MAX 4 ] )\t4\t4\n", 2, "has 3 fields");
  wrong(head + good + "( [MEAN 4 ] )\t4\n", 4, "\"[MEAN\" is no token");
  wrong(head + "( [MAX 10 ] )\t4\n", 2, "\"10\" is no token");
  wrong(head + "( ( [MAX 4 ] )\t4\n", 2, "not closed");
  wrong(head + "[MAX ) 4 ] (\t4\n", 2, "that was not opened");
  wrong(head + "( [MAX 4 )\t4\n", 2, "no expression");
  wrong(head + "( [MAX 4 ] )\t5\n", 2, "is 4, but the line says \"5\"");
  wrong(head + "[MAX 4 4 4 4 4 4 ]\t4\n", 2, "has 8 tokens, but the model takes 7");
  refused([&] { listops::read(root / "none", 7, counts{-1, -1, -1}); }, "none", "there is no basic_train.tsv");
}

TEST_F(lra_files, blank_lines_at_the_end_and_cr_lf) {
  std::string const name = "pathfinder32/curv_contour_length_14/metadata/0.npy",
                    image = "pathfinder32/curv_contour_length_14/imgs/0/i.png";
  write(image, "");  // an empty image in the list is skipped
  struct reader {
    std::vector<std::string> lines;
    std::string file;
    std::function<long()> read;  ///< number of examples
  };
  std::vector<reader> const readers{{{"Source\tTarget", "[MAX 4 3 ]\t4", "5\t5"},
                                     "t.tsv",
                                     [&] { return listops::read(root / "t.tsv", 9).examples(); }},
                                    {{"1\tA\tB\tone\ttwo", "0\tA\tC\tone\tthree"},
                                     "t.tsv",
                                     [&] { return retrieval::read(root / "t.tsv", 9).examples(); }},
                                    {{"imgs/0 i.png 0 1 1.0", "imgs/0 i.png 0 0 1.0"}, name, [&] {
                                       pathfinder::read(root, 32, {-1, -1, -1});
                                       return 2L;
                                     }}};
  for (auto const& r : readers)
    for (std::string const end : {"\n", "\r\n"}) {
      std::string whole;
      for (auto const& l : r.lines) whole += (whole.empty() ? "" : end) + l;
      for (std::string const after : {"", "\n", "\n\n", "\r\n\r\n\r\n", "\n  \n\t\n"})
        for (std::string const mark : {"", "\xef\xbb\xbf"}) {
          write(r.file, mark + whole + after);
          EXPECT_EQ(r.read(), 2) << r.lines[0] << " and " << after.size() << " bytes";
        }
      for (std::string const blank : {"", " ", "\t"})
        for (std::size_t before = 0; before < r.lines.size(); before++) {
          std::string text;
          for (std::size_t i = 0; i < r.lines.size(); i++)
            text += (i == before ? blank + end + blank + end : "") + r.lines[i] + end;
          write(r.file, text);
          refused([&] { r.read(); }, fs::path(r.file).filename().string() + ":" + std::to_string(before + 1) + ": ",
                  "the line is blank, but others follow it");
        }
    }
}

TEST_F(lra_files, text) {
  for (int i = 0; i < 10; i++)
    for (char const* part : {"train/", "test/"}) {
      write("aclImdb/" + std::string(part) + "neg/" + std::to_string(i) + "_2.txt", "bad " + std::to_string(i));
      write("aclImdb/" + std::string(part) + "pos/" + std::to_string(i) + "_9.txt", "good \xff" + std::to_string(i));
    }
  auto const s = text::read(root, 6, {-1, -1, 3});
  EXPECT_EQ(s.training.examples(), 18);
  EXPECT_EQ(s.validation.examples(), 2);
  EXPECT_EQ(s.test.examples(), 3);
  EXPECT_EQ(sequence(s.training, 2), (bytes{'b', 'a', 'd', ' ', '1'}));
  EXPECT_EQ(sequence(s.training, 3), (bytes{'g', 'o', 'o', 'd', ' ', 255}));  // truncated to 6
  EXPECT_EQ(sequence(s.validation, 0), (bytes{'b', 'a', 'd', ' ', '9'}));
  EXPECT_EQ(s.training.targets[2], 0);
  EXPECT_EQ(s.training.targets[3], 1);
  write("aclImdb/train/pos/4_9.txt", "");
  refused([&] { text::read(root, 6, {-1, -1, -1}); }, "4_9.txt:1: ", "the review is empty");
  refused([&] { text::read(root / "none", 6, {-1, -1, -1}); }, "none", "aclImdb_v1.tar.gz");
}

TEST_F(lra_files, retrieval) {
  std::string const good = "1\tA\tB\tfirst text\tsecond\n0.0\tA\tC\tfirst text\tthird\r\n";
  for (char const* part : {"train", "eval", "test"})
    write("tsv_data/new_aan_pairs." + std::string(part) + ".tsv", good);
  auto const s = retrieval::read(root, 5, {-1, 1, -1});
  ASSERT_EQ(s.training.examples(), 2);
  ASSERT_EQ(s.training.sequences(), 4);
  EXPECT_EQ(s.validation.sequences(), 2);
  EXPECT_EQ(sequence(s.training, 1), (bytes{'s', 'e', 'c', 'o', 'n'}));
  EXPECT_EQ(sequence(s.training, 3), (bytes{'t', 'h', 'i', 'r', 'd'}));
  EXPECT_EQ(s.training.targets, (std::vector<int>{1, 0}));
  auto const wrong = [&](std::string const& line, std::string const& what) {
    write("t.tsv", good + line);
    refused([&] { retrieval::read(root / "t.tsv", 5, -1); }, "t.tsv:3: ", what);
  };
  wrong("1\tA\tB\ttext\n", "has 4 fields");
  wrong("2\tA\tB\ttext\ttext\n", "the label is \"2\"");
  wrong("1\tA\tB\ttext\t\r\n", "a text is empty");
  fs::remove(root / "tsv_data/new_aan_pairs.test.tsv");
  refused([&] { retrieval::read(root, 5, counts{-1, -1, -1}); }, "new_aan_pairs.test.tsv", "cannot read");
}

TEST_F(lra_files, image) {
  auto const record = [](int label, int red, int green, int blue) {
    std::string r(1, char(label));
    for (int const c : {red, green, blue}) r += std::string(1024, char(c));
    return r;
  };
  for (int b = 1; b <= 5; b++)
    write("cifar-10-batches-bin/data_batch_" + std::to_string(b) + ".bin",
          record(b, 255, 255, 255) + record(b + 1, 255, 0, 0));
  write("cifar-10-batches-bin/test_batch.bin", record(0, 0, 255, 0) + record(9, 10, 20, 30));
  auto const s = image::read(root, {-1, -1, -1});
  EXPECT_EQ(s.training.targets, (std::vector<int>{1, 2, 2, 3, 3, 4, 4, 5, 5}));
  EXPECT_EQ(s.validation.targets, (std::vector<int>{6}));
  EXPECT_EQ(s.test.targets, (std::vector<int>{0, 9}));
  EXPECT_EQ(sequence(s.training, 0), bytes(1024, 255));
  EXPECT_EQ(sequence(s.training, 1), bytes(1024, 76));  // 0.2989 of 255.5
  EXPECT_EQ(sequence(s.test, 0), bytes(1024, 149));     // 0.587
  EXPECT_EQ(sequence(s.test, 1), bytes(1024, 18));      // 18.149 of 255
  EXPECT_EQ(image::read(root, {3, 0, 1}).training.examples(), 3);
  write("cifar-10-batches-bin/data_batch_3.bin", record(1, 0, 0, 0) + "x");
  refused([&] { image::read(root, {-1, -1, -1}); }, "data_batch_3.bin:2: ", "must have records of 3073");
  write("cifar-10-batches-bin/data_batch_3.bin", record(1, 0, 0, 0) + record(10, 0, 0, 0));
  refused([&] { image::read(root, {-1, -1, -1}); }, "data_batch_3.bin:2: ", "the class is 10");
  refused([&] { image::read(root / "none", {-1, -1, -1}); }, "none", "cifar-10-binary.tar.gz");
}

TEST_F(lra_files, pathfinder) {
  std::string const folder = "pathfinder32/curv_contour_length_14/";
  auto const lists = [&](std::string const& more) {
    write(folder + "metadata/0.npy", "imgs/0 sample_0.png 0 1 1.0 14\nimgs/0 sample_1.png 1 0 1.0 14\n");
    write(folder + "metadata/1.npy", more);
  };
  lists("imgs/1 sample_0.png 0 1 1.0 14\n");
  refused([&] { pathfinder::read(root, 32, {-1, -1, -1}); }, "0.npy:1: ", "there is no image");
  for (char const* name : {"imgs/0/sample_0.png", "imgs/0/sample_1.png", "imgs/1/sample_0.png"})
    write(folder + name, "");
  EXPECT_EQ(pathfinder::read(root, 32, {-1, -1, -1}).training.examples(), 0);  // empty images are skipped
  lists("imgs/1 sample_0.png 0\n");
  refused([&] { pathfinder::read(root, 32, {-1, -1, -1}); }, "1.npy:1: ", "has 3 words");
  lists("imgs/1 sample_0.png 0 2 1.0 14\n");
  refused([&] { pathfinder::read(root, 32, {-1, -1, -1}); }, "1.npy:1: ", "the class is \"2\"");
  refused([&] { pathfinder::read(root, 128, {-1, -1, -1}); }, root.string(), "there is no pathfinder128");

  write(folder + "imgs/0/sample_0.png", "no image");
  lists("");
  refused([&] { pathfinder::read(root, 32, {-1, -1, -1}); }, "sample_0.png:1: ", "no image that can be read: ");
  auto const paint = [&](std::string const& name, unsigned side, std::uint8_t first) {
    bytes pixels(side * side);
    std::iota(pixels.begin(), pixels.end(), first);
    png_image image{};
    image.version = PNG_IMAGE_VERSION, image.width = image.height = side, image.format = PNG_FORMAT_GRAY;
    fs::create_directories((root / name).parent_path());
    ASSERT_NE(png_image_write_to_file(&image, (root / name).c_str(), 0, pixels.data(), 0, nullptr), 0) << image.message;
  };
  std::string many;
  for (int i = 0; i < 20; i++) {
    many += "imgs/7 sample_" + std::to_string(i) + ".png 0 " + std::to_string(i % 2) + " 1.0\n";
    paint(folder + "imgs/7/sample_" + std::to_string(i) + ".png", 32, std::uint8_t(i));
  }
  write(folder + "metadata/0.npy", many);
  auto const s = pathfinder::read(root, 32, {-1, -1, -1});
  EXPECT_EQ(s.training.examples(), 16);
  EXPECT_EQ(s.validation.examples(), 2);
  EXPECT_EQ(s.test.examples(), 2);
  std::set<int> seen;
  for (dataset const* d : {&s.training, &s.validation, &s.test})
    for (long i = 0; i < d->examples(); i++) {
      bytes const pixels = sequence(*d, i);
      ASSERT_EQ(pixels.size(), 1024u);
      seen.insert(pixels[0]);
      EXPECT_EQ(pixels[0] % 2, d->targets[std::size_t(i)]);
      for (std::size_t k = 0; k < 1024; k++) ASSERT_EQ(pixels[k], std::uint8_t(pixels[0] + k));
    }
  EXPECT_EQ(seen.size(), 20u);
  paint(folder + "imgs/7/sample_3.png", 31, 0);
  refused(
      [&] {
        pathfinder::read(root, 32, {-1, -1, -1});
      },
      "sample_3.png:1: ", "has 31 x 31 pixels, but must have 32 x 32");
}

}  // namespace
}  // namespace lra
