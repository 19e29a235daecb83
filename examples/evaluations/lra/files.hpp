// File readers. Errors name the file, the line and the problem.
#pragma once
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace lra {

/// A file that is missing or malformed.
struct file_error : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

[[noreturn]] inline void malformed(std::filesystem::path const& file, long line, std::string const& what) {
  throw file_error(file.string() + ":" + std::to_string(line) + ": " + what);
}

/// The lines of a text file, without line ends (LF or CR LF; the last one may be missing) and without a byte order
/// mark. Blank lines at the end are ignored; any other blank line is an error.
class lines {
 public:
  explicit lines(std::filesystem::path file) : file_(std::move(file)), in_(file_, std::ios::binary) {
    if (!in_) throw file_error("cannot read " + file_.string());
  }
  bool next(std::string& line) {
    for (long blank = 0; std::getline(in_, line); blank++) {
      if (number_ + blank == 0 && line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.find_first_not_of(" \t") == std::string::npos) continue;
      number_++;
      if (blank > 0) wrong("the line is blank, but others follow it");
      return true;
    }
    if (in_.bad()) malformed(file_, number_ + 1, "the line cannot be read");
    return false;
  }
  [[noreturn]] void wrong(std::string const& what) const { malformed(file_, std::max(number_, 1L), what); }

 private:
  std::filesystem::path file_;
  std::ifstream in_;
  long number_ = 0;
};

inline std::string contents(std::filesystem::path const& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw file_error("cannot read " + file.string());
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) throw file_error("cannot read " + file.string());
  return bytes;
}

/// Splits at separators; returns one part more than there are separators.
inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0;;) {
    std::size_t const end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    if (end == text.size()) return parts;
    at = end + 1;
  }
}

/// Splits at spaces.
inline std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> parts = split(text, ' ');
  std::erase(parts, std::string_view());
  return parts;
}

/// The first of several folders below `data` that contains `name`. Otherwise the message says which file is missing and
/// which release it belongs to.
inline std::filesystem::path folder_with(std::filesystem::path const& data, std::initializer_list<char const*> folders,
                                         std::string const& name, std::string const& of) {
  for (char const* const f : folders)
    if (std::filesystem::exists(data / f / name)) return data / f;
  throw file_error("there is no " + name + " in " + data.string() + ": it belongs to " + of);
}

/// The files of a folder with an extension, ordered by name (numbers by value).
inline std::vector<std::filesystem::path> files_in(std::filesystem::path const& folder, std::string const& extension) {
  if (!std::filesystem::is_directory(folder)) throw file_error("there is no folder " + folder.string());
  std::vector<std::filesystem::path> found;
  for (auto const& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == extension) found.push_back(entry.path());
  if (found.empty()) throw file_error("there are no " + extension + " files in " + folder.string());
  std::sort(found.begin(), found.end(), [](auto const& a, auto const& b) {
    std::string const p = a.filename().string(), q = b.filename().string();
    auto const digits = [](std::string const& s) { return std::min(s.find_first_not_of("0123456789"), s.size()); };
    std::size_t const m = digits(p), n = digits(q);
    return m != n && m > 0 && n > 0 ? m < n : p < q;
  });
  return found;
}

}  // namespace lra
