// The command line of a benchmark: options with their ranges, and a sentence for each error.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#if defined(__linux__)
#include <unistd.h>
#endif

#include <charconv>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <tcnca/core/config.hpp>

namespace tcnca::bench {

/// An error of the command line as a sentence; with status 0: help was requested and printed.
struct usage_error : std::runtime_error {
  int status;
  explicit usage_error(std::string const& sentence, int s = 2) : std::runtime_error(sentence), status(s) {}
};

namespace detail {
inline std::string plain(double v) {
  char text[40];
  std::snprintf(text, sizeof text, "%.15g", v);
  return text;
}
inline std::string shown(std::string const& text) { return text.empty() ? "an empty value" : text; }
inline std::string joined(std::vector<std::string> const& words) {
  std::string text;
  for (auto const& w : words) text += (text.empty() ? "" : ", ") + w;
  return text;
}
}  // namespace detail

/// Accepts decimal integers: not 0x0c, 12.0, 1e1 or 012, which CLI11 would read as octal.
inline CLI::Validator whole_number(index_t low, index_t high) {
  std::string const range = std::to_string(low) + " to " + std::to_string(high);
  return {[=](std::string& text) {
            index_t v = 0;
            auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
            bool const good = error == std::errc() && end == text.data() + text.size() && v >= low && v <= high &&
                              text == std::to_string(v);
            return good ? std::string() : detail::shown(text) + " is not a whole number from " + range + ".";
          },
          range};
}
inline CLI::Validator number(double low, double high) {
  std::string const range = detail::plain(low) + " to " + detail::plain(high);
  return {[=](std::string& text) {
            double v = 0;
            auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
            bool const good =
                error == std::errc() && end == text.data() + text.size() && v >= low && v <= high;  // not nan either
            return good ? std::string() : detail::shown(text) + " is not a number from " + range + ".";
          },
          range};
}
inline CLI::Validator one_of(std::vector<std::string> const& names) {
  return {[=](std::string& text) {
            for (auto const& n : names)
              if (n == text) return std::string();
            return detail::shown(text) + " is not one of " + detail::joined(names) + ".";
          },
          detail::joined(names)};
}
inline CLI::Validator readable_file() {
  return {[](std::string& text) {
            std::error_code none;
            if (std::filesystem::is_regular_file(text, none) && std::ifstream(text)) return std::string();
            return text + " is not a file that can be read.";
          },
          "FILE"};
}
/// A file that can be written; creates its folder. Tested when the options are parsed, not after minutes of
/// measurements.
inline CLI::Validator writable_file() {
  return {[](std::string& text) {
            std::filesystem::path const file(text);
            std::error_code failed;
            if (std::filesystem::is_directory(file, failed)) return text + " is a folder, and must be a file.";
            bool const was_there = std::filesystem::exists(file, failed);
            if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), failed);
            bool const good = bool(std::ofstream(file, std::ios::app));
            if (good && !was_there) std::filesystem::remove(file, failed);
            return good ? std::string() : text + " cannot be written.";
          },
          "FILE"};
}

class command_line {
 public:
  command_line(std::string program, std::string const& description)
      : app_(description, program), program_(std::move(program)) {}

  template <class T>
  void option(char const* name, T& to, char const* what, CLI::Validator const& allowed, bool show_default = true) {
    auto* const o = app_.add_option(name, to, what)->check(allowed);
    if (show_default) o->capture_default_str();
  }
  /// Comma-separated values, each at most once.
  template <class T>
  void list(char const* name, std::vector<T>& to, char const* what, CLI::Validator const& allowed) {
    app_.add_option(name, to, what)->delimiter(',')->check(allowed)->capture_default_str();
    lists_.push_back(name);
  }
  void text(char const* name, std::string& to, char const* what) { app_.add_option(name, to, what); }
  void flag(char const* name, bool& to, char const* what) { app_.add_flag(name, to, what); }
  bool given(char const* name) const { return app_.count(name) > 0; }

  /// Throws usage_error.
  void parse(int argc, char const* const* argv) {
    try {
      app_.parse(argc, argv);
    } catch (CLI::CallForHelp const&) {
      std::fputs(app_.help().c_str(), stdout);
      throw usage_error("", 0);
    } catch (CLI::ArgumentMismatch const& e) {
      std::string const said = e.what(), name = said.substr(0, said.find(':'));
      throw usage_error(name +
                        (said.find("missing") != std::string::npos ? " needs a value." : " is given more than once."));
    } catch (CLI::ConversionError const& e) {
      std::string const said = e.what(), marks = " = ";  // "Could not convert: --check = maybe"
      auto const value = said.rfind(marks), name = said.find("--");
      throw usage_error(said.substr(name, value - name) + ": " + said.substr(value + marks.size()) +
                        " is not a value of this flag.");
    } catch (CLI::ExtrasError const&) {
      throw usage_error(detail::joined(app_.remaining()) +
                        (app_.remaining().size() == 1 ? " is not an option" : " are not options") +
                        " of this program.");
    } catch (CLI::ParseError const& e) { throw usage_error(e.what()); }
    for (auto const& name : lists_) {
      std::set<std::string> seen;
      for (auto const& value : app_.get_option(name)->reduced_results())
        if (!seen.insert(value).second) throw usage_error(name + ": " + value + " is given twice.");
    }
  }

 private:
  CLI::App app_;
  std::string program_;
  std::vector<std::string> lists_;
};

/// Throws usage_error if this machine has less memory. `what` begins the sentence: "--lengths: 16777216".
inline void require_memory(std::string const& what, double bytes) {
#if defined(__linux__)
  double const have = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  char text[120];
  std::snprintf(text, sizeof text, " would need about %.3g GiB of memory, and this machine has %.3g.",
                bytes / 1073741824, have / 1073741824);
  if (bytes > have) throw usage_error(what + text);
#endif
}

/// The body of main: prints a sentence on stderr for each kind of failure. Exit status 2: wrong options, 1: failed.
inline int guarded(char const* program, std::function<int()> const& body) try {
  return body();
} catch (usage_error const& e) {
  if (e.status != 0) std::fprintf(stderr, "%s: %s\n", program, e.what());
  return e.status;
} catch (std::bad_alloc const&) {
  std::fprintf(stderr, "%s: There is not enough memory for these extents.\n", program);
  return 1;
} catch (std::exception const& e) {
  std::fprintf(stderr, "%s: %s\n", program, e.what());
  return 1;
}

}  // namespace tcnca::bench
