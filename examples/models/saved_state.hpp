// What a checkpoint has of a model: arrays in the executor's memory, and the number of steps.
#pragma once
#include <cstring>

#include "memory.hpp"
#include "model.hpp"

namespace tcnca::models {

/// An array that is saved under a name.
template <class T>
struct state_array {
  char const* name;
  T* data;
  size_t count;
};

template <class T, class E>
std::vector<saved_part> save_state(context<T, E> const& c, std::vector<state_array<T>> const& arrays, index_t steps) {
  std::vector<saved_part> parts;
  for (auto const& r : arrays) {
    parts.push_back({r.name, std::vector<char>(r.count * sizeof(T))});
    c.download(reinterpret_cast<char const*>(r.data), parts.back().bytes.data(), parts.back().bytes.size());
  }
  parts.push_back({"steps", std::vector<char>(sizeof steps)});
  std::memcpy(parts.back().bytes.data(), &steps, sizeof steps);
  return parts;
}

/// Returns the number of steps. Throws std::invalid_argument and changes nothing if the parts are not these arrays.
template <class T, class E>
index_t load_state(context<T, E> const& c, std::vector<state_array<T>> const& arrays,
                   std::vector<saved_part> const& parts) {
  auto const wrong = [](std::string const& what) {
    return std::invalid_argument("what was saved is not of a model of this configuration: " + what);
  };
  index_t steps = 0;
  if (parts.size() != arrays.size() + 1)
    throw wrong("it has " + std::to_string(parts.size()) + " parts, expected " + std::to_string(arrays.size() + 1));
  for (size_t i = 0; i < parts.size(); i++) {
    std::string const name = i < arrays.size() ? arrays[i].name : "steps";
    size_t const bytes = i < arrays.size() ? arrays[i].count * sizeof(T) : sizeof steps;
    if (parts[i].name != name) throw wrong("it has the part \"" + parts[i].name + "\", expected \"" + name + "\"");
    if (parts[i].bytes.size() != bytes)
      throw wrong("the part \"" + name + "\" has " + std::to_string(parts[i].bytes.size()) + " bytes, expected " +
                  std::to_string(bytes));
  }
  std::memcpy(&steps, parts.back().bytes.data(), sizeof steps);
  if (steps < 0) throw wrong("its number of steps is negative");
  for (size_t i = 0; i < arrays.size(); i++)
    c.upload(parts[i].bytes.data(), reinterpret_cast<char*>(arrays[i].data), parts[i].bytes.size());
  return steps;
}

}  // namespace tcnca::models
