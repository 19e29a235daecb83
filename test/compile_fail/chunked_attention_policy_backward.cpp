// expect: tcnca::chunked_attention: a backward policy's blocks must be whole tiles
#include <tcnca/chunked_attention.hpp>

constexpr tcnca::chunked_attention_shape shape{};
struct tuning : tcnca::default_chunked_attention_tuning<float, shape> {
  static constexpr tcnca::chunked_attention_policy backward(tcnca::target t) {
    auto p = tcnca::default_chunked_attention_tuning<float, shape>::backward(t);
    p.key_block++;
    return p;
  }
};

auto call() { return tcnca::chunked_attention<float, shape, tuning>::backward(tcnca::cpu{}, {}, {}); }
