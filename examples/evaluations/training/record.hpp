// Ordered named values as one line of JSON, for configurations, logs and results.
#pragma once
#include <charconv>
#include <cmath>
#include <concepts>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tcnca::training {

/// Named numbers, such as the results of an evaluation.
using measures = std::vector<std::pair<std::string, double>>;

/// A flat JSON object. Numbers are written with the fewest digits that restore the same bits; a non-finite number is
/// null.
class record {
 public:
  record& set(std::string const& name, std::string const& text) { return put(name, quoted(text)); }
  record& set(std::string const& name, char const* text) { return put(name, quoted(text)); }
  record& set(std::string const& name, bool value) { return put(name, value ? "true" : "false"); }
  record& set(std::string const& name, std::integral auto value) { return put(name, std::to_string(value)); }
  record& set(std::string const& name, double value) {
    char text[32];
    return put(name,
               std::isfinite(value) ? std::string(text, std::to_chars(text, text + sizeof text, value).ptr) : "null");
  }
  record& set(measures const& all) {
    for (auto const& [name, value] : all) set(name, value);
    return *this;
  }
  void erase(std::string const& name) {
    std::erase_if(entries_, [&](auto const& e) { return e.first == name; });
  }

  bool has(std::string const& name) const { return find(name) != nullptr; }
  /// NaN if there is no such number.
  double number(std::string const& name) const {
    double value = std::nan("");
    if (std::string const* const text = find(name)) std::from_chars(text->data(), text->data() + text->size(), value);
    return value;
  }
  /// The text of a string, or the JSON of another value; empty if there is none.
  std::string text(std::string const& name) const {
    std::string const* const value = find(name);
    if (value == nullptr) return "";
    if (value->front() != '"') return *value;
    std::string_view rest = *value;
    return unquoted(rest);
  }
  /// Names and values (JSON).
  std::vector<std::pair<std::string, std::string>> const& entries() const { return entries_; }

  std::string line() const {
    std::string out = "{";
    for (auto const& [name, value] : entries_) out += (out.size() > 1 ? ", " : "") + quoted(name) + ": " + value;
    return out + "}";
  }
  /// Parses the output of `line`. Throws std::invalid_argument.
  static record parse(std::string_view text) {
    record r;
    require(skip(text, '{'));
    while (!skip(text, '}')) {
      require(r.entries_.empty() || skip(text, ','));
      space(text);
      std::string const name = unquoted(text);
      require(skip(text, ':'));
      space(text);
      std::string_view const from = text;
      if (!text.empty() && text.front() == '"') unquoted(text);
      else text.remove_prefix(std::min(text.find_first_of(",} \t\r\n"), text.size()));
      r.put(name, std::string(from.substr(0, from.size() - text.size())));
      require(!r.entries_.back().second.empty());
    }
    space(text);
    require(text.empty());
    return r;
  }

  friend bool operator==(record const&, record const&) = default;

 private:
  record& put(std::string const& name, std::string value) {
    for (auto& e : entries_)
      if (e.first == name) return e.second = std::move(value), *this;
    entries_.emplace_back(name, std::move(value));
    return *this;
  }
  std::string const* find(std::string const& name) const {
    for (auto const& e : entries_)
      if (e.first == name) return &e.second;
    return nullptr;
  }
  static std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (char const c : text) {
      auto const code = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') out += '\\', out += c;
      else if (code < 32) out += "\\u00", out += "0123456789abcdef"[code / 16], out += "0123456789abcdef"[code % 16];
      else out += c;
    }
    return out + '"';
  }
  static std::string unquoted(std::string_view& text) {
    require(!text.empty() && text.front() == '"');
    std::string out;
    std::size_t i = 1;
    for (; i < text.size() && text[i] != '"'; i++) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      require(++i < text.size());
      if (text[i] != 'u') {
        out += text[i];
        continue;
      }
      int code = 0;
      require(i + 4 < text.size());
      std::from_chars(&text[i + 1], &text[i + 1] + 4, code, 16);
      out += char(code), i += 4;
    }
    require(i < text.size());
    text.remove_prefix(i + 1);
    return out;
  }
  static void space(std::string_view& text) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  }
  static bool skip(std::string_view& text, char c) {
    space(text);
    if (text.empty() || text.front() != c) return false;
    text.remove_prefix(1);
    return true;
  }
  static void require(bool holds) {
    if (!holds) throw std::invalid_argument("this is not a flat JSON object");
  }

  std::vector<std::pair<std::string, std::string>> entries_;
};

}  // namespace tcnca::training
