// The layers of examples/models in fp64: gradients of all parameters and of the input against differences of the forward pass, and outputs and
// gradients against vectors that JAX computed.
#include <gtest/gtest.h>

#include <cmath>

#include "../examples/models/feed_forward.hpp"
#include "../examples/models/layer.hpp"
#include "support/golden.hpp"
#include "support/numbers.hpp"

namespace tcnca::testing {
namespace {

using namespace models;

constexpr layout order = layout::batch_length_channels;
using convolutions = conv_mixer<double, cpu, conv_stack_shape{.taps = 3,
                                                         .depth = 2,
                                                         .dilation_base = 3,
                                                         .act = activation::silu,
                                                         .residuals = residual::level,
                                                         .bias = true,
                                                         .skip = true,
                                                         .order = order}>;
using average = ema_mixer<double, cpu, ema_shape{.states = 2, .order = order}>;
constexpr gated_fusion_shape all_gates{};
constexpr gated_fusion_shape no_gates{.update_gate = false, .reset_gate = false, .mixer_path = false};
constexpr chunked_attention_shape softmax{.causal = true, .bias = true};
constexpr chunked_attention_shape laplace{.function = attention_function::laplace, .causal = true, .bias = true};

/// A layer with its mixer.
template <class Mixer, gated_fusion_shape Gates, chunked_attention_shape Attention>
struct kind {
  static std::unique_ptr<any_layer<double, cpu>> make(context<double, cpu>& c, layer_config const& config) {
    return std::make_unique<layer<double, cpu, Gates, Attention>>(c, config, [](context<double, cpu>& of, index channels) -> std::unique_ptr<mixer<double, cpu>> {
      return std::make_unique<Mixer>(of, channels);
    });
  }
};
using tcnca_layer = kind<convolutions, all_gates, softmax>;
using mega_layer = kind<average, all_gates, laplace>;
using simple_layer = kind<convolutions, no_gates, softmax>;

struct setting {
  char const* name;
  layer_config layer;
  feed_forward_config ffn;
  index batch, length;
};

/// Key and value dimensions are the smallest that attention takes.
setting make(char const* name, norm_kind norm, bool pre_norm, bias_kind bias, double dropout) {
  return {name,
          {.channels = 5, .value_dim = 16, .key_dim = 16, .chunk = 4, .norm = norm, .pre_norm = pre_norm, .bias = bias, .dropout = dropout},
          {.channels = 5, .hidden = 6, .norm = norm, .pre_norm = pre_norm, .dropout = dropout, .hidden_dropout = dropout},
          2,
          5};
}

/// A layer and its feed-forward block; the loss is <y, u>.
template <class Layer>
struct block {
  context<double, cpu> c;
  std::unique_ptr<any_layer<double, cpu>> first;
  feed_forward<double, cpu> second;
  region x, middle, y, u, grad;

  explicit block(setting const& s, int threads = 1) : c(threads, s.batch, s.length), first(Layer::make(c, s.layer)), second(c, s.ffn) {
    index const n = c.rows() * s.layer.channels;
    x = c.kept.take(n), middle = c.kept.take(n), y = c.kept.take(n), u = c.kept.take(n), grad = c.kept.take(n);
    c.commit();
    first->reserve(c);
    c.commit_scratch();
    c.seed = 5, c.step = 7;
    random_bits r{3};
    for (auto const& e : c.parameters())
      for (size i = 0; i < e.where.count; i++) c.values[e.where][i] = e.begin.mean / 2 + uniform(r);
    for (size i = 0; i < x.count; i++) c.kept[x][i] = uniform(r), c.kept[u][i] = uniform(r);
  }
  double loss() {
    first->forward(c, c.kept[x], c.kept[middle]);
    second.forward(c, c.kept[middle], c.kept[y]);
    double sum = 0;
    for (size i = 0; i < y.count; i++) sum += c.kept[y][i] * c.kept[u][i];
    return sum;
  }
  void backward() {
    std::copy_n(c.kept[u], u.count, c.kept[grad]);
    second.backward(c, c.kept[middle], c.kept[grad]);
    first->backward(c, c.kept[x], c.kept[grad]);
  }
};

template <class Layer>
void expect_slopes(setting const& s) {
  block<Layer> b(s);
  b.loss();
  b.backward();
  double magnitude = 0;
  for (size i = 0; i < b.y.count; i++) magnitude += std::abs(b.c.kept[b.y][i] * b.c.kept[b.u][i]);
  double const noise = 0x1p-43 * magnitude;  // a number of y has passed fewer than 2^10 roundings
  auto const check = [&](char const* what, size number, double& value, double expected) {
    double const saved = value, h = 2e-4;
    auto const difference = [&](double step) {
      value = saved + step;
      double const up = b.loss();
      value = saved - step;
      double const down = b.loss();
      value = saved;
      return (up - down) / (2 * step);
    };
    double const d1 = difference(h), d2 = difference(2 * h), d4 = difference(4 * h);
    double const fine = (4 * d1 - d2) / 3, coarse = (4 * d2 - d4) / 3;  // off by h^4, and by 16 times that
    double const bound = std::abs(fine - coarse) + 2 * noise / h;
    ASSERT_NEAR(fine, expected, bound) << s.name << ": " << what << " " << number;
    ASSERT_LT(bound, 1e-6 * (1 + std::abs(expected))) << "the test has no force";
  };
  for (size p = 0; p < b.c.parameters().size(); p++) {
    region const where = b.c.parameters()[p].where;
    for (size i = 0; i < where.count; i++)
      check(("parameter " + std::to_string(p)).c_str(), i, b.c.values[where][i], b.c.gradients[where][i]);
  }
  for (size i = 0; i < b.x.count; i++) check("x", i, b.c.kept[b.x][i], b.c.kept[b.grad][i]);
}

TEST(layer, tcnca_gradients_are_slopes) {
  expect_slopes<tcnca_layer>(make("layernorm before, rotary", norm_kind::layer, true, bias_kind::rotary, 0));
  expect_slopes<tcnca_layer>(make("rmsnorm after, simple, dropout", norm_kind::rms, false, bias_kind::simple, 0.3));
}
TEST(layer, mega_gradients_are_slopes) {
  expect_slopes<mega_layer>(make("scalenorm after, simple", norm_kind::scale, false, bias_kind::simple, 0));
  expect_slopes<mega_layer>(make("layernorm after, simple, dropout", norm_kind::layer, false, bias_kind::simple, 0.3));
}
TEST(layer, simplified_gradients_are_slopes) {
  expect_slopes<simple_layer>(make("rmsnorm before, simple", norm_kind::rms, true, bias_kind::simple, 0));
  expect_slopes<simple_layer>(make("scalenorm before, rotary, dropout", norm_kind::scale, true, bias_kind::rotary, 0.3));
}

TEST(layer, repeats_its_bits) {
  setting s = make("two threads", norm_kind::layer, true, bias_kind::rotary, 0.3);
  s.batch = 3, s.length = 301;  // products large enough to be shared out
  block<tcnca_layer> a(s, 2), b(s, 2);
  EXPECT_EQ(a.loss(), b.loss());
  EXPECT_EQ(a.loss(), b.loss());
  a.backward(), b.backward();
  EXPECT_TRUE(std::equal(a.c.gradients.data(), a.c.gradients.data() + a.c.gradients.count(), b.c.gradients.data()));
  EXPECT_TRUE(std::equal(a.c.kept[a.grad], a.c.kept[a.grad] + a.grad.count, b.c.kept[b.grad]));
}

/// A shorter batch takes the front of the memory that was planned for the longest.
TEST(layer, takes_a_smaller_batch) {
  setting s = make("whole", norm_kind::layer, true, bias_kind::simple, 0);
  block<tcnca_layer> whole(s);
  whole.loss();
  std::vector<double> const first(whole.c.kept[whole.y], whole.c.kept[whole.y] + s.length * s.layer.channels);
  whole.c.batch = 1;
  whole.loss();
  for (size i = 0; i < first.size(); i++) EXPECT_NEAR(whole.c.kept[whole.y][i], first[i], 1e-12 * (1 + std::abs(first[i])));
}

/// MEGA's layer of the EnWik8 model, as published: 12 of these are 39.0 million.
TEST(layer, mega_has_as_many_parameters_as_published) {
  using enwik8 = kind<ema_mixer<double, cpu, ema_shape{.states = 16, .order = order}>, all_gates, softmax>;
  context<double, cpu> c(1, 1, 1);
  auto const first = enwik8::make(c, {.channels = 512, .value_dim = 1024, .key_dim = 128, .chunk = 2048, .bias = bias_kind::rotary});
  feed_forward<double, cpu> const second(c, {.channels = 512, .hidden = 1024});
  EXPECT_EQ(c.parameter_count(), 3252608u);
}

/// `names` are the parameters in the order in which the parts ask for them.
template <class Layer>
void expect_golden(std::string const& name, setting s, std::vector<std::string> const& names) {
  auto const cases = read_golden("layer.txt");
  auto const at = std::find_if(cases.begin(), cases.end(), [&](golden_case const& g) { return g.name == name; });
  ASSERT_NE(at, cases.end());
  s.batch = at->tensors.at("x").extent[0], s.length = at->tensors.at("x").extent[1];
  block<Layer> b(s);
  auto const give = [&](char const* what, double* to, size count) {
    ASSERT_EQ(at->values(what).size(), count) << what;
    std::copy_n(at->values(what).begin(), count, to);
  };
  give("x", b.c.kept[b.x], b.x.count), give("grad_y", b.c.kept[b.u], b.u.count);
  ASSERT_EQ(names.size(), b.c.parameters().size());
  for (size p = 0; p < names.size(); p++) give(names[p].c_str(), b.c.values[b.c.parameters()[p].where], b.c.parameters()[p].where.count);
  b.loss();
  b.backward();
  // fp64 on both sides: sums of fewer than 2^10 terms whose sizes are those of the tensor's largest.
  auto const expect = [&](std::string const& what, double const* ours) {
    auto const& theirs = at->values(what);
    double largest = 1;
    for (double v : theirs) largest = std::max(largest, std::abs(v));
    for (size i = 0; i < theirs.size(); i++) ASSERT_NEAR(ours[i], theirs[i], 0x1p-43 * largest) << name << ": " << what << " " << i;
  };
  expect("y", b.c.kept[b.y]), expect("grad_x", b.c.kept[b.grad]);
  for (size p = 0; p < names.size(); p++) expect("grad_" + names[p], b.c.gradients[b.c.parameters()[p].where]);
}

TEST(layer, tcnca_agrees_with_jax) {
  expect_golden<tcnca_layer>("tcnca", make("", norm_kind::layer, true, bias_kind::rotary, 0),
                             {"norm_gain", "norm_bias", "wv", "bv", "weight", "bias", "omega", "wm", "bm", "gq", "mq", "gk", "mk", "rotary_a", "rotary_b",
                              "wh", "bh", "ffn_gain", "ffn_bias", "w1", "b1", "w2", "b2"});
}
TEST(layer, mega_agrees_with_jax) {
  expect_golden<mega_layer>("mega", make("", norm_kind::scale, false, bias_kind::simple, 0),
                            {"norm_gain", "wv", "bv", "delta", "alpha", "beta", "gamma", "omega", "wm", "bm", "gq", "mq", "gk", "mk", "table", "wh", "bh",
                             "ffn_gain", "w1", "b1", "w2", "b2"});
}

}  // namespace
}  // namespace tcnca::testing
