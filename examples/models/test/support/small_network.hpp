// A small model in fp64, and a batch for it.
#pragma once
#include "../../network.hpp"
#include "layer_kinds.hpp"

namespace tcnca::testing {

using namespace models;

inline model_config small(head_kind head) {
  model_config m;
  m.batch = 4, m.length = 11, m.head = head, m.vocabulary = 6, m.classes = 3;
  m.layers = 2, m.channels = 5, m.value_dim = 16, m.key_dim = 16, m.hidden = 6, m.chunk = 4, m.clip = 0;
  return m;
}
inline std::unique_ptr<model> make(model_config const& m) {
  return std::make_unique<network<double, cpu>>(m, [&m](context<double, cpu>& c, layer_config const& l) {
    return make_layer(c, l,
                      {m.mixer, m.gates, m.head == head_kind::next_token, m.attention == attention_kind::laplace});
  });
}

/// Pseudo-random tokens and targets.
struct data {
  std::vector<int> tokens, targets;
  std::vector<std::int64_t> lengths;
  models::examples view;

  explicit data(model_config const& m, bool padded = false) {
    long const n = m.batch * m.length, classes = m.head == head_kind::next_token ? m.vocabulary : m.classes;
    for (long i = 0; i < n; i++)
      tokens.push_back(int(i * i * 31 % 101 % m.vocabulary)), targets.push_back(int((i * 7 + i * i) % 89 % classes));
    targets[1] = -1;
    for (long b = 0; b < m.batch; b++) lengths.push_back(m.length - 3 * b);
    view = {m.batch, m.length, tokens.data(), targets.data(), padded ? lengths.data() : nullptr};
  }
};

}  // namespace tcnca::testing
