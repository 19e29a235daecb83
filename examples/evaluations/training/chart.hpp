// SVG charts: panels side by side with lines and one legend. Axes are linear or, for x, logarithmic.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace tcnca::training {

struct chart_line {
  std::string name;  ///< lines of the same name have the same color in all panels
  std::vector<std::pair<double, double>> points;
};
struct chart_panel {
  std::string title, x_label;
  std::vector<chart_line> lines;
  bool log_x = false, from_zero = false;
};

class chart {
 public:
  explicit chart(std::string title, int columns = 2) : title_(std::move(title)), columns_(columns) {}
  void add(chart_panel panel) { panels_.push_back(std::move(panel)); }

  std::string svg() const {
    int const across = std::min(columns_, std::max(1, int(panels_.size()))),
              rows = (int(panels_.size()) + across - 1) / across;
    std::vector<std::string> names;
    for (auto const& p : panels_)
      for (auto const& l : p.lines)
        if (std::find(names.begin(), names.end(), l.name) == names.end()) names.push_back(l.name);
    double const width = across * panel_width;
    std::string key;
    double x = left, y = 52;
    for (std::size_t i = 0; i < names.size(); i++) {
      double const room = 44 + 7.2 * double(names[i].size());
      if (x > left && x + room > width) x = left, y += 20;
      key += line(x, y, x + 22, y, "stroke-width=\"2\" stroke=\"" + colour(i) + "\"") +
             text(x + 28, y + 4, names[i], "start");
      x += room;
    }
    double const top = y + 8, height = top + rows * panel_height;
    std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + number(width) + "\" height=\"" +
                      number(height) +
                      "\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n"
                      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n" +
                      text(left, 28, title_, "start", "font-size=\"17\" font-weight=\"bold\"") + key;
    for (std::size_t i = 0; i < panels_.size(); i++)
      out +=
          draw(panels_[i], names, double(int(i) % across) * panel_width, top + double(int(i) / across) * panel_height);
    return out + "</svg>\n";
  }

 private:
  static constexpr double panel_width = 480, panel_height = 320, left = 66, right = 20, above = 40, below = 50;

  /// Tick marks from `low` to `high` at round values.
  struct axis {
    double low = 0, high = 1, step = 1;
    bool log = false;
    double at(double v) const {
      return log ? (std::log(v) - std::log(low)) / (std::log(high) - std::log(low)) : (v - low) / (high - low);
    }
  };
  static axis linear(double low, double high) {
    if (!(low <= high)) low = 0, high = 1;
    double const least = 1e-6 * std::max(1.0, std::abs(high));
    if (high - low < least) low -= least, high += least;
    double const raw = (high - low) / 5, power = std::pow(10, std::floor(std::log10(raw)));
    double const step = power * (raw <= power ? 1 : raw <= 2 * power ? 2 : raw <= 5 * power ? 5 : 10);
    return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, step, false};
  }
  // Distinguishable with common color vision deficiencies.
  static std::string colour(std::size_t i) {
    static constexpr char const* all[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                          "#e69f00", "#56b4e9", "#222222", "#999933"};
    return all[i % std::size(all)];
  }
  static std::string number(double v) {
    char out[32];
    std::snprintf(out, sizeof out, "%.5g", std::abs(v) < 1e-12 ? 0.0 : v);
    return out;
  }
  static std::string text(double x, double y, std::string const& what, char const* anchor,
                          std::string const& style = "") {
    std::string safe;
    for (char const c : what) safe += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
    return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor + "\" " + style + ">" +
           safe + "</text>\n";
  }
  static std::string line(double x0, double y0, double x1, double y1, std::string const& style) {
    return "<line x1=\"" + number(x0) + "\" y1=\"" + number(y0) + "\" x2=\"" + number(x1) + "\" y2=\"" + number(y1) +
           "\" " + style + "/>\n";
  }

  static std::string draw(chart_panel const& p, std::vector<std::string> const& names, double from, double up) {
    double x_low = 1e300, x_high = -1e300, y_low = p.from_zero ? 0 : 1e300, y_high = -1e300;
    std::vector<double> marks;  // of a logarithmic axis
    for (auto const& l : p.lines)
      for (auto const& [x, y] : l.points) {
        x_low = std::min(x_low, x), x_high = std::max(x_high, x), marks.push_back(x);
        if (std::isfinite(y)) y_low = std::min(y_low, y), y_high = std::max(y_high, y);
      }
    axis const ax = p.log_x && x_low > 0 && x_low < x_high ? axis{x_low, x_high, 1, true} : linear(x_low, x_high),
               ay = linear(y_low, y_high);
    double const x0 = from + left, x1 = from + panel_width - right, y1 = up + above, y0 = up + panel_height - below;
    auto const px = [&](double v) { return x0 + ax.at(v) * (x1 - x0); };
    auto const py = [&](double v) { return y0 + ay.at(v) * (y1 - y0); };

    std::string out = text(x0, up + 26, p.title, "start", "font-size=\"14\"");
    for (double v = ay.low; v < ay.high + ay.step / 2; v += ay.step)
      out += line(x0, py(v), x1, py(v), "stroke=\"#e4e4e4\"") + text(x0 - 6, py(v) + 4, number(v), "end");
    if (!ax.log)
      for (marks.clear(); double(marks.size()) * ax.step < ax.high - ax.low + ax.step / 2;)
        marks.push_back(ax.low + double(marks.size()) * ax.step);
    std::sort(marks.begin(), marks.end());
    marks.erase(std::unique(marks.begin(), marks.end()), marks.end());
    for (double const v : marks)
      out += line(px(v), y0, px(v), y0 + 5, "stroke=\"#222\"") + text(px(v), y0 + 19, number(v), "middle");
    out += line(x0, y0, x1, y0, "stroke=\"#222\"") + line(x0, y0, x0, y1, "stroke=\"#222\"");
    out += text((x0 + x1) / 2, y0 + 38, p.x_label, "middle");
    for (auto const& l : p.lines) {
      std::string const c = colour(std::size_t(std::find(names.begin(), names.end(), l.name) - names.begin()));
      std::string path, dots;
      for (auto const& [x, y] : l.points) {
        if (!std::isfinite(y)) continue;
        path += (path.empty() ? "M" : "L") + number(px(x)) + " " + number(py(y));
        dots += "<circle cx=\"" + number(px(x)) + "\" cy=\"" + number(py(y)) + "\" r=\"2.6\" fill=\"" + c + "\"/>\n";
      }
      if (!path.empty()) out += "<path d=\"" + path + "\" fill=\"none\" stroke-width=\"1.6\" stroke=\"" + c + "\"/>\n";
      if (l.points.size() <= 30) out += dots;  // with many points, the line is enough
    }
    return out;
  }

  std::string title_;
  int columns_;
  std::vector<chart_panel> panels_;
};

}  // namespace tcnca::training
