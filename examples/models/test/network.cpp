// Complete models in fp64: gradients through each head, saved state, refused arguments.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <new>

#include "support/small_network.hpp"

namespace {
long allocations = 0;
void* counted(std::size_t bytes, std::size_t alignment) {
  allocations++;
  if (void* const p = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)) return p;
  throw std::bad_alloc();
}
}  // namespace
// Not inlined: otherwise the compiler sees that memory from `new` is freed here.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return counted(std::max(bytes, std::size_t(1)), alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(std::max(bytes, std::size_t(1)), std::size_t(alignment));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace tcnca::testing {
namespace {

using namespace models;

/// Parameters or moments as numbers.
std::vector<double> numbers(saved_part const& p) {
  std::vector<double> v(p.bytes.size() / sizeof(double));
  std::memcpy(v.data(), p.bytes.data(), p.bytes.size());
  return v;
}
void put(saved_part& p, size_t i, double v) { std::memcpy(p.bytes.data() + i * sizeof v, &v, sizeof v); }
bool same_bytes(std::vector<saved_part> const& a, std::vector<saved_part> const& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](auto const& p, auto const& q) { return p.name == q.name && p.bytes == q.bytes; });
}

/// After one step, Adam's first moments are (1 - beta1) times the gradients.
void expect_slopes(model_config const& m, bool padded) {
  data const d(m, padded);
  auto const net = make(m);
  auto const begin = net->save();
  double const loss = net->learn(d.view, 1, 1e-3).loss;
  auto const gradients = numbers(net->save()[2]), values = numbers(begin[0]);
  ASSERT_EQ(gradients.size(), values.size());
  size_t checked = 0;
  for (size_t i = 0; i < values.size(); i += 7) {
    auto poked = begin;
    auto const at = [&](double v) {
      put(poked[0], i, v);
      net->load(poked);
      return net->evaluate(d.view);
    };
    double const h = 1e-4, d1 = (at(values[i] + h) - at(values[i] - h)) / (2 * h),
                 d2 = (at(values[i] + 2 * h) - at(values[i] - 2 * h)) / (4 * h);
    double const slope = (4 * d1 - d2) / 3, gradient = gradients[i] / (1 - m.beta1);
    // The difference of order 4 has a smaller error than that of order 2; the loss has fewer than 2^10 roundings.
    double const bound = std::abs(d1 - d2) * 1e-3 + 0x1p-42 * (1 + loss) / h;
    ASSERT_NEAR(slope, gradient, bound) << "parameter " << i;
    checked += std::abs(gradient) > 100 * bound;
  }
  EXPECT_GT(checked, values.size() / 100) << "the test has no force";
}

TEST(network, next_token_gradients_match_differences) {
  auto m = small(head_kind::next_token);
  expect_slopes(m, false);
  m.mixer = mixer_kind::ema, m.pre_norm = false, m.attention = attention_kind::laplace, m.bias = bias_kind::rotary;
  expect_slopes(m, false);
}
TEST(network, sequence_class_gradients_match_differences) {
  auto m = small(head_kind::sequence_class);
  expect_slopes(m, true);
  m.mixer = mixer_kind::ema, m.norm = norm_kind::scale, m.pre_norm = false, m.embedding = embedding_kind::level;
  expect_slopes(m, true);
}
TEST(network, pair_class_gradients_match_differences) {
  auto m = small(head_kind::pair_class);
  expect_slopes(m, true);
  m.gates = false;
  expect_slopes(m, false);
}

TEST(network, learns) {
  for (head_kind const head : {head_kind::next_token, head_kind::sequence_class, head_kind::pair_class}) {
    auto m = small(head);
    m.dropout = m.attention_dropout = 0.05;
    data const d(m);
    auto const net = make(m);
    double const before = net->evaluate(d.view);
    for (long step = 1; step <= 150; step++) net->learn(d.view, step, 1e-2);
    EXPECT_LT(net->evaluate(d.view), before / 2) << int(head);
    std::vector<int> predicted(d.tokens.size(), -1);
    double const nothing = net->evaluate({m.batch, m.length, d.tokens.data(), nullptr, nullptr}, predicted.data());
    EXPECT_EQ(nothing, 0);
    EXPECT_GE(predicted[0], 0);
  }
}

TEST(network, saves_complete_state) {
  for (norm_kind const norm : {norm_kind::layer, norm_kind::batch}) {
    auto m = small(head_kind::sequence_class);
    m.norm = norm, m.dropout = m.hidden_dropout = m.attention_dropout = 0.2;
    data const d(m);
    auto const a = make(m);
    m.seed = 1;
    auto const b = make(m);
    for (long step = 1; step <= 3; step++) a->learn(d.view, step, 1e-2);
    b->load(a->save());
    auto const x = a->learn(d.view, 4, 1e-2), y = b->learn(d.view, 4, 1e-2);
    EXPECT_EQ(x.loss, y.loss);
    EXPECT_EQ(x.grad_norm, y.grad_norm);
    EXPECT_TRUE(same_bytes(a->save(), b->save()));
    EXPECT_EQ(a->evaluate(d.view), b->evaluate(d.view));
  }
}

TEST(network, refuses_state_of_another_model) {
  auto m = small(head_kind::next_token);
  auto const net = make(m);
  auto const good = net->save();
  m.channels = 6;
  auto const refuses = [&](std::vector<saved_part> const& parts) {
    EXPECT_THROW(net->load(parts), std::invalid_argument);
    EXPECT_TRUE(same_bytes(net->save(), good));
  };
  refuses(make(m)->save());
  refuses({});
  for (size_t i = 0; i < good.size(); i++) {
    auto renamed = good, shorter = good;
    renamed[0].bytes[0] ^= 1, renamed[i].name += "s";
    shorter[0].bytes[0] ^= 1, shorter[i].bytes.pop_back();
    refuses(renamed), refuses(shorter);
  }
}

/// If any parameter is not finite, nothing changes, and the first part that shows it is named.
TEST(network, names_the_non_finite_part) {
  auto const m = small(head_kind::next_token);
  data const d(m);
  auto const net = make(m);
  net->learn(d.view, 1, 1e-2);
  EXPECT_EQ(net->not_finite(), "");
  auto const begin = net->save();
  std::vector<std::string> names;
  for (size_t i = 0; i < numbers(begin[0]).size(); i += 3) {
    auto poked = begin;
    put(poked[0], i, std::nan(""));
    net->load(poked);
    if (std::isfinite(net->learn(d.view, 2, 1e-2).loss))
      continue;  // padding between parameters, or a token that does not occur
    ASSERT_TRUE(same_bytes(net->save(), poked));
    std::string const name = net->not_finite();
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"embedding", "layer 1 (attention)", "layer 1 (convolution)",
                                             "layer 1 (feed-forward)", "layer 1 (gates)", "layer 2 (attention)",
                                             "layer 2 (convolution)", "layer 2 (feed-forward)", "layer 2 (gates)",
                                             "the loss"}));
  auto steep = begin;
  for (size_t i = 0, n = numbers(begin[0]).size(); i < size_t(m.channels * m.vocabulary); i++)
    put(steep[0], n - 40 + i, i % 2 ? 1e200 : -1e200);
  net->load(steep);
  auto const step = net->learn(d.view, 2, 1e-2);
  EXPECT_TRUE(std::isfinite(step.loss));
  EXPECT_FALSE(std::isfinite(step.grad_norm));
  EXPECT_EQ(net->not_finite(), "a gradient");
  EXPECT_TRUE(same_bytes(net->save(), steep));
}

TEST(network, refuses_invalid_arguments) {
  auto const m = small(head_kind::pair_class);
  data d(m);
  auto const net = make(m);
  auto const refuses = [&](examples const& e) {
    EXPECT_THROW(net->evaluate(e), std::invalid_argument);
    EXPECT_THROW(net->learn(e, 1, 1e-2), std::invalid_argument);
  };
  refuses({m.batch + 2, m.length, d.tokens.data(), d.targets.data(), nullptr});
  refuses({m.batch - 1, m.length, d.tokens.data(), d.targets.data(), nullptr});
  refuses({m.batch, m.length + 1, d.tokens.data(), d.targets.data(), nullptr});
  refuses({m.batch, 0, d.tokens.data(), d.targets.data(), nullptr});
  refuses({m.batch, m.length, nullptr, d.targets.data(), nullptr});
  std::vector<std::int64_t> const lengths{1, 2, m.length + 1, 3};
  refuses({m.batch, m.length, d.tokens.data(), d.targets.data(), lengths.data()});
  EXPECT_THROW(net->learn({m.batch, m.length, d.tokens.data(), nullptr, nullptr}, 1, 1e-2), std::invalid_argument);
  EXPECT_THROW(net->reset_state(), std::logic_error);
  d.tokens[3] = int(m.vocabulary);
  refuses(d.view);
  d.tokens[3] = 0, d.targets[0] = int(m.classes);
  refuses(d.view);
}

TEST(network, plans_its_memory_once) {
  auto m = small(head_kind::next_token);
  m.dropout = m.attention_dropout = 0.1;
  data const d(m);
  auto const net = make(m);
  net->reset_state();
  std::vector<int> predictions(d.tokens.size());
  std::vector<float> logits(size_t(m.batch * m.vocabulary));
  std::size_t const bytes = net->memory_bytes();
  EXPECT_GT(bytes, 4 * net->parameter_count() * sizeof(double));
  long most = 0;
  for (long step = 1; step <= 3; step++) {
    long const before = allocations;
    net->learn(d.view, step, 1e-2), net->evaluate(d.view, predictions.data()), net->reset_state(),
        net->evaluate_continued(d.view, predictions.data());
    if (step > 1) most = std::max(most, allocations - before);
  }
  EXPECT_EQ(most, 0);
  EXPECT_EQ(net->memory_bytes(), bytes);
}

}  // namespace
}  // namespace tcnca::testing
