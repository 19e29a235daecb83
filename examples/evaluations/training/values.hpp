// Validators of option values. A value is accepted as a whole or refused with a message: nothing is clamped, truncated
// or read in another base.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <charconv>
#include <cmath>
#include <string>
#include <system_error>
#include <vector>

namespace tcnca::training {

namespace detail {

/// Parses all of `text` as a number; false if it is none or out of the range of T.
template <class T>
bool parse(std::string const& text, T& value) {
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}
inline std::string refused(std::string const& text, std::string const& permitted) {
  return "must be " + permitted + ", not \"" + text + "\"";
}

inline CLI::Validator real(std::string const& range, std::string const& permitted,
                           bool (*holds)(double, double, double), double least, double most) {
  return {[=](std::string& text) {
            double value = 0;
            return parse(text, value) && std::isfinite(value) && holds(value, least, most) ? std::string()
                                                                                           : refused(text, permitted);
          },
          range};
}

}  // namespace detail

/// A decimal integer from `least` to `most`, without leading zeros.
template <class T>
CLI::Validator whole(T least, T most) {
  std::string const low = std::to_string(least), high = std::to_string(most);
  return {[=](std::string& text) {
            T value = 0;
            // CLI11 would read a number with a leading zero as octal.
            bool const plain = detail::parse(text, value) && text == std::to_string(value);
            return plain && value >= least && value <= most
                       ? std::string()
                       : detail::refused(text, "a whole number from " + low + " to " + high);
          },
          low + ".." + high};
}

/// A finite number from `least` to `most`.
inline CLI::Validator real(double least, double most) {
  auto const text = [](double v) {
    char digits[32];
    return std::string(digits, std::to_chars(digits, digits + sizeof digits, v).ptr);
  };
  return detail::real(
      text(least) + ".." + text(most), "a number from " + text(least) + " to " + text(most),
      [](double v, double low, double high) { return v >= low && v <= high; }, least, most);
}
inline CLI::Validator const above_zero = detail::real(
    ">0", "a finite number above 0", [](double v, double, double) { return v > 0; }, 0, 0);
inline CLI::Validator const not_negative = detail::real(
    ">=0", "a finite number of 0 or more", [](double v, double, double) { return v >= 0; }, 0, 0);

/// One of a set of words.
inline CLI::Validator one_of(std::vector<std::string> const& words) {
  std::string all;
  for (auto const& w : words) all += (all.empty() ? "" : ", ") + w;
  return {[=](std::string& text) {
            for (auto const& w : words)
              if (text == w) return std::string();
            return detail::refused(text, "one of " + all);
          },
          "{" + all + "}"};
}

/// An error in a command line, as a message.
inline std::string sentence(CLI::ParseError const& e) {
  std::string const what = e.what();
  std::size_t const colon = what.find(": ");
  std::string const before = what.substr(0, colon), after = colon == std::string::npos ? "" : what.substr(colon + 2);
  if (dynamic_cast<CLI::ValidationError const*>(&e) != nullptr) return before + " " + after;
  if (dynamic_cast<CLI::ExtrasError const*>(&e) != nullptr)
    return "\"" + after + "\" was not expected; --help lists the options";
  if (dynamic_cast<CLI::ArgumentMismatch const*>(&e) != nullptr) {
    if (what.find("override") != std::string::npos) return "--" + what.substr(0, what.find(' ')) + " takes no value";
    return before + (what.find("ost ") != std::string::npos ? " was given more than once" : " needs a value");
  }
  return "the options cannot be read: " + what;
}

}  // namespace tcnca::training
