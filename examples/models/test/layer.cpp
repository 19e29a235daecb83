// The layers in fp64: gradients of all parameters and of the input against differences of the forward pass.
#include <gtest/gtest.h>

#include <cmath>

#include "support/layer_block.hpp"

namespace tcnca::testing {
namespace {

using namespace models;

void expect_slopes(layer_setting const& s, std::vector<std::int64_t> const& lengths = {}) {
  layer_block b(s);
  if (!lengths.empty()) b.set_lengths(lengths);
  b.loss();
  b.backward();
  double magnitude = 0;
  for (size_t i = 0; i < b.y.count; i++) magnitude += std::abs(b.c.kept[b.y][i] * b.c.kept[b.u][i]);
  double const noise = 0x1p-43 * magnitude;  // y has fewer than 2^10 roundings
  auto const check = [&](char const* what, size_t number, double& value, double expected) {
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
    double const fine = (4 * d1 - d2) / 3, coarse = (4 * d2 - d4) / 3;  // errors of order h^4, and 16 times that
    double const bound = std::abs(fine - coarse) + 2 * noise / h;
    ASSERT_NEAR(fine, expected, bound) << s.name << ": " << what << " " << number;
    ASSERT_LT(bound, 1e-6 * (1 + std::abs(expected))) << "the test has no force";
  };
  for (size_t p = 0; p < b.c.parameters().size(); p++) {
    region const where = b.c.parameters()[p].where;
    for (size_t i = 0; i < where.count; i++)
      check(("parameter " + std::to_string(p)).c_str(), i, b.c.values[where][i], b.c.gradients[where][i]);
  }
  for (size_t i = 0; i < b.x.count; i++) check("x", i, b.c.kept[b.x][i], b.c.kept[b.grad][i]);
}

constexpr layer_kind tcnca_layer{}, simple_layer{.gates = false}, mega_layer{.mixer = mixer_kind::ema, .laplace = true};

TEST(layer, tcnca_gradients_match_differences) {
  expect_slopes(make_setting("layernorm before, rotary", tcnca_layer, norm_kind::layer, true, bias_kind::rotary, 0));
  expect_slopes(make_setting("rmsnorm after, dropout", tcnca_layer, norm_kind::rms, false, bias_kind::simple, 0.3));
  layer_kind both = tcnca_layer;
  both.causal = false;
  expect_slopes(make_setting("both ways, dropout", both, norm_kind::layer, true, bias_kind::rotary, 0.3));
  both.laplace = true;
  expect_slopes(make_setting("both ways, batchnorm, laplace", both, norm_kind::batch, true, bias_kind::simple, 0));
  expect_slopes(make_setting("both ways, padded", both, norm_kind::scale, false, bias_kind::simple, 0), {5, 2});
  both.laplace = false;
  expect_slopes(make_setting("both ways, padded, batchnorm", both, norm_kind::batch, true, bias_kind::simple, 0),
                {3, 5});
}
TEST(layer, mega_gradients_match_differences) {
  expect_slopes(make_setting("scalenorm after", mega_layer, norm_kind::scale, false, bias_kind::simple, 0));
  expect_slopes(make_setting("layernorm after, dropout", mega_layer, norm_kind::layer, false, bias_kind::simple, 0.3));
  layer_kind both = mega_layer;
  both.causal = false;
  expect_slopes(make_setting("both ways, batchnorm, dropout", both, norm_kind::batch, true, bias_kind::simple, 0.3));
  both.laplace = false;
  expect_slopes(make_setting("both ways, padded", both, norm_kind::scale, false, bias_kind::rotary, 0), {2, 4});
}
TEST(layer, mega_by_fft_gradients_match_differences) {
  layer_kind kind{.mixer = mixer_kind::ema_by_fft};
  expect_slopes(make_setting("by FFT", kind, norm_kind::layer, true, bias_kind::rotary, 0));
  kind.causal = false;
  expect_slopes(make_setting("by FFT, both ways, padded", kind, norm_kind::scale, false, bias_kind::simple, 0), {5, 3});
}
TEST(layer, simplified_gradients_match_differences) {
  expect_slopes(make_setting("rmsnorm before", simple_layer, norm_kind::rms, true, bias_kind::simple, 0));
  expect_slopes(
      make_setting("scalenorm before, rotary, dropout", simple_layer, norm_kind::scale, true, bias_kind::rotary, 0.3));
}

TEST(layer, is_bitwise_deterministic) {
  layer_setting s = make_setting("two threads", tcnca_layer, norm_kind::layer, true, bias_kind::rotary, 0.3);
  s.batch = 3, s.length = 301;  // products large enough for several threads
  layer_block a(s, 2), b(s, 2);
  EXPECT_EQ(a.loss(), b.loss());
  EXPECT_EQ(a.loss(), b.loss());
  a.backward(), b.backward();
  EXPECT_TRUE(std::equal(a.c.gradients.data(), a.c.gradients.data() + a.c.gradients.count(), b.c.gradients.data()));
  EXPECT_TRUE(std::equal(a.c.kept[a.grad], a.c.kept[a.grad] + a.grad.count, b.c.kept[b.grad]));
}

/// Each dropout changes the result, and so does the step; without training there is no dropout.
TEST(layer, dropout) {
  layer_setting const none = make_setting("none", tcnca_layer, norm_kind::layer, true, bias_kind::simple, 0);
  double const whole = layer_block(none).loss();
  for (int which = 0; which < 3; which++) {
    layer_setting s = none;
    (which == 0 ? s.layer.dropout : which == 1 ? s.layer.attention_dropout : s.ffn.hidden_dropout) = 0.5;
    layer_block b(s);
    double const first = b.loss();
    b.c.step++;
    double const second = b.loss();
    b.c.training = false;
    EXPECT_NE(first, whole) << which;
    EXPECT_NE(first, second) << which;
    EXPECT_EQ(b.loss(), whole) << which;
  }
}

/// A shorter batch uses the front of the memory planned for the longest.
TEST(layer, smaller_batch) {
  layer_setting const s = make_setting("whole", tcnca_layer, norm_kind::layer, true, bias_kind::simple, 0);
  layer_block whole(s);
  whole.loss();
  std::vector<double> const first(whole.c.kept[whole.y], whole.c.kept[whole.y] + s.length * s.layer.channels);
  whole.c.batch = 1;
  whole.loss();
  for (size_t i = 0; i < first.size(); i++)
    EXPECT_NEAR(whole.c.kept[whole.y][i], first[i], 1e-12 * (1 + std::abs(first[i])));
}

/// Padding does not influence valid positions. (Matrix products have the same terms, but BLAS may sum them in another
/// order for another number of rows.)
TEST(layer, padding_has_no_influence) {
  for (mixer_kind const mixer : {mixer_kind::convolution, mixer_kind::ema, mixer_kind::ema_by_fft}) {
    for (bool const laplace : {false, true})
      for (norm_kind const norm : {norm_kind::scale, norm_kind::batch}) {
        SCOPED_TRACE(::testing::Message()
                     << "mixer " << int(mixer) << ", laplace " << laplace << ", norm " << int(norm));
        layer_setting s =
            make_setting("padded", {mixer, true, false, laplace}, norm, norm == norm_kind::batch, bias_kind::simple, 0);
        index_t const d = s.layer.channels, valid = 7;
        s.batch = 1, s.length = valid;
        layer_block exact(s);
        s.length = 13;
        layer_block padded(s);
        std::copy_n(exact.c.values.data(), exact.c.values.count(), padded.c.values.data());
        std::copy_n(exact.c.kept[exact.x], valid * d, padded.c.kept[padded.x]);
        std::copy_n(exact.c.kept[exact.u], valid * d, padded.c.kept[padded.u]);
        padded.set_lengths({valid});
        exact.loss(), padded.loss();
        exact.backward(), padded.backward();
        for (index_t i = 0; i < valid * d; i++) {
          EXPECT_NEAR(padded.c.kept[padded.y][i], exact.c.kept[exact.y][i], 0x1p-40);
          EXPECT_NEAR(padded.c.kept[padded.grad][i], exact.c.kept[exact.grad][i], 0x1p-40);
        }
        for (size_t i = 0; i < exact.c.gradients.count(); i++)
          EXPECT_NEAR(padded.c.gradients.data()[i], exact.c.gradients.data()[i], 0x1p-38);
      }
  }
}

}  // namespace
}  // namespace tcnca::testing
