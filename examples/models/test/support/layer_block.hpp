// A layer and its feed-forward block, with a loss, for tests.
#pragma once
#include <string>

#include "../../feed_forward.hpp"
#include "layer_kinds.hpp"
#include "support/numbers.hpp"

namespace tcnca::testing {

struct layer_setting {
  std::string name;
  layer_kind kind;
  models::layer_config layer;
  models::feed_forward_config ffn;
  index_t batch = 2, length = 5;
};

/// Key and value dimensions are the smallest that attention supports.
inline layer_setting make_setting(std::string const& name, layer_kind kind, models::norm_kind norm, bool pre_norm,
                                  models::bias_kind bias, double dropout) {
  layer_setting s;
  s.name = name, s.kind = kind;
  s.layer = {.channels = 5,
             .value_dim = 16,
             .key_dim = 16,
             .chunk = 4,
             .norm = norm,
             .pre_norm = pre_norm,
             .bias = bias,
             .dropout = dropout};
  s.layer.attention_dropout = dropout;
  s.ffn = {
      .channels = 5, .hidden = 6, .norm = norm, .pre_norm = pre_norm, .dropout = dropout, .hidden_dropout = dropout};
  return s;
}

/// The loss is <y, u> over the valid positions.
struct layer_block {
  models::context<double, cpu> c;
  std::unique_ptr<models::any_layer<double, cpu>> first;
  models::feed_forward<double, cpu> second;
  models::region x, middle, y, u, grad;

  explicit layer_block(layer_setting const& s, int threads = 1)
      : c(threads, s.batch, s.length), first(make_layer(c, s.layer, s.kind)), second(c, s.ffn) {
    index_t const n = c.rows() * s.layer.channels;
    x = c.kept.take(n), middle = c.kept.take(n), y = c.kept.take(n), u = c.kept.take(n), grad = c.kept.take(n);
    c.commit();
    first->reserve(c);
    c.commit_scratch();
    c.seed = 5, c.step = 7;
    random_bits r{3};
    for (auto const& e : c.parameters())
      for (size_t i = 0; i < e.where.count; i++) c.values[e.where][i] = e.begin.mean / 2 + uniform(r);
    for (size_t i = 0; i < x.count; i++) c.kept[x][i] = uniform(r), c.kept[u][i] = uniform(r);
  }
  void set_lengths(std::vector<std::int64_t> const& lengths) {
    c.set_lengths(lengths.data());
    index_t const channels = index_t(u.count) / c.rows();
    for (index_t r = 0; r < c.rows(); r++)
      for (index_t k = 0; k < channels; k++)
        if (r % c.length >= lengths[size_t(r / c.length)]) c.kept[u][r * channels + k] = 0;
  }
  double loss() {
    first->forward(c, c.kept[x], c.kept[middle]);
    second.forward(c, c.kept[middle], c.kept[y]);
    double sum = 0;
    for (size_t i = 0; i < y.count; i++) sum += c.kept[y][i] * c.kept[u][i];
    return sum;
  }
  void backward() {
    std::copy_n(c.kept[u], u.count, c.kept[grad]);
    second.backward(c, c.kept[middle], c.kept[grad]);
    first->backward(c, c.kept[x], c.kept[grad]);
  }
};

}  // namespace tcnca::testing
