// The layers in fp64: outputs and gradients against vectors computed by JAX.
#include <gtest/gtest.h>

#include <cmath>

#include "support/golden.hpp"
#include "support/layer_block.hpp"

namespace tcnca::testing {
namespace {

using namespace models;
using names = std::vector<std::string>;

/// The parameters in the order in which the parts request them.
names parameters_of(bool tcnca, bool gates, bool causal) {
  names const gated = gates ? names{"wm", "bm"} : names{"wz", "bz"};
  names all = tcnca ? names{"norm_gain", "norm_bias", "wv", "bv", "weight"}
                    : names{"norm_gain", "wv", "bv", "delta", "alpha", "beta", "gamma"};
  auto const append = [&](names const& more) { all.insert(all.end(), more.begin(), more.end()); };
  if (tcnca && causal) append({"bias"});
  append({"omega"}), append(gated), append({"gq", "mq", "gk", "mk"});
  append(tcnca ? names{"rotary_a", "rotary_b", "wh", "bh", "ffn_gain", "ffn_bias"}
               : names{"table", "wh", "bh", "ffn_gain"});
  append({"w1", "b1", "w2", "b2"});
  return all;
}

void expect_golden(golden_case const& inputs, golden_case const& theirs, mixer_kind mixer) {
  bool const tcnca = theirs.option("tcnca") == 1, causal = theirs.option("causal") == 1;
  layer_kind const kind{mixer, theirs.option("gates") == 1, causal, theirs.option("laplace") == 1};
  layer_setting s = make_setting(theirs.name, kind, tcnca ? norm_kind::layer : norm_kind::scale, tcnca,
                                 tcnca ? bias_kind::rotary : bias_kind::simple, 0);
  s.batch = inputs.tensors.at("x").extent[0], s.length = inputs.tensors.at("x").extent[1];
  layer_block b(s);
  auto const give = [&](std::string const& what, double* to, size_t count) {
    ASSERT_GE(inputs.values(what).size(), count) << what;
    std::copy_n(inputs.values(what).begin(), count, to);
  };
  give("x", b.c.kept[b.x], b.x.count), give("grad_y", b.c.kept[b.u], b.u.count);
  names const all = parameters_of(tcnca, kind.gates, causal);
  ASSERT_EQ(all.size(), b.c.parameters().size());
  for (size_t p = 0; p < all.size(); p++)
    give(all[p], b.c.values[b.c.parameters()[p].where], b.c.parameters()[p].where.count);
  std::vector<std::int64_t> lengths(size_t(s.batch), s.length);
  if (!causal) {
    for (size_t i = 0; i < lengths.size(); i++) lengths[i] = std::int64_t(inputs.values("lengths")[i]);
    b.set_lengths(lengths);
  }
  b.loss();
  b.backward();
  // fp64 on both sides: sums of fewer than 2^10 terms of the magnitude of the tensor's maximum.
  auto const expect = [&](std::string const& what, double const* ours, auto const& counts) {
    auto const& values = theirs.values(what);
    double largest = 1;
    for (double v : values) largest = std::max(largest, std::abs(v));
    for (size_t i = 0; i < values.size(); i++) {
      if (!counts(i)) continue;
      ASSERT_NEAR(ours[i], values[i], 0x1p-43 * largest) << theirs.name << ": " << what << " " << i;
    }
  };
  auto const all_of_it = [](size_t) { return true; };
  size_t const d = size_t(s.layer.channels), row = size_t(s.length) * d;
  expect("y", b.c.kept[b.y], [&](size_t i) { return std::int64_t(i % row / d) < lengths[i / row]; });
  expect("grad_x", b.c.kept[b.grad], all_of_it);
  for (size_t p = 0; p < all.size(); p++) {
    ASSERT_EQ(theirs.values("grad_" + all[p]).size(), b.c.parameters()[p].where.count) << all[p];
    expect("grad_" + all[p], b.c.gradients[b.c.parameters()[p].where], all_of_it);
  }
}

TEST(layer_golden, agrees_with_jax) {
  auto const cases = read_golden(std::filesystem::absolute(__FILE__).parent_path() / "golden/layer.txt");
  ASSERT_EQ(cases.size(), 11u);
  for (size_t i = 1; i < cases.size(); i++) {
    bool const tcnca = cases[i].option("tcnca") == 1;
    expect_golden(cases[0], cases[i], tcnca ? mixer_kind::convolution : mixer_kind::ema);
    if (!tcnca) expect_golden(cases[0], cases[i], mixer_kind::ema_by_fft);
  }
}

}  // namespace
}  // namespace tcnca::testing
