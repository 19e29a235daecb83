// SVG line charts with logarithmic axes: panels in a grid, lines, horizontal reference lines, one legend.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tcnca::bench {

struct plot_line {
  std::string name;
  std::vector<std::pair<double, double>> points;
};
struct plot_reference {
  double y;
  std::string name;
};
struct plot_panel {
  std::string title, x_label, y_label;
  std::vector<plot_line> lines;
  std::vector<plot_reference> references;
};

/// Panels in rows of `columns`, all with the same axes. The i-th lines of all panels share a colour; the first panel
/// names them.
class plot {
 public:
  explicit plot(std::string title, int columns = 2) : title_(std::move(title)), columns_(columns) {}
  void add(plot_panel panel) { panels_.push_back(std::move(panel)); }
  /// Sets the subtitle and the line at the bottom.
  void describe(std::string subtitle, std::string footer) {
    subtitle_ = std::move(subtitle), footer_ = std::move(footer);
  }

  std::string svg() const {
    axis const x = range([](plot_panel const& p, auto const& see) {
      for (auto const& l : p.lines)
        for (auto const& point : l.points) see(point.first);
    });
    axis const y = range([](plot_panel const& p, auto const& see) {
      see(1.0);
      for (auto const& r : p.references) see(r.y);
      for (auto const& l : p.lines)
        for (auto const& point : l.points) see(point.second);
    });
    int const rows = (static_cast<int>(panels_.size()) + columns_ - 1) / columns_;
    double const width = columns_ * panel_width, height = top + rows * panel_height + bottom;
    std::string out = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + number(width) + "\" height=\"" +
                      number(height) + "\" viewBox=\"0 0 " + number(width) + " " + number(height) +
                      "\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">\n";
    out += "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
    out += label(margin_left, 28, title_, "start", "font-size=\"17\" font-weight=\"bold\"");
    out += label(margin_left, 48, subtitle_, "start", "fill=\"#555\"");
    out += legend(68);
    for (size_t i = 0; i < panels_.size(); i++) {
      int const column = static_cast<int>(i) % columns_, line = static_cast<int>(i) / columns_;
      out += draw(panels_[i], column * panel_width, top + line * panel_height, x, y);
    }
    out += label(margin_left, height - 12, footer_, "start", "fill=\"#555\" font-size=\"11\"");
    return out + "</svg>\n";
  }
  void write(std::string const& file) const {
    std::ofstream out(file);
    out << svg();
    if (!out.flush()) throw std::runtime_error(file + " cannot be written.");
  }

 private:
  struct axis {
    double low, high;
    double at(double v) const { return (std::log(v) - std::log(low)) / (std::log(high) - std::log(low)); }
  };
  using size_t = std::size_t;
  static constexpr double panel_width = 480, panel_height = 330, top = 90, bottom = 30;
  static constexpr double margin_left = 62, margin_right = 18, margin_top = 34, margin_bottom = 52;
  // Distinguishable with the common colour-vision deficiencies; the markers differ as well.
  static constexpr char const* colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
  static char const* colour(size_t i) { return colours[i % std::size(colours)]; }

  template <class Visit>
  axis range(Visit const& visit) const {
    double low = 1e300, high = 0;
    auto const see = [&](double v) {
      if (std::isfinite(v) && v > 0) low = std::min(low, v), high = std::max(high, v);
    };
    for (auto const& p : panels_) visit(p, see);
    if (high == 0) low = 1, high = 10;
    return {low / 1.25, high * 1.25};
  }
  static std::string number(double v) {
    char text[32];
    std::snprintf(text, sizeof text, "%.5g", v);
    return text;
  }
  /// 1024 is 1k, 1048576 is 1M.
  static std::string binary(double v) {
    if (v >= 1048576) return number(v / 1048576) + "M";
    if (v >= 1024) return number(std::round(v / 1024)) + "k";
    return number(v);
  }
  static std::string label(double x, double y, std::string const& text, char const* anchor,
                           std::string const& style = "") {
    std::string safe;
    for (char const c : text) safe += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
    return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" text-anchor=\"" + anchor + "\" " + style + ">" +
           safe + "</text>\n";
  }
  static std::string segment(double x0, double y0, double x1, double y1, std::string const& style) {
    return "<line x1=\"" + number(x0) + "\" y1=\"" + number(y0) + "\" x2=\"" + number(x1) + "\" y2=\"" + number(y1) +
           "\" " + style + "/>\n";
  }
  static std::string marker(size_t i, double x, double y) {
    std::string const fill = std::string("fill=\"") + colour(i) + "\"";
    if (i % 4 == 0) return "<circle cx=\"" + number(x) + "\" cy=\"" + number(y) + "\" r=\"3.6\" " + fill + "/>\n";
    if (i % 4 == 1)
      return "<rect x=\"" + number(x - 3.2) + "\" y=\"" + number(y - 3.2) + "\" width=\"6.4\" height=\"6.4\" " + fill +
             "/>\n";
    double const s = i % 4 == 2 ? -4.4 : 4.4;
    return "<path d=\"M" + number(x - 4.4) + " " + number(y - s * .75) + "h8.8L" + number(x) + " " + number(y + s) +
           "z\" " + fill + "/>\n";
  }
  std::string legend(double y) const {
    std::string out;
    if (panels_.empty()) return out;
    double x = margin_left;
    for (size_t i = 0; i < panels_.front().lines.size(); i++) {
      auto const& name = panels_.front().lines[i].name;
      out += segment(x, y, x + 22, y, std::string("stroke-width=\"2\" stroke=\"") + colour(i) + "\"") +
             marker(i, x + 11, y);
      out += label(x + 28, y + 4, name, "start");
      x += 44 + 6.8 * static_cast<double>(name.size());
    }
    return out;
  }

  std::string draw(plot_panel const& p, double left, double up, axis const& x, axis const& y) const {
    double const x0 = left + margin_left, x1 = left + panel_width - margin_right, y1 = up + margin_top,
                 y0 = up + panel_height - margin_bottom;
    auto const px = [&](double v) { return x0 + x.at(v) * (x1 - x0); };
    auto const py = [&](double v) { return y0 + y.at(v) * (y1 - y0); };
    std::string out = label(x0, up + 22, p.title, "start", "font-size=\"14\"");
    for (double decade = 1e-3; decade < 1e6; decade *= 10)
      for (double const step : {1.0, 2.0, 5.0}) {
        double const v = decade * step;
        if (v < y.low || v > y.high) continue;
        out += segment(x0, py(v), x1, py(v), "stroke=\"#e4e4e4\"") + label(x0 - 6, py(v) + 4, number(v) + "x", "end");
      }
    std::vector<double> ticks;
    for (auto const& l : p.lines)
      for (auto const& point : l.points) ticks.push_back(point.first);
    std::sort(ticks.begin(), ticks.end());
    ticks.erase(std::unique(ticks.begin(), ticks.end()), ticks.end());
    for (double const v : ticks)
      out += segment(px(v), y0, px(v), y0 + 5, "stroke=\"#222\"") + label(px(v), y0 + 19, binary(v), "middle");
    out += segment(x0, y0, x1, y0, "stroke=\"#222\"") + segment(x0, y0, x0, y1, "stroke=\"#222\"");
    if (y.low < 1) out += segment(x0, py(1), x1, py(1), "stroke=\"#888\"");
    for (auto const& r : p.references) {
      out += segment(x0, py(r.y), x1, py(r.y), "stroke=\"#222\" stroke-dasharray=\"6 4\"");
      out += label(x0 + 6, py(r.y) - 5, r.name, "start", "font-style=\"italic\"");
    }
    for (size_t i = 0; i < p.lines.size(); i++) {
      std::string path, marks;
      for (auto const& [vx, vy] : p.lines[i].points) {
        if (!std::isfinite(vy) || vy <= 0) continue;
        path += (path.empty() ? "M" : "L") + number(px(vx)) + " " + number(py(vy));
        marks += marker(i, px(vx), py(vy));
      }
      if (!path.empty())
        out += "<path d=\"" + path + "\" fill=\"none\" stroke-width=\"2\" stroke=\"" + colour(i) + "\"/>\n" + marks;
    }
    out += label((x0 + x1) / 2, y0 + 38, p.x_label, "middle");
    double const middle = (y0 + y1) / 2, side = left + 16;
    out += label(side, middle, p.y_label, "middle",
                 "transform=\"rotate(-90 " + number(side) + " " + number(middle) + ")\"");
    return out;
  }

  std::string title_, subtitle_, footer_;
  int columns_;
  std::vector<plot_panel> panels_;
};

}  // namespace tcnca::bench
