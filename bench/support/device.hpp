// What a benchmark needs of a CPU or a GPU, as a type `Device` with
//   executor                    the library's executor
//   memory<T>                   an owning array, constructed from a count
//   data(memory)                the address of its elements
//   time(call)                  seconds of a call
//   write(memory, values)       copies a host vector to it
//   read(pointer, count)        elements of any type as floats on the host
#pragma once
#include <stdexcept>
#include <string>

#include <tcnca/core/status.hpp>

namespace tcnca::bench {

inline void require(status s) {
  if (!s.ok())
    throw std::runtime_error(std::string("A tcnca operation failed: ") + to_string(s) + " (" + s.argument() + ").");
}

}  // namespace tcnca::bench
