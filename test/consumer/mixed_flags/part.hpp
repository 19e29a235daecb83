// What the files of a program agree on: the library's vocabulary, which is the same whatever a file's flags are.
#pragma once
#include <tcnca/core/executor.hpp>
#include <tcnca/core/status.hpp>
#include <tcnca/core/tensor.hpp>

#include <cstddef>

/// y: a stack of convolutions of x; z: x silu(x). bytes: what the workspace query of the stack answers.
struct job {
  tcnca::sequence_view<float const> x;
  tcnca::sequence_view<float> y, z;
  std::size_t bytes;
};
using run = tcnca::status(tcnca::cpu where, job& j);
