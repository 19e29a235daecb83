// Binds tcnca::chunked_attention to memory, on any machine (headline/device.hpp says what a Device is). make_cpu_attention is compiled once
// for each element type, in library_cpu_*.cpp.
#pragma once
#include "../../support/attention_problem.hpp"
#include "../../support/contender.hpp"

namespace tcnca::bench {

template <class T>
contender make_cpu_attention(pass direction, attention_problem const& p, attention_tensors<T> const& t);

}  // namespace tcnca::bench
