// The interface between the files of a program: types of core/, which do not depend on a file's flags.
#pragma once
#include <tcnca/core/executor.hpp>
#include <tcnca/core/status.hpp>
#include <tcnca/core/tensor.hpp>

#include <cstddef>

/// y: a stack of convolutions of x; z: x silu(x); bytes: the result of the workspace query of the stack.
struct job {
  tcnca::sequence_view<float const> x;
  tcnca::sequence_view<float> y, z;
  std::size_t bytes;
};
using run = tcnca::status(tcnca::cpu where, job& j);
