// Subjects whose generic agents multiply pairs of bf16, whatever the processor is.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {

template <chunked_attention_shape Shape>
struct bf16_products_tuning {
  using defaults = default_chunked_attention_tuning<bf16, Shape>;
  static constexpr chunked_attention_policy forward(target t) { return with_products(defaults::forward(t)); }
  static constexpr chunked_attention_policy backward(target t) {
    auto p = with_products(defaults::backward(t)); p.bf16_products = false;
    if (!t.is_cpu()) p.query_block = p.key_block = 32;  // the generic agent keeps whole rows of values
    return p;
  }

 private:
  static constexpr chunked_attention_policy with_products(chunked_attention_policy p) {
    p.bf16_products = true, p.tensor_cores = false;
    return p;
  }
};

template <class Backend, class Case>
struct bf16_products_subject : attention_subject<Backend, bf16, Case> {
  using op = chunked_attention<bf16, Case::shape, bf16_products_tuning<Case::shape>>;
  static std::string name() { return attention_subject<Backend, bf16, Case>::name() + "_bf16_products"; }
};

}  // namespace tcnca::testing
