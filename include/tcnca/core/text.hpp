// Texts and hashes of shapes and policies, for tables of instantiations and for messages.
#pragma once
#include "config.hpp"
#include "options.hpp"
#include "status.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A text of at most 1023 characters, without allocation. What does not fit is left out.
class text {
 public:
  static constexpr size_t capacity = 1024;

  constexpr char const* c_str() const { return characters_; }
  constexpr size_t size() const { return size_; }

  constexpr text& add(char const* s) {
    for (; *s; s++) add_character(*s);
    return *this;
  }
  constexpr text& add(index_t n) {
    if (n < 0) add_character('-');
    char digits[20] = {};
    int count = 0;
    do {
      int const digit = int(n % 10);
      digits[count++] = char('0' + (digit < 0 ? -digit : digit));
      n /= 10;
    } while (n != 0);
    while (count > 0) add_character(digits[--count]);
    return *this;
  }

 private:
  constexpr void add_character(char c) {
    if (size_ + 1 < capacity) characters_[size_++] = c;
  }

  char characters_[capacity] = {};
  size_t size_ = 0;
};

/// The name of an enumerator.
constexpr char const* to_string(activation a) {
  switch (a) {
    case activation::none: return "none";
    case activation::relu: return "relu";
    case activation::silu: return "silu";
    case activation::gelu_erf: return "gelu_erf";
    case activation::gelu_tanh: return "gelu_tanh";
    case activation::tanh: return "tanh";
  }
  return "";
}
constexpr char const* to_string(residual r) {
  switch (r) {
    case residual::none: return "none";
    case residual::level: return "level";
    case residual::block: return "block";
  }
  return "";
}
constexpr char const* to_string(parameter_type t) {
  switch (t) {
    case parameter_type::element: return "element";
    case parameter_type::accumulate: return "accumulate";
  }
  return "";
}
constexpr char const* to_string(direction d) {
  switch (d) {
    case direction::causal: return "causal";
    case direction::symmetric: return "symmetric";
    case direction::bidirectional: return "bidirectional";
  }
  return "";
}
constexpr char const* to_string(layout l) {
  switch (l) {
    case layout::batch_channels_length: return "batch_channels_length";
    case layout::batch_length_channels: return "batch_length_channels";
  }
  return "";
}
constexpr char const* to_string(attention_function f) {
  switch (f) {
    case attention_function::softmax: return "softmax";
    case attention_function::laplace: return "laplace";
    case attention_function::relu2: return "relu2";
  }
  return "";
}

constexpr char const* type_name(activation) { return "activation"; }
constexpr char const* type_name(residual) { return "residual"; }
constexpr char const* type_name(parameter_type) { return "parameter_type"; }
constexpr char const* type_name(direction) { return "direction"; }
constexpr char const* type_name(layout) { return "layout"; }
constexpr char const* type_name(attention_function) { return "attention_function"; }

/// A type that names its fields: x.fields(f) calls f(name, value) for each of them, in order of declaration.
template <class T>
concept has_fields = requires(T const& x) {
  x.fields([](char const*, auto const&) {});
};

/// An initializer of x in C++: "{.taps = 4, .depth = 6, ..., .act = tcnca::activation::relu, ...}". After the name of
/// the type it is an expression with the value of x, so that a program can generate source for a shape.
template <has_fields T>
constexpr text to_string(T const& x) {
  text result;
  char const* before = "{.";
  x.fields([&](char const* name, auto const& value) {
    result.add(before).add(name).add(" = ");
    if constexpr (requires { type_name(value); }) {
      result.add("tcnca::").add(type_name(value)).add("::").add(to_string(value));
    } else if constexpr (requires { value.count(); }) {  // a list
      for (int i = 0; i < value.count(); i++) result.add(i == 0 ? "{" : ", ").add(value[i]);
      result.add(value.count() == 0 ? "{}" : "}");
    } else if constexpr (same<decltype(value), bool const&>) {
      result.add(value ? "true" : "false");
    } else {
      result.add(index_t(value));
    }
    before = ", .";
  });
  return result.add("}");
}

/// A hash of all fields, the same in every program.
template <has_fields T>
constexpr uint64 hash_value(T const& x) {
  uint64 hash = 0;
  auto const add = [&](uint64 value) {  // the finalizer of SplitMix64
    hash += value + 0x9e3779b97f4a7c15u;
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
    hash ^= hash >> 31;
  };
  x.fields([&](char const*, auto const& value) {
    if constexpr (requires { value.count(); }) {
      for (int i = 0; i < value.capacity; i++) add(uint64(value[i]));
    } else {
      add(uint64(value));
    }
  });
  return hash;
}

/// The message of to_string(s) with the argument's name and the numbers that tell what is wrong: "y: an extent is ...
/// (extent[2] is 10, expected 9)".
constexpr text describe(status const& s) {
  text result;
  if (s.argument()[0] != 0) result.add(s.argument()).add(": ");
  result.add(to_string(s));
  status_detail const& d = s.detail();
  if (d.other[0] != 0) return result.add(" (").add(d.other).add(")");
  if (d.what[0] == 0) return result;
  result.add(" (");
  if (d.axis >= 0) {
    result.add(d.what).add("[").add(index_t(d.axis)).add("] is ").add(d.actual);
    if (d.expected >= 0) result.add(", expected ").add(d.expected);
  } else {
    result.add(d.actual).add(" ").add(d.what).add(", needs ").add(d.expected);
  }
  return result.add(")");
}

}  // namespace tcnca
