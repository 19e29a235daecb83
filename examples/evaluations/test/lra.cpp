// The data of evaluations/lra: properties of the generators, and how examples become batches.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <queue>
#include <set>

#include "../lra/batches.hpp"
#include "../lra/listops.hpp"
#include "../lra/pathfinder.hpp"

namespace lra {
namespace {

using bytes = std::vector<std::uint8_t>;

bytes sequence(dataset const& d, long i) { return {d.sequence(i).begin(), d.sequence(i).end()}; }

/// The count of n trials with probability p is within five deviations of its expectation; this fails once in two
/// million runs.
void expect_share(long count, long n, double p, char const* what) {
  EXPECT_LT(std::abs(double(count) - double(n) * p), 5 * std::sqrt(double(n) * p * (1 - p))) << what;
}

// --- ListOps, against an evaluator of its own: recursive, over characters. ---

struct tree {
  char op = 0;  // '<' '>' 'm' '+', or 0 for a digit
  int digit = 0;
  std::vector<tree> arguments;

  int depth() const {
    int most = 0;
    for (tree const& a : arguments) most = std::max(most, a.depth());
    return most + 1;
  }
  int value() const {
    if (op == 0) return digit;
    std::multiset<int> v;
    for (tree const& a : arguments) v.insert(a.value());
    if (op == '<') return *v.begin();
    if (op == '>') return *v.rbegin();
    if (op == '+') {
      int sum = 0;
      for (int const x : v) sum = (sum + x) % 10;
      return sum;
    }
    while (v.size() > 2) v.erase(v.begin()), v.erase(std::prev(v.end()));
    return int(std::floor((*v.begin() + *v.rbegin()) / 2.0));
  }
};

tree parse(bytes const& tokens, std::size_t& at) {
  tree t;
  std::uint8_t const first = tokens.at(at++);
  if (first >= 5) return t.digit = first - 5, t;
  EXPECT_LT(first, 4);
  t.op = "<>m+"[first];
  while (tokens.at(at) != 4) t.arguments.push_back(parse(tokens, at));
  at++;
  return t;
}
tree parse(bytes const& tokens) {
  std::size_t at = 0;
  tree t = parse(tokens, at);
  EXPECT_EQ(at, tokens.size());
  return t;
}

TEST(lra_listops, trees_have_correct_values_and_shapes) {
  auto const s = listops::generate({}, {300, 20, 20}, 7);
  ASSERT_EQ(s.training.examples(), 300);
  ASSERT_EQ(s.validation.examples(), 20);
  ASSERT_EQ(s.test.examples(), 20);
  for (dataset const* d : {&s.training, &s.validation, &s.test})
    for (long i = 0; i < d->examples(); i++) {
      bytes const tokens = sequence(*d, i);
      EXPECT_GE(tokens.size(), 500u);
      EXPECT_LE(tokens.size(), 2000u);
      tree const t = parse(tokens);
      EXPECT_LE(t.depth(), 10);
      EXPECT_EQ(t.value(), d->targets[std::size_t(i)]);
      EXPECT_EQ(listops::value(tokens), t.value());
    }
}

TEST(lra_listops, trees_follow_the_distribution) {
  random_source random(3);
  listops::shape const s{.depth = 3, .arguments = 10, .shortest = 1, .longest = 1000};
  std::map<int, long> digits, operators, counts;
  long inner = 0, leaves = 0, roots = 0, root_leaves = 0, below = 0, deep = 0;
  std::function<void(tree const&, int)> const count = [&](tree const& t, int depth) {
    if (depth == 2) inner++, leaves += t.op == 0;
    if (depth == 3) below++, deep += t.op != 0;
    if (t.op == 0) {
      digits[t.digit]++;
    } else {
      operators[t.op]++, counts[int(t.arguments.size())]++;
      for (tree const& a : t.arguments) count(a, depth + 1);
    }
  };
  for (; roots < 20000; roots++) {
    bytes tokens;
    int const v = listops::draw(random, s, 1, tokens);
    tree const t = parse(tokens);
    ASSERT_EQ(v, t.value());
    root_leaves += t.op == 0;
    count(t, 1);
  }
  EXPECT_GT(below, 0);
  EXPECT_EQ(deep, 0);  // no operators at the deepest level
  expect_share(root_leaves, roots, 0.75, "roots that are digits");
  expect_share(leaves, inner, 0.75, "arguments that are digits");
  auto const total = [](auto const& of) {
    long n = 0;
    for (auto const& [_, c] : of) n += c;
    return n;
  };
  EXPECT_EQ(digits.size(), 10u);
  EXPECT_EQ(operators.size(), 4u);
  EXPECT_EQ(counts.size(), 9u);
  for (auto const& [_, c] : digits) expect_share(c, total(digits), 0.1, "a digit");
  for (auto const& [_, c] : operators) expect_share(c, total(operators), 0.25, "an operator");
  for (auto const& [_, c] : counts) expect_share(c, total(counts), 1 / 9.0, "a number of arguments");
}

TEST(lra_listops, same_seed_same_trees_without_duplicates) {
  listops::shape const small{.depth = 3, .arguments = 3, .shortest = 4, .longest = 20};
  auto const a = listops::generate(small, {2000, 300, 300}, 1), b = listops::generate(small, {2000, 300, 300}, 1);
  EXPECT_EQ(a.training.tokens, b.training.tokens);
  EXPECT_EQ(a.test.targets, b.test.targets);
  EXPECT_NE(a.training.tokens, listops::generate(small, {2000, 300, 300}, 2).training.tokens);
  std::set<bytes> all;
  for (dataset const* d : {&a.training, &a.validation, &a.test})
    for (long i = 0; i < d->examples(); i++) all.insert(sequence(*d, i));
  EXPECT_EQ(all.size(), 2600u);
}

TEST(lra_listops, refuses_impossible_shapes) {
  auto const refused = [](listops::shape const& s, char const* why) {
    try {
      listops::generate(s, {96000, 0, 0}, 1);
      ADD_FAILURE() << why;
    } catch (std::invalid_argument const& e) {
      EXPECT_NE(std::string(e.what()).find(why), std::string::npos) << e.what();
    }
  };
  refused({.depth = 0}, "the depth must be");
  refused({.arguments = 1}, "operators have 2 to 64 arguments");
  refused({.shortest = 10, .longest = 9}, "the shortest length");
  refused({.depth = 1, .shortest = 1}, "only 10 different expressions");
  refused({.depth = 2, .arguments = 2, .shortest = 2}, "only 400 different expressions");
}

TEST(lra_listops, non_expressions_have_no_value) {
  using namespace listops;
  EXPECT_EQ(value(bytes{digit + 3}), 3);
  EXPECT_EQ(value(bytes{median, digit + 1, digit + 4, close}), 2);
  EXPECT_EQ(value(bytes{sum_modulo, digit + 7, digit + 8, digit + 9, close}), 4);
  for (bytes const& none :
       {bytes{}, bytes{close}, bytes{minimum}, bytes{minimum, close}, bytes{minimum, digit}, bytes{digit, digit},
        bytes{minimum, digit, close, digit}, bytes{minimum, digit, close, close}, bytes{digit + 10}})
    EXPECT_FALSE(value(none));
}

// --- Pathfinder's images. ---

struct picture {
  bytes pixels;
  long side;
  int at(long x, long y) const {
    return x < 0 || y < 0 || x >= side || y >= side ? 0 : pixels[std::size_t(y * side + x)];
  }
};

/// The centers of discs: where ink extends `arm` pixels to all four sides, more than the width of a dash.
std::vector<std::pair<long, long>> discs(picture const& p, long arm) {
  std::vector<std::pair<long, long>> found;
  for (long y = 0; y < p.side; y++)
    for (long x = 0; x < p.side; x++)
      if (std::min({p.at(x, y), p.at(x + arm, y), p.at(x - arm, y), p.at(x, y + arm), p.at(x, y - arm)}) >= 128)
        found.push_back({x, y});
  return found;
}

/// Whether the discs are connected when gaps are bridged: all ink dilated by `reach` pixels, flood-filled from one
/// disc.
bool connected(picture const& p, long reach, long arm) {
  auto const near = [&](long x, long y) {
    for (long j = -reach; j <= reach; j++)
      for (long i = -reach; i <= reach; i++)
        if (i * i + j * j <= reach * reach && p.at(x + i, y + j) >= 64) return true;
    return false;
  };
  auto const ends = discs(p, arm);
  if (ends.empty()) return false;
  std::set<std::pair<long, long>> seen;
  std::queue<std::pair<long, long>> next;
  next.push(ends[0]), seen.insert(ends[0]);
  for (; !next.empty(); next.pop()) {
    auto const [x, y] = next.front();
    for (auto const& to : {std::pair{x + 1, y}, {x - 1, y}, {x, y + 1}, {x, y - 1}})
      if (to.first >= 0 && to.second >= 0 && to.first < p.side && to.second < p.side && near(to.first, to.second) &&
          seen.insert(to).second)
        next.push(to);
  }
  return std::all_of(ends.begin(), ends.end(), [&](auto const& d) { return seen.count(d) == 1; });
}

TEST(lra_pathfinder, same_seed_same_images_and_balanced_classes) {
  auto const s = pathfinder::shape_of(32);
  auto const a = pathfinder::generate(s, 501L, 1), b = pathfinder::generate(s, 501, 1);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NE(a.tokens, pathfinder::generate(s, 501L, 2).tokens);
  EXPECT_EQ(std::count(a.targets.begin(), a.targets.end(), 1), 250);
  std::set<bytes> all;
  for (long i = 0; i < a.examples(); i++) all.insert(sequence(a, i));
  EXPECT_EQ(all.size(), 501u);
  EXPECT_THROW(pathfinder::shape_of(64), std::invalid_argument);
}

TEST(lra_pathfinder, connection_determines_the_class) {
  for (long const side : {32L, 128L}) {
    long const n = side == 32 ? 1000 : 100;
    auto const d = pathfinder::generate(pathfinder::shape_of(side), n, 5);
    long right = 0;
    for (long i = 0; i < n; i++)
      right +=
          connected({sequence(d, i), side}, side == 32 ? 1 : 2, side == 32 ? 1 : 2) == (d.targets[std::size_t(i)] == 1);
    EXPECT_GE(right, n * 99 / 100) << "side " << side;
  }
}

TEST(lra_pathfinder, distance_of_discs_predicts_little) {
  long const n = 4000;
  auto const d = pathfinder::generate(pathfinder::shape_of(32), n, 6);
  std::vector<std::pair<double, int>> all;
  for (long i = 0; i < n; i++) {
    auto const ends = discs({sequence(d, i), 32}, 1);
    double far = 0;
    for (auto const& p : ends)
      for (auto const& q : ends)
        far = std::max(far, std::hypot(double(p.first - q.first), double(p.second - q.second)));
    EXPECT_GT(far, 4) << "one disc";
    all.push_back({far, d.targets[std::size_t(i)]});
  }
  std::sort(all.begin(), all.end());
  long of[2]{}, best = 0;  // counts of the classes up to a distance, and the best accuracy of a threshold on it
  for (auto const& [_, target] : all)
    of[target]++, best = std::max({best, of[0] + n / 2 - of[1], of[1] + n / 2 - of[0]});
  EXPECT_LT(best, n * 65 / 100);
}

/// Mean image of one class.
std::vector<double> mean(dataset const& d, int target, long first, long last, auto const& features) {
  std::vector<double> sum;
  for (long i = first; i < last; i++) {
    if (d.targets[std::size_t(i)] != target) continue;
    std::vector<double> const f = features(d.sequence(i));
    sum.resize(f.size());
    for (std::size_t k = 0; k < f.size(); k++) sum[k] += f[k] / (double(last - first) / 2);
  }
  return sum;
}

TEST(lra_pathfinder, histograms_and_linear_functions_predict_little) {
  long const n = 4000, half = n / 2;
  auto const d = pathfinder::generate(pathfinder::shape_of(32), n, 9);
  auto const pixels = [](auto const& s) { return std::vector<double>(s.begin(), s.end()); };
  auto const histogram = [](auto const& s) {
    std::vector<double> h(9);
    for (std::uint8_t const v : s) h[v / 32u]++, h[8] += v / 255.0;
    return h;
  };
  // Half of the images give the direction in which the classes differ; if there is a difference, it predicts the
  // classes of the others better than chance.
  auto const told = [&](auto const& features) {
    auto const a = mean(d, 0, 0, half, features), b = mean(d, 1, 0, half, features);
    long right = 0;
    for (long i = half; i < n; i++) {
      auto const f = features(d.sequence(i));
      double score = 0;
      for (std::size_t k = 0; k < f.size(); k++) score += (b[k] - a[k]) * (f[k] - (a[k] + b[k]) / 2);
      right += (score > 0) == (d.targets[std::size_t(i)] == 1);
    }
    return right;
  };
  for (long const right : {told(pixels), told(histogram)}) expect_share(right, half, 0.5, "images told apart");
  // Each bin, and the mean, differs by at most five standard deviations.
  auto const a = mean(d, 0, 0, n, histogram), b = mean(d, 1, 0, n, histogram);
  auto const square = [&](auto const& s) {
    auto h = histogram(s);
    for (double& v : h) v *= v;
    return h;
  };
  auto const aa = mean(d, 0, 0, n, square), bb = mean(d, 1, 0, n, square);
  for (std::size_t k = 0; k < a.size(); k++) {
    double const variance = (aa[k] - a[k] * a[k] + bb[k] - b[k] * b[k]) / double(half);
    EXPECT_LT(std::abs(a[k] - b[k]), 5 * std::sqrt(variance)) << "bin " << k;
  }
}

// --- Batches, and what accuracies are compared with. ---

dataset of_lengths(std::vector<long> const& lengths, int an_example) {
  dataset d;
  d.sequences_an_example = an_example;
  for (std::size_t i = 0; i < lengths.size(); i++) {
    d.add(bytes(std::size_t(lengths[i]), std::uint8_t(i + 1)));
    if ((i + 1) % std::size_t(an_example) == 0) d.targets.push_back(int(i));
  }
  return d;
}

TEST(lra_batches, baseline_accuracies) {
  dataset known, d;
  for (int const target : {1, 1, 0}) known.add(bytes{5, 9}, target);
  for (int const target : {2, 2}) known.add(bytes{6, 9}, target);
  for (int const target : {1, 0, 0}) d.add(bytes{5, 7}, target);
  d.add(bytes{6}, 2), d.add(bytes{6}, 0);
  EXPECT_EQ(majority(d, 3), 3 / 5.0);
  EXPECT_EQ(by_first_token(known, d, 3), 2 / 5.0);
}

TEST(lra_batches, are_padded_and_have_lengths) {
  auto const d = of_lengths({3, 1, 2, 2}, 1);
  batch b;
  gather(d, std::vector<long>{0, 2}, b);
  auto v = b.view();
  EXPECT_EQ(v.sequences, 2);
  EXPECT_EQ(v.length, 3);
  EXPECT_EQ(b.tokens, (std::vector<int>{1, 1, 1, 3, 3, 0}));
  EXPECT_EQ(b.targets, (std::vector<int>{0, 2}));
  ASSERT_NE(v.lengths, nullptr);
  EXPECT_EQ(v.lengths[0], 3);
  EXPECT_EQ(v.lengths[1], 2);
  gather(d, std::vector<long>{3, 2}, b);
  EXPECT_EQ(b.tokens, (std::vector<int>{4, 4, 3, 3}));
  EXPECT_EQ(b.view().lengths, nullptr);  // all have the same length

  auto const pairs = of_lengths({3, 1, 2, 2}, 2);
  gather(pairs, std::vector<long>{1, 0}, b);
  v = b.view();
  EXPECT_EQ(v.sequences, 4);
  EXPECT_EQ(b.tokens, (std::vector<int>{3, 3, 0, 4, 4, 0, 1, 1, 1, 2, 0, 0}));
  EXPECT_EQ(b.targets, (std::vector<int>{3, 1}));
}

TEST(lra_batches, each_pass_has_all_examples_in_a_seeded_order) {
  std::vector<long> lengths;
  for (long i = 0; i < 1003; i++) lengths.push_back(1 + i * 37 % 101);
  auto const d = of_lengths(lengths, 1);
  batches a(d, 4, 1), b(d, 4, 1), other(d, 4, 2);
  std::vector<std::vector<long>> steps;
  long padded = 0, differ = 0;
  for (int pass = 0; pass < 2; pass++) {
    std::set<long> seen;
    for (long step = 251 * pass + 1; step <= 251 * (pass + 1); step++) {
      auto const which = a.at(step);
      steps.emplace_back(which.begin(), which.end());
      seen.insert(which.begin(), which.end());
      auto const others = other.at(step);
      differ += !std::equal(which.begin(), which.end(), others.begin(), others.end());
      long longest = 0;
      for (long const e : which) longest = std::max(longest, d.length(e));
      for (long const e : which) padded += longest - d.length(e);
    }
    EXPECT_EQ(seen.size(), 1003u);
  }
  EXPECT_NE(std::vector(steps.begin(), steps.begin() + 251), std::vector(steps.begin() + 251, steps.end()));
  EXPECT_GT(differ, 450);
  EXPECT_LT(padded, 2 * 1003);  // without sorting, about 25 per sequence
  for (long const step : {502L, 1L, 252L, 77L}) {
    auto const which = b.at(step);
    EXPECT_EQ(std::vector(which.begin(), which.end()), steps[std::size_t(step - 1)]) << step;
  }
}

}  // namespace
}  // namespace lra
