// Scratch memory, the caller's.
#pragma once
#include "config.hpp"

namespace tcnca {

/// Scratch memory of one call: at least what the operation's workspace query answers, aligned to 256 bytes, on the executor's side.
/// Its contents before and after are of no meaning. Two calls that may run at once need two.
struct workspace {
  static constexpr size alignment = 256;

  void* data = nullptr;
  size bytes = 0;
};

}  // namespace tcnca
