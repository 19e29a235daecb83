// expect: a window needs a causal shape
#include <tcnca/chunked_attention.hpp>

template struct tcnca::chunked_attention<float, tcnca::chunked_attention_shape{.window = true}>;
