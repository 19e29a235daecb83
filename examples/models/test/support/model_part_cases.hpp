// Test cases of the parts of models, each with its reference equations.
#pragma once
#include <ostream>

#include "../../cross_entropy.hpp"
#include "../../embedding.hpp"
#include "../../feed_forward.hpp"
#include "../../pooling.hpp"
#include "model_parts.hpp"

namespace tcnca::testing {

/// Extents of activations [batch, length, channels], and the valid positions of each sequence (empty: all).
struct part_extents {
  index_t batch, length, channels;
  std::vector<std::int64_t> lengths = {};

  size_t rows() const { return size_t(batch * length); }
  size_t count() const { return size_t(batch * length * channels); }
  bool valid(size_t row) const { return lengths.empty() || std::int64_t(row) % length < lengths[row / size_t(length)]; }
  std::int64_t const* pointer() const { return lengths.empty() ? nullptr : lengths.data(); }
  friend std::ostream& operator<<(std::ostream& o, part_extents const& e) {
    return o << e.batch << " x " << e.length << " x " << e.channels << (e.lengths.empty() ? "" : ", padded");
  }
};

/// inputs: x, gain, bias (if present). In training; `more`: the running statistics after the step.
struct norm_case {
  models::norm_kind kind;
  part_extents e;
  bool add = false;

  friend std::ostream& operator<<(std::ostream& o, norm_case const& c) {
    return o << "norm " << int(c.kind) << ", " << c.e;
  }
  bool biased() const { return kind == models::norm_kind::layer || kind == models::norm_kind::batch; }
  std::vector<numbers> inputs() const {
    size_t const d = size_t(e.channels);
    std::vector<numbers> v{some_numbers(e.count(), 1), some_numbers(kind == models::norm_kind::scale ? 1 : d, 2)};
    if (biased()) v.push_back(some_numbers(d, 3));
    return v;
  }
  numbers cotangent() const { return some_numbers(e.count(), 4); }
  /// Error of sums over a row and over all rows, amplified by a small deviation (inputs are uniform: a deviation is
  /// above 1/8).
  double roundings() const { return 64 * double(e.channels + std::int64_t(e.rows())); }

  numbers naive(std::vector<numbers> const& in) const {
    size_t const d = size_t(e.channels), rows = e.rows();
    numbers y(e.count());
    bool const over_rows = kind == models::norm_kind::batch, centred = biased();
    for (size_t group = 0; group < (over_rows ? d : rows); group++) {
      std::vector<size_t> all, members;  // elements that are normalized, and those that enter mean and deviation
      for (size_t i = 0; i < (over_rows ? rows : d); i++) {
        size_t const at = over_rows ? i * d + group : group * d + i;
        all.push_back(at);
        if (!over_rows || e.valid(i)) members.push_back(at);
      }
      double mean = 0, square = 0;
      for (size_t i : members) mean += in[0][i] / double(members.size());
      if (!centred) mean = 0;
      for (size_t i : members) square += (in[0][i] - mean) * (in[0][i] - mean) / double(members.size());
      for (size_t i : all)
        y[i] = in[1][kind == models::norm_kind::scale ? 0 : i % d] * (in[0][i] - mean) / std::sqrt(square + 1e-5) +
               (centred ? in[2][i % d] : 0);
    }
    return y;
  }
  template <class T, class E>
  part_results run(std::vector<numbers> const& in, int threads) const {
    part_memory<T, E> m(threads, e.batch, e.length);
    models::norm<T, E> const part(m.c, kind, e.channels);
    auto const x = m.c.kept.take(index_t(e.count())), y = m.c.kept.take(index_t(e.count())),
               grad = m.c.kept.take(index_t(e.count()));
    m.c.commit(), m.c.commit_scratch();
    m.c.set_lengths(e.pointer());
    m.put(m.c.kept[x], in[0]), m.put_parameters(in, 1), m.put(m.c.kept[grad], cotangent());
    part.forward(m.c, m.c.kept[x], m.c.kept[y]);
    part_results r{m.get(m.c.kept[y], e.count()), {}, {}};
    if (kind == models::norm_kind::batch)
      for (size_t half : {size_t(0), m.c.next_statistics.count() / 2})
        for (double v : m.get(m.c.next_statistics.data() + half, size_t(e.channels))) r.more.push_back(v);
    if (add) {  // adds to the contents
      m.put(m.c.kept[y], in[0]);
      part.backward(m.c, m.c.kept[x], m.c.kept[grad], m.c.kept[y], true);
      r.gradients.push_back(m.get(m.c.kept[y], e.count()));
      for (size_t i = 0; i < e.count(); i++) r.gradients[0][i] -= in[0][i];
    } else {  // in place
      part.backward(m.c, m.c.kept[x], m.c.kept[grad], m.c.kept[grad], false);
      r.gradients.push_back(m.get(m.c.kept[grad], e.count()));
    }
    m.get_gradients(r.gradients);
    return r;
  }
};

/// inputs: x, weight, bias.
struct linear_case {
  part_extents e;
  index_t out;

  friend std::ostream& operator<<(std::ostream& o, linear_case const& c) {
    return o << "linear to " << c.out << ", " << c.e;
  }
  std::vector<numbers> inputs() const {
    return {some_numbers(e.count(), 1), some_numbers(size_t(e.channels * out), 2), some_numbers(size_t(out), 3)};
  }
  numbers cotangent() const { return some_numbers(e.rows() * size_t(out), 4); }
  /// Number of terms, each at most 1.
  double roundings() const {
    return double(e.channels + out + std::int64_t(e.rows())) * double(e.channels + out + std::int64_t(e.rows()));
  }
  numbers naive(std::vector<numbers> const& in) const {
    size_t const d = size_t(e.channels), o = size_t(out);
    numbers y(e.rows() * o);
    for (size_t r = 0; r < e.rows(); r++)
      for (size_t c = 0; c < o; c++) {
        y[r * o + c] = in[2][c];
        for (size_t k = 0; k < d; k++) y[r * o + c] += in[0][r * d + k] * in[1][k * o + c];
      }
    return y;
  }
  template <class T, class E>
  part_results run(std::vector<numbers> const& in, int threads) const {
    part_memory<T, E> m(threads, e.batch, e.length);
    models::linear<T, E> const part(m.c, e.channels, out);
    size_t const made = e.rows() * size_t(out);
    auto const x = m.c.kept.take(index_t(e.count())), grad_x = m.c.kept.take(index_t(e.count()));
    auto const y = m.c.kept.take(index_t(made)), grad = m.c.kept.take(index_t(made));
    m.c.commit(), m.c.commit_scratch();
    m.put(m.c.kept[x], in[0]), m.put_parameters(in, 1), m.put(m.c.kept[grad], cotangent());
    part.forward(m.c, m.c.kept[x], m.c.kept[y]);
    part.backward(m.c, m.c.kept[x], m.c.kept[grad], m.c.kept[grad_x]);
    part_results r{m.get(m.c.kept[y], made), {m.get(m.c.kept[grad_x], e.count())}, {}};
    m.get_gradients(r.gradients);
    part.backward(m.c, m.c.kept[x], m.c.kept[grad], m.c.kept[grad_x], true);
    r.more = m.get(m.c.kept[grad_x], e.count());  // added to itself: twice the gradient
    return r;
  }
};

/// inputs: the table, or weight and bias.
struct embedding_case {
  models::embedding_kind kind;
  part_extents e;
  index_t vocabulary;

  friend std::ostream& operator<<(std::ostream& o, embedding_case const& c) {
    return o << "embedding " << int(c.kind) << ", " << c.e;
  }
  bool level() const { return kind == models::embedding_kind::level; }
  std::vector<int> tokens() const {
    random_bits random{7};
    std::vector<int> t(e.rows());
    for (int& v : t) v = random.below(int(vocabulary));
    return t;
  }
  std::vector<numbers> inputs() const {
    if (level()) return {some_numbers(size_t(e.channels), 1), some_numbers(size_t(e.channels), 2)};
    return {some_numbers(size_t(vocabulary * e.channels), 1)};
  }
  numbers cotangent() const { return some_numbers(e.count(), 3); }
  double roundings() const { return 4 * double(e.rows()) * double(e.rows()); }
  numbers naive(std::vector<numbers> const& in) const {
    size_t const d = size_t(e.channels);
    auto const t = tokens();
    numbers y(e.count());
    for (size_t i = 0; i < y.size(); i++)
      y[i] =
          level() ? (t[i / d] / 255. - 0.5) / 0.5 * in[0][i % d] + in[1][i % d] : in[0][size_t(t[i / d]) * d + i % d];
    return y;
  }
  template <class T, class E>
  part_results run(std::vector<numbers> const& in, int threads) const {
    part_memory<T, E> m(threads, e.batch, e.length);
    models::embedding<T, E> const part(m.c, vocabulary, e.channels, kind);
    auto const y = m.c.kept.take(index_t(e.count())), grad = m.c.kept.take(index_t(e.count()));
    auto const t = m.c.integers.take(e.batch * e.length);
    m.c.commit(), m.c.commit_scratch();
    m.put_integers(t, tokens()), m.put_parameters(in, 0), m.put(m.c.kept[grad], cotangent());
    part.forward(m.c, m.c.integers[t], m.c.kept[y]);
    part.backward(m.c, m.c.integers[t], m.c.kept[grad]);
    part_results r{m.get(m.c.kept[y], e.count()), {}, {}};
    m.get_gradients(r.gradients);
    return r;
  }
};

/// inputs: x.
struct pooling_case {
  part_extents e;

  friend std::ostream& operator<<(std::ostream& o, pooling_case const& c) { return o << "mean pooling, " << c.e; }
  std::vector<numbers> inputs() const { return {some_numbers(e.count(), 1)}; }
  numbers cotangent() const { return some_numbers(size_t(e.batch * e.channels), 2); }
  double roundings() const { return double(e.length) + 2; }
  numbers naive(std::vector<numbers> const& in) const {
    size_t const d = size_t(e.channels);
    numbers y(size_t(e.batch) * d);
    for (size_t r = 0; r < e.rows(); r++)
      for (size_t k = 0; k < d && e.valid(r); k++) {
        size_t const b = r / size_t(e.length);
        y[b * d + k] += in[0][r * d + k] / double(e.lengths.empty() ? e.length : e.lengths[b]);
      }
    return y;
  }
  template <class T, class E>
  part_results run(std::vector<numbers> const& in, int threads) const {
    part_memory<T, E> m(threads, e.batch, e.length);
    size_t const made = size_t(e.batch * e.channels);
    auto const x = m.c.kept.take(index_t(e.count())), y = m.c.kept.take(index_t(made)),
               grad = m.c.kept.take(index_t(made));
    m.c.commit();
    m.c.set_lengths(e.pointer());
    m.put(m.c.kept[x], in[0]), m.put(m.c.kept[grad], cotangent());
    models::mean_pooling(m.c, e.channels, m.c.kept[x], m.c.kept[y]);
    part_results r{m.get(m.c.kept[y], made), {}, {}};
    models::mean_pooling_backward(m.c, e.channels, m.c.kept[grad], m.c.kept[x]);
    r.gradients.push_back(m.get(m.c.kept[x], e.count()));
    return r;
  }
};

/// inputs: the logits. y: the loss. `more`: the predictions.
struct cross_entropy_case {
  index_t rows, classes;
  double scale = 3;
  bool all_count = false;

  friend std::ostream& operator<<(std::ostream& o, cross_entropy_case const& c) {
    return o << "cross entropy of " << c.rows << " x " << c.classes;
  }
  std::vector<int> targets() const {
    random_bits random{8};
    std::vector<int> t(size_t(rows), 0);
    for (int& v : t) v = random.below(int(classes) + (all_count ? 0 : 1)) - (all_count ? 0 : 1);
    return t;
  }
  std::vector<numbers> inputs() const {
    numbers v = some_numbers(size_t(rows * classes), 1);
    for (double& x : v) x = double(float(scale * x));
    if (classes > 2)  // equal logits: the first is predicted
      for (size_t r = 0; r < size_t(rows); r += 2)
        v[r * size_t(classes) + size_t(classes) - 1] = v[r * size_t(classes) + 1] = 2 * scale;
    return {v};
  }
  numbers cotangent() const { return {1}; }
  /// Sums over classes and rows; exp has the library's error of a few units, and its argument one rounding of 4 scale.
  double roundings() const { return double(rows + classes) + 16 + 4 * scale; }
  numbers naive(std::vector<numbers> const& in) const {
    size_t const v = size_t(classes);
    auto const t = targets();
    double sum = 0, counted = 0;
    for (size_t r = 0; r < size_t(rows); r++) {
      if (t[r] < 0) continue;
      double all = 0;
      for (size_t k = 0; k < v; k++) all += std::exp(in[0][r * v + k] - in[0][r * v + size_t(t[r])]);
      sum += std::log(all), counted++;
    }
    return {counted > 0 ? sum / counted : 0};
  }
  template <class T, class E>
  part_results run(std::vector<numbers> const& in, int threads) const {
    part_memory<T, E> m(threads, rows, 1);
    models::cross_entropy<T, E> const part(m.c, rows, classes);
    auto const logits = m.c.kept.take(rows * classes);
    auto const wanted = m.c.integers.take(rows), found = m.c.integers.take(rows);
    m.c.commit();
    m.put(m.c.kept[logits], in[0]), m.put_integers(wanted, targets());
    T* const x = m.c.kept[logits];
    part_results r;
    r.y = {part(m.c, rows, x, m.c.integers[wanted], nullptr)};
    std::vector<int> predicted(static_cast<size_t>(rows));
    EXPECT_EQ(part(m.c, rows, x, nullptr, nullptr, m.c.integers[found]), 0);
    m.c.download(m.c.integers[found], predicted.data(), predicted.size());
    r.more.assign(predicted.begin(), predicted.end());
    EXPECT_EQ(part(m.c, rows, x, m.c.integers[wanted], x, m.c.integers[found]), r.y[0]);  // in place
    m.c.download(m.c.integers[found], predicted.data(), predicted.size());
    EXPECT_TRUE(std::equal(predicted.begin(), predicted.end(), r.more.begin()));
    for (size_t i = 0; i < size_t(rows); i++)
      EXPECT_EQ(first_of_largest(in[0], i), predicted[i]) << *this << ", row " << i;
    r.gradients.push_back(m.get(x, size_t(rows * classes)));
    return r;
  }

 private:
  int first_of_largest(numbers const& v, size_t row) const {
    auto const begin = v.begin() + std::ptrdiff_t(row) * classes;
    return int(std::max_element(begin, begin + classes) - begin);
  }
};

/// inputs: x and the parameters of a pre-norm block with both dropouts.
struct feed_forward_case {
  part_extents e;
  index_t hidden;

  models::feed_forward_config config() const {
    return {.channels = e.channels, .hidden = hidden, .dropout = 0.25, .hidden_dropout = 0.5, .site = 6};
  }
  friend std::ostream& operator<<(std::ostream& o, feed_forward_case const& c) { return o << "feed-forward, " << c.e; }
  std::vector<numbers> inputs() const {
    size_t const d = size_t(e.channels), f = size_t(hidden);
    return {some_numbers(e.count(), 1), some_numbers(d, 2),     some_numbers(d, 3), some_numbers(d * f, 4),
            some_numbers(f, 5),         some_numbers(f * d, 6), some_numbers(d, 7)};
  }
  numbers cotangent() const { return some_numbers(e.count(), 8); }
  double roundings() const {
    return linear_case{e, hidden}.roundings() + norm_case{models::norm_kind::layer, e}.roundings();
  }
  /// The factor of an element: 0, or 1 / (1 - probability).
  double factor(double probability, std::uint32_t site, size_t i) const {
    auto const words = philox(11, {{uint32(i / 4), 0, 12, site}});
    return words.word[i % 4] < probability * 0x1p32 ? 0 : 1 / (1 - probability);
  }
  numbers naive(std::vector<numbers> const& in) const {
    numbers normed = norm_case{models::norm_kind::layer, e}.naive({in[0], in[1], in[2]});
    numbers between = linear_case{e, hidden}.naive({normed, in[3], in[4]});
    for (size_t i = 0; i < between.size(); i++) between[i] *= factor(0.5, 6, i) / (1 + std::exp(-between[i]));
    part_extents inner = e;
    inner.channels = hidden;
    numbers y = linear_case{inner, e.channels}.naive({between, in[5], in[6]});
    for (size_t i = 0; i < y.size(); i++) y[i] = in[0][i] + factor(0.25, 7, i) * y[i];
    return y;
  }
  template <class T, class E>
  part_results run(std::vector<numbers> const& in, int threads) const {
    part_memory<T, E> m(threads, e.batch, e.length);
    models::feed_forward<T, E> const part(m.c, config());
    auto const x = m.c.kept.take(index_t(e.count())), y = m.c.kept.take(index_t(e.count())),
               grad = m.c.kept.take(index_t(e.count()));
    m.c.commit(), m.c.commit_scratch();
    m.c.seed = 11, m.c.step = 12;
    m.put(m.c.kept[x], in[0]), m.put_parameters(in, 1), m.put(m.c.kept[grad], cotangent());
    part.forward(m.c, m.c.kept[x], m.c.kept[y]);
    part.backward(m.c, m.c.kept[x], m.c.kept[grad]);
    part_results r{m.get(m.c.kept[y], e.count()), {m.get(m.c.kept[grad], e.count())}, {}};
    m.get_gradients(r.gradients);
    return r;
  }
};

}  // namespace tcnca::testing
