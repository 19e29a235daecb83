// Complete models in fp64: sequences that are continued, packed, or in slots of a pool.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/small_network.hpp"

namespace tcnca::testing {
namespace {

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

}  // namespace
}  // namespace tcnca::testing
