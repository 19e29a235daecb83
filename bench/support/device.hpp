// What a benchmark needs of a machine, as a type with
//   executor                 the library's
//   memory<T>                made of a count; has data() and size()
//   time(call)               seconds of a call
//   write(pointer, values)   copies a vector there
//   read(pointer, count)     elements of any type as floats
#pragma once
#include <stdexcept>
#include <string>

#include <tcnca/core/status.hpp>

namespace tcnca::bench {

inline void require(status s) {
  if (!s.ok())
    throw std::runtime_error(std::string("An operation of tcnca failed: ") + to_string(s) + " (" + s.argument() + ").");
}

}  // namespace tcnca::bench
