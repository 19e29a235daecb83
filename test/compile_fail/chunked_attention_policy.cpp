// expect: tcnca::chunked_attention: a forward policy's blocks must be whole tiles
#include <tcnca/chunked_attention.hpp>

constexpr tcnca::chunked_attention_shape shape{};
struct tuning : tcnca::default_chunked_attention_tuning<float, shape> {
  static constexpr tcnca::chunked_attention_policy forward(tcnca::target t) {
    auto p = tcnca::default_chunked_attention_tuning<float, shape>::forward(t);
    p.query_block++;
    return p;
  }
};

auto call() { return tcnca::chunked_attention<float, shape, tuning>::forward(tcnca::cpu{}, {}, {}); }
