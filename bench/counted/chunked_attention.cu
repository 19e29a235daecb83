// Chunked attention by softmax through the public API, for count_attention.py, as in conv_stack.cu. Arguments: forward
// or backward, batch, heads, length, key dimension, value dimension, chunk.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <tcnca/chunked_attention.hpp>

#include "address.hpp"

using namespace tcnca;

namespace {

using T = COUNTED_TYPE;
using attention = chunked_attention<T, chunked_attention_shape{}>;
using A = attention::accumulate;

}  // namespace

int main(int argc, char** argv) {
  if (argc < 8) return 2;
  index_t number[6];
  for (int i = 0; i < 6; i++) number[i] = std::atoll(argv[i + 2]);
  auto const [batch, heads, length, key_dim, value_dim, chunk] = number;
  auto const rows = [&]<class E>(E* data, index_t dim) { return contiguous(data, batch, heads, length, dim); };
  tcnca::cuda const e{};
  status result = status_code::invalid_value;
  if (std::strcmp(argv[1], "forward") == 0) {
    attention::forward_args const a{.q = rows(address<T const>(1), key_dim),
                                    .k = rows(address<T const>(2), key_dim),
                                    .v = rows(address<T const>(3), value_dim),
                                    .o = rows(address<T>(4), value_dim),
                                    .lse = rows(address<A>(5), 2),
                                    .chunk = chunk};
    result = attention::forward(e, a, {address<char>(20), attention::forward_workspace(e, a)});
  } else if (std::strcmp(argv[1], "backward") == 0) {
    attention::backward_args const a{.q = rows(address<T const>(1), key_dim),
                                     .k = rows(address<T const>(2), key_dim),
                                     .v = rows(address<T const>(3), value_dim),
                                     .o = rows(address<T const>(4), value_dim),
                                     .lse = rows(address<A const>(5), 2),
                                     .grad_o = rows(address<T const>(6), value_dim),
                                     .grad_q = rows(address<T>(7), key_dim),
                                     .grad_k = rows(address<T>(8), key_dim),
                                     .grad_v = rows(address<T>(9), value_dim),
                                     .chunk = chunk};
    result = attention::backward(e, a, {address<char>(20), attention::backward_workspace(e, a)});
  }
  if (!result.ok()) std::fprintf(stderr, "%s\n", to_string(result));
  return result.ok() ? 0 : 1;
}
