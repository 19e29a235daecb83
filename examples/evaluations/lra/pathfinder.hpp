// Pathfinder: two long dashed curves and several short ones, with discs at two ends of the long ones. The class: do the
// discs mark the ends of one curve?
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>
#include <stdexcept>
#include <string>

#include "dataset.hpp"
#include "random.hpp"

namespace lra::pathfinder {

/// Sizes in pixels. Curves are polylines of dashes with gaps, which turn a little at each dash.
struct shape {
  long side;
  double dash, gap;        ///< lengths along a curve
  double thickness, disc;  ///< of dashes; radius of the discs
  double clearance;  ///< minimum distance between different curves, and between non-neighbouring parts of one curve
  double turn;       ///< maximum turn from dash to dash, in radians
  int dashes;        ///< per long curve
  int distractors, distractor_dashes;
};

/// Shapes of the image sizes: 32, and 128 (Path-X).
inline shape shape_of(long side) {
  if (side == 32) return {32, 1.5, 2.0, 1.0, 1.75, 4.5, 0.5, 9, 3, 3};
  if (side == 128) return {128, 4.0, 3.5, 2.0, 3.5, 8.0, 0.5, 16, 8, 5};
  throw std::invalid_argument("pathfinder: there are images of side 32 and 128, not " + std::to_string(side));
}

/// Generates images one after another. Connection is the only difference between the classes: both have the same
/// curves, and each end has a disc in half of the images of either class. Ends of different curves are matched in two
/// pairs, such that their distances resemble those of the ends of one curve; one of the pairs, or one of the curves, is
/// marked.
class painter {
 public:
  painter(shape const& s, std::uint64_t seed) : shape_(s), random_(seed), pixels_(std::size_t(s.side * s.side)) {}

  /// Grey levels, row by row; valid until the next call.
  std::vector<std::uint8_t> const& paint(bool connected) {
    while (!lay_out()) {}
    bool const which = random_.below(2) == 1;
    if (connected) {
      curve const& c = long_[which];
      discs_ = {c.front(), c.back()};
    } else {
      auto const& [a, b] = long_;
      discs_ = {which ? a.front() : a.back(), which == straight_ ? b.front() : b.back()};
    }
    render();
    return pixels_;
  }

 private:
  struct point {
    double x, y;
    double reach;  ///< additional radius of the ink here: larger at the ends of long curves, which may have discs
  };
  /// The corners of a curve: start and end of each dash.
  using curve = std::vector<point>;

  static double distance(point const& p, point const& q) { return std::hypot(p.x - q.x, p.y - q.y); }

  bool lay_out() {
    taken_.clear(), dashes_.clear();
    double const reach = shape_.disc - shape_.thickness / 2;
    auto const any = [] { return true; };
    if (!lay(long_[0], shape_.dashes, reach, any) || !lay(long_[1], shape_.dashes, reach, [&] { return pair(); }))
      return false;
    curve c;
    for (int i = 0; i < shape_.distractors; i++) lay(c, shape_.distractor_dashes, 0, any);
    return true;
  }

  /// Matches ends of different curves in two pairs, with distances like those of the ends of one curve. Returns false
  /// if that is impossible.
  bool pair() {
    curve const &a = long_[0], &b = long_[1];
    double const close =
        double(shape_.side) / 8;  // then the distance alone predicts 62 % at best; 67 % without a limit
    auto const alike = [&](point const& p, point const& q) {  // p and q are compared with the front and back of a
      auto const own = std::minmax({distance(a.front(), a.back()), distance(b.front(), b.back())});
      auto const other = std::minmax({distance(a.front(), p), distance(a.back(), q)});
      return std::abs(own.first - other.first) < close && std::abs(own.second - other.second) < close;
    };
    straight_ = alike(b.front(), b.back());
    return straight_ || alike(b.back(), b.front());
  }

  /// A curve at a random place, clear of the existing ones, for which `fits` holds.
  bool lay(curve& c, int dashes, double reach, auto const& fits) {
    constexpr int tries = 60;
    for (int i = 0; i < tries; i++) {
      if (!grow(c, dashes, reach) || !fits()) continue;
      taken_.insert(taken_.end(), c.begin(), c.end());
      for (std::size_t k = 0; k + 1 < c.size(); k += 2) {
        taken_.push_back({(c[k].x + c[k + 1].x) / 2, (c[k].y + c[k + 1].y) / 2, 0});
        dashes_.push_back({c[k], c[k + 1]});
      }
      return true;
    }
    return false;
  }

  bool grow(curve& c, int dashes, double reach) {
    constexpr int tries = 6;
    double const edge = shape_.disc + 0.5, far = double(shape_.side) - 1 - edge;
    c.assign(1, {random_.between(edge, far), random_.between(edge, far), reach});
    if (!clear(c, c[0])) return false;
    double heading = random_.between(0, 2 * std::numbers::pi);
    for (int d = 0; d < dashes; d++) {
      bool done = false;
      for (int i = 0; i < tries && !done; i++) {
        double const to = heading + (d == 0 ? 0 : random_.between(-shape_.turn, shape_.turn)), x = std::cos(to),
                     y = std::sin(to);
        point const last = c.back(), start{last.x + shape_.gap * x, last.y + shape_.gap * y, 0},
                    from = d == 0 ? last : start;
        point const end{from.x + shape_.dash * x, from.y + shape_.dash * y, d + 1 == dashes ? reach : 0};
        done = end.x >= edge && end.x <= far && end.y >= edge && end.y <= far && (d == 0 || clear(c, start)) &&
               clear(c, end);
        if (!done) continue;
        heading = to;
        if (d > 0) c.push_back(start);
        c.push_back(end);
      }
      if (!done) return false;
    }
    return true;
  }

  /// Whether a point is far enough from all other curves, and from all of its own curve except its neighbours.
  bool clear(curve const& own, point const& p) const {
    auto const near = [&](point const& q) {
      double const least = shape_.clearance + p.reach + q.reach, dx = p.x - q.x, dy = p.y - q.y;
      return dx * dx + dy * dy < least * least;
    };
    if (std::any_of(taken_.begin(), taken_.end(), near)) return false;
    double const corner = (shape_.dash + shape_.gap) / 2;  // mean distance between corners
    for (std::size_t i = 0; i < own.size(); i++) {
      double const along = double(own.size() - i) * corner;
      if (along > 2 * (shape_.clearance + own[i].reach + p.reach) && near(own[i])) return false;
    }
    return true;
  }

  void render() {
    std::fill(pixels_.begin(), pixels_.end(), std::uint8_t(0));
    for (auto const& [from, to] : dashes_) ink(from, to, shape_.thickness / 2);
    for (point const& p : discs_) ink(p, p, shape_.disc);
  }

  /// Draws everything within `radius` of a segment; a partially covered pixel gets a proportional grey level.
  void ink(point const& from, point const& to, double radius) {
    double const wide = radius + 0.5, dx = to.x - from.x, dy = to.y - from.y, square = dx * dx + dy * dy;
    long const last = shape_.side - 1;
    long const left = std::max(0L, long(std::ceil(std::min(from.x, to.x) - wide))),
               right = std::min(last, long(std::max(from.x, to.x) + wide));
    long const top = std::max(0L, long(std::ceil(std::min(from.y, to.y) - wide))),
               bottom = std::min(last, long(std::max(from.y, to.y) + wide));
    for (long y = top; y <= bottom; y++)
      for (long x = left; x <= right; x++) {
        double const px = double(x) - from.x, py = double(y) - from.y;
        double const along = square > 0 ? std::clamp((px * dx + py * dy) / square, 0.0, 1.0) : 0;
        double const cover = std::clamp(wide - std::hypot(px - along * dx, py - along * dy), 0.0, 1.0);
        std::uint8_t& pixel = pixels_[std::size_t(y * shape_.side + x)];
        pixel = std::max(pixel, std::uint8_t(std::lround(255 * cover)));
      }
  }

  shape shape_;
  random_source random_;
  std::array<curve, 2> long_;
  std::vector<point> taken_;  // of the existing curves: corners, and midpoints of dashes
  std::vector<std::array<point, 2>> dashes_;
  std::array<point, 2> discs_{};
  bool straight_ = false;  // pairs the fronts with each other and the backs with each other
  std::vector<std::uint8_t> pixels_;
};

/// Alternates images of both classes. The same seed gives the same images for any number of threads. Reports to
/// `progress`.
inline dataset generate(shape const& s, long count, std::uint64_t seed,
                        std::function<void(long)> const& progress = {}) {
  dataset result;
  std::size_t const area = std::size_t(s.side * s.side);
  result.tokens.resize(std::size_t(count) * area);
  for (long i = 0; i < count; i++)
    result.ends.push_back(std::size_t(i + 1) * area), result.targets.push_back(int(i % 2));
  constexpr long block = 256;
  long done = 0;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic)
#endif
  for (long first = 0; first < count; first += block) {
    painter p(s, mix(seed, std::uint64_t(first / block)));
    for (long i = first; i < std::min(first + block, count); i++) {
      auto const& image = p.paint(i % 2 == 1);
      std::copy(image.begin(), image.end(), result.tokens.begin() + std::ptrdiff_t(std::size_t(i) * area));
    }
#ifdef _OPENMP
#pragma omp critical
#endif
    {
      done += std::min(block, count - first);
      if (progress) progress(done);
    }
  }
  return result;
}

/// Generates the three parts.
inline splits generate(shape const& s, counts const& n, std::uint64_t seed,
                       std::function<void(long)> const& progress = {}) {
  auto const after = [&](long before) {
    return [&progress, before](long done) {
      if (progress) progress(before + done);
    };
  };
  return {generate(s, n.training, mix(seed, 1), after(0)), generate(s, n.validation, mix(seed, 2), after(n.training)),
          generate(s, n.test, mix(seed, 3), after(n.training + n.validation))};
}

}  // namespace lra::pathfinder
