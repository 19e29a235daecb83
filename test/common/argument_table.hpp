// Checks that hold for every view of an operation's arguments, run over a table of the views.
#pragma once
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <tcnca/core/text.hpp>

#include "support/backend.hpp"

namespace tcnca::testing {

/// The role of a view. `first`: the extents of the other views must match it. `rows`: optional, with any number of
/// rows. `unused`: the shape or another argument forbids it.
enum class role { first, needed, optional, rows, unused };

/// A call with valid arguments, and a function that visits its views: table(args, visit), visit(name, view, role).
template <class Args, class Table>
struct argument_table {
  std::string name;
  Args good;
  std::function<status(Args const&)> call;
  Table table;

  /// All errors that a single view can have.
  void check_every_view() const {
    SCOPED_TRACE(name);
    EXPECT_EQ(answer(good), "");
    int views = 0;
    visit(good, [&](char const*, auto&, role) { views++; });
    for (int n = 0; n < views; n++) check_view(n);
  }

  /// Changes the arguments: the call must be refused for that reason, and write nothing. numbers: a part of the text of
  /// its status.
  void refuses(status_code code, std::string const& argument, std::string const& numbers, auto change) const {
    SCOPED_TRACE(name);
    Args a = good;
    change(a);
    expect_refused(a, code, argument, numbers);
    std::string const text = tcnca::describe(call(a)).c_str();
    EXPECT_NE(text.find(numbers), std::string::npos) << text;
  }
  /// f(name, change) for each view: change(args, g) calls g with that view of args.
  void for_each_view(auto f) const {
    int views = 0;
    visit(good, [&](std::string const& view, auto&, role) {
      int const number = views++;
      f(view, [this, number](Args& a, auto g) {
        int n = 0;
        table(a, [&](char const*, auto& v, role) {
          if (n++ == number) g(v);
        });
      });
    });
  }

  /// "code, argument" of a call; "" if it succeeds.
  static std::string describe(status_code code, std::string const& argument) {
    return code == status_code::success ? "" : std::string(to_string(status(code))) + ", " + argument;
  }
  std::string answer(Args const& a) const {
    status const s = call(a);
    return describe(s.code(), s.argument());
  }

 private:
  void visit(Args a, auto f) const { table(a, f); }
  void expect_refused(Args const& a, status_code code, std::string const& argument, std::string const& what) const {
    auto const before = results();
    EXPECT_EQ(answer(a), describe(code, argument)) << argument << ": " << what;
    EXPECT_TRUE(before == results()) << argument << ": " << what << ", and something was written";
  }
  /// Changes one view; the memory of the valid views must not be written.
  void expect(int number, status_code code, char const* what, auto change) const {
    Args a = good;
    std::string changed;
    int n = 0;
    table(a, [&](char const* view, auto& v, role) {
      if (n++ == number) changed = view, change(v);
    });
    expect_refused(a, code, changed, what);
  }
  std::vector<unsigned char> results() const {
    std::vector<unsigned char> all;
    visit(good, [&](char const*, auto& v, role) {
      using element = std::remove_reference_t<decltype(*v.data)>;
      if constexpr (!std::is_const_v<element>) {
        auto const* const p = reinterpret_cast<unsigned char const*>(v.data);
        if (v.data) all.insert(all.end(), p, p + std::size_t(v.count()) * sizeof(element));
      }
    });
    return all;
  }
  static inline double memory[8] = {};  // the memory of a view that must be absent
  template <std::size_t N>
  static void set_all(index_t (&values)[N], index_t to) {
    for (index_t& v : values) v = to;
  }

  void check_view(int n) const {
    using code = status_code;
    role what{};
    int rank = 0, i = 0;
    std::vector<index_t> extents;
    visit(good, [&](char const*, auto& v, role r) {
      if (i++ != n) return;
      what = r, rank = std::remove_reference_t<decltype(v)>::rank;
      extents.assign(v.extent, v.extent + rank);
    });
    if (what == role::unused) {
      expect(n, code::unexpected_argument, "extents, no pointer", [](auto& v) { set_all(v.extent, 1); });
      expect(n, code::unexpected_argument, "a pointer, no extents",
             [](auto& v) { v.data = reinterpret_cast<decltype(v.data)>(memory); });
      expect(n, code::unexpected_argument, "given", [](auto& v) {
        v.data = reinterpret_cast<decltype(v.data)>(memory), set_all(v.extent, 1), set_all(v.stride, 1);
      });
      return;
    }
    expect(n, code::null_pointer, "extents, no pointer", [](auto& v) { v.data = nullptr; });
    if (what != role::first) {
      expect(n, code::invalid_extent, "other extents, no pointer",
             [](auto& v) { v.data = nullptr, v.extent[v.rank - 1]++; });
      expect(n, code::invalid_extent, "a pointer, no extents", [](auto& v) { set_all(v.extent, 0); });
    }
    if (what == role::needed) expect(n, code::missing_argument, "absent", [](auto& v) { v = {}; });
    expect(n, code::invalid_stride, "beyond the address space",
           [](auto& v) { v.data = reinterpret_cast<decltype(v.data)>(~std::uintptr_t(7)); });
    for (int axis = 0; axis < rank; axis++) {
      for (index_t const huge : {index_t(1) << 40, index_t(1) << 62, std::numeric_limits<index_t>::max()}) {
        if ((what != role::first && (what != role::rows || axis > 0)) || huge > index_t(1) << 48)
          expect(n, code::invalid_extent, "huge extent", [=](auto& v) { v.extent[axis] = huge; });
        if (huge > index_t(1) << 60 && extents[std::size_t(axis)] > 1)
          expect(n, code::invalid_stride, "huge stride", [=](auto& v) { v.stride[axis] = huge; });
      }
      expect(n, code::invalid_extent, "least extent",
             [=](auto& v) { v.extent[axis] = std::numeric_limits<index_t>::min(); });
      expect(n, code::invalid_stride, "least stride",
             [=](auto& v) { v.stride[axis] = std::numeric_limits<index_t>::min(); });
    }
  }
};
template <class Args, class Call, class Table>
argument_table(std::string, Args, Call, Table) -> argument_table<Args, Table>;

}  // namespace tcnca::testing
