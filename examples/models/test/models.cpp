// The compiled models: which exist, their parameter counts, what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <stdexcept>

#include "../model.hpp"

namespace tcnca::testing {
namespace {

using namespace models;

/// MEGA's published model for EnWik8: 39.0 million parameters in 12 layers.
TEST(models, mega_has_the_published_parameter_count) {
  model_config m;
  m.vocabulary = 205, m.channels = 512, m.value_dim = 1024, m.key_dim = 128, m.hidden = 1024, m.chunk = 2048;
  m.mixer = mixer_kind::ema, m.bias = bias_kind::rotary, m.layers = 1;
  std::size_t const one = make_model(m)->parameter_count();
  m.layers = 2;
  std::size_t const layer = make_model(m)->parameter_count() - one;
  EXPECT_EQ(layer, 3252608u);
  // Besides the layers: the embedding of 205 tokens, the final norm, and the output layer, which does not share the
  // embedding's table.
  EXPECT_EQ(one - layer, 205u * 512 + 2 * 512 + (512 + 1) * 205u);
  EXPECT_NEAR(double(12 * layer), 39.0e6, 0.05e6);
}

/// Each mixer with each head runs a training step, twice with the same result.
TEST(models, all_compiled_models_learn) {
  for (head_kind const head : {head_kind::next_token, head_kind::sequence_class, head_kind::pair_class}) {
    model_config m;
    m.head = head, m.batch = 4, m.length = 70, m.vocabulary = 9, m.classes = 3, m.channels = 16, m.value_dim = 16,
    m.key_dim = 16, m.hidden = 16, m.chunk = 32;
    std::vector<int> tokens, targets;
    for (long i = 0; i < m.batch * m.length; i++) tokens.push_back(int(i * i % 67 % 9)), targets.push_back(int(i % 3));
    auto const step = [&](char const* stack, mixer_kind mixer, attention_kind attention, bool gates, int threads) {
      m.stack = stack, m.mixer = mixer, m.attention = attention, m.gates = gates, m.threads = threads;
      return make_model(m)->learn({m.batch, m.length, tokens.data(), targets.data(), nullptr}, 1, 1e-3);
    };
    auto const expect_step = [&](char const* stack, mixer_kind mixer, attention_kind attention, bool gates) {
      step_result const a = step(stack, mixer, attention, gates, 1), b = step(stack, mixer, attention, gates, 1);
      EXPECT_TRUE(std::isfinite(a.loss) && a.grad_norm > 0 && std::isfinite(a.grad_norm)) << stack;
      EXPECT_EQ(a.loss, b.loss) << stack;
      EXPECT_EQ(a.grad_norm, b.grad_norm) << stack;
      // With two threads, BLAS sums blocks of other sizes.
      EXPECT_NEAR(step(stack, mixer, attention, gates, 2).loss, a.loss, 1e-5 * a.loss) << stack;
    };
    std::vector<char const*> stacks{"4x4", "4x6", "8x5"};
    if (head == head_kind::next_token) stacks.insert(stacks.end(), {"8x4", "17x4"});
    for (char const* stack : stacks) expect_step(stack, mixer_kind::convolution, attention_kind::softmax, true);
    expect_step("4x4", mixer_kind::convolution, attention_kind::laplace, false);
    expect_step("4x4", mixer_kind::ema, attention_kind::laplace, true);
  }
}

void expect_sentence(std::string const& part, std::function<void(model_config&)> const& change) {
  model_config m;
  change(m);
  try {
    make_model(m);
    ADD_FAILURE() << "made, but it must not: " << part;
  } catch (std::invalid_argument const& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

TEST(models, refuses_unknown_configurations) {
  expect_sentence("unknown backend \"tpu\"", [](auto& m) { m.backend = "tpu"; });
  expect_sentence("\"3x3\" was not compiled: causal stacks are 4x4, 4x6, 8x5, 8x4, 17x4",
                  [](auto& m) { m.stack = "3x3"; });
  expect_sentence("\"17x4\" was not compiled: bidirectional stacks are 4x4, 4x6, 8x5",
                  [](auto& m) { m.stack = "17x4", m.head = head_kind::sequence_class; });
  expect_sentence("value dimension", [](auto& m) { m.value_dim = 20; });
  expect_sentence("key dimension", [](auto& m) { m.key_dim = 8; });
  expect_sentence("chunk", [](auto& m) { m.chunk = 0; });
  expect_sentence("dropout", [](auto& m) { m.attention_dropout = 1; });
  expect_sentence("thread", [](auto& m) { m.threads = 0; });
  expect_sentence("even number", [](auto& m) { m.head = head_kind::pair_class, m.batch = 3; });
  expect_sentence("Adam", [](auto& m) { m.beta2 = 1; });
  expect_sentence("not negative", [](auto& m) { m.clip = std::nan(""); });
  model_config large;
  large.batch = large.channels = 1 << 20, large.length = 1 << 24;  // products of these exceed 2^64
  EXPECT_THROW(make_model(large), std::bad_alloc);
}

}  // namespace
}  // namespace tcnca::testing
