// Latencies and their percentiles.
#pragma once
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace serving {

class latencies {
 public:
  void add(double seconds, long count) {
    if (count > 0) all_.emplace_back(seconds, count);
  }
  bool empty() const { return all_.empty(); }
  /// The least latency that this share of all does not exceed; 0 if there are none.
  double percentile(double share) const {
    auto sorted = all_;
    std::sort(sorted.begin(), sorted.end());
    double left = 0;
    for (auto const& entry : sorted) left += share * double(entry.second);
    for (auto const& [seconds, count] : sorted)
      if ((left -= double(count)) <= 0) return seconds;
    return sorted.empty() ? 0 : sorted.back().first;
  }

 private:
  std::vector<std::pair<double, long>> all_;
};

inline std::string milliseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g ms", 1000 * seconds);
  return text;
}

}  // namespace serving
