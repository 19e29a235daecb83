// expect: constraints not satisfied
#include <tcnca/chunked_attention.hpp>

template struct tcnca::chunked_attention<int, tcnca::chunked_attention_shape{}>;
