// The library on the CPU. It is compiled once per element type, in library_cpu_*.cpp, because that is expensive.
#pragma once
#include "../../support/attention_problem.hpp"
#include "../../support/contender.hpp"

namespace tcnca::bench {

template <class T>
contender make_cpu_attention(pass direction, attention_problem const& p, attention_tensors<T> const& t);

}  // namespace tcnca::bench
