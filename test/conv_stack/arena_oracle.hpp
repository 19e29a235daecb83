// Decides whether arguments are valid from every byte of every element: slow and simple.
#pragma once
#include <cstddef>
#include <ostream>
#include <string>
#include <vector>

#include "tcnca/core/config.hpp"

namespace tcnca::testing {

/// Arguments anywhere in one arena, and their properties, found from every byte.
struct arena_oracle {
  struct argument {
    std::string name;
    std::vector<std::ptrdiff_t> bytes;  // first byte of each element, from the arena's beginning; may repeat
    index_t element;
    bool written;
    std::ptrdiff_t at;
    std::vector<index_t> extents, strides;
  };
  std::ptrdiff_t arena_bytes;
  std::vector<argument> all;
  friend std::ostream& operator<<(std::ostream& out, arena_oracle const& o) {
    for (auto const& a : o.all) {
      out << "\n  " << a.name << (a.written ? " (written)" : "") << " at " << a.at << ", extents";
      for (index_t const e : a.extents) out << " " << e;
      out << ", strides";
      for (index_t const s : a.strides) out << " " << s;
    }
    return out;
  }

  bool inside() const {
    for (auto const& a : all)
      for (std::ptrdiff_t const b : a.bytes)
        if (b < 0 || b + a.element > arena_bytes) return false;
    return true;
  }
  // The owner of every byte: an output may share no byte with another argument, nor with itself.
  bool apart(bool state_in_place) const {
    std::vector<int> writer(std::size_t(arena_bytes), -1);
    for (int i = 0; i < int(all.size()); i++)
      for (std::ptrdiff_t const b : all[std::size_t(i)].bytes)
        for (index_t k = 0; k < all[std::size_t(i)].element; k++) {
          auto const& a = all[std::size_t(i)];
          std::size_t const at = std::size_t(b + k);
          if (a.written && writer[at] >= 0) return false;
          if (a.written) writer[at] = i;
        }
    for (std::size_t i = 0; i < writer.size(); i++)
      if (writer[i] >= 0)
        for (auto const& a : all)
          if (!a.written &&
              !(state_in_place && a.name == "state_in" && all[std::size_t(writer[i])].name == "state_out"))
            for (std::ptrdiff_t const b : a.bytes)
              if (std::ptrdiff_t(i) >= b && std::ptrdiff_t(i) < b + a.element) return false;
    return true;
  }
};

}  // namespace tcnca::testing
