// Complete models in fp64: gradients through each head, continued sequences, saved state, refused arguments.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <new>

#include "../network.hpp"
#include "support/layer_kinds.hpp"

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

model_config small(head_kind head) {
  model_config m;
  m.batch = 4, m.length = 11, m.head = head, m.vocabulary = 6, m.classes = 3;
  m.layers = 2, m.channels = 5, m.value_dim = 16, m.key_dim = 16, m.hidden = 6, m.chunk = 4, m.clip = 0;
  return m;
}
std::unique_ptr<model> make(model_config const& m) {
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

/// Sequences in pieces give the same result as one call, except for the summation order of BLAS and of attention's
/// decode kernel.
TEST(network, continues_sequences) {
  for (mixer_kind const mixer : {mixer_kind::convolution, mixer_kind::ema, mixer_kind::ema_by_fft})
    for (bool const laplace : {false, true}) {
      auto m = small(head_kind::next_token);
      m.mixer = mixer, m.attention = laplace ? attention_kind::laplace : attention_kind::softmax, m.length = 39,
      m.chunk = 8;  // the length ends within a chunk
      data d(m);
      auto const net = make(m);
      for (long step = 1; step <= 20; step++) net->learn(d.view, step, 1e-2);
      std::vector<int> whole(d.tokens.size()), pieces(d.tokens.size());
      double const expected = net->evaluate(d.view, whole.data());
      for (int pass = 0; pass < 2; pass++) {  // a second pass must not depend on the first
        net->reset_state();
        double sum = 0, counted = 0;
        long at = 0;
        for (long const length : {1L, 2L, 13L, 1L, 4L, 18L}) {
          std::vector<int> tokens, targets, predicted(size_t(m.batch * length));
          double targets_of_piece = 0;
          for (long b = 0; b < m.batch; b++)
            for (long t = at; t < at + length; t++) {
              tokens.push_back(d.tokens[size_t(b * m.length + t)]),
                  targets.push_back(d.targets[size_t(b * m.length + t)]);
              targets_of_piece += targets.back() >= 0;
            }
          sum += targets_of_piece *
                 net->evaluate_continued({m.batch, length, tokens.data(), targets.data(), nullptr}, predicted.data());
          counted += targets_of_piece;
          for (long b = 0; b < m.batch; b++)
            for (long t = 0; t < length; t++) pieces[size_t(b * m.length + at + t)] = predicted[size_t(b * length + t)];
          at += length;
        }
        ASSERT_EQ(at, m.length);
        EXPECT_NEAR(sum / counted, expected, 0x1p-40 * (1 + expected)) << int(mixer);
        EXPECT_EQ(pieces, whole) << int(mixer);
      }
      std::vector<float> one(size_t(m.batch * m.vocabulary)), all(one.size());
      net->reset_state();
      for (long t = 0; t < m.length; t++) {
        std::vector<int> tokens;
        for (long b = 0; b < m.batch; b++) tokens.push_back(d.tokens[size_t(b * m.length + t)]);
        net->read({m.batch, 1, tokens.data(), nullptr, nullptr}, one.data());
      }
      net->reset_state();
      net->read({m.batch, m.length, d.tokens.data(), nullptr, nullptr}, all.data());
      for (size_t i = 0; i < one.size(); i++) EXPECT_NEAR(one[i], all[i], 0x1p-22 * (1 + std::abs(all[i])));
      EXPECT_THROW(net->evaluate_continued({m.batch - 1, 1, d.tokens.data(), nullptr, nullptr}), std::invalid_argument);
    }
}

/// Packed sequences: the loss, the gradients and the logits of the same sequences with padding, whose targets are
/// ignored.
TEST(network, trains_packed_sequences) {
  for (mixer_kind const mixer : {mixer_kind::convolution, mixer_kind::ema}) {
    auto m = small(head_kind::next_token);
    m.mixer = mixer;
    data const d(m);
    std::vector<long> const lengths{11, 1, 7, 10};
    std::vector<int> padded = d.targets, tokens, targets, offsets{0};
    for (long b = 0; b < m.batch; b++) {
      for (long t = 0; t < m.length; t++) {
        auto const at = size_t(b * m.length + t);
        if (t < lengths[size_t(b)]) tokens.push_back(d.tokens[at]), targets.push_back(d.targets[at]);
        else padded[at] = -1;
      }
      offsets.push_back(int(tokens.size()));
    }
    examples with_padding = d.view, packed{.sequences = m.batch, .tokens = tokens.data(), .targets = targets.data()};
    with_padding.targets = padded.data(), packed.offsets = offsets.data();
    auto const a = make(m), b = make(m);
    for (long step = 1; step <= 3; step++) {
      auto const expected = a->learn(with_padding, step, 1e-2), found = b->learn(packed, step, 1e-2);
      EXPECT_NEAR(found.loss, expected.loss, 0x1p-44 * expected.loss) << int(mixer);
      EXPECT_NEAR(found.grad_norm, expected.grad_norm, 0x1p-40 * expected.grad_norm) << int(mixer);
    }
    EXPECT_NEAR(b->evaluate(packed), a->evaluate(with_padding), 0x1p-30) << int(mixer);
    std::vector<float> whole(size_t(m.batch * m.length * m.vocabulary)), part(tokens.size() * size_t(m.vocabulary));
    a->logits(with_padding, whole.data());
    b->logits(packed, part.data());
    for (long s = 0; s < m.batch; s++)
      for (long i = 0; i < lengths[size_t(s)] * m.vocabulary; i++)
        EXPECT_NEAR(part[size_t(offsets[size_t(s)] * m.vocabulary + i)], whole[size_t(s * m.length * m.vocabulary + i)],
                    1e-5);
    auto const refuses = [&](examples const& e) { EXPECT_THROW(b->evaluate(e), std::invalid_argument); };
    for (std::vector<int> const& wrong : {std::vector<int>{1, 5, 6, 7, 9}, {0, 5, 5, 7, 9}, {0, 1, 2, 3, 45}}) {
      packed.offsets = wrong.data();
      refuses(packed);
    }
    packed.offsets = offsets.data();
    EXPECT_THROW(b->evaluate_continued(packed), std::invalid_argument);
    packed.lengths = d.lengths.data();
    refuses(packed);
    EXPECT_NEAR(b->evaluate(with_padding), a->evaluate(with_padding), 0x1p-30);  // as if nothing had happened
  }
  auto classes = small(head_kind::sequence_class);
  data const d(classes);
  int const offsets[] = {0, 3};
  examples packed = d.view;
  packed.offsets = offsets;
  EXPECT_THROW(make(classes)->evaluate(packed), std::invalid_argument);
}

/// Sequences that begin and end at different times, in slots that are used again: each has the logits of one call for
/// the whole sequence, whatever its neighbours are.
TEST(network, serves_sequences_in_slots) {
  for (mixer_kind const mixer : {mixer_kind::convolution, mixer_kind::ema})
    for (int const threads : {1, 3}) {
      auto m = small(head_kind::next_token);
      m.mixer = mixer, m.batch = 1, m.length = 40, m.chunk = 8, m.threads = threads;
      data const d(m);
      auto const net = make(m);
      for (long step = 1; step <= 20; step++) net->learn(d.view, step, 1e-2);

      struct sequence {
        std::vector<int> tokens;
        std::int64_t read = 0;
        std::vector<float> logits;
      };
      constexpr int slots = 7;
      net->make_slots(slots);
      EXPECT_GT(net->state_bytes(), 0u);
      std::vector<sequence> active(slots), ended;
      std::mt19937_64 random(5);
      // Pieces of one length, or packed ones.
      auto const read = [&](std::vector<int> const& which, std::vector<long> const& lengths) {
        std::vector<int> tokens, offsets{0};
        std::vector<std::int64_t> positions;
        for (size_t i = 0; i < which.size(); i++) {
          auto const& s = active[size_t(which[i])];
          tokens.insert(tokens.end(), s.tokens.begin() + s.read, s.tokens.begin() + s.read + lengths[i]);
          offsets.push_back(int(tokens.size())), positions.push_back(s.read);
        }
        std::vector<float> logits(tokens.size() * size_t(m.vocabulary));
        bool const packed = std::ranges::count(lengths, lengths[0]) != std::ssize(lengths) || random() % 2 == 0;
        net->read_slots({.sequences = long(which.size()),
                         .length = lengths[0],
                         .tokens = tokens.data(),
                         .slots = which.data(),
                         .positions = positions.data(),
                         .offsets = packed ? offsets.data() : nullptr},
                        logits.data());
        for (size_t i = 0; i < which.size(); i++) {
          auto& s = active[size_t(which[i])];
          s.logits.insert(s.logits.end(), logits.begin() + offsets[i] * m.vocabulary,
                          logits.begin() + offsets[i + 1] * m.vocabulary);
          s.read += lengths[i];
        }
      };
      while (ended.size() < 20) {
        std::vector<int> begun;
        std::vector<long> prompts;
        for (int s = 0, left = int(m.length); s < slots; s++) {
          auto& now = active[size_t(s)];
          if (now.read < std::int64_t(now.tokens.size())) continue;
          if (now.read > 0) ended.push_back(now);
          now = {};
          for (long n = 1 + long(random() % 39); n > 0; n--) now.tokens.push_back(int(random() % 6));
          long const prompt = 1 + long(random() % std::uint64_t(std::min(left, int(now.tokens.size()))));
          begun.push_back(s), prompts.push_back(prompt);
          if ((left -= int(prompt)) == 0) break;
        }
        if (!begun.empty()) read(begun, prompts);
        std::vector<int> going;  // pieces of up to three tokens of all that go on, in any order
        std::vector<long> lengths;
        bool const ragged = random() % 2 == 0;
        for (int s = slots; s-- > 0;) {
          long const left = long(active[size_t(s)].tokens.size()) - active[size_t(s)].read;
          if (left > 0)
            going.push_back(s), lengths.push_back(ragged ? 1 + long(random() % std::uint64_t(std::min(left, 3L))) : 1);
        }
        if (!going.empty()) read(going, lengths);
      }
      for (auto const& s : ended) {
        std::vector<float> whole(s.logits.size());
        net->logits({1, long(s.tokens.size()), s.tokens.data(), nullptr, nullptr}, whole.data());
        ASSERT_EQ(whole.size(), s.tokens.size() * size_t(m.vocabulary));
        for (size_t i = 0; i < whole.size(); i++)
          ASSERT_NEAR(s.logits[i], whole[i], 0x1p-22 * (1 + std::abs(whole[i]))) << int(mixer) << ", logit " << i;
      }

      int const token = 0, wrong_token = 6, slot = 0, wrong_slot = slots;
      std::int64_t const position = 0, negative = -1;
      std::vector<float> logits(size_t(m.length * m.vocabulary));
      auto const refuses = [&](slot_batch const& b) {
        EXPECT_THROW(net->read_slots(b, logits.data()), std::invalid_argument);
      };
      refuses({1, 1, &wrong_token, &slot, &position});
      refuses({1, 1, &token, &wrong_slot, &position});
      refuses({1, 1, &token, &slot, &negative});
      refuses({1, 1, nullptr, &slot, &position});
      refuses({1, 41, &token, &slot, &position});
      refuses({41, 1, &token, &slot, &position});
      int const empty[] = {0, 0}, long_piece[] = {0, 41};
      refuses({1, 1, &token, &slot, &position, empty});
      refuses({1, 1, &token, &slot, &position, long_piece});
      EXPECT_THROW(net->make_slots(0), std::invalid_argument);
      net->reset_state();  // the slots are gone
      EXPECT_THROW(net->read_slots({1, 1, &token, &slot, &position}, logits.data()), std::logic_error);
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
