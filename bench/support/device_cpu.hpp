// The CPU as a Device: wall-clock time.
#pragma once
#include <algorithm>
#include <chrono>
#include <vector>

#include <tcnca/core/executor.hpp>
#include "buffer.hpp"
#include "convert.hpp"

namespace tcnca::bench {

struct cpu_device {
  cpu executor;

  template <class T>
  using memory = buffer<T>;

  template <class T>
  static T* data(buffer<T>& m) {
    return m.data();
  }
  template <class Call>
  static double time(Call const& call) {
    auto const start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  template <class T>
  static void write(buffer<T>& to, std::vector<T> const& from) {
    std::copy(from.begin(), from.end(), to.begin());
  }
  template <class T>
  static std::vector<float> read(T const* from, size_t count) {
    std::vector<float> to(count);
    widen(to.data(), from, static_cast<index_t>(count));
    return to;
  }
};

}  // namespace tcnca::bench
