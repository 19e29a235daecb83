// A text as a sequence of symbols: one per byte value that occurs in it.
#pragma once
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace language {

/// The alphabet of a model: its byte values, numbered from 0 in ascending order.
class alphabet {
 public:
  explicit alphabet(std::string_view text) {
    for (char const c : text) ids_[byte(c)] = 0;
    for (std::size_t b = 0; b < ids_.size(); b++)
      if (ids_[b] == 0) ids_[b] = int(bytes_.size()), bytes_ += char(b);
  }
  long size() const { return long(bytes_.size()); }
  /// All bytes in order; constructing an alphabet from them gives the same one.
  std::string const& bytes() const { return bytes_; }
  char symbol(int id) const { return bytes_[std::size_t(id)]; }
  bool has(char c) const { return ids_[byte(c)] >= 0; }
  int id(char c) const { return ids_[byte(c)]; }

  /// A readable form: byte values with ranges, such as "10 32-126".
  std::string ranges() const {
    std::string result;
    for (std::size_t i = 0; i < bytes_.size();) {
      std::size_t const first = byte(bytes_[i]);
      std::size_t last = first;
      for (i++; i < bytes_.size() && byte(bytes_[i]) == last + 1; i++) last++;
      result += (result.empty() ? "" : " ") + std::to_string(first) + (last > first ? "-" + std::to_string(last) : "");
    }
    return result;
  }
  /// Parses the output of `ranges`. Throws std::invalid_argument.
  static alphabet of_ranges(std::string const& ranges) {
    std::string bytes;
    std::istringstream in(ranges);
    for (std::string word; in >> word;) {
      int first = -1, last = -1;
      int const read = std::sscanf(word.c_str(), "%d-%d", &first, &last);
      if (read == 1) last = first;
      for (int b = std::max(first, 0); read >= 1 && b <= std::min(last, 255); b++) bytes += char(b);
    }
    alphabet const result(bytes);
    if (bytes.empty() || result.ranges() != ranges)
      throw std::invalid_argument("\"" + ranges + "\" does not name an alphabet");
    return result;
  }

  /// Throws std::invalid_argument if the text contains a byte outside the alphabet.
  std::vector<std::uint8_t> ids(std::string_view text) const {
    std::vector<std::uint8_t> result(text.size());
    for (std::size_t i = 0; i < text.size(); i++) {
      if (!has(text[i]))
        throw std::invalid_argument("byte " + std::to_string(byte(text[i])) + " at " + std::to_string(i) +
                                    " of the text is not one of the " + std::to_string(size()) +
                                    " that the model knows");
      result[i] = std::uint8_t(id(text[i]));
    }
    return result;
  }

 private:
  static std::size_t byte(char c) { return std::size_t(static_cast<unsigned char>(c)); }
  std::array<int, 256> ids_ = [] {
    std::array<int, 256> none;
    none.fill(-1);
    return none;
  }();
  std::string bytes_;
};

/// Part of a text. Predictions at its beginning may use the text before it.
struct span {
  long begin = 0, end = 0;
  long size() const { return end - begin; }
};

/// Training, validation and test part: 90, 5 and 5 % (for EnWik8 the customary 90, 5 and 5 million characters).
struct split {
  span train, validation, test;
};
inline split split_of(long size) {
  long const twentieth = size / 20;
  return {{0, size - 2 * twentieth}, {size - 2 * twentieth, size - twentieth}, {size - twentieth, size}};
}

/// Reads a file. Throws std::invalid_argument with a message if it cannot be read or is empty.
inline std::string read_file(std::string const& path) {
  auto const fail = [&](std::string const& why) {
    throw std::invalid_argument("cannot read the text " + path + ": " + why);
  };
  if (std::filesystem::is_directory(path)) fail("it is a directory");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(std::strerror(errno));
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) fail("reading broke off");
  if (text.empty()) fail("it is empty");
  return text;
}

}  // namespace language
