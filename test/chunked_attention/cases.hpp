// The shapes under test, and their extents.
#pragma once
#include "problem.hpp"

namespace tcnca::testing {

struct softmax_plain {
  static constexpr char const* name = "softmax";
  static constexpr chunked_attention_shape shape{};
};
struct softmax_causal {
  static constexpr char const* name = "softmax_causal";
  static constexpr chunked_attention_shape shape{.causal = true};
};
struct softmax_causal_bias {
  static constexpr char const* name = "softmax_causal_bias";
  static constexpr chunked_attention_shape shape{.causal = true, .bias = true};
};
struct softmax_causal_bias_dropout {
  static constexpr char const* name = "softmax_causal_bias_dropout";
  static constexpr chunked_attention_shape shape{.causal = true, .bias = true, .dropout = true};
};
struct softmax_bias {
  static constexpr char const* name = "softmax_bias";
  static constexpr chunked_attention_shape shape{.bias = true};
};
struct laplace_causal_bias {
  static constexpr char const* name = "laplace_causal_bias";
  static constexpr chunked_attention_shape shape{.function = attention_function::laplace, .causal = true, .bias = true};
};
struct laplace_plain {
  static constexpr char const* name = "laplace";
  static constexpr chunked_attention_shape shape{.function = attention_function::laplace};
};
struct laplace_bias {
  static constexpr char const* name = "laplace_bias";
  static constexpr chunked_attention_shape shape{.function = attention_function::laplace, .bias = true};
};
struct laplace_dropout {
  static constexpr char const* name = "laplace_dropout";
  static constexpr chunked_attention_shape shape{.function = attention_function::laplace, .dropout = true};
};
struct relu2_causal {
  static constexpr char const* name = "relu2_causal";
  static constexpr chunked_attention_shape shape{.function = attention_function::relu2, .causal = true};
};

/// The default tuning without the kernels by wgmma.
template <class T, chunked_attention_shape Shape>
struct without_clusters : default_chunked_attention_tuning<T, Shape> {
  using base = default_chunked_attention_tuning<T, Shape>;
  static constexpr chunked_attention_policy without(chunked_attention_policy p) { return p.clusters = false, p; }
  static constexpr chunked_attention_policy forward(target t) { return without(base::forward(t)); }
  static constexpr chunked_attention_policy backward(target t) { return without(base::backward(t)); }
};

/// Edge extents: 0, 1, chunks, blocks of queries and keys, and one more or less.
template <class S>
std::vector<attention_extents> edge_extents() {
  using tuning = default_chunked_attention_tuning<typename S::T, S::shape>;
  constexpr auto target = executor_traits<typename S::backend::executor>::target;
  constexpr auto forward = tuning::forward(target);
  std::vector<attention_extents> all;
  index_t const key_dims[] = {16, 24, 64}, value_dims[] = {16, 40, 136};
  auto const add = [&](index_t chunk, index_t length) {
    std::size_t const i = all.size();
    if (length < 0) return;
    attention_extents e{.batch = 2,
                        .heads = index_t(1 + i % 2),
                        .length = length,
                        .key_dim = key_dims[i % 3],
                        .value_dim = value_dims[i / 3 % 3]};
    e.chunk = chunk;
    index_t const positions[] = {0, chunk / 2, 4 * chunk, 7 * chunk - 1, (index_t(1) << 40) / chunk * chunk + 1};
    e.position = S::causal ? positions[i % 5] : positions[i % 2 * 2];
    e.lengths = i % 3 == 1, e.state_in = S::causal && i % 4 == 0, e.state_out = S::causal && i % 2 == 0;
    e.scale = i % 5 == 4 ? 0.37 : 0, e.dropout = S::shape.dropout ? 0.1 + 0.2 * double(i % 4) : 0;
    e.heads_inside = i % 2 == 1;
    e.where = i % 3 == 0 ? placement{} : placement{int(i % 5), int(i % 4)};
    all.push_back(e);
  };
  for (index_t const chunk : {1, 2, 17, 64, 100})
    for (index_t const length : {index_t(0), index_t(1), chunk - 1, chunk, chunk + 1, 3 * chunk + 7})
      add(chunk, length);
  for (index_t const block : {index_t(forward.query_block), index_t(forward.key_block)})
    for (index_t const chunk : {block - 1, block, block + 1})
      add(std::min<index_t>(chunk, 300), std::min<index_t>(chunk, 300) + block / 2);
  // Many blocks of keys; the widest rows; the longest chunk, in its middle.
  attention_extents many{.batch = 1,
                         .heads = 1,
                         .length = 630,
                         .key_dim = 16,
                         .value_dim = 16,
                         .chunk = 601,
                         .dropout = S::shape.dropout ? 0.2 : 0};
  attention_extents wide{
      .batch = 1, .heads = 2, .length = 21, .key_dim = 256, .value_dim = 2048, .chunk = 13, .dropout = many.dropout};
  attention_extents deep{.batch = 1,
                         .heads = 1,
                         .length = 37,
                         .key_dim = 16,
                         .value_dim = 24,
                         .chunk = 16384,
                         .position = S::causal ? 16384 + 70 : 16384};
  deep.dropout = many.dropout, deep.state_out = S::causal;
  for (auto const& e : {many, wide, deep}) all.push_back(e);
  deep.length = 2;
  all.push_back(deep);
  return all;
}

template <class S>
attention_extents random_extents(random_bits& r) {
  attention_extents e{.batch = between(r, 0, 3),
                      .heads = between(r, 0, 3),
                      .length = between(r, 0, 160),
                      .key_dim = 8 * between(r, 2, 12),
                      .value_dim = 8 * between(r, 2, 20),
                      .chunk = between(r, 0, 2) ? between(r, 1, 70) : between(r, 1, 200)};
  e.position = S::causal ? between(r, 0, 500) : between(r, 0, 4) * e.chunk;
  e.lengths = between(r, 0, 1), e.state_in = S::causal && between(r, 0, 1), e.state_out = S::causal && between(r, 0, 1);
  if (between(r, 0, 3) == 0) e.scale = uniform(r);
  if (S::shape.dropout) e.dropout = between(r, 0, 9) / 10.0;
  e.spread = between(r, 0, 3) ? 1.5 : 8;
  e.heads_inside = between(r, 0, 1);
  if (between(r, 0, 1)) e.where = {between(r, 0, 9), between(r, 0, 9)};
  return e;
}

/// Whether a shape has a property that a test needs. Not constexpr: compilers would warn of unreachable loops.
inline bool has(bool property) { return property; }

/// A part of a sequence.
template <class View>
View part_of(View v, index_t begin, index_t length) {
  v.data += begin * v.stride[2], v.extent[2] = length;
  return v;
}

}  // namespace tcnca::testing
