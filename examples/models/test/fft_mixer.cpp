// MEGA's EMA by FFT against the EMA as a scan in fp64: outputs, and the gradients of x and of all parameters.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "../fft_mixer.hpp"
#include "support/numbers.hpp"

namespace tcnca::testing {
namespace {

using namespace models;

struct setting {
  index_t batch, channels, length;
  int threads = 1;
};
std::ostream& operator<<(std::ostream& o, setting const& s) {
  return o << s.batch << " x " << s.channels << " x " << s.length;
}

using numbers = std::vector<double>;

/// The results of a mixer for inputs that depend on the setting only; all inputs are fp32 numbers.
struct outcome {
  numbers x, grad_y, y, grad_x;
  std::vector<numbers> parameters, gradients;  ///< delta, alpha, beta, gamma, omega

  bool operator==(outcome const&) const = default;
};

/// A mixer with its context, large enough for the setting.
template <class T, class Mixer>
struct bench_of {
  context<T, cpu> c;
  Mixer mixer;
  region x, y, grad_y, grad_x;

  explicit bench_of(setting const& s) : c(s.threads, s.batch, s.length), mixer(c, s.channels) {
    index_t const n = c.rows() * s.channels;
    x = c.kept.take(n), y = c.kept.take(n), grad_y = c.kept.take(n), grad_x = c.kept.take(n);
    c.commit();
    mixer.reserve(c, c.kept[x], c.kept[y]);
    c.commit_scratch();
    c.initialise(11);
    for (auto const& e : c.parameters())
      for (size_t i = 0; i < e.where.count; i++) c.values[e.where][i] = T(float(c.values[e.where][i]));
  }
  outcome run(setting const& s) {
    c.batch = s.batch, c.length = s.length;
    size_t const n = size_t(c.rows() * s.channels);
    random_bits r{3};
    for (size_t i = 0; i < n; i++) c.kept[x][i] = T(float(uniform(r))), c.kept[grad_y][i] = T(float(uniform(r)));
    for (region const where : {y, grad_x}) std::fill_n(c.kept[where], n, T(NAN));
    std::fill_n(c.gradients.data(), c.gradients.count(), T(NAN));
    mixer.forward(c, c.kept[x], c.kept[y]);
    mixer.backward(c, c.kept[x], c.kept[grad_y], c.kept[grad_x]);
    auto const copy = [](T const* p, size_t count) { return numbers(p, p + count); };
    outcome o{copy(c.kept[x], n), copy(c.kept[grad_y], n), copy(c.kept[y], n), copy(c.kept[grad_x], n), {}, {}};
    for (auto const& e : c.parameters()) {
      o.parameters.push_back(copy(c.values[e.where], e.where.count));
      o.gradients.push_back(copy(c.gradients[e.where], e.where.count));
    }
    return o;
  }
};

double norm2(numbers const& v) { return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.)); }
double norm1(numbers const& v) {
  return std::accumulate(v.begin(), v.end(), 0., [](double s, double a) { return s + std::abs(a); });
}

/// The kernel of one row of parameters, term by term.
template <int N>
struct terms {
  double p[N], a[N], q[N], scale[N];

  terms(outcome const& o, size_t row) {
    for (size_t n = 0; n < N; n++) {
      auto const sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
      auto const at = [&](size_t which) { return o.parameters[which][row * N + n]; };
      p[n] = sigmoid(at(0)), a[n] = sigmoid(at(1)), q[n] = 1 - p[n] * a[n],
      scale[n] = p[n] * at(2) * at(3) / std::sqrt(double(N));
    }
  }
};

/// Error bound of the difference between the two methods, for one channel. A transform of N points has an error of at
/// most eta log2 N times the 2-norm of its input (Higham, Accuracy and Stability, theorem 24.2: eta = u + gamma_4 (sqrt
/// 2 + u) < 7 u), and four more steps of this kind untangle, multiply and tangle. A power q^l has an error of l
/// roundings, in the scan as well.
template <class T, int N>
class bounds {
 public:
  bounds(setting const& s, outcome const& o, bool bidirectional, bool skip, size_t channel) : length_(s.length) {
    eps_ = std::numeric_limits<T>::epsilon();
    fft_ = 3.5 * eps_ * (std::log2(2 * double(s.length)) + 5);
    size_t const d = size_t(s.channels), l = size_t(s.length);
    for (size_t half = 0; half < (bidirectional ? 2 : 1); half++) {
      terms<N> const t(o, half * d + channel);
      numbers sum(l), worst(l);
      for (size_t n = 0; n < N; n++)
        for (size_t i = 0; i < l; i++) {
          double const v = t.scale[n] * std::pow(t.q[n], double(i));
          sum[i] += v, worst[i] += std::abs(v), rounding_ += (2 * double(i) + N + 12) * eps_ * std::abs(v);
        }
      kernel1_ += norm1(worst), kernel2_ += norm2(sum);
    }
    omega_ = skip ? std::abs(o.parameters[4][channel]) : 0;
    // The maximum over the batch.
    double largest_x = 0, x2 = 0, largest_g = 0, g2 = 0, g1 = 0;
    for (size_t b = 0; b < size_t(s.batch); b++) {
      numbers x(l), g(l);
      for (size_t i = 0; i < l; i++)
        x[i] = o.x[(b * l + i) * d + channel], g[i] = 1.1 * o.grad_y[(b * l + i) * d + channel];
      for (size_t i = 0; i < l; i++)
        largest_x = std::max(largest_x, std::abs(x[i])), largest_g = std::max(largest_g, std::abs(g[i]));
      x2 = std::max(x2, norm2(x)), g2 = std::max(g2, norm2(g)), g1 = std::max(g1, norm1(g));
    }
    double const before = convolution(x2, largest_x) + 3 * eps_ * (kernel1_ + omega_) * largest_x;
    double const size_of_y = (kernel1_ + omega_) * largest_x;
    y = skip ? 1.1 * before + 4 * eps_ * size_of_y : before;
    double const g = skip ? largest_g * (0.5 * before + 4 * eps_) : 0;  // |silu''| <= 1/2
    grad_x = convolution(g2, largest_g) + (kernel1_ + omega_) * g + 3 * eps_ * (kernel1_ + omega_) * largest_g;
    double const terms_of_sum =
        double(s.batch) * (fft_ * 3 * x2 * g2 * std::sqrt(2.) + g * double(s.length) * largest_x + eps_ * x2 * g2);
    grad_kappa = terms_of_sum + double(s.batch * s.batch) * eps_ * x2 * g2;
    kappa_size_ = double(s.batch) * x2 * g2;
    // A sum of fewer than 2 length batch terms, summed by tiles, and over the tiles in fp64.
    grad_omega = double(s.batch) * (g * double(s.length) * largest_x) +
                 2 * (64 + double(std::is_same_v<T, double> ? s.length * s.batch : 0)) * eps_ * kappa_size_;
  }
  /// Bound for the derivative of the kernel with respect to parameter `which` of a term: slope(i).
  template <class Slope>
  double parameter(Slope const& slope) const {
    double sum = 0;
    for (index_t i = 0; i < length_; i++)
      sum += std::abs(slope(double(i))) * (grad_kappa + (2 * double(i) + double(length_) + 40) * eps_ * kappa_size_);
    return sum;
  }
  double y, grad_x, grad_kappa, grad_omega;

 private:
  /// Bound for a convolution with the kernel.
  double convolution(double two, double largest) const {
    return fft_ * two * (2 * kernel2_ + kernel1_) + rounding_ * largest;
  }

  index_t length_;
  double eps_, fft_, omega_ = 0, kernel1_ = 0, kernel2_ = 0, rounding_ = 0, kappa_size_;
};

template <class T, ema_shape Shape>
void expect_same(setting const& s) {
  constexpr int N = Shape.states;
  outcome const a = bench_of<T, fft_mixer<T, cpu, Shape>>(s).run(s),
                e = bench_of<double, ema_mixer<double, cpu, Shape>>(s).run(s);
  ASSERT_EQ(a.parameters, e.parameters);
  size_t const d = size_t(s.channels);
  for (size_t c = 0; c < d; c++) {
    bounds<T, N> const bound(s, e, Shape.directions() == 2, Shape.skip, c);
    for (size_t i = c; i < e.y.size(); i += d) {
      ASSERT_NEAR(a.y[i], e.y[i], bound.y) << s << ": y " << i;
      ASSERT_NEAR(a.grad_x[i], e.grad_x[i], bound.grad_x) << s << ": grad_x " << i;
    }
    if constexpr (Shape.skip) {
      ASSERT_NEAR(a.gradients[4][c], e.gradients[4][c], bound.grad_omega) << s << ": omega " << c;
    }
    for (size_t half = 0; half < size_t(Shape.directions()); half++) {
      terms<N> const t(e, half * d + c);
      for (size_t n = 0; n < N; n++) {
        size_t const i = (half * d + c) * N + n;
        double const p = t.p[n], al = t.a[n], q = t.q[n], beta = e.parameters[2][i], gamma = e.parameters[3][i];
        auto const power = [=](double l) { return l < 0 ? 0 : std::pow(q, l); };
        auto const of_q = [=](double l) { return std::abs(t.scale[n]) * l * power(l - 1) * p * al; };
        auto const check = [&](size_t which, char const* name, double b) {
          ASSERT_NEAR(a.gradients[which][i], e.gradients[which][i], b) << s << ": " << name << " " << i;
        };
        check(0, "delta",
              bound.parameter([&](double l) { return (1 - p) * (std::abs(t.scale[n]) * power(l) + of_q(l)); }));
        check(1, "alpha", bound.parameter([&](double l) { return (1 - al) * of_q(l); }));
        check(2, "beta", bound.parameter([&](double l) { return t.scale[n] / beta * power(l); }));
        check(3, "gamma", bound.parameter([&](double l) { return t.scale[n] / gamma * power(l); }));
      }
    }
  }
}

constexpr layout order = layout::batch_length_channels;
constexpr ema_shape causal{.states = 4, .order = order};
constexpr ema_shape both{.states = 2, .dir = direction::bidirectional, .order = order};
constexpr ema_shape plain{.states = 2, .skip = false, .order = order};
constexpr ema_shape mega{.states = 16, .order = order};

/// Lengths 1 to 9, odd, prime, powers of two, a tile boundary; channels that fill registers, and that do not.
setting const settings[] = {{2, 5, 1},  {1, 16, 2}, {2, 3, 3},   {3, 17, 5},  {2, 33, 7},  {1, 1, 9},     {2, 16, 16},
                            {1, 9, 17}, {3, 5, 31}, {2, 20, 64}, {1, 7, 127}, {2, 8, 257}, {1, 18, 1000}, {2, 4, 1024}};

template <class T>
class fft_mixer_of : public ::testing::Test {};
TYPED_TEST_SUITE_P(fft_mixer_of);

TYPED_TEST_P(fft_mixer_of, is_the_scan) {
  for (setting const& s : settings) expect_same<TypeParam, causal>(s);
  expect_same<TypeParam, mega>({1, 3, 2053, 2});
}
TYPED_TEST_P(fft_mixer_of, is_the_scan_in_both_directions) {
  for (setting const& s : settings) expect_same<TypeParam, both>(s);
}
TYPED_TEST_P(fft_mixer_of, is_the_scan_without_a_skip_connection) {
  for (setting const& s : settings) expect_same<TypeParam, plain>(s);
}
TYPED_TEST_P(fft_mixer_of, repeats_its_bits_whatever_came_before_and_however_many_threads) {
  setting const whole{3, 37, 150}, shorter{2, 37, 91};
  bench_of<TypeParam, fft_mixer<TypeParam, cpu, both>> one(whole);
  outcome const first = one.run(whole), small = one.run(shorter);
  EXPECT_EQ(one.run(whole), first);
  EXPECT_EQ(one.run(shorter), small);
  setting threaded = whole;
  threaded.threads = 3;
  bench_of<TypeParam, fft_mixer<TypeParam, cpu, both>> three(threaded);
  EXPECT_EQ(three.run(whole), first);
  EXPECT_EQ(three.run(shorter), small);
}

REGISTER_TYPED_TEST_SUITE_P(fft_mixer_of, is_the_scan, is_the_scan_in_both_directions,
                            is_the_scan_without_a_skip_connection,
                            repeats_its_bits_whatever_came_before_and_however_many_threads);
using types = ::testing::Types<float, double>;
INSTANTIATE_TYPED_TEST_SUITE_P(cpu, fft_mixer_of, types);

TEST(fft_mixer, chooses_lengths_without_large_factors) {
  for (index_t length = 1; length < 5000; length++) {
    index_t const n = circular_convolution<float>::points(length);
    ASSERT_GE(n, length);
    ASSERT_TRUE(length <= 4 ? n == length : 4 * n <= 5 * length + 3) << length << ": " << n;
    index_t rest = n;
    while (rest % 2 == 0) rest /= 2;
    ASSERT_LE(rest, 7);
  }
}

}  // namespace
}  // namespace tcnca::testing
